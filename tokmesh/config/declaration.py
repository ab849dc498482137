"""How a configuration key is declared: as a field of a section, with a row that says all there is to say of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tokmesh.config.values import Kind

ENVIRONMENT_PREFIX: Final = "TOKMESH_"
METADATA: Final = "tokmesh"


@dataclass(frozen=True, slots=True)
class Row:
    """What a field declares about its key. default: as it would be written; needs: the missing part, or None."""

    default: str
    kind: Kind
    meaning: str
    reloadable: bool
    needs: str | None


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its dotted name, the path of its field in Settings, its row."""

    name: str
    field_path: tuple[str, ...]
    row: Row

    @property
    def environment(self) -> str:
        """The name of the environment variable: server.http.address → TOKMESH_SERVER_HTTP_ADDRESS."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace(".", "_")


def key(default: str, kind: Kind, meaning: str, *, reloadable: bool = False, needs: str | None = None) -> Any:
    """Declares a field of a section as a configuration key."""
    row = Row(default, kind, meaning, reloadable, needs)
    return field(default_factory=lambda: kind.parse(default, Path.cwd()), metadata={METADATA: row})


def section(factory: Callable[[], Any]) -> Any:
    """Declares a field as a nested section."""
    return field(default_factory=factory)
