"""Identifiers and credentials: form, order, folding, hashing, redaction."""

import hashlib
import itertools
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokmesh import ids


def test_random_bytes_are_never_handed_out_twice() -> None:
    stream = [os.urandom(4096) for _ in range(3)]
    blocks = iter(stream)
    source = ids.RandomSource(lambda size: next(blocks))
    taken = [source.take(10) for _ in range(900)]
    # 409 pieces of ten fit one block; its last six bytes are dropped, not mixed with the next block's.
    assert taken[:409] == [stream[0][at : at + 10] for at in range(0, 4090, 10)]
    assert taken[409:818] == [stream[1][at : at + 10] for at in range(0, 4090, 10)]


@pytest.mark.parametrize("size", [-1, 4097])
def test_more_random_bytes_than_a_block_are_refused(size: int) -> None:
    source = ids.RandomSource()
    before = source.take(8)
    with pytest.raises(ValueError, match="block"):
        source.take(size)
    assert source.take(8) != before


def test_a_block_of_random_bytes_that_is_short_is_refused() -> None:
    with pytest.raises(ValueError, match="block"):
        ids.RandomSource(lambda size: bytes(size - 1)).take(1)


def test_a_forked_child_does_not_share_random_bytes_with_its_parent() -> None:
    source = ids.RandomSource()
    source.take(8)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, source.take(32))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        theirs = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    assert len(theirs) == 32
    assert theirs != source.take(32)


@given(st.lists(st.integers(min_value=0, max_value=2**48 - 2), min_size=1, max_size=50))
def test_ulids_of_one_source_strictly_increase_whatever_the_clock_does(times: list[int]) -> None:
    source = ids.UlidSource(ids.RandomSource())
    made = [source.make(now_ms) for now_ms in times]
    assert all(earlier < later for earlier, later in itertools.pairwise(made))
    assert [ids.format_ulid(raw) for raw in made] == sorted(ids.format_ulid(raw) for raw in made)


def test_ulids_of_one_millisecond_are_a_random_step_apart() -> None:
    random = bytes(range(256)) * 16
    source = ids.UlidSource(ids.RandomSource(lambda size: random))
    first = source.make(5)
    assert first == (5).to_bytes(6, "big") + random[:10]
    step = 1 + int.from_bytes(random[10:14], "big")
    assert source.make(5) == (int.from_bytes(first, "big") + step).to_bytes(16, "big")


def test_a_carry_out_of_the_random_part_stays_in_order() -> None:
    source = ids.UlidSource(ids.RandomSource(lambda size: b"\xff" * size))
    assert source.make(5) == (5).to_bytes(6, "big") + b"\xff" * 10
    assert source.make(5) == (6).to_bytes(6, "big") + bytes(6) + (2**32 - 1).to_bytes(4, "big")
    assert source.make(6)[:6] == (6).to_bytes(6, "big")


def test_a_time_that_no_ulid_has_is_refused() -> None:
    with pytest.raises(OverflowError):
        ids.UlidSource(ids.RandomSource()).make(2**48)


def test_a_ulid_carries_its_time() -> None:
    assert int.from_bytes(ids.UlidSource(ids.RandomSource()).make(1_734_567_890_123)[:6], "big") == 1_734_567_890_123


@given(st.binary(min_size=16, max_size=16))
def test_ids_come_back_from_their_text_in_any_case(raw: bytes) -> None:
    text = ids.format_session_id(raw)
    assert re.fullmatch(r"tmss-[0-7][0-9a-hjkmnp-tv-z]{25}", text)
    assert ids.parse_session_id(text) == ids.parse_session_id(text.upper()) == raw
    assert ids.parse_key_id(ids.format_key_id(raw).title()) == raw
    assert ids.parse_key_id(text) is None


