"""A real Prometheus for tests: Debian's binary, started in a directory of its own on a free port of 127.0.0.1."""

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from tests.support.ports import free_port

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0


class PrometheusProcess:
    """Scrapes one target, or several, every half second, with a Bearer credential if one is given.

    directory: empty or new. targets: "127.0.0.1:PORT" each. configuration: more of prometheus.yml, such as `rule_files`; what it
    has of `global` is added to the intervals. features: for --enable-feature. Every wait has a deadline; one missed fails with the
    log.
    """

    def __init__(
        self,
        directory: Path,
        targets: str | Sequence[str],
        credential: str | None = None,
        *,
        configuration: Mapping[str, Any] | None = None,
        features: Sequence[str] = (),
    ) -> None:
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        targets = [targets] if isinstance(targets, str) else list(targets)
        job: dict[str, Any] = {"job_name": "tokmesh", "static_configs": [{"targets": targets}]}
        if credential is not None:
            key_file = directory / "key"
            key_file.write_text(credential)
            job["authorization"] = {"type": "Bearer", "credentials_file": str(key_file)}
        settings = dict(configuration or {})
        settings["global"] = {"scrape_interval": "500ms", "scrape_timeout": "400ms", **settings.get("global", {})}
        (directory / "prometheus.yml").write_text(yaml.safe_dump({**settings, "scrape_configs": [job]}))
        self._flags = [f"--enable-feature={feature}" for feature in features]

    def __enter__(self) -> Self:
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self._directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                    *self._flags,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5):
                    return self
            except OSError:
                time.sleep(0.1)
        self.__exit__(None, None, None)
        raise AssertionError(f"prometheus did not start\n{self.log}")

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

    @property
    def log(self) -> str:
        """What Prometheus has written."""
        return (self._directory / "log").read_text(errors="replace")[-8000:]

    def get(self, path: str, **parameters: str) -> Any:
        """`data` of an answer of Prometheus's own HTTP API."""
        url = f"http://127.0.0.1:{self._port}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Label sets and values of an instant query."""
        result = self.get("/api/v1/query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def wait_for(self, expression: str, timeout_s: float = 60.0) -> list[tuple[dict[str, str], float]]:
        """The result of a query as soon as it is not empty."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if found := self.query(expression):
                return found
            time.sleep(0.1)
        raise AssertionError(f"no result for {expression} in {timeout_s} s\n{self.targets()}\n{self.log}")

    def targets(self) -> list[dict[str, Any]]:
        """Prometheus's view of what it scrapes: health, lastError and so on."""
        found: list[dict[str, Any]] = self.get("/api/v1/targets")["activeTargets"]
        return found
