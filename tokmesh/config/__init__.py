"""Configuration: the table of keys (`keys.py`), kinds of values (`values.py`), and where values come from (`loading.py`)."""

from tokmesh.config.loading import ConfigError, Loaded, Problem, Settings, changed_keys, load, shown_lines

__all__ = ["ConfigError", "Loaded", "Problem", "Settings", "changed_keys", "load", "shown_lines"]
