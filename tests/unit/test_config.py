"""Loading of settings: precedence, every error at once, strictness about names, and the page written from the table."""

import dataclasses
from pathlib import Path

import pytest

from tests.support.config import load_errors, load_settings
from tokmesh.cli.reference import reference_markdown
from tokmesh.config import ConfigError, changed_keys, load, loading, shown_lines
from tokmesh.config.keys import KEYS, KEYS_BY_ENVIRONMENT, KEYS_BY_NAME, SECTIONS, Settings, build_settings, value_of

ROOT = Path(__file__).resolve().parents[2]


# Ten mappings merged into each of ten, and so on: a million pairs in 300 bytes.
MERGES = b"a0: &a0 {k: 1}\n" + b"".join(b"a%d: &a%d {<<: [%b]}\n" % (n, n, b"*a%d," % (n - 1) * 10) for n in range(1, 7))


def test_no_configuration_at_all_is_valid() -> None:
    loaded = load(environment={})
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {"default"}
    assert str(loaded.settings.server.http.address) == "127.0.0.1:5080"
    assert loaded.settings.session.ttl.default_ms == 2 * 3600 * 1000
    assert loaded.settings.storage.wal.segment_size_bytes == 64 * 1024 * 1024


def test_the_table_is_consistent() -> None:
    assert len(KEYS_BY_NAME) == len(KEYS_BY_ENVIRONMENT) == len(KEYS)
    assert not SECTIONS & set(KEYS_BY_NAME), "a name is both a value and a section"
    for key in KEYS:
        kind = key.row.kind
        default = kind.parse(key.row.default, Path("/base"))
        assert kind.parse(kind.show(default), Path("/base")) == default, key.name
        assert key.field_path[-1].endswith(kind.suffix), key.name


