"""What several files of these tests start with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nats import NatsCluster


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Of a server of this test alone, without a stream; ended at the end."""
    folder = tmp_path / "nats"
    folder.mkdir()
    with NatsCluster(folder, 1) as nats:
        yield nats.urls[0]
