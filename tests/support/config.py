"""Settings for tests: no environment, no file unless asked for."""

from collections.abc import Mapping
from pathlib import Path

from tokmesh.config import ConfigError, Settings, load


def load_settings(values: Mapping[str, str] | None = None) -> Settings:
    """Settings with some keys given as on the command line. Raises ConfigError."""
    return load((values or {}).items(), environment={}).settings


def load_errors(values: Mapping[str, str], config_file: Path | None = None) -> list[tuple[str, str]]:
    """(code, name) of every problem of a configuration that must be refused."""
    try:
        load(values.items(), environment={}, config_file=config_file)
    except ConfigError as error:
        return [(problem.code, problem.name) for problem in error.problems]
    raise AssertionError(f"accepted: {dict(values)}")
