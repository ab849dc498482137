"""Fixtures of the wire path in memory."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.wire import Wire


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def wire(loop: asyncio.AbstractEventLoop) -> Wire:
    return Wire(loop)