@pytest.mark.parametrize(("count", "told"), [(2, 2), (3, 3), (4, 3)])
def test_no_more_problems_are_told_than_may_be(count: int, told: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PROBLEMS_MAX", 3)
    names = [f"session.none{number}" for number in range(count)]
    assert load_errors(dict.fromkeys(names, "x")) == [("TM-CFG-1001", name) for name in names[:told]]


def test_command_line_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "tokmesh.yaml"
    file.write_text("server:\n  http:\n    max_headers: 10\n    max_pipelined: 11\n    address: 127.0.0.1:1\n")
    loaded = load(
        [("server.http.max_headers", "30"), ("server.http.max_headers", "31")],
        environment={"TOKMESH_SERVER_HTTP_MAX_HEADERS": "20", "TOKMESH_SERVER_HTTP_MAX_PIPELINED": "21"},
        config_file=file,
    )
    http = loaded.settings.server.http
    assert (http.max_headers, http.max_pipelined, http.address.port) == (31, 21, 1)
    assert http.max_connections == Settings().server.http.max_connections
    assert loaded.sources["server.http.max_headers"] == "command line"
    assert loaded.sources["server.http.max_pipelined"] == "environment TOKMESH_SERVER_HTTP_MAX_PIPELINED"
    assert loaded.sources["server.http.address"] == f"file {file}"
    assert loaded.sources["server.http.max_connections"] == "default"


def test_every_error_of_every_source_is_listed_at_once(tmp_path: Path) -> None:
    file = tmp_path / "tokmesh.yaml"
    file.write_text("server:\n  htp: {}\n  http: 5\nsession:\n  ttl: {default: 30}\n  quota: {policy: maybe}\n")
    with pytest.raises(ConfigError) as caught:
        load(
            [("server.http.adress", "x"), ("server.workers", "2")],
            environment={"TOKMESH_SERVER_HTTP_MAX_HEADERS": "many", "TOKMESH_SERVR_X": "1"},
            config_file=file,
        )
    assert [(problem.code, problem.name) for problem in caught.value.problems] == [
        ("TM-CFG-1001", "server.htp"),
        ("TM-CFG-1001", "server.http"),
        ("TM-CFG-1001", "TOKMESH_SERVR_X"),
        ("TM-CFG-1001", "server.http.adress"),
        ("TM-CFG-1001", "session.ttl.default"),
        ("TM-CFG-1002", "session.quota.policy"),
        ("TM-CFG-1001", "server.http.max_headers"),
        ("TM-CFG-1006", "server.workers"),
    ]
    text = str(caught.value)
    assert "did you mean server.http?" in text
    assert "did you mean server.http.address?" in text
    assert "a number and a unit of ms, s, m, h or d" in text
    assert "several workers, which this version does not have" in text


@pytest.mark.parametrize("name", sorted(KEYS_BY_NAME))
def test_every_key_can_be_given_in_every_place(name: str, tmp_path: Path) -> None:
    """At its default, spelled as the reference spells it, each key is accepted from each source."""
    key = KEYS_BY_NAME[name]
    file = tmp_path / "tokmesh.yaml"
    file.write_text(f'{name}: "{key.row.default}"\n')
    for loaded in (
        load([(name, key.row.default)], environment={}),
        load(environment={key.environment: key.row.default}),
        load(environment={}, config_file=file),
    ):
        assert loaded.sources[name] != "default"


@pytest.mark.parametrize("name", [key.name for key in KEYS if key.row.needs])
def test_a_setting_that_would_be_ignored_is_refused(name: str, tmp_path: Path) -> None:
    other = tmp_path / "file"
    other.write_text("")
    changed = {
        "true or false": "true",
        "the path of a file that exists": str(other),
        "a number from 0 to 1": "0.5",
        "the URL of an OTLP receiver": "http://127.0.0.1:4318",
        "a list of NATS URLs": "nats://127.0.0.1:4222",
        "1 to 32 of a-z, 0-9 and -": "other",
        "tmnd- and 1 to 58 of a-z, 0-9 and -, or empty": "tmnd-one",
    }
    rule = KEYS_BY_NAME[name].row.kind.rule
    value = (
        {"cluster.max_staleness": "900ms"}.get(name)
        or changed.get(rule)
        or ("10.0.0.0/8" if "CIDR" in rule else "3m" if "duration" in rule else "2MB" if "size" in rule else "3")
    )
    assert load_errors({name: value}) == [("TM-CFG-1006", name)]


def test_names_under_the_prefix_that_are_not_settings_are_left_alone() -> None:
    load(
        environment=dict.fromkeys(
            (
                "TOKMESH_KEY",
                "TOKMESH_BUILD",
                "TOKMESH_SERVICE_HOST",
                "TOKMESH_SERVICE_PORT",
                "TOKMESH_SERVICE_PORT_HTTP",
                "TOKMESH_PORT",
                "TOKMESH_PORT_5080_TCP",
                "TOKMESH_PORT_5080_TCP_ADDR",
                "OTHER",
            ),
            "x",
        )
    )


def test_the_configuration_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("telemetry: {logging: {level: debug}}\n")
    loaded = load(environment={"TOKMESH_CONFIG": "some.yaml"}, base=tmp_path)
    assert loaded.settings.telemetry.logging.level == "debug"
    assert loaded.config_file == tmp_path / "some.yaml"


def test_relative_paths_of_a_file_are_relative_to_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "tokmesh.yaml").write_text("storage:\n  dir: data\n")
    loaded = load(environment={}, config_file=folder / "tokmesh.yaml", base=Path("/elsewhere"))
    assert loaded.settings.storage.dir == folder / "data"
    loaded = load([("storage.dir", "data")], environment={}, config_file=folder / "tokmesh.yaml", base=Path("/elsewhere"))
    assert loaded.settings.storage.dir == Path("/elsewhere/data")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"server: {http: {max_headers: 5}}\nserver: {}\n", "TM-CFG-1001"),
        (b"session:\n  quota:\n    policy: reject\n    policy: reject\n", "TM-CFG-1001"),
        (b"session: {quota: {policy: reject}}\nsession.quota.policy: reject\n", "TM-CFG-1005"),
        (b"- a\n- b\n", "TM-CFG-1001"),
        (b"just text", "TM-CFG-1001"),
        (b"a: [1, 2\n", "TM-CFG-1001"),
        (b"a: \xff\xfe\n", "TM-CFG-1001"),
        (b"x: !!python/object/apply:os.system [echo]\n", "TM-CFG-1001"),
        (b"server: &s\n  http: *s\n", "TM-CFG-1001"),
        (b"? [a, b]\n: c\n", "TM-CFG-1001"),
        (b"server: {http: {address: {host: x}}}\n", "TM-CFG-1001"),
        (b"server: {http: {address: }}\n", "TM-CFG-1001"),
        (b"[" * 5000, "TM-CFG-1001"),
        (b"server: {http: {max_headers: 0x" + b"f" * 5000 + b"}}\n", "TM-CFG-1001"),
        (b"? 0x" + b"f" * 5000 + b"\n: 1\n", "TM-CFG-1001"),
        (b"server: {http: {max_headers: " + b"1:" * 3000 + b"1.5}}\n", "TM-CFG-1001"),
        (MERGES, "TM-CFG-1001"),
        (b"#" * ((1 << 20) + 1), "TM-CFG-1002"),
    ],
)
def test_a_bad_file_is_one_clear_error(content: bytes, code: str, tmp_path: Path) -> None:
    file = tmp_path / "tokmesh.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(environment={}, config_file=file)
    assert [problem.code for problem in caught.value.problems] == [code]
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", ["", "# nothing\n", "server:\n", "server:\n  http: {}\n", "---\n"])
def test_an_empty_file_or_section_is_valid(content: str, tmp_path: Path) -> None:
    file = tmp_path / "tokmesh.yaml"
    file.write_text(content)
    assert load(environment={}, config_file=file).settings == Settings()


