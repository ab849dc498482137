"""Rows as aligned columns, and times, for people."""

import time
from collections.abc import Sequence


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Prints them, the first one being the head; all are of one length. The last column is not padded."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]).rstrip())


def shown_time(time_ms: int) -> str:
    """Unix ms as UTC, to the second. What is beyond any calendar is shown as it is: a file or a server may say anything."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ms // 1000))
    except (OverflowError, OSError, ValueError):
        return f"{time_ms} ms"
