"""Fifty scrapers at once: every one is answered, validates go on beside them, and memory comes to no more than pages in flight."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.server import TokMeshProcess

SCRAPERS = 50
ROUNDS = 4
GROWTH_BYTES_MAX = 48 << 20  # 50 answers of a few hundred KB each, buffered twice, and what the allocator keeps


def resident_bytes(server: TokMeshProcess) -> int:
    assert server.process is not None
    status = dict(line.split(":", 1) for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) * 1024


def outcomes(server: TokMeshProcess) -> float:
    page = server.exchange("GET", "/metrics")[2].decode()
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith("tokmesh_metrics_scrapes_total{"))


def test_a_storm_of_scrapes_is_answered_in_bounded_memory_beside_validates(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path) as server:
        token = server.create_session()["token"]
        start = threading.Barrier(SCRAPERS)
        storm_is_over = threading.Event()
        accepts = ("text/plain", "application/openmetrics-text")

        def scrape(number: int) -> list[int]:
            statuses = []
            for turn in range(ROUNDS):
                start.wait(60)
                headers = {"Accept": accepts[(number + turn) % 2], "Accept-Encoding": "gzip" if number % 3 else ""}
                statuses.append(server.exchange("GET", "/metrics", headers=headers)[0])
            return statuses

        def validate() -> int:
            count = 0
            while not storm_is_over.is_set():
                assert server.validate(token)["valid"] is True
                count += 1
            return count

        counted, before = outcomes(server), resident_bytes(server)
        with ThreadPoolExecutor(SCRAPERS + 1) as pool:
            validated = pool.submit(validate)
            found = list(pool.map(scrape, range(SCRAPERS)))
            storm_is_over.set()
            assert validated.result(60) > 0
        assert found == [[200] * ROUNDS] * SCRAPERS
        assert outcomes(server) == counted + SCRAPERS * ROUNDS + 1
        assert resident_bytes(server) - before < GROWTH_BYTES_MAX
