"""Configuration: the table of keys (`keys.py`), kinds of values (`values.py`), and where values come from (`loading.py`)."""

from tokmesh.config.live import LiveConfig, Outcome
from tokmesh.config.loading import ConfigError, Loaded, Problem, Settings, changed_keys, load, shown_lines, why_unreadable

__all__ = [
    "ConfigError", "LiveConfig", "Loaded", "Outcome", "Problem", "Settings", "changed_keys", "load", "shown_lines",
    "why_unreadable",
]  # fmt: skip
