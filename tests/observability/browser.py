"""A real browser for tests: Debian's Chromium, headless, driven by Playwright.

A `Visit` is one page in a profile of its own that notes whatever went wrong in it: errors on its console, exceptions,
violations of its content security policy, and every address it asked for.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

TIMEOUT_MS: Final = 30_000.0

_NOTE_VIOLATIONS: Final = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, closed at the end. Root may not use its sandbox, and it visits our own pages only."""
    executable = shutil.which("chromium")
    assert executable is not None, "no chromium: .ci/packages test install"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One page on `url`, opened. options: of a Playwright context, such as viewport and color_scheme."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(TIMEOUT_MS)
        self.page: Page = self.context.new_page()
        self.page.add_init_script(_NOTE_VIOLATIONS)
        self.errors: list[str] = []
        self.failures: list[str] = []
        self.requested: list[str] = []
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.goto(f"{url}/console")

    def _note(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        # The browser's own word on an answer that was no 200; the page is not at fault.
        failed_request = message.text.startswith("Failed to load resource: ")
        (self.failures if failed_request else self.errors).append(f"{message.text} {message.location['url']}")

    def sign_in(self, key: str) -> None:
        """Types the key and presses Enter, as one would without a mouse."""
        self.page.locator("#key").fill(key)
        self.page.keyboard.press("Enter")

    def open(self, key: str) -> None:
        """Signs in and waits for the figures."""
        self.sign_in(key)
        self.page.locator("#live").wait_for(state="visible")

    def text(self, selector: str) -> str:
        """The text that is seen of one element."""
        return self.page.locator(selector).inner_text()

    def wait_for_text(self, selector: str, text: str) -> None:
        """Waits until an element contains the text."""
        self.page.locator(selector, has_text=text).first.wait_for()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Waits until a condition holds; asked from here, since the page's policy forbids to evaluate text in it."""
        deadline = time.monotonic() + TIMEOUT_MS / 1000
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            self.page.wait_for_timeout(50)

    def tile(self, name: str) -> str:
        """The figure of a tile."""
        return self.page.locator("#tiles div", has_text=name).locator("dd").inner_text()

    def assert_clean(self) -> None:
        """Nothing went wrong, and nothing was asked of another host."""
        assert self.errors == []
        assert self.page.evaluate("window.violations") == []
        assert self.requested and all(each.startswith(f"{self.url}/") for each in self.requested), self.requested

    def close(self) -> None:
        """Ends the visit with its profile."""
        self.context.close()
