"""Real trouble reaches the right person: TokMesh, Prometheus with the shipped rules, Alertmanager with the shipped routing, and a
webhook, each a process of its own but the last.

Five troubles run at once, each with a TokMesh and a Prometheus of its own, told apart in one Alertmanager by the external label
`trouble`. Time is scaled (tests/observability/time_scale.py), nothing else. Each trouble must deliver its alert on its channel,
and no other.
"""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import yaml

from tests.crash.kills import strace
from tests.observability.alerting import AlertmanagerProcess, Delivery, Webhook
from tests.observability.prometheus import PrometheusProcess
from tests.observability.time_scale import write_scaled
from tests.support.server import TokMeshProcess

FACTOR: Final = 20  # 5 minutes take 15 seconds: 30 scrapes
DELIVERY_TIMEOUT_S: Final = 120.0
SMALL_SEGMENTS: Final = "--storage.wal.segment_size=1MB"
DISK_BYTES: Final = 32 << 20
# A machine too busy to run the tests' processes is told so, truthfully; that is no alert of the trouble under test.
OF_THE_MACHINE: Final = frozenset({"TokMeshEventLoopLag", "TokMeshScrapeUnreliable"})


class Trouble(NamedTuple):
    """cause: makes trouble until the event is set. alert: what it must deliver, on `channel`. also: other alerts of the same fact
    (a budget that burns because of it), which may come too. options: of the server. guarded: whether its metrics ask for a key."""

    cause: Callable[[TokMeshProcess, Path, threading.Event], None]
    alert: str
    channel: str
    also: frozenset[str] = frozenset()
    options: tuple[str, ...] = ()
    guarded: bool = True


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A file system of DISK_BYTES in memory: what else fills the machine's disk is not seen in it."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tokmesh-test", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 0, f"this test mounts a tmpfs and must run as root: {done.stderr}"
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], timeout=10, check=True)


@contextmanager
def failing_call(server: TokMeshProcess, call: str) -> Iterator[None]:
    """While entered, every `call` of the running server fails with EIO, as the kernel would report it."""
    command = strace(["-p", str(server.pid), "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error=EIO"])
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tracer:
        try:
            deadline = time.monotonic() + 30
            while not all("TracerPid:\t0" not in task.read_text() for task in Path(f"/proc/{server.pid}/task").glob("*/status")):
                assert tracer.poll() is None and time.monotonic() < deadline, "strace did not attach"
                time.sleep(0.05)
            yield
        finally:
            tracer.terminate()


def fail_a_sync(server: TokMeshProcess, disk: Path, over: threading.Event) -> None:
    with failing_call(server, "fdatasync"):
        assert server.request("POST", "/sessions", json={"user_id": "u"})[0] == 503
    over.wait()


def flood_with_bad_keys(server: TokMeshProcess, disk: Path, over: threading.Event) -> None:
    guess = f"{server.admin_key.split(':')[0]}:tmas_{'A' * 43}"
    while not over.wait(0.05):
        status, answer = server.request("POST", "/tokens/validate", json={"token": "tmtk_" + "A" * 43}, key=guess)
        assert (status, answer["code"]) == (401, "TM-AUTH-4011")


