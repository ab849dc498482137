"""The status page as it is served: guarded like the administration API, nothing from or to another host, readable."""

import hashlib
import re
from pathlib import Path

import pytest

from tests.support.server import TokMeshProcess
from tokmesh import console

FOLDER = Path(console.__file__).parent
OWN = [path for path in sorted(FOLDER.iterdir()) if path.suffix in (".html", ".css", ".js", ".svg") and "uplot" not in path.name]
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
CONTRAST_MIN = 4.5  # WCAG 2.2, 1.4.3: text


def test_a_browser_without_a_key_gets_the_page_that_asks_for_one(shared_server: TokMeshProcess) -> None:
    status, headers, body = shared_server.exchange("GET", "/console", key=None, headers=BROWSER)
    assert (status, headers["www-authenticate"], headers["content-type"]) == (401, "Bearer", "text/html; charset=utf-8")
    assert shared_server.exchange("GET", "/console", headers=BROWSER)[::2] == (200, body)
    wrong = shared_server.admin_key[:-4] + "AAAA"
    assert shared_server.exchange("GET", "/console", key=wrong, headers=BROWSER)[::2] == (401, body)


def test_a_program_without_a_key_gets_the_envelope(shared_server: TokMeshProcess) -> None:
    status, answer = shared_server.request("GET", "/console", key=None)
    assert (status, answer["code"]) == (401, "TM-AUTH-4010")
    status, answer = shared_server.request("GET", "/admin/v1/status/summary", key=None, headers=BROWSER)
    assert (status, answer["code"]) == (401, "TM-AUTH-4010")


def test_a_key_of_another_role_is_refused(shared_server: TokMeshProcess) -> None:
    for role in ("metrics", "validator", "issuer"):
        status, answer = shared_server.request("GET", "/console", key=shared_server.create_key(role), headers=BROWSER)
        assert (status, answer["code"]) == (403, "TM-AUTH-4030")


@pytest.mark.parametrize("path", ["/console", "/console/app.js", "/console/style.css", "/console/runbooks/TokMeshSyncOff.md"])
def test_what_a_browser_may_do_with_the_files_is_said(shared_server: TokMeshProcess, path: str) -> None:
    for key in ("admin", None):
        _, headers, _ = shared_server.exchange("GET", path, key=key, headers=BROWSER)
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["cross-origin-resource-policy"] == headers["cross-origin-opener-policy"] == "same-origin"
        assert "set-cookie" not in headers and "access-control-allow-origin" not in headers


def test_only_files_of_the_page_are_served(shared_server: TokMeshProcess) -> None:
    for name in ("nope.js", "__init__.py", "%2e%2e%2fapp.py", "..%2F..%2Ferrors.py", "runbooks", "APP.JS", "runbooks/../app.js"):
        status, answer = shared_server.request("GET", f"/console/{name}", key=None)
        assert (status, answer["code"]) == (404, "TM-SYS-4040"), name
    served = set(console.load())
    assert {path.name for path in OWN} <= served and "__init__.py" not in served


def test_every_file_that_is_named_exists_and_none_is_elsewhere() -> None:
    page = (FOLDER / console.PAGE).read_text(encoding="utf-8")
    named = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(named) >= 6
    for name in named:
        assert name.startswith("console/") and name.removeprefix("console/") in console.load(), name
    for path in OWN:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text), path.name
        for name in re.findall(r'from "\./([^"]+)"', text):
            assert name in console.load(), (path.name, name)


def test_nothing_is_inline_stored_or_written_as_markup() -> None:
    page = (FOLDER / console.PAGE).read_text(encoding="utf-8")
    assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son[a-z]+=", page)
    scripts = "".join(path.read_text(encoding="utf-8") for path in OWN if path.suffix == ".js")
    for banned in ("innerHTML", "insertAdjacentHTML", "eval(", "localStorage", "sessionStorage", "document.cookie", "indexedDB"):
        assert banned not in scripts


def test_the_plotting_library_is_the_one_that_is_named() -> None:
    note = (FOLDER / "uplot.LICENSE.txt").read_text(encoding="utf-8")
    rows = re.findall(r"^(uplot\.min\.\w+) .* ([0-9a-f]{64})$", note, re.MULTILINE)
    assert len(rows) == 2 and "The MIT License" in note
    for name, digest in rows:
        content = (FOLDER / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest, name
    assert "(v1.6.32)" in (FOLDER / "uplot.min.js").read_text(encoding="utf-8")[:100] and note.startswith("uPlot 1.6.32")


def luminance(color: str) -> float:
    """Relative luminance of "#rrggbb" (WCAG 2.2)."""
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read_in_both_colour_schemes(scheme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", (FOLDER / "style.css").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[scheme]))
    pairs = [(text, back) for text in ("text", "soft", "accent", "bad") for back in ("page", "card")]
    pairs += [("good", "good-back"), ("warn", "warn-back"), ("bad", "bad-back"), ("card", "accent")]
    for text, back in pairs:
        dark, light = sorted((luminance(colors[text]), luminance(colors[back])))
        assert (light + 0.05) / (dark + 0.05) >= CONTRAST_MIN, (text, back)
