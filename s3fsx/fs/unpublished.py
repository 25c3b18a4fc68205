"""What programs have written and the bucket has not, and since when."""

from __future__ import annotations

import time
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Protocol


class _Upload(Protocol):
    in_flight: int

    @property
    def parts(self) -> Sized: ...

    @property
    def size(self) -> int: ...


class _Content(Protocol):
    size: int

    @property
    def upload(self) -> _Upload | None: ...


class _Named(Protocol):
    @property
    def path(self) -> str: ...


class _Writer(Protocol):
    dirty: bool
    settled_at: float | None

    @property
    def error(self) -> Exception | None: ...


@dataclass(frozen=True, slots=True)
class Pending:
    """since: Unix seconds of the first unpublished change. stored: bytes of it in the bucket, as parts. settled: all of
    them; it waits for its rename."""

    path: str
    since: float
    size: int
    stored: int
    parts: int
    parts_in_flight: int
    settled: bool


@dataclass(frozen=True, slots=True)
class _Entry:
    since: float
    content: _Content
    named: _Named


class Unpublished:
    """Who has something. Nobody says when it is published or lost: whoever is ``dirty`` no more is forgotten."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._entries: dict[_Writer, _Entry] = {}

    def begin(self, writer: _Writer, content: _Content, named: _Named, since: float | None = None) -> None:
        """From now on (or since) it has something."""
        self._forget()
        self._entries[writer] = _Entry(self._now() if since is None else since, content, named)

    def _forget(self) -> None:
        for writer in [each for each in self._entries if not each.dirty or each.error is not None]:
            del self._entries[writer]

    def pending(self) -> list[Pending]:
        """Oldest first."""
        self._forget()
        found = []
        for writer, entry in self._entries.items():
            content, upload = entry.content, entry.content.upload
            stored, parts, in_flight = (
                (0, 0, 0) if upload is None else (upload.size, len(upload.parts), upload.in_flight)
            )
            found.append(
                Pending(
                    entry.named.path, entry.since, content.size, stored, parts, in_flight, writer.settled_at is not None
                )
            )
        return sorted(found, key=lambda each: each.since)
