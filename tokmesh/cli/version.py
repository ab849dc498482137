"""`tokmesh version`."""

import argparse
import platform

from tokmesh import __version__
from tokmesh.errors import EX_OK


def run(options: argparse.Namespace, settings: list[tuple[str, str]]) -> int:
    """Prints the version of TokMesh and of the interpreter it runs on."""
    print(f"tokmesh {__version__} ({platform.python_implementation()} {platform.python_version()})")
    return EX_OK
