"""The audit trail: complete for what was done, bounded for what anybody can cause, free of secrets, there after a restart."""

import asyncio
import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.test_api_handlers import ADMIN, Request, refusal, run
from tokmesh.api.admin.audit import AuditHandlers
from tokmesh.api.admin.audited import Audited
from tokmesh.errors import ApiError
from tokmesh.telemetry.logs import audit, audit_file
from tokmesh.telemetry.logs.audit import AuditTrail
from tokmesh.telemetry.logs.audit_file import AuditFile

TOKEN = "tmtk_" + "A" * 43


def now_ms() -> int:
    return 1_766_050_200_123


def deny(trail: AuditTrail, count: int) -> None:
    for _ in range(count):
        trail.denied(actor="anonymous", request_id="req-1", address="192.0.2.9", target="/admin/v1/keys", outcome="TM-AUTH-4010")


def test_an_entry_is_also_a_marked_line_at_every_level(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger().setLevel(logging.ERROR)
    trail = AuditTrail(now_ms)
    trail.record("key.created", actor="local", request_id="req-7", target="tmak-1", details={"role": "admin"})
    [line] = caplog.records
    assert line.__dict__["audit"] is True and line.getMessage() == "key.created" and line.name == "tokmesh.audit"
    facts = {name: line.__dict__[name] for name in ("event", "actor", "request_id", "target", "outcome", "details")}
    assert facts == {
        "event": "key.created", "actor": "local", "request_id": "req-7", "target": "tmak-1", "outcome": "ok",
        "details": {"role": "admin"},
    }  # fmt: skip
    assert trail.recent() == [{"id": 1, "timestamp": now_ms(), "address": "", **facts}]


def test_no_entry_carries_a_secret(tmp_path: Path) -> None:
    file = AuditFile(tmp_path)
    trail = AuditTrail(now_ms, file)
    trail.record("user.sessions_revoked", actor="local", target=TOKEN, details={TOKEN: [TOKEN]})
    trail.close()
    assert TOKEN[5:] not in json.dumps(trail.recent()) + (tmp_path / "audit.jsonl").read_text()


def test_a_restart_forgets_nothing_and_ids_go_on(tmp_path: Path) -> None:
    first = AuditTrail(now_ms, AuditFile(tmp_path))
    first.record("key.created", actor="server", target="tmak-1")
    first.record("key.status_changed", actor="local", target="tmak-1")
    first.close()
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"id": 99, "torn')
    second = AuditTrail(now_ms, AuditFile(tmp_path))
    second.record("log_level.changed", actor="local")
    assert [(entry["id"], entry["event"]) for entry in second.recent()] == [
        (3, "log_level.changed"), (2, "key.status_changed"), (1, "key.created"),
    ]  # fmt: skip
    second.close()
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def test_the_files_are_bounded_and_what_is_left_is_the_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_file, "FILE_BYTES_MAX", 4096)
    trail = AuditTrail(now_ms, AuditFile(tmp_path))
    for number in range(200):
        trail.record("key.created", actor="local", target=f"tmak-{number}")
    trail.close()
    sizes = [(tmp_path / name).stat().st_size for name in ("audit.jsonl", "audit.jsonl.1")]
    assert all(0 < size <= 4096 for size in sizes) and trail.lost == 0
    kept = [entry["id"] for entry in AuditFile(tmp_path).load()]
    assert kept == list(range(kept[0], 201)), "no gap up to the last"


def test_what_the_disk_does_not_take_is_counted_and_harms_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(fd: int, data: bytes) -> int:
        raise OSError(28, "no space")

    trail = AuditTrail(now_ms, AuditFile(tmp_path))
    monkeypatch.setattr(os, "write", no_space)
    trail.record("key.created", actor="local")
    trail.close()
    monkeypatch.undo()
    assert trail.lost == 1 and len(trail.recent()) == 1


def test_a_directory_in_the_place_of_the_file_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    trail = AuditTrail(now_ms, AuditFile(tmp_path))
    trail.record("key.created", actor="local")
    trail.close()
    assert trail.lost == 1


