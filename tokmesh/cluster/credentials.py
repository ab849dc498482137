"""What a node proves itself with to NATS: the content of `cluster.nats.credentials_file`, checked.

The file is read again for each connection, so that replacing it is enough. Whatever is in it, what comes of it is BadCredentials,
which is a failed attempt to connect. No error has the content.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

import nats.errors

FILE_BYTES_MAX: Final = 64 << 10

_SEED: Final = re.compile(rb"SU[A-Z2-7]{56}")
_JWT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_BLOCK: Final = rb"-----BEGIN %b-----[ \t]*\r?\n[ \t]*(\S+)[ \t]*\r?\n-+END %b-+"
_JWT_BLOCK: Final = re.compile(_BLOCK % (b"NATS USER JWT", b"NATS USER JWT"))
_SEED_BLOCK: Final = re.compile(_BLOCK % (b"USER NKEY SEED", b"USER NKEY SEED"))


class BadCredentials(nats.errors.Error):
    """The file holds no credentials; `str()` is the rule it breaks."""


class Credentials(NamedTuple):
    """A user's seed, and the JWT that vouches for it, if any."""

    seed: bytes
    jwt: bytes | None


def parse_credentials(content: bytes) -> Credentials:
    """Of a `.creds` file (a JWT and a seed) or of a bare seed of a user. Raises BadCredentials."""
    if content.lstrip().startswith(b"SU"):
        return Credentials(_checked_seed(content.strip()), None)
    jwt, seed = _JWT_BLOCK.search(content), _SEED_BLOCK.search(content)
    if jwt is None or seed is None:
        raise BadCredentials("it is neither a .creds file (a NATS USER JWT and a USER NKEY SEED) nor a seed of a user (SU…)")
    if _JWT.fullmatch(jwt[1]) is None:
        raise BadCredentials("its NATS USER JWT is none")
    return Credentials(_checked_seed(seed[1]), jwt[1])


def read_credentials(path: Path) -> Credentials:
    """Raises OSError, BadCredentials."""
    with path.open("rb") as file:
        return parse_credentials(file.read(FILE_BYTES_MAX + 1)[:FILE_BYTES_MAX])


def _checked_seed(seed: bytes) -> bytes:
    import nkeys

    if _SEED.fullmatch(seed) is not None:
        try:
            nkeys.from_seed(seed)
            prefix, raw = nkeys.decode_seed(seed)
            if prefix == nkeys.PREFIX_BYTE_USER and nkeys.encode_seed(raw, prefix) == seed:  # which checks the checksum
                return seed
        except (nkeys.NkeysError, ValueError, TypeError):
            pass
    raise BadCredentials("its seed is not that of a user: SU and 56 more of A-Z and 2-7, the last of which are a checksum")
