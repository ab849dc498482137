"""A progress bar on standard error, where that is a terminal and rich is there; else nothing."""

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

LOOK_EVERY_S: Final = 0.1

Figures = Callable[[], tuple[int, int]]


class Bar:
    """Shown while the context lasts. figures: (done, of how much), looked at by itself; without it, `tell` is told."""

    def __init__(self, what: str, figures: Figures | None = None) -> None:
        self._what = what
        self._figures = figures
        self._progress: Any = None
        self._task: Any = None
        self._ended = threading.Event()
        self._looker: threading.Thread | None = None

    def __enter__(self) -> Self:
        if not sys.stderr.isatty():
            return self
        try:
            from rich.console import Console
            from rich.progress import Progress
        except ImportError:  # it comes with the extra `top`
            return self
        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(self._what, total=None)
        self._progress.start()
        if self._figures is not None:
            self._looker = threading.Thread(target=self._look, daemon=True)
            self._looker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        if self._looker is not None:
            self._looker.join()
        if self._progress is not None:
            self._progress.stop()

    def tell(self, done: int, total: int) -> None:
        """`done` of `total`; 0: not known."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total or None)

    def _look(self) -> None:
        assert self._figures is not None
        while not self._ended.wait(LOOK_EVERY_S):
            self.tell(*self._figures())
