"""Secrets put everywhere, to be looked for everywhere: every form a secret may leave in, whole or in recognisable pieces."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from typing import Final

PIECE_CHARS: Final = 16


class Canary:
    """A secret text, and its hash as others might write it down."""

    def __init__(self, name: str, secret: str) -> None:
        self.name = name
        self.secret = secret
        self.digest = digest = hashlib.sha256(secret.encode()).digest()
        self.forms = (
            secret, digest.hex(), digest.hex().upper(), base64.b64encode(digest).decode(),
            base64.urlsafe_b64encode(digest).decode(), repr(digest),
        )  # fmt: skip
        self.pieces = tuple(dict.fromkeys(self._pieces()))

    def _pieces(self) -> Iterator[str]:
        for form in self.forms:
            bare = form[5:] if form.startswith("tm") else form  # the type in front may stay
            for start in range(0, len(bare) - PIECE_CHARS + 1, 4):
                yield bare[start : start + PIECE_CHARS]

    def found_in(self, text: str) -> str | None:
        """The first piece of it that stands in `text`."""
        return next((piece for piece in self.pieces if piece in text), None)


def leaks(canaries: list[Canary], sinks: Mapping[str, str | bytes]) -> list[str]:
    """Which canary was found in which sink."""
    found = []
    for sink, content in sinks.items():
        text = content.decode("utf-8", "replace") if isinstance(content, bytes) else content
        found += [f"{canary.name} in {sink}: {piece}" for canary in canaries if (piece := canary.found_in(text)) is not None]
    return found
