"""Logs: one JSON object a line, no secrets, never in the way: a closed or stuck pipe costs lines, not the server."""

import base64
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokmesh.telemetry.logs import JsonLinesHandler, configure_logging, handler, redaction, reset_logging
from tokmesh.telemetry.logs.formatter import JsonFormatter
from tokmesh.telemetry.logs.redaction import clean, redact

TOKEN = "tmtk_" + "Ab-9_" * 8 + "xyz"
SECRET = "tmas_" + "0Zq" * 14 + "K"
HASH = "0123456789abcdef" * 4
DIGEST = hashlib.sha256(b"a token").digest()
BASE64 = base64.b64encode(DIGEST).decode()
URL_BASE64 = base64.urlsafe_b64encode(DIGEST).decode().rstrip("=")
BYTES = repr(DIGEST)


def unlimited(made: JsonLinesHandler) -> JsonLinesHandler:
    """The handler, with every repetition told."""
    made.repetition.lines_max = 0
    return made


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield logger
    reset_logging()
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def output(tmp_path: Path, root: logging.Logger) -> Iterator[tuple[Path, JsonLinesHandler]]:
    path = tmp_path / "out"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    yield path, unlimited(configure_logging("debug", time.monotonic_ns, fd=fd))
    reset_logging()
    os.close(fd)


def lines_of(path: Path) -> list[dict[str, Any]]:
    for each in logging.getLogger().handlers:
        each.flush()
    text = path.read_text(encoding="utf-8")
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def make(
    message: object,
    *args: object,
    level: int = logging.INFO,
    exc_info: Any = None,
    extra: dict[str, object] | None = None,
) -> str:
    record = logging.LogRecord("tokmesh.t", level, __file__, 1, message, args, exc_info)
    record.__dict__.update(extra or {})
    return JsonFormatter().format(record)


def test_line_has_the_fields_of_the_contract(output: tuple[Path, JsonLinesHandler]) -> None:
    path, _ = output
    logging.getLogger("tokmesh.log").info(
        "kept %d", 3, extra={"request_id": "req-1", "segments": [1, 2], "took_s": 0.5}
    )
    [line] = lines_of(path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "level": "INFO", "logger": "tokmesh.log", "message": "kept 3",
        "request_id": "req-1", "segments": [1, 2], "took_s": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("number", "name"),
    [(5, "DEBUG"), (10, "DEBUG"), (20, "INFO"), (25, "INFO"), (30, "WARN"), (40, "ERROR"), (50, "ERROR")],
)
def test_levels_are_the_four_of_the_contract(number: int, name: str) -> None:
    assert json.loads(make("m", level=number))["level"] == name


def test_timestamp_is_utc_with_milliseconds() -> None:
    record = logging.makeLogRecord({"msg": "m", "name": "t", "levelno": 20, "created": 1766050200.1239})
    assert json.loads(JsonFormatter().format(record))["timestamp"] == "2025-12-18T09:30:00.123Z"


def test_exception_becomes_error_and_stack_on_one_line() -> None:
    try:
        raise ValueError(f"bad {TOKEN}\nsecond line")
    except ValueError:
        text = make("failed\nhere", exc_info=sys.exc_info())
    assert "\n" not in text
    line = json.loads(text)
    assert line["message"] == "failed\nhere"
    assert line["error"] == "ValueError: bad tmtk_[redacted]\nsecond line"
    assert "Traceback" in line["stack"] and TOKEN not in line["stack"]


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_odd_values_never_break_a_line() -> None:
    extra: dict[str, object] = {
        "none": None, "yes": True, "nan": float("nan"), "inf": float("inf"), "big": 1 << 100, "raw": b"\x00\xff",
        "odd": Unprintable(), "deep": {"a": {"b": {"c": {"d": {"e": 1}}}}}, "ends": "a\u2028b\u2029c\x85d",
        "surrogate": "\ud800", "error": "mine", 'q"\n': "x",
    }  # fmt: skip
    text = make("m", extra=extra)
    assert len(text.encode("utf-8", "replace").decode().splitlines()) == 1
    line = json.loads(text)
    assert line["odd"] == "<unprintable Unprintable>" and line["nan"] == "nan" and line["error_"] == "mine"
    assert line["ends"] == "a\u2028b\u2029c\x85d" and line['q"\n'] == "x"


