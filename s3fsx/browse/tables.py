"""Text for people: columns, sizes, times, and names that a terminal cannot obey. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def safe(text: str, limit: int = 0) -> str:
    """One line without control characters: names and notes in a bucket are whatever somebody wrote. limit: characters,
    0 for all."""
    plain = text if text.isprintable() else "".join(map(_escaped, text))
    return plain if not limit or len(plain) <= limit else plain[: limit - 1] + "…"


def _escaped(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()


def human(size: float) -> str:
    """Bytes with one decimal in the largest unit that leaves 1 or more before the point."""
    if size < 1024:
        return f"{size:.0f} B"
    for unit in _UNITS:
        size /= 1024
        if size < 1023.95 or unit == _UNITS[-1]:
            break
    return f"{size:.1f} {unit}"


def local(when: float) -> str:
    """Unix seconds as local time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


def day(when: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(when))


def columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> Iterator[str]:
    """Rows with their columns aligned, two blanks between. right: numbers of columns that are aligned there."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
