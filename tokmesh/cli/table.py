"""Rows as aligned columns, for people."""

from collections.abc import Sequence


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Prints them, the first one being the head; all are of one length. The last column is not padded."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]).rstrip())
