"""`tokmesh config check|show|reference`."""

import argparse
from pathlib import Path

from tokmesh.config import Loaded, load, shown_lines
from tokmesh.errors import EX_OK


def load_options(options: argparse.Namespace, settings: list[tuple[str, str]]) -> Loaded:
    """The configuration that a command line asks for. Raises ConfigError."""
    return load(settings, config_file=Path(options.config) if options.config else None)


def run(options: argparse.Namespace, settings: list[tuple[str, str]]) -> int:
    """Checks, shows or documents the configuration. Raises ConfigError."""
    if options.action == "reference":
        from tokmesh.cli.reference import reference_markdown

        print(reference_markdown(), end="")
        return EX_OK
    loaded = load_options(options, settings)
    if options.action == "show":
        for line in shown_lines(loaded):
            print(line)
        return EX_OK
    from tokmesh.host.tls import server_context

    if loaded.settings.server.https.enabled:
        server_context(loaded.settings.server.https.tls)
    print("configuration is good")
    return EX_OK
