import asyncio
from typing import Any

from tokmesh._core.intake import Intake

class Connection(Intake):
    def resume(self, future: asyncio.Future[Any]) -> None: ...
