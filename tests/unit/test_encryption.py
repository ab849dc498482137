"""Keys, what is derived from them, and sealed bytes: what must come back does, nothing else does, and no key is shown."""

import pickle

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from tests.support.sanitizers import bits_of
from tokmesh._core import wal
from tokmesh.storage.encryption import KeySet, UnknownKey

KEY = bytes(range(32))
OTHER_KEY = bytes(range(100, 132))


@given(st.integers(0, 2**64 - 1), st.binary(max_size=80), st.binary(max_size=200))
def test_what_was_sealed_is_opened(counter: int, aad: bytes, plaintext: bytes) -> None:
    keys = KeySet([KEY])
    sealer = keys.new_sealer(b"test")
    sealed = sealer.seal(counter, aad, plaintext)
    assert len(sealed) == len(plaintext) + wal.TAG_BYTES
    assert keys.opener(sealer.key_id, sealer.salt, b"test").open(counter, aad, sealed) == plaintext


def test_the_derivation_is_what_files_of_earlier_versions_were_sealed_with() -> None:
    """Spelled out with the library alone, so that a change of the code cannot change both sides."""
    keys = KeySet([OTHER_KEY, KEY], random=lambda size: bytes(range(size)))
    sealer = keys.new_sealer(b"log segment")
    salt = bytes(range(16))
    key = HKDF(SHA256(), 32, salt, b"tokmesh file: log segment").derive(OTHER_KEY)
    assert sealer.salt == salt
    assert sealer.key_id == HKDF(SHA256(), 8, b"", b"tokmesh key id").derive(OTHER_KEY)
    assert sealer.seal(5, b"head", b"text") == AESGCM(key).encrypt(bytes(11) + b"\5", b"text", b"head")


def test_no_flipped_bit_of_anything_opens() -> None:
    keys = KeySet([KEY])
    sealer = keys.new_sealer(b"test")
    sealed, aad = sealer.seal(7, b"around", b"within"), b"around"
    opener = keys.opener(sealer.key_id, sealer.salt, b"test")
    for bit in bits_of(sealed):
        assert opener.open(7, aad, _flipped(sealed, bit)) is None
    for bit in bits_of(aad):
        assert opener.open(7, _flipped(aad, bit), sealed) is None
    for bit in bits_of(sealer.salt):
        assert keys.opener(sealer.key_id, _flipped(sealer.salt, bit), b"test").open(7, aad, sealed) is None
    for size in range(len(sealed)):
        assert opener.open(7, aad, sealed[:size]) is None
    assert opener.open(8, aad, sealed) is None
    assert keys.opener(sealer.key_id, sealer.salt, b"other").open(7, aad, sealed) is None
    assert opener.open(7, aad, sealed) == b"within"


def test_equal_texts_are_sealed_to_different_bytes_in_each_place_and_file() -> None:
    keys = KeySet([KEY])
    sealers = [keys.new_sealer(b"test") for _ in range(4)]
    seen = {sealer.seal(counter, b"", b"the same text") for sealer in sealers for counter in range(4)}
    assert len(seen) == 16


def test_a_number_is_taken_once() -> None:
    sealer = KeySet([KEY]).new_sealer(b"test")
    sealer.seal(3, b"", b"")
    for counter in (3, 2, 0, -1, 2**64):
        with pytest.raises(AssertionError):
            sealer.seal(counter, b"", b"")
    sealer.seal(4, b"", b"")


def test_the_first_key_seals_and_all_open() -> None:
    old, new = KeySet([KEY]), KeySet([OTHER_KEY, KEY])
    sealer = old.new_sealer(b"test")
    sealed = sealer.seal(0, b"", b"text")
    assert new.opener(sealer.key_id, sealer.salt, b"test").open(0, b"", sealed) == b"text"
    assert new.first_id != old.first_id and new.key_ids == (new.first_id, old.first_id)
    assert new.new_sealer(b"test").key_id == new.first_id
    with pytest.raises(UnknownKey, match=new.first_id.hex()):
        old.opener(new.first_id, bytes(16), b"test")


@pytest.mark.parametrize("keys", [[], [b""], [bytes(16)], [bytes(31)], [bytes(33)], [KEY, bytes(31)]])
def test_keys_of_another_size_are_refused(keys: list[bytes]) -> None:
    with pytest.raises(ValueError):
        KeySet(keys)


def test_a_key_given_twice_is_one_key() -> None:
    assert len(KeySet([KEY, OTHER_KEY, KEY]).key_ids) == 2


def test_nothing_shows_or_copies_a_key() -> None:
    keys = KeySet([KEY])
    sealer = keys.new_sealer(b"test")
    shown = repr(keys) + repr(sealer) + str(UnknownKey(keys.first_id))
    assert keys.first_id.hex() in shown
    assert KEY.hex() not in shown and repr(KEY) not in shown
    for each in (keys, sealer, keys.opener(sealer.key_id, sealer.salt, b"test")):
        with pytest.raises(TypeError):
            pickle.dumps(each)


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
