"""A defect that can be planted: edits of the sources, and the tests that must fail for them."""

from typing import NamedTuple


class Edit(NamedTuple):
    """In the file at `path`, `old` becomes `new`."""

    path: str
    old: str
    new: str


class Mutant(NamedTuple):
    """tests: pytest's names of files and tests, of which at least one must fail."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]

    @property
    def needs_build(self) -> bool:
        """Whether extension modules change."""
        return any(edit.path.startswith("tokmesh/_core/") for edit in self.edits)


def mutant(name: str, path: str, old: str, new: str, *tests: str) -> Mutant:
    """With one edit."""
    return Mutant(name, (Edit(f"tokmesh/{path}", old, new),), tests)
