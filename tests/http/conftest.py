"""Fixtures of the wire path: in memory, and on sockets for what streams."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.streams import StreamServer
from tests.support.wire import Wire


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def wire(loop: asyncio.AbstractEventLoop) -> Wire:
    return Wire(loop)


@pytest.fixture
def stream_folders(tmp_path: Path) -> tuple[Path, Path]:
    """Of the files to send, and of uploads."""
    folder, uploads = tmp_path / "files", tmp_path / "uploads"
    folder.mkdir()
    uploads.mkdir()
    return folder, uploads


@pytest.fixture
def stream_server(stream_folders: tuple[Path, Path]) -> Iterator[StreamServer]:
    with StreamServer(*stream_folders) as server:
        yield server
