"""What a walk through an archive is, whatever its format: fed as the bytes come, it keeps nothing of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Summary:
    """what: in words. count: disks or files. size: their bytes."""

    what: str
    count: int
    size: int


class Walk(Protocol):
    @property
    def files(self) -> tuple[tuple[str, bytes], ...] | None:
        """The guest's configuration, name and content; None as long as it has not come."""
        ...

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes. Raises ArchiveDamaged."""
        ...

    def finish(self) -> Summary:
        """There are no more. Raises ArchiveDamaged where that is too early."""
        ...