def test_a_missing_file_is_an_error_beside_the_others(tmp_path: Path) -> None:
    assert load_errors({"server.http.max_headers": "x"}, config_file=tmp_path / "none.yaml") == [
        ("TM-CFG-1003", "--config"),
        ("TM-CFG-1001", "server.http.max_headers"),
    ]


def test_a_directory_in_a_files_place_is_called_one(tmp_path: Path) -> None:
    given = {"server.https.tls.cert_file": str(tmp_path)}
    with pytest.raises(ConfigError) as caught:
        load(given.items(), environment={}, config_file=tmp_path)
    told = [(problem.code, problem.name, problem.rule) for problem in caught.value.problems]
    assert told == [
        ("TM-CFG-1003", "--config", "it is a directory, not a file"),
        ("TM-CFG-1003", "server.https.tls.cert_file", f"{str(tmp_path)!r} is a directory, not a file"),
    ]


def test_a_file_that_cannot_be_opened_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path, words in ((tmp_path / "loop", "symbolic links"), (tmp_path / ("x" * 300), "too long")):
        with pytest.raises(ConfigError) as caught:
            load(environment={}, config_file=path)
        assert "cannot be read: " in str(caught.value) and words in str(caught.value)


def test_rules_over_several_keys(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert load_errors({"session.ttl.default": "800h"}) == [("TM-CFG-1005", "session.ttl.default")]
    sizes = {"server.http.body_buffer_size": "2MB", "server.http.max_body_size": "2MB"}
    assert load_settings(sizes).server.http.max_body_size_bytes == 2 << 20
    assert load_errors({**sizes, "server.http.max_body_size": "2097153"}) == [("TM-CFG-1005", "server.http.max_body_size")]
    assert load_errors({"server.https.enabled": "true"}) == [
        ("TM-CFG-1006", "server.https.tls.cert_file"),
        ("TM-CFG-1006", "server.https.tls.key_file"),
    ]
    assert load_errors({"server.https.tls.cert_file": str(tmp_path / "none")}) == [("TM-CFG-1003", "server.https.tls.cert_file")]
    assert load_errors({"storage.dir": str(file)}) == [("TM-CFG-1004", "storage.dir")]
    assert load_errors({"storage.dir": str(tmp_path / ("x" * 300))}) == [("TM-CFG-1004", "storage.dir")]
    same = {
        "server.https.enabled": "true",
        "server.https.tls.cert_file": str(file),
        "server.https.tls.key_file": str(file),
        "server.https.address": "127.0.0.1:5080",
    }
    assert load_errors(same) == [("TM-CFG-1005", "server.https.address")]


@pytest.mark.parametrize("password", ["hush", "x/hush", "hu@hush", "hush@"])
def test_errors_never_repeat_the_password_of_a_url(password: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load([("telemetry.tracing.endpoint", f"http://user:{password}@collector/v1")], environment={})
    assert "hush" not in str(caught.value)
    assert "http://[redacted]@collector/v1" in str(caught.value)


def test_errors_never_repeat_a_credential() -> None:
    secret = "tmas_" + "S" * 43
    with pytest.raises(ConfigError) as caught:
        load(
            [(f"a.{secret}", secret), ("server.http.address", secret)],
            environment={f"TOKMESH_{secret}": secret, "TOKMESH_KEYS": secret, "TOKMESH_SERVER_WORKERS": f"k:{secret}"},
        )
    assert "SSSS" not in str(caught.value)
    assert len(caught.value.problems) == 5


def test_changed_keys_tells_what_a_reload_can_apply() -> None:
    before = load_settings()
    after = load_settings({"telemetry.logging.level": "debug", "server.http.max_headers": "9", "session.ttl.max": "9h"})
    applied, restart = changed_keys(before, after)
    assert [key.name for key in applied] == ["session.ttl.max", "telemetry.logging.level"]
    assert [key.name for key in restart] == ["server.http.max_headers"]


def test_settings_are_immutable_and_built_from_the_table() -> None:
    settings = build_settings({"session.ttl.max": 5000, "server.http.max_headers": 7})
    assert (settings.session.ttl.max_ms, settings.server.http.max_headers) == (5000, 7)
    assert value_of(settings, KEYS_BY_NAME["session.ttl.max"]) == 5000
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.session.ttl.max_ms = 1  # type: ignore[misc]


def test_what_show_prints_loads_again_to_the_same_settings(tmp_path: Path) -> None:
    loaded = load([("server.http.address", "[::1]:5080"), ("session.ttl.default", "90m"), ("storage.dir", "/x y")], environment={})
    file = tmp_path / "shown.yaml"
    file.write_text("\n".join(shown_lines(loaded)))
    assert load(environment={}, config_file=file).settings == loaded.settings


def test_the_reference_page_is_the_table() -> None:
    page = ROOT / "docs" / "configuration.md"
    assert page.read_text() == reference_markdown(), "run: tokmesh config reference > docs/configuration.md"
