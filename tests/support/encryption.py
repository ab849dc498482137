"""Keys of encryption at rest for tests: new ones, files of them, and the options of a server that uses such a file."""

import base64
import secrets
from pathlib import Path
from typing import Final

ENABLED: Final = "--storage.encryption.enabled=true"


def new_key() -> str:
    """A line of a key file."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def write_keys(path: Path, *keys: str) -> Path:
    """A key file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text("".join(f"{key}\n" for key in keys))
    return path


def encryption(folder: Path) -> tuple[str, ...]:
    """Options of a server that encrypts under a new key, kept in `folder`."""
    return ENABLED, f"--storage.encryption.key_file={write_keys(folder / 'keys', new_key())}"
