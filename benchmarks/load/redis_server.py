"""An own Redis on a free port, and the little of its protocol needed to fill and question it."""

import socket
from collections.abc import Callable, Iterable

from benchmarks.load.process import BenchmarkError, Process, Processes, free_port

PIPELINE_COMMANDS = 1000


def start(processes: Processes, name: str, cpu: int, *, append_only: bool) -> "RedisServer":
    """Redis with no snapshots; with `append_only` every write is fdatasynced before its answer."""
    port = free_port()
    directory = processes.directory / name
    directory.mkdir()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    command += ["--appendonly", "yes" if append_only else "no", "--appendfsync", "always"]
    command += ["--auto-aof-rewrite-percentage", "0"]
    process = processes.start(name, command, cpu)
    process.wait_for_port(port)
    return RedisServer(process, port)


def encode(arguments: Iterable[bytes]) -> bytes:
    parts = list(arguments)
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class RedisServer:
    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port

    def write(self, commands: Iterable[tuple[bytes, ...]]) -> None:
        """Sends writing commands in pipelines. Raises BenchmarkError on the first error answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            answers = connection.makefile("rb")
            batch: list[bytes] = []
            for command in commands:
                batch.append(encode(command))
                if len(batch) == PIPELINE_COMMANDS:
                    self._exchange(connection, answers.readline, batch)
                    batch = []
            self._exchange(connection, answers.readline, batch)

    @staticmethod
    def _exchange(connection: socket.socket, readline: Callable[[], bytes], batch: list[bytes]) -> None:
        connection.sendall(b"".join(batch))
        for _ in batch:
            line = readline()
            if not line or line.startswith(b"-"):
                raise BenchmarkError(f"redis refused a write: {line!r}")

    def info(self, section: str) -> dict[str, str]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(encode([b"INFO", section.encode()]))
            answers = connection.makefile("rb")
            text = answers.read(int(answers.readline()[1:])).decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