def test_known_ulid() -> None:
    raw = bytes.fromhex("0193d9f0a1b27c3d4e5f60718293a4b5")
    number, text = int.from_bytes(raw, "big"), ""
    for _ in range(26):
        number, digit = divmod(number, 32)
        text = "0123456789abcdefghjkmnpqrstvwxyz"[digit] + text
    assert ids.format_ulid(raw) == text
    assert ids.format_ulid(bytes(16)) == "0" * 26
    assert ids.format_ulid(b"\xff" * 16) == "7" + "z" * 25


@pytest.mark.parametrize(
    "text",
    [
        "", "tmss-", "tmss-" + "0" * 25, "tmss-" + "0" * 27, "tmss-8" + "0" * 25, "tmss_" + "0" * 26, "tmak-" + "0" * 26,
        "tmss-" + "0" * 25 + "i", "tmss-" + "0" * 25 + "l", "tmss-" + "0" * 25 + "o", "tmss-" + "0" * 25 + "u",
        "tmss-" + "0" * 25 + "\u212a", "tmss-" + "0" * 25 + "\n", " tmss-" + "0" * 26, "tmss-" + "0" * 26 + "\x00",
        "tmss-" + "0" * 24 + "_0", "tmss-" + "\u0660" * 26, "tm\u017fs-" + "0" * 26,
    ],
)  # fmt: skip
def test_malformed_session_ids_are_none(text: str) -> None:
    assert ids.parse_session_id(text) is None


def test_tokens_and_secrets_have_their_form() -> None:
    random = ids.RandomSource()
    tokens = {ids.new_token(random) for _ in range(500)}
    secrets = {ids.new_secret(random) for _ in range(500)}
    assert len(tokens) == len(secrets) == 500
    assert all(re.fullmatch(r"tmtk_[A-Za-z0-9_-]{43}", token) and ids.is_token(token) for token in tokens)
    assert all(re.fullmatch(r"tmas_[A-Za-z0-9]{43}", secret) and ids.is_secret(secret) for secret in secrets)
    assert ids.new_token(ids.RandomSource(lambda size: b"\xff" * size)) == "tmtk_" + "_" * 42 + "8"
    assert ids.new_secret(ids.RandomSource(bytes)) == "tmas_" + "0" * 43
    assert ids.is_secret(ids.new_secret(ids.RandomSource(lambda size: b"\xff" * size)))


@pytest.mark.parametrize(
    "text", ["", "tmtk_", "tmtk_" + "a" * 42, "tmtk_" + "a" * 44, "TMTK_" + "a" * 43, "tmtk_" + "a" * 42 + "=",
             "tmtk_" + "a" * 42 + "+", "tmtk_" + "a" * 43 + "\n", "tmtk_" + "\u0661" * 43, "tmas_" + "a" * 43]
)  # fmt: skip
def test_malformed_tokens(text: str) -> None:
    assert not ids.is_token(text)


def test_token_hash_is_sha256_of_the_whole_token() -> None:
    token = "tmtk_" + "a" * 43
    assert ids.token_hash(token) == hashlib.sha256(token.encode()).digest()


def test_redact_leaves_no_part_of_a_secret() -> None:
    random = ids.RandomSource()
    token, secret = ids.new_token(random), ids.new_secret(random)
    key_id, session_id = ids.format_key_id(bytes(16)), ids.format_session_id(bytes(16))
    text = f"Bearer {key_id}:{secret} for {session_id}, {token!r}; cut {token[:12]} {secret[:-3]}"
    redacted = ids.redact(text)
    assert redacted == (
        f"Bearer {key_id}:tmas_[redacted] for {session_id}, 'tmtk_[redacted]'; cut tmtk_[redacted] tmas_[redacted]"
    )
    assert ids.redact(redacted) == redacted
    for disguised in (token.upper(), token.replace("_", "%5F"), token.replace("tmtk_", "tmtk\\u005f")):
        assert disguised[12:] not in ids.redact(f"x{disguised}y")
    assert ids.redact("nothing to see, tm_tk tmtk-1 tmas") == "nothing to see, tm_tk tmtk-1 tmas"
