"""What a test starts and has ended for it, also when the start fails halfway."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Started(ABC):
    """A context manager that begins and, whatever happens, is closed."""

    @abstractmethod
    def begin(self) -> None:
        """Starts all of it; may fail anywhere."""

    @abstractmethod
    def close(self) -> None:
        """Ends what is there, wherever the beginning came to."""

    def __enter__(self) -> Self:
        try:
            self.begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
