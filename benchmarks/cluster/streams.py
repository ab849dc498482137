"""Why a cluster has one stream: how many writes a second two and four streams take together, beside one.

Nothing but NATS: three servers that sync before they answer, on one core, and messages as large as a session's, so many under
way at any time whatever the number of streams. A server writes and syncs at once what has come for a stream; of several streams
each has smaller groups of its own, each with a sync of its own.
"""

import json
import secrets
import time
from collections.abc import Callable

from benchmarks.cluster import nats_server
from benchmarks.cluster.publishing import Publisher, frame
from benchmarks.load.process import BenchmarkError, Processes
from benchmarks.load.rows import Limit, Outcome
from benchmarks.load.subjects import Cores

COUNT = 24_000  # messages of a round, over all streams
UNDER_WAY = 512
SUBJECTS = 10_000
BYTES = 330  # a session's record in its envelope, with device, address and agent
ROUNDS = 3
HEARD_TIMEOUT_S = 10.0
NUMBERS = (1, 2, 4)

WORTH = 1.2  # times what one takes: then several streams would be worth what they cost
ROWS = {
    number: Limit(f"streams_{number}", f"acknowledged writes/s, {number} streams together", "one stream", "×", WORTH)
    for number in NUMBERS[1:]
}


class StreamsRun:
    """One run."""

    def __init__(self, processes: Processes, cores: Cores, say: Callable[[str], None]) -> None:
        self._processes = processes
        self._cores = cores
        self._say = say

    def measure(self) -> list[Outcome]:
        """A row for each number of streams above one."""
        urls = nats_server.start(self._processes, self._cores.server, "streams-nats")
        rates: dict[int, list[float]] = {number: [] for number in NUMBERS}
        for turn in range(ROUNDS):
            self._say(f"streams, round {turn + 1} of {ROUNDS}")
            for number in NUMBERS:
                rates[number].append(self._rate_per_s(urls, f"r{turn}n{number}", number))
        middle = {number: sorted(found)[ROUNDS // 2] for number, found in rates.items()}
        note = f"{{:,.0f}}/s against {middle[1]:,.0f}/s, {UNDER_WAY} under way, three servers on one core"
        return [row.outcome(middle[number] / middle[1], note.format(middle[number])) for number, row in ROWS.items()]

    def _rate_per_s(self, urls: list[str], name: str, number: int) -> float:
        """Of `number` new streams."""
        publishers = [Publisher(url) for url in (urls * number)[:number]]
        for index, publisher in enumerate(publishers):
            config = {"name": f"{name}s{index}", "subjects": [f"{name}.{index}.>"], "num_replicas": len(urls)}
            config |= {"max_msgs_per_subject": 1, "allow_direct": True, "allow_msg_ttl": True, "storage": "file"}
            body = json.dumps(config).encode()
            publisher.ask(frame(f"$JS.API.STREAM.CREATE.{config['name']}", body, {}, publisher.reply))
            _wait_heard(publisher, f"{name}.{index}.first")
        begun_s = time.perf_counter()
        sent = 0
        while sent < COUNT or any(publisher.under_way for publisher in publishers):
            for index, publisher in enumerate(publishers):
                while sent < COUNT and publisher.under_way < UNDER_WAY // number:
                    publisher.send([_message(f"{name}.{index}", name, sent, publisher.reply)])
                    sent += 1
            for publisher in publishers:
                if publisher.under_way:
                    publisher.wait()
        took_s = time.perf_counter() - begun_s
        for publisher in publishers:
            publisher.close()
        return COUNT / took_s


def _wait_heard(publisher: Publisher, subject: str) -> None:
    """Until all servers know of a stream that was just made."""
    deadline_s = time.monotonic() + HEARD_TIMEOUT_S
    while True:
        try:
            publisher.ask(frame(subject, b"", {}, publisher.reply))
            return
        except BenchmarkError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.1)


def _message(subject: str, name: str, number: int, reply: bytes) -> bytes:
    headers = {"Nats-Msg-Id": f"{name}.{number}", "Nats-TTL": "7860s"}
    return frame(f"{subject}.{number % SUBJECTS}", secrets.token_bytes(BYTES), headers, reply)