def test_arguments_that_do_not_fit_are_reported_in_the_line() -> None:
    assert json.loads(make("%d items", "x"))["message"] == "%d items (arguments do not fit)"


def test_long_strings_are_cut_and_long_stacks_keep_their_end() -> None:
    assert len(json.loads(make("x" * 100_000))["message"]) == redaction.STRING_CHARS_MAX + 1
    record = logging.makeLogRecord({"msg": "m", "name": "t", "levelno": 20, "stack_info": "z" * 100_000 + "the end"})
    stack = json.loads(JsonFormatter().format(record))["stack"]
    assert stack.endswith("the end") and len(stack) == redaction.STRING_CHARS_MAX + 1


@pytest.mark.parametrize("secret", [TOKEN, SECRET, HASH, HASH.upper(), TOKEN.replace("_", "%5F", 1), f"{HASH}{HASH}"])
@pytest.mark.parametrize("before", ["", " ", "\t", "\f", "\b", "\\", "x", "Bearer tmak-01:", "…", '"'])
def test_secret_is_redacted_everywhere(secret: str, before: str) -> None:
    text = before + secret
    try:
        raise KeyError(text)
    except KeyError:
        line = make(
            text + " %s",
            text,
            exc_info=sys.exc_info(),
            extra={"field": text, text: [{text: text}], "raw": text.encode()},
        )
    json.loads(line)
    assert secret not in line and secret[6:] not in line


@pytest.mark.parametrize("secret", [BASE64, URL_BASE64, BYTES])
@pytest.mark.parametrize(("before", "after"), [("", ""), (" ", " "), ("hash=", ";"), ('"', '"'), ("(", ")"), (".", ".")])
def test_hash_in_base64_or_as_bytes_is_redacted(secret: str, before: str, after: str) -> None:
    text = f"{before}{secret}{after}"
    line = make("%s", text, extra={"field": text, "raw": DIGEST, "listed": [bytearray(DIGEST)]})
    assert secret not in line and repr(DIGEST)[2:20] not in json.loads(line)["message"]
    assert json.loads(line)["raw"] == "<32 bytes>" and json.loads(line)["listed"] == ["<32 bytes>"]


def test_words_and_paths_as_long_as_a_hash_stay_readable() -> None:
    path = "/usr/lib/python/site-packages/tokmesh/a/b/c"
    assert len(path) == 43 and redact(path) == path
    assert redact("b'plain text' and b\"more\"") == "b'plain text' and b\"more\""


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 20_000), st.sampled_from([TOKEN, SECRET, HASH]), st.integers(0, 300))
def test_no_piece_of_a_secret_survives_a_cut(offset: int, secret: str, count: int) -> None:
    text = " " * offset + f"{secret} " * count
    for kept in (clean(text), clean(text, keep_end=True)):
        assert not re.search("|".join(re.escape(secret[at : at + 12]) for at in range(5, len(secret) - 12)), kept)


@settings(max_examples=200, deadline=None)
@given(
    st.text(),
    st.dictionaries(st.text(min_size=1), st.one_of(st.text(), st.integers(), st.floats(), st.binary()), max_size=4),
)
def test_any_message_and_fields_make_one_line_of_json(message: str, extra: dict[str, object]) -> None:
    extra = {f"x{name}": value for name, value in extra.items()}
    text = make(message, extra=extra).encode("utf-8", "replace").decode()
    assert len(text.splitlines()) == 1
    assert set(json.loads(text)) >= {"timestamp", "level", "logger", "message"}


def test_redaction_is_idempotent_and_leaves_public_ids() -> None:
    text = f"tmss-01j tmak-01j:{SECRET} {HASH[:63]}"
    assert redact(text) == f"tmss-01j tmak-01j:tmas_[redacted] {HASH[:63]}" == redact(redact(text))


def test_lines_are_counted_by_level_and_the_level_can_change(output: tuple[Path, JsonLinesHandler]) -> None:
    path, made = output
    stats = made.stats
    logger = logging.getLogger("tokmesh.t")
    logger.debug("1")
    assert configure_logging("error", time.monotonic_ns) is made
    logger.warning("unseen")
    logger.error("2")
    configure_logging("info", time.monotonic_ns)
    logger.info("3")
    assert [line["message"] for line in lines_of(path)] == ["1", "2", "3"]
    assert stats.lines() == {"DEBUG": 1, "INFO": 1, "WARN": 0, "ERROR": 1} and stats.dropped == 0
    with pytest.raises(ValueError, match="unknown log level"):
        configure_logging("loud", time.monotonic_ns)


