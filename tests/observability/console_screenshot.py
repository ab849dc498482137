"""console_screenshot.py FILE: the status page of a server under a little load, as a picture.

Run by `make screenshot`, not by the tests: a picture is never the same twice.
"""

import http.client
import json
import math
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.observability.browser import Visit, chromium
from tests.support.host_clock import kernel_answers
from tests.support.server import TokMeshProcess

SECONDS = 100
USERS = 400
UNKNOWN_TOKEN = "tmtk_" + "A" * 43


def make_traffic(server: TokMeshProcess, stop: threading.Event) -> None:
    """A few hundred requests a second that rise and fall, on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    dice = random.Random(1)

    def ask(path: str, body: object) -> dict[str, str]:
        connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {server.admin_key}"})
        data: dict[str, str] = json.loads(connection.getresponse().read())["data"]
        return data

    sessions = [ask("/sessions", {"user_id": f"user-{number}"}) for number in range(USERS)]
    started = time.monotonic()
    while not stop.wait(0.05):
        for _ in range(int(14 + 8 * math.sin((time.monotonic() - started) / 9) + dice.random() * 3)):
            ask("/tokens/validate", {"token": dice.choice(sessions)["token"]})
        if dice.random() < 0.8:
            ask("/tokens/validate", {"token": UNKNOWN_TOKEN})
        if dice.random() < 0.5:
            sessions.append(ask("/sessions", {"user_id": f"user-{dice.randrange(10**6)}"}))
        if dice.random() < 0.3:
            ask(f"/sessions/{sessions.pop(0)['session_id']}/revoke", {})
    connection.close()


def main(file: Path) -> None:
    """Draws the picture."""
    with (
        tempfile.TemporaryDirectory() as directory,
        TokMeshProcess(directory, "--storage.wal.sync_mode=interval", wrapper=kernel_answers("retval=0")) as server,
        chromium() as browser,
    ):
        stop = threading.Event()
        traffic = threading.Thread(target=make_traffic, args=(server, stop))
        traffic.start()
        try:
            visit = Visit(browser, server.url, viewport={"width": 1280, "height": 720}, color_scheme="light")
            visit.open(server.admin_key)
            visit.page.wait_for_timeout(SECONDS * 1000)
            visit.page.screenshot(path=file, full_page=True)
            visit.assert_clean()
            visit.close()
        finally:
            stop.set()
            traffic.join(30)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
