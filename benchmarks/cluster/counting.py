"""The yardstick of a bootstrap: nats-py, which only counts the messages of a stream. `python -m benchmarks.cluster.counting`.

Prints, as JSON, the messages, and the processor time and the time that they took, in seconds. On the loop, and by the kind of
consumer, that a node has.
"""

import asyncio
import json
import sys
import time

import nats
import uvloop
from nats.aio.msg import Msg

TIMEOUT_S = 600.0


async def count(url: str, stream: str, expected: int) -> tuple[int, float, float]:
    """Messages, processor time, time. Raises TimeoutError."""
    client = await nats.connect(url)
    inbox, ended = client.new_inbox(), asyncio.Event()
    messages = 0

    async def take(message: Msg) -> None:
        nonlocal messages
        headers = message.headers
        if headers is not None and "Status" in headers:
            reply = message.reply or headers.get("Nats-Consumer-Stalled")
            if reply:
                await client.publish(reply, b"")
            return
        messages += 1
        if messages == expected:
            ended.set()

    await client.subscribe(inbox, cb=take, pending_msgs_limit=0, pending_bytes_limit=0)
    config = {
        "name": "counting",
        "deliver_subject": inbox,
        "deliver_policy": "all",
        "ack_policy": "none",
        "flow_control": True,
        "idle_heartbeat": 250_000_000,
        "mem_storage": True,
        "num_replicas": 1,
    }
    body = json.dumps({"stream_name": stream, "config": config, "action": "create"}).encode()
    begun_cpu_s, begun_s = time.process_time(), time.perf_counter()
    await client.request(f"$JS.API.CONSUMER.CREATE.{stream}.counting", body, timeout=10)
    await asyncio.wait_for(ended.wait(), TIMEOUT_S)
    took = messages, time.process_time() - begun_cpu_s, time.perf_counter() - begun_s
    await client.close()
    return took


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(count(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
