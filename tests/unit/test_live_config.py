"""A running configuration: what is shown, tried and taken over; a bad one changes nothing, a hostile one costs nothing."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from tokmesh.config import LiveConfig, Loaded, Settings, load, shown_lines
from tokmesh.config.live import PENDING_MAX
from tokmesh.errors import ApiError


class Bench:
    """A live configuration over a file; `applied`: the settings handed over so far."""

    def __init__(self, folder: Path, text: str = "") -> None:
        self.file = folder / "tokmesh.yaml"
        self.file.write_text(text)
        self.applied: list[Settings] = []
        self.config = LiveConfig(self.load(None), self.load, self.applied.append)

    def load(self, text: bytes | None) -> Loaded:
        line, variables = [("server.http.max_headers", "9")], {"TOKMESH_SESSION_TTL_MAX": "100h"}
        return load(line, environment=variables, config_file=self.file, config_text=text)

    def sources(self) -> dict[str, tuple[str, str]]:
        return {each.name: (each.value, each.source) for each in self.config.shown()}


def test_every_key_is_shown_with_its_source(tmp_path: Path) -> None:
    shown = Bench(tmp_path, "session: {ttl: {default: 8h}}").sources()
    assert shown["session.ttl.default"] == ("8h", f"file {tmp_path}/tokmesh.yaml")
    assert shown["session.ttl.max"] == ("100h", "environment TOKMESH_SESSION_TTL_MAX")
    assert shown["server.http.max_headers"] == ("9", "command line")
    assert shown["telemetry.logging.level"] == ("info", "default")


def test_a_reload_applies_what_it_can_and_names_what_it_cannot(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    text = "session: {ttl: {default: 8h}}\nserver: {http: {max_pipelined: 5}}\ntelemetry: {logging: {level: warn}}\n"
    bench.file.write_text(text)
    outcome = asyncio.run(bench.config.reload())
    assert outcome.applied == ["session.ttl.default", "telemetry.logging.level"] and outcome.problems == ()
    assert outcome.needs_restart == ["server.http.max_pipelined"]
    assert [each.session.ttl.default_ms for each in bench.applied] == [8 * 3_600_000]
    assert bench.config.settings.server.http.max_pipelined == 32 and bench.config.needs_restart == outcome.needs_restart
    shown = bench.sources()
    assert shown["session.ttl.default"][1] == f"file {bench.file}"
    assert shown["server.http.max_pipelined"] == ("32", "default"), "still what it was"
    bench.file.write_text("")
    assert asyncio.run(bench.config.reload()) == (["session.ttl.default", "telemetry.logging.level"], [], ())
    assert bench.sources()["session.ttl.default"] == ("2h", "default")


def test_a_bad_configuration_changes_nothing_and_every_problem_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.file.write_text("session: {ttl: {default: soon}}\nsesion: 1\ntelemetry: {logging: {level: debug}}\n")
    outcome = asyncio.run(bench.config.reload())
    assert [(each.code, each.name) for each in outcome.problems] == [
        ("TM-CFG-1001", "sesion"), ("TM-CFG-1001", "session.ttl.default"),
    ]  # fmt: skip
    assert bench.applied == [] and bench.config.settings.telemetry.logging.level == "info"


def test_a_text_is_judged_in_the_place_of_the_file_and_changes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "session: {ttl: {default: 8h}}")
    assert asyncio.run(bench.config.validate(b'{"server": {"http": {"max_headers": 7, "max_pipelined": 5}}}')) == (
        ["session.ttl.default"], ["server.http.max_pipelined"], (),
    ), "without the text's say, the default; the command line still wins"  # fmt: skip
    assert asyncio.run(bench.config.validate(b"session: {ttl: {default: 200h}}")).problems[0].code == "TM-CFG-1005"
    [problem] = asyncio.run(bench.config.validate(b"server: [")).problems
    assert (problem.code, problem.source) == ("TM-CFG-1001", "the text given line 1")
    assert bench.applied == [] and bench.sources()["session.ttl.default"][0] == "8h"


NO_CONFIGURATION = (b"\xff", b"\0", b"[1]", b"x", b"7", b"{" * 5000, b"? [a]\n: 1", b"session: !!python/object:os.x {}")


@pytest.mark.parametrize("text", NO_CONFIGURATION)
def test_what_is_no_configuration_is_a_problem_and_not_an_error(tmp_path: Path, text: bytes) -> None:
    assert asyncio.run(Bench(tmp_path).config.validate(text)).problems


@pytest.mark.parametrize(("size", "problems"), [(1 << 20, 0), ((1 << 20) + 1, 1)])
def test_a_text_is_bounded(tmp_path: Path, size: int, problems: int) -> None:
    assert len(asyncio.run(Bench(tmp_path).config.validate(b"#" * size)).problems) == problems


def test_a_text_that_repeats_itself_without_end_costs_nothing(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join(['*a' + str(level - 1)] * 9)}]" for level in range(1, 30)]
    lines += ["session: {ttl: {default: *a29}}", "security: {auth: {allow_list: *a29}}", "server: *a29"]
    before = time.process_time()
    problems = asyncio.run(Bench(tmp_path).config.validate("\n".join(lines).encode())).problems
    assert len(problems) == 33 and max(len(str(problem)) for problem in problems) < 500
    assert time.process_time() - before < 10


def test_problems_and_values_show_no_secret(tmp_path: Path) -> None:
    secret = "tmas_" + "0Zq" * 14 + "K"
    bench = Bench(tmp_path)
    level = f"telemetry: {{logging: {{level: {secret}}}}}"
    for text in (f"session: {{ttl: {{default: {secret}}}}}", f"{secret}: 1", f"a: *{secret}", level):
        problems = asyncio.run(bench.config.validate(text.encode())).problems
        assert problems and secret not in str(problems)
    problems = asyncio.run(bench.config.validate(b"telemetry: {tracing: {endpoint: 7, enabled: 'https://me:hidden@host/'}}")).problems
    assert problems and "hidden" not in str(problems)


def test_a_password_in_a_url_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    loaded = bench.load(None)
    object.__setattr__(loaded.settings.telemetry.tracing, "endpoint", "https://me:hidden@otlp.example/v1")
    monkeypatch.setattr(bench.config, "settings", loaded.settings)
    assert bench.sources()["telemetry.tracing.endpoint"][0] == "https://[redacted]@otlp.example/v1"
    assert "hidden" not in "\n".join(shown_lines(loaded))


def test_reading_happens_off_the_loop_and_few_may_wait(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    go = threading.Event()

    def slow(text: bytes | None) -> Loaded:
        assert threading.current_thread() is not threading.main_thread() and go.wait(20)
        return bench.load(text)

    async def play() -> None:
        config = LiveConfig(bench.load(None), slow, bench.applied.append)
        waiting = [asyncio.ensure_future(config.validate(b"")) for _ in range(PENDING_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as caught:
            await config.reload()
        assert caught.value.code == "TM-ADMIN-4291"
        go.set()
        await asyncio.gather(*waiting)
        await config.reload()
        config.close()

    asyncio.run(play())
