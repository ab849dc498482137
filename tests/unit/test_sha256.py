"""Both code paths of sha256.h against hashlib, over every length up to four blocks."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokmesh._core.digest import sha256, sha256_portable


@pytest.mark.parametrize("digest", [sha256, sha256_portable])
def test_every_length_up_to_four_blocks(digest: Callable[[bytes], bytes]) -> None:
    message = bytes(range(256)) + b"\x80"
    for size in range(len(message)):
        assert digest(message[:size]) == hashlib.sha256(message[:size]).digest()


@given(st.binary(max_size=2000))
def test_any_message(message: bytes) -> None:
    expected = hashlib.sha256(message).digest()
    assert sha256(message) == sha256_portable(message) == expected
