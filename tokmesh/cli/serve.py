"""`tokmesh serve`: the server in the foreground."""

import argparse

from tokmesh.cli.config import load_checked


def run(options: argparse.Namespace, settings: list[tuple[str, str]]) -> int:
    """Serves until a signal stops it. Raises ConfigError, or ApiError when the start is refused."""
    from tokmesh.app import run_server  # uvloop, the core and the table load here, not at the top of the command line

    return run_server(lambda text: load_checked(options, settings, text))
