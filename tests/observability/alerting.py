"""A real Alertmanager for tests, Debian's binary, and the webhook it delivers to."""

import http.server
import json
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import yaml

from tests.observability.prometheus import START_TIMEOUT_S, STOP_TIMEOUT_S
from tests.support.ports import free_port


class Delivery(NamedTuple):
    """One alert as it arrived. channel: the last part of the webhook's path. status: "firing" or "resolved"."""

    channel: str
    status: str
    labels: dict[str, str]
    annotations: dict[str, str]


class Webhook:
    """Receives Alertmanager's messages on a free port of 127.0.0.1 while it is entered."""

    def __init__(self) -> None:
        self._deliveries: list[Delivery] = []
        deliveries = self._deliveries

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                channel = self.path.rsplit("/", 1)[-1]
                deliveries.extend(
                    Delivery(channel, alert["status"], alert["labels"], alert["annotations"]) for alert in message["alerts"]
                )
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def deliveries(self, **labels: str) -> list[Delivery]:
        """What has arrived with these labels, in order."""
        return [each for each in list(self._deliveries) if labels.items() <= each.labels.items()]


class AlertmanagerProcess:
    """Runs with a configuration whose webhooks are sent to `webhook` instead, each by the last part of its path."""

    def __init__(self, directory: Path, configuration: dict[str, Any], webhook: Webhook) -> None:
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        for receiver in configuration["receivers"]:
            for hook in receiver["webhook_configs"]:
                hook["url"] = f"{webhook.url}/{hook['url'].rsplit('/', 1)[-1]}"
        (directory / "alertmanager.yaml").write_text(yaml.safe_dump(configuration))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus-alertmanager",
                    f"--config.file={self._directory / 'alertmanager.yaml'}",
                    f"--storage.path={self._directory / 'data'}",
                    f"--web.listen-address={self.address}",
                    "--cluster.listen-address=",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5):
                    return self
            except OSError:
                time.sleep(0.1)
        self.__exit__(None, None, None)
        raise AssertionError(f"Alertmanager did not start\n{self.log}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)

    def send(self, *labels: dict[str, str]) -> None:
        """Tells of firing alerts, as a Prometheus does."""
        content = json.dumps([{"labels": each, "annotations": {}} for each in labels]).encode()
        headers = {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"http://{self.address}/api/v2/alerts", content, headers), timeout=10):
            pass

    @property
    def log(self) -> str:
        """What Alertmanager has written."""
        return (self._directory / "log").read_text(errors="replace")[-8000:]