@pytest.mark.parametrize("count", [3, 4, 9])
def test_what_is_in_memory_is_bounded_and_the_latest(count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(audit, "ENTRIES_MAX", 3)
    trail = AuditTrail(now_ms, AuditFile(tmp_path))
    for _ in range(count):
        trail.record("key.created", actor="local")
    trail.close()
    latest = [count, count - 1, count - 2]
    assert [entry["id"] for entry in trail.recent()] == latest
    again = AuditTrail(now_ms, AuditFile(tmp_path))
    assert [entry["id"] for entry in again.recent()] == latest, "also of what the file has more of"
    again.close()


@pytest.mark.parametrize(("count", "entries", "repeated"), [(10, 10, None), (11, 11, 1), (1000, 11, 990)])
def test_a_flood_of_denials_becomes_a_number(count: int, entries: int, repeated: int | None) -> None:
    async def play() -> list[dict[str, Any]]:
        trail = AuditTrail(now_ms)
        deny(trail, count)
        trail.close()
        return trail.recent()

    told = asyncio.run(play())
    assert len(told) == entries
    assert told[0]["details"].get("repeated") == repeated
    assert told[-1]["target"] == "/admin/v1/keys" and told[-1]["outcome"] == "TM-AUTH-4010"


def test_the_number_is_told_after_a_second_and_then_they_are_told_one_by_one_again() -> None:
    async def play() -> None:
        trail = AuditTrail(now_ms)
        deny(trail, 12)
        assert trail._summary is not None
        trail._summary._run()  # the second is over
        assert trail.recent()[0]["details"] == {"repeated": 2}
        deny(trail, 1)
        assert trail.recent()[0]["details"] == {}
        trail.close()

    asyncio.run(play())


def test_denials_push_out_nothing_that_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "DENIALS_PER_SECOND", 10**9)

    async def play() -> list[dict[str, Any]]:
        trail = AuditTrail(now_ms)
        trail.record("key.created", actor="server")
        deny(trail, 3000)
        trail.close()
        return trail.recent()

    told = asyncio.run(play())
    assert len(told) == 1 + audit.DENIALS_MAX and told[-1]["event"] == "key.created"


def test_the_list_is_paged_and_a_cursor_stays_good_while_entries_are_added() -> None:
    trail = AuditTrail(now_ms)
    list_ = AuditHandlers(trail).list
    for number in range(45):
        trail.record("key.created" if number % 2 else "key.status_changed", actor="local")
    first = run(list_, Request(query={"size": "20"}))
    assert [item["id"] for item in first["items"]] == list(range(45, 25, -1)) and first["total_items"] == 45
    trail.record("key.created", actor="local")
    second = run(list_, Request(query={"size": "20", "cursor": first["next_cursor"]}))
    assert [item["id"] for item in second["items"]] == list(range(25, 5, -1))
    third = run(list_, Request(query={"size": "20", "cursor": second["next_cursor"]}))
    assert [item["id"] for item in third["items"]] == [5, 4, 3, 2, 1] and third["next_cursor"] is None
    assert run(list_, Request(query={"size": "20", "page": "3"}))["items"][0]["id"] == 6
    assert run(list_, Request(query={"event": "key.created"}))["total_items"] == 23
    assert run(list_, Request(query={"event": "nothing"})) == {"items": [], "total_items": 0, "next_cursor": None}
    assert refusal(list_, Request(query={"cursor": "x"}))[0] == "TM-ARG-1001"
    assert refusal(list_, Request(query={"size": "101"}))[0] == "TM-ARG-1001"
    assert refusal(list_, Request(query={"cursor": "3", "page": "1"}))[0] == "TM-ARG-1003"


def test_a_wrapped_handler_tells_success_refusal_and_our_own_failure() -> None:
    trail = AuditTrail(now_ms)
    errors: list[Exception | None] = [None, ApiError("TM-ADMIN-4041"), ZeroDivisionError("secret " + TOKEN)]

    async def handler(request: Any) -> dict[str, Any]:
        error = errors.pop(0)
        if error is not None:
            raise error
        return {"key_id": "tmak-2", "key_secret": "tmas_" + "0" * 43}

    wrapped = Audited(trail)("key.created", handler, target="key_id", facts=lambda _, data: {"fields": len(data)})
    run(wrapped, Request(api_key=ADMIN))
    assert refusal(wrapped, Request("tmak-3", api_key=None, is_local=True))[0] == "TM-ADMIN-4041"
    with pytest.raises(ZeroDivisionError):
        run(wrapped, Request("tmak-4", api_key=ADMIN))
    told = [(each["actor"], each["target"], each["outcome"], each["details"]) for each in reversed(trail.recent())]
    assert told == [
        (ADMIN.key_id, "tmak-2", "ok", {"fields": 2}),
        ("local", "tmak-3", "TM-ADMIN-4041", {}),
        (ADMIN.key_id, "tmak-4", "TM-SYS-5000", {}),
    ]
    assert {each["request_id"] for each in trail.recent()} == {"req-test"}


def test_lines_on_their_way_to_a_disk_that_hangs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_file, "PENDING_MAX", 3)
    file = AuditFile(tmp_path)
    monkeypatch.setattr(file, "_writer", SimpleNamespace(submit=lambda *_: None))
    for number in range(5):
        file.append(b"%d" % number)
    assert file.lost == 2
