"""Text forms made in the core are those of the standard library."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokmesh._core.digest import sha256_of_text
from tokmesh._core.encoding import new_token, session_id_text, ulid_text
from tokmesh._core.random_source import RandomSource

CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


@given(st.binary(min_size=32, max_size=32))
def test_a_token_is_unpadded_base64url(random: bytes) -> None:
    source = RandomSource(lambda size: random * (size // 32))
    assert new_token(source) == "tmtk_" + base64.urlsafe_b64encode(random).decode().rstrip("=")


@given(st.binary(min_size=16, max_size=16))
def test_ulid_text_is_crockford_base32(raw: bytes) -> None:
    number = int.from_bytes(raw, "big")
    text = "".join(CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
    assert (ulid_text(raw), session_id_text(raw)) == (text, f"tmss-{text}")


@given(st.text(max_size=200))
def test_sha256_of_text_is_that_of_its_utf8(text: str) -> None:
    assert sha256_of_text(text) == hashlib.sha256(text.encode()).digest()


@pytest.mark.parametrize("size", [0, 15, 17])
def test_ulid_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        ulid_text(bytes(size))
    with pytest.raises(ValueError, match="16 bytes"):
        session_id_text(bytes(size))


def test_lone_surrogate_has_no_hash() -> None:
    with pytest.raises(UnicodeEncodeError):
        sha256_of_text("\ud800")
