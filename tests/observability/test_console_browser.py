"""The status page in a real browser: signs in, lives, says what is wrong, leaks nothing."""

import re
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.crash.kills import strace
from tests.observability.browser import Visit, chromium
from tests.support.ports import free_port
from tests.support.server import TokMeshProcess

Visitor = Callable[..., Visit]
MISFIT = """Math.max(...[...document.querySelectorAll(".canvas")].map((home) =>
    Math.abs(home.querySelector(".uplot").getBoundingClientRect().width - home.clientWidth)))"""
COUNT_DRAWN = """[...document.querySelectorAll(".plot canvas")].filter((canvas) =>
    canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte)).length"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """Opens pages; each must have been clean in the end."""
    visits: list[Visit] = []

    def visit(server: TokMeshProcess, **options: Any) -> Visit:
        visits.append(Visit(browser, server.url, **options))
        return visits[-1]

    yield visit
    for each in visits:
        each.assert_clean()
        each.close()


def test_figures_follow_the_traffic(server: TokMeshProcess, visitor: Visitor) -> None:
    visit = visitor(server)
    assert visit.page.locator("#live").is_hidden() and visit.page.locator("#key").is_visible()
    visit.open(server.admin_key)
    assert visit.page.locator("#locked").is_hidden()
    assert visit.tile("Active sessions") == "0" and visit.text("#state") == "Ready"
    tokens = [server.create_session(f"user-{index}")["token"] for index in range(3)]
    visit.wait_for_text("#tiles div:has-text('Active sessions') dd", "3")
    stop = threading.Event()

    def validate() -> None:
        while not stop.wait(0.02):
            server.validate(tokens[0])

    traffic = threading.Thread(target=validate)
    traffic.start()
    try:
        visit.wait_until(lambda: float(visit.tile("Validations").split()[0]) > 3)
        latency = visit.page.locator("figure[aria-label^=Latency]")
        visit.wait_until(lambda: len(re.findall(r"P\d[\d.]* [\d.]+ (?:µs|ms|s)\b", latency.get_attribute("aria-label") or "")) == 3)
    finally:
        stop.set()
        traffic.join(30)
    assert visit.page.locator(".plot canvas").count() == visit.page.locator("figure[role=img][aria-label]").count() == 6
    assert visit.page.evaluate(COUNT_DRAWN) == 6
    assert [each.split()[-1] for each in visit.failures] == [f"{server.url}/console"]  # the 401 that brought the page


def test_the_key_is_sent_in_a_header_and_kept_nowhere(server: TokMeshProcess, visitor: Visitor) -> None:
    visit = visitor(server)
    visit.open(server.admin_key)
    secret = server.admin_key.split(":")[1]
    assert all(secret not in url for url in [*visit.requested, visit.page.url])
    assert visit.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    assert visit.context.cookies() == []
    assert secret not in visit.page.content() and visit.page.locator("#key").input_value() == ""
    visit.page.locator("#lock").click()
    assert visit.page.locator("#live").is_hidden() and visit.page.locator("#key").is_visible()
    visit.page.reload()
    assert visit.page.locator("#key").is_visible() and visit.page.locator("#live").is_hidden()


def test_a_key_that_is_no_good_is_told(server: TokMeshProcess, visitor: Visitor) -> None:
    visit = visitor(server)
    visit.sign_in("open sesame")
    visit.wait_for_text("#key-error", "An API key looks like")
    visit.sign_in(server.admin_key[:-4] + "AAAA")
    visit.wait_for_text("#key-error", "does not accept this key")
    visit.sign_in(server.create_key("issuer"))
    visit.wait_for_text("#key-error", "needs the role admin")
    assert visit.page.locator("#live").is_hidden()
    assert visit.page.evaluate("document.activeElement.id") == "key"
    visit.open(server.admin_key)
    assert visit.text("#key-error") == ""


def test_a_key_that_is_disabled_meanwhile_locks_the_page(server: TokMeshProcess, visitor: Visitor) -> None:
    key = server.create_key("admin")
    visit = visitor(server)
    visit.open(key)
    server.data("POST", f"/admin/v1/keys/{key.split(':')[0]}/status", {"status": "disabled"})
    visit.wait_for_text("#key-error", "does not accept this key")
    assert visit.page.locator("#live").is_hidden()


def test_a_server_that_is_gone_and_comes_back(tmp_path: Path, visitor: Visitor) -> None:
    with TokMeshProcess(tmp_path, f"--server.http.address=127.0.0.1:{free_port()}") as server:
        server.create_session("u")
        visit = visitor(server)
        visit.open(server.admin_key)
        server.kill()
        visit.wait_for_text("#state", "does not answer")
        assert "old" in visit.text("#state")
        assert visit.page.locator("#live.stale").is_visible() and visit.tile("Active sessions") == "1"
        server.start()
        visit.wait_for_text("#state", "Ready")
        assert visit.page.locator("#live.stale").count() == 0


def test_a_node_that_wants_no_attention_says_so(server: TokMeshProcess, visitor: Visitor) -> None:
    visit = visitor(server)
    well = {**server.data("GET", "/admin/v1/status/summary"), "conditions": []}  # the host of the tests may have a wrong clock
    visit.page.route("**/admin/v1/status/summary", lambda route: route.fulfill(json={"code": "OK", "data": well}))
    visit.open(server.admin_key)
    assert visit.text("#conditions") == "Nothing wants attention."


def test_a_failed_log_is_told_with_its_runbook(tmp_path: Path, visitor: Visitor) -> None:
    wrapper = strace(["-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=3+"])
    with TokMeshProcess(tmp_path, "--storage.wal.sync_mode=interval", wrapper=wrapper) as server:
        visit = visitor(server)
        visit.open(server.admin_key)
        users = (f"user-{number}" for number in count())
        visit.wait_until(lambda: server.request("POST", "/sessions", json={"user_id": next(users)})[0] != 200)
        visit.wait_for_text("#state", "Not ready")
        visit.wait_for_text("#conditions li.is-critical", "TokMeshWalFsyncFailed")
        visit.wait_for_text("#checks .check", "failing")
        link = visit.page.locator("#conditions li.is-critical a")
        assert link.get_attribute("href") == "console/runbooks/TokMeshWalFsyncFailed.md"
        with visit.context.expect_page() as opened:
            visit.page.get_by_label("Runbook of TokMeshSyncOff").click()
        opened.value.wait_for_load_state()
        assert opened.value.inner_text("body").startswith("# TokMeshSyncOff")


def test_the_page_fits_its_width_and_the_colour_scheme(shared_server: TokMeshProcess, visitor: Visitor) -> None:
    visit = visitor(shared_server, viewport={"width": 320, "height": 700}, color_scheme="dark", reduced_motion="reduce")
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 320
    visit.open(shared_server.admin_key)
    visit.page.locator(".plot canvas").first.wait_for()
    dark = visit.page.evaluate("getComputedStyle(document.body).color")
    for width in (320, 768, 1440):
        visit.page.set_viewport_size({"width": width, "height": 700})
        visit.wait_until(lambda: visit.page.evaluate("document.documentElement.scrollWidth === innerWidth") is True)
        visit.wait_until(lambda: visit.page.evaluate(MISFIT) < 1)
    visit.page.emulate_media(color_scheme="light")
    visit.wait_until(lambda: visit.page.evaluate("getComputedStyle(document.body).color") != dark)
    assert visit.page.evaluate(COUNT_DRAWN) == 6


def test_the_keyboard_reaches_what_can_be_done(shared_server: TokMeshProcess, visitor: Visitor) -> None:
    visit = visitor(shared_server)
    assert visit.page.evaluate("document.activeElement.id") == "key"
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.id") == "submit"
    labels = "[...document.querySelectorAll('input')].every((each) => each.labels.length === 1)"
    assert visit.page.evaluate(labels)
    visit.page.keyboard.press("Shift+Tab")
    visit.open(shared_server.admin_key)
    visit.page.locator("#lock").focus()
    visit.page.keyboard.press("Enter")
    assert visit.page.locator("#key").is_visible()


def test_the_page_cannot_be_framed(shared_server: TokMeshProcess, browser: Browser, tmp_path: Path) -> None:
    frame = tmp_path / "frame.html"
    frame.write_text(f'<iframe src="{shared_server.url}/console"></iframe>')
    context = browser.new_context()
    page = context.new_page()
    page.goto(frame.as_uri())
    page.wait_for_timeout(500)
    assert all(each.locator("#key").count() == 0 for each in page.frames)
    context.close()
