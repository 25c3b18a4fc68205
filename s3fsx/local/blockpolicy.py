"""What the block cache keeps: which reads are worth a place, and which versions go to make room. Pure.

Two rules. A file that is read in sequence for more than ``SEQUENTIAL`` bytes is not stored from there on: it would push
out the rest, and reading ahead makes it fast anyway. Whole versions go, the one that was not opened for the longest
time first, and none that is in use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from .blockformat import group_of

SEQUENTIAL = 8 << 20
NEAR = 4 << 20  # the kernel's own read-ahead sends requests that overtake one another, as in window


class Run:
    """How far one open file was read in sequence, whoever answered. A read elsewhere begins anew."""

    __slots__ = ("_front", "_read")

    def __init__(self) -> None:
        self._front = 0
        self._read = 0

    def read(self, offset: int, end: int) -> None:
        if abs(offset - self._front) <= NEAR:
            self._read += end - offset
            self._front = max(self._front, end)
        else:
            self._read = end - offset
            self._front = end

    @property
    def long(self) -> bool:
        return self._read > SEQUENTIAL


class Ledger:
    """The versions that are stored, by the name of their file. limit: bytes of all of them.

    Attributes:
        used: bytes of all of them.
        _sizes: bytes of each, the one that was not used for the longest time first.
        _groups: the names of one key's versions, by what they have in common.
        _users: how often a version is in use; those that are not are absent.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._groups: dict[str, set[str]] = {}
        self._users: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def use(self, name: str) -> None:
        self._users[name] = self._users.get(name, 0) + 1
        if name in self._sizes:
            self._sizes.move_to_end(name)

    def unuse(self, name: str) -> bool:
        """True when nobody uses it any more."""
        left = self._users[name] - 1
        if left:
            self._users[name] = left
        else:
            del self._users[name]
            if name in self._sizes:
                self._sizes.move_to_end(name)
        return not left

    def grow(self, name: str, size: int) -> None:
        """``size`` more bytes of it are stored."""
        self._sizes[name] = self._sizes.get(name, 0) + size
        self._groups.setdefault(group_of(name), set()).add(name)
        self.used += size

    def remove(self, name: str) -> None:
        if name in self._sizes:
            self.used -= self._sizes.pop(name)
            group = self._groups[group_of(name)]
            group.remove(name)
            if not group:
                del self._groups[group_of(name)]

    def others(self, name: str) -> list[str]:
        """Other versions of the same key that nobody uses."""
        group = self._groups.get(group_of(name), ())
        return [other for other in group if other != name and other not in self._users]

    def victims(self, size: int, free: int) -> list[str] | None:
        """What has to go so that ``size`` more bytes keep within the limit and ``free``, the bytes that may be taken
        from the disk (negative: it has too little already). None: even all that nobody uses is not enough."""
        excess = max(self.used + size - self.limit, size - free)
        chosen: list[str] = []
        for name in self._free():
            if excess <= 0:
                break
            chosen.append(name)
            excess -= self._sizes[name]
        return chosen if excess <= 0 else None

    def surplus(self, free: int) -> list[str]:
        """What has to go when the disk has too little free space by itself; all that nobody uses, if need be."""
        chosen = self.victims(0, free)
        return list(self._free()) if chosen is None else chosen

    def _free(self) -> Iterable[str]:
        return (name for name in self._sizes if name not in self._users)
