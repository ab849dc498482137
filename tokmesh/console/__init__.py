"""The status page: files as they leave for a browser, read from the package once.

The page (index.html) is a shell without any data: it asks for an admin key, keeps it in memory, and polls
`/admin/v1/status/summary` with it. What the browser may do with the files is said here, in the fields of the answers:
nothing may be loaded from, sent to, or embedded by another origin. The runbooks (a link to docs/runbooks) go with it, so
that what a condition says is explained by the same version of the software, without another host.
"""

from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

PAGE: Final = "index.html"
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
HEADERS: Final[tuple[tuple[str, str], ...]] = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)


class Asset(NamedTuple):
    """One file as it is sent."""

    content_type: str
    body: bytes


def load() -> dict[str, Asset]:
    """Every file of the page by name, with PAGE among them."""
    return _load(files(__name__), _TYPES)


def load_runbooks() -> dict[str, Asset]:
    """Every runbook by the name of its file, as plain text, which a browser shows."""
    return _load(files(__name__) / "runbooks", {"md": _TYPES["txt"]})


def _load(directory: Traversable, types: Mapping[str, str]) -> dict[str, Asset]:
    return {
        entry.name: Asset(types[suffix], entry.read_bytes())
        for entry in directory.iterdir()
        if (suffix := entry.name.rpartition(".")[2]) in types
    }