def test_closed_pipe_drops_and_counts(root: logging.Logger) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stats = unlimited(configure_logging("info", time.monotonic_ns, fd=writer)).stats
    for _ in range(3):
        logging.getLogger("tokmesh.t").info("to nobody")
    root.handlers[0].flush()
    assert stats.dropped == 3 and stats.lines()["INFO"] == 3
    reset_logging()
    os.close(writer)


def test_closed_standard_output_drops_and_counts_and_harms_no_other_file(root: logging.Logger, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "other", os.O_CREAT | os.O_WRONLY)
    os.close(fd)
    stats = unlimited(configure_logging("info", time.monotonic_ns, fd=fd)).stats
    other = os.open(tmp_path / "other", os.O_WRONLY)
    if other != fd:
        os.dup2(other, fd)  # the number is in use again
        os.close(other)
    logging.getLogger("tokmesh.t").info("not into the other file")
    root.handlers[0].flush()
    assert stats.dropped == 1 and (tmp_path / "other").read_bytes() == b""
    os.close(fd)


@pytest.mark.parametrize("reads", [True, False], ids=["read", "stuck"])
def test_process_ends_in_time_with_its_last_lines_written(reads: bool) -> None:
    code = (
        "import logging, time; from tokmesh.telemetry.logs import configure_logging\n"
        "configure_logging('info', time.monotonic_ns).repetition.lines_max = 0\n"
        "for i in range(500): logging.getLogger('t').info('%d ' + 'x' * 1000, i)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    received = process.stdout.read() if reads else b""
    assert process.wait(60) == 0
    if reads:
        assert [json.loads(line)["message"].split()[0] for line in received.splitlines()] == [
            str(i) for i in range(500)
        ]
    process.stdout.close()


def test_stuck_pipe_never_holds_up_the_caller_and_lines_stay_whole(root: logging.Logger) -> None:
    reader, writer = os.pipe()
    stats = unlimited(configure_logging("info", time.monotonic_ns, fd=writer)).stats
    logger = logging.getLogger("tokmesh.t")
    count = 3000

    def emit_all() -> None:
        for index in range(count):
            logger.info("%d %s", index, "x" * 4000)

    # Nobody reads the pipe until they are all emitted: one that waited for it would wait for ever.
    emitter = threading.Thread(target=emit_all, daemon=True)
    emitter.start()
    emitter.join(60)
    assert not emitter.is_alive(), "emit waits for nobody"
    assert 0 < stats.dropped < count
    os.set_blocking(reader, False)
    received = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and received.count(b"\n") < count - stats.dropped:
        try:
            received += os.read(reader, 1 << 20)
        except BlockingIOError:
            time.sleep(0.005)
    numbers = [int(json.loads(line)["message"].split()[0]) for line in received.splitlines()]
    assert numbers == sorted(numbers) and len(numbers) == count - stats.dropped
    reset_logging()
    os.close(writer)
    os.close(reader)


def test_full_non_blocking_pipe_drops_and_starts_again_on_a_new_line(
    root: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "STUCK_SECONDS_MAX", 0.05)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    stats = unlimited(configure_logging("info", time.monotonic_ns, fd=writer)).stats
    logger = logging.getLogger("tokmesh.t")
    logger.info("first %s", "x" * 7000)
    root.handlers[0].flush()
    assert stats.dropped == 1
    torn = os.read(reader, 1 << 20)
    assert torn and not torn.endswith(b"\n")
    logger.info("second")
    root.handlers[0].flush()
    rest = os.read(reader, 1 << 20)
    assert rest.startswith(b"\n") and json.loads(rest)["message"] == "second" and stats.dropped == 1
    reset_logging()
    os.close(writer)
    os.close(reader)


def test_write_error_of_any_kind_is_counted(output: tuple[Path, JsonLinesHandler], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space")

    path, made = output
    monkeypatch.setattr(os, "write", no_space)
    logging.getLogger("tokmesh.t").info("lost")
    logging.getLogger().handlers[0].flush()
    monkeypatch.undo()
    assert made.stats.dropped == 1 and lines_of(path) == []