def fill_the_disk(server: TokMeshProcess, disk: Path, over: threading.Event) -> None:
    """Leaves 7 % free: the log has room, the alert is early."""
    filler = disk / "filler"
    status = os.statvfs(disk)
    filler.write_bytes(bytes(status.f_bavail * status.f_frsize - DISK_BYTES * 7 // 100))
    over.wait()
    server.create_session("there is room for one more")
    filler.unlink()


def fail_creates(server: TokMeshProcess, disk: Path, over: threading.Event) -> None:
    """The kernel gives no randomness: a create cannot make its identifiers, and answers 500."""
    failures = 0
    with failing_call(server, "getrandom"):
        while not over.wait(0.05):  # at first the server has a block of random bytes left
            failures += server.request("POST", "/sessions", json={"user_id": f"u-{time.monotonic_ns()}"})[0] == 500
    assert failures > 10


def slow_validations(server: TokMeshProcess, disk: Path, over: threading.Event) -> None:
    """Keys are costly to verify and soon forgotten: once in a second, whoever asks waits for Argon2id. Scrapes need no key."""
    token = server.create_session("u")["token"]

    def ask() -> None:
        while not over.wait(0.04):
            assert server.validate(token)["valid"] is True

    with ThreadPoolExecutor(4) as pool:
        for asking in [pool.submit(ask) for _ in range(4)]:
            asking.result()


COSTLY_KEYS: Final = (
    "--security.auth.argon2.memory=32768", "--security.auth.argon2.iterations=10", "--security.auth.cache_ttl=1s",
    "--telemetry.metrics.auth_enabled=false",
)  # fmt: skip
TROUBLES: Final = {
    "failed-sync": Trouble(fail_a_sync, "TokMeshWalFsyncFailed", "pager"),
    "bad-keys": Trouble(flood_with_bad_keys, "TokMeshApiKeyFailures", "pager"),
    "full-disk": Trouble(fill_the_disk, "TokMeshDiskSpaceLow", "pager"),
    "errors": Trouble(fail_creates, "TokMeshErrorRatioHigh", "chat", frozenset({"TokMeshAvailabilityBudgetBurn"})),
    "slow": Trouble(
        slow_validations, "TokMeshTokenValidateSlow", "chat", frozenset({"TokMeshLatencyBudgetBurn"}), COSTLY_KEYS, guarded=False
    ),
}


def wait_for(webhook: Webhook, name: str, status: str, prometheus: PrometheusProcess) -> Delivery:
    """The delivery of this trouble's alert; when it does not come, what Prometheus knows."""
    deadline = time.monotonic() + DELIVERY_TIMEOUT_S
    while time.monotonic() < deadline:
        for found in webhook.deliveries(trouble=name, alertname=TROUBLES[name].alert):
            if found.status == status:
                return found
        time.sleep(0.1)
    raise AssertionError(f"{name}: {TROUBLES[name].alert} was not delivered as {status}\n{prometheus.get('/api/v1/alerts')}")


def live_through(
    name: str, folder: Path, alertmanager: AlertmanagerProcess, webhook: Webhook, all_told: threading.Barrier
) -> Delivery:
    """Makes one trouble until every trouble's alert has arrived; where it can be ended, until that is told too."""
    trouble = TROUBLES[name]
    configuration = {
        "global": {"evaluation_interval": "500ms", "scrape_timeout": "500ms", "external_labels": {"trouble": name}},
        "rule_files": [str(folder.parent / "rules" / "tokmesh-*.yaml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager.address]}]}]},
    }
    over = threading.Event()
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "disk"))
        server = TokMeshProcess(folder, SMALL_SEGMENTS, *trouble.options)
        server.directory = disk / "data"
        stack.enter_context(server)
        key = server.create_key("metrics") if trouble.guarded else None
        prometheus = stack.enter_context(
            PrometheusProcess(folder / "prometheus", f"127.0.0.1:{server.port}", key, configuration=configuration)
        )
        prometheus.wait_for("tokmesh_build_info")
        with ThreadPoolExecutor(1) as pool:
            making = pool.submit(trouble.cause, server, disk, over)
            try:
                delivered = wait_for(webhook, name, "firing", prometheus)
                with suppress(threading.BrokenBarrierError):  # another's alert does not come: it says so itself
                    all_told.wait(DELIVERY_TIMEOUT_S)
            except BaseException:
                all_told.abort()
                raise
            finally:
                over.set()
                making.result()
        if name == "full-disk":
            wait_for(webhook, name, "resolved", prometheus)
        return delivered


def test_each_trouble_delivers_its_alert_and_no_other(tmp_path: Path) -> None:
    write_scaled(tmp_path / "rules", FACTOR)
    routing = yaml.safe_load((tmp_path / "rules" / "alertmanager.yaml").read_text())
    with Webhook() as webhook, AlertmanagerProcess(tmp_path / "alertmanager", routing, webhook) as alertmanager:
        all_told = threading.Barrier(len(TROUBLES))
        with ThreadPoolExecutor(len(TROUBLES)) as pool:
            lives = {}
            for name in TROUBLES:
                (tmp_path / name).mkdir()
                lives[name] = pool.submit(live_through, name, tmp_path / name, alertmanager, webhook, all_told)
        delivered = {name: life.result() for name, life in lives.items()}
        for name, trouble in TROUBLES.items():
            assert delivered[name].channel == trouble.channel
            assert delivered[name].annotations["runbook_url"] == f"docs/runbooks/{trouble.alert}.md"
            names = {each.labels["alertname"] for each in webhook.deliveries(trouble=name)}
            assert trouble.alert in names <= {trouble.alert} | trouble.also | OF_THE_MACHINE, name
