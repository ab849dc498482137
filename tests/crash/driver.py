"""A process that writes a log and says what was acknowledged; other tests kill it, or break its disk.

    python -m tests.crash.driver DIRECTORY --prefix P [--records N] [--clients C] [--segment-bytes B] [--sync-mode M]
        [--file-size-limit BYTES] [--retry N] [--form F]

Each client proposes `P.<client>.<index>` one after the other. Lines on stdout, each one write: `A <sequence> <text>
<padding>` after an acknowledgement, `F <code>` after a refusal, at last `S <stats as JSON>`. A refusal ends its client
after N of them.
"""

import argparse
import asyncio
import json
import os
import resource
from pathlib import Path

from tests.crash.records import FORMS, Note, make_log
from tokmesh.errors import ApiError
from tokmesh.log.file_log import FileLog


async def client(log: FileLog[Note], name: str, records: int, refusals_max: int) -> None:
    refusals = 0
    for index in range(records):
        note = Note(f"{name}.{index}", padding=(index * 37) % 300, reserved=index % 10 == 9)
        try:
            sequence = await log.propose(note)
        except ApiError as error:
            # A refusal is given at once, while answers decided before it may still be on their way: the log's callback is in the
            # loop's queue, and the clients that it wakes come a turn later.
            for _ in range(2):
                await asyncio.sleep(0)
            os.write(1, f"F {error.code}\n".encode())
            refusals += 1
            if refusals >= refusals_max:
                return
        else:
            os.write(1, f"A {sequence} {note.text} {note.padding}\n".encode())


async def life(arguments: argparse.Namespace) -> None:
    log = make_log(Path(arguments.directory), arguments.segment_bytes, arguments.sync_mode, keys=FORMS[arguments.form])
    log.recover(lambda sequence, note: None)
    if arguments.file_size_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (arguments.file_size_limit, arguments.file_size_limit))
    log.start(asyncio.get_running_loop(), lambda sequence, note: sequence)
    await asyncio.gather(
        *(client(log, f"{arguments.prefix}.{c}", arguments.records, arguments.retry) for c in range(arguments.clients))
    )
    stats = log.stats() | {"failure": log.failure, "writable": log.writable}
    await log.close()
    os.write(1, f"S {json.dumps(stats)}\n".encode())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--prefix", default="r")
    parser.add_argument("--records", type=int, default=100)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--segment-bytes", type=int, default=4096)
    parser.add_argument("--sync-mode", default="always")
    parser.add_argument("--file-size-limit", type=int, default=0)
    parser.add_argument("--retry", type=int, default=5)
    parser.add_argument("--form", choices=FORMS, default="plain")
    asyncio.run(life(parser.parse_args()))


if __name__ == "__main__":
    main()
