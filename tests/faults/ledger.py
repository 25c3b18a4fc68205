"""What programs were told, and what therefore must and may be there after a crash.

Contents are bytes; None is "no such file". An operation that was under way leaves its names uncertain: old or new, and
what it moved under one of its two names at least.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

Content = bytes | None


@dataclass
class Ledger:
    """may: what a name may stand for, one content where a call has returned. moving: (from, to) -> the content that is
    on its way. waiting: temporary names that may be closed and not renamed. told: operations that returned success."""

    may: dict[str, set[Content]] = field(default_factory=dict)
    moving: dict[tuple[str, str], bytes] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    told: int = 0

    def content(self, name: str) -> Content:
        (content,) = self.may.get(name, {None})
        return content

    def names(self) -> list[str]:
        """Of files that are there for certain."""
        return sorted(name for name, contents in self.may.items() if len(contents) == 1 and None not in contents)

    def _changing(self, name: str, new: Content) -> None:
        self.may[name] = self.may.get(name, {None}) | {new}

    def _is(self, name: str, content: Content) -> None:
        self.may[name] = {content}
        self.told += 1

    @contextmanager
    def writing(self, name: str, data: bytes, *, waits: bool = False) -> Iterator[None]:
        """The name gets this content. waits: it is a temporary name, not in the bucket before its rename."""
        self._changing(name, data)
        if waits:
            self.waiting.add(name)
        yield
        self._is(name, data)

    @contextmanager
    def removing(self, name: str) -> Iterator[None]:
        self._changing(name, None)
        yield
        self._is(name, None)
        self.waiting.discard(name)

    @contextmanager
    def renaming(self, names: Mapping[str, str]) -> Iterator[None]:
        """One file, or all files of a directory, from old to new name."""
        for old, new in names.items():
            content = self.content(old)
            assert content is not None
            self.moving[old, new] = content
            self._changing(old, None)
            self._changing(new, content)
        yield
        for old, new in names.items():
            self._is(old, None)
            self._is(new, self.moving.pop((old, new)))
            self.waiting.discard(old)

    def is_back(self, name: str) -> bool:
        """A temporary name is there after the crash: it was closed, whether or not the program heard of it. False: it
        may also be what was closed before."""
        contents = self.may[name] - {None}
        if len(contents) == 1:
            self.may[name] = contents
        return len(contents) == 1

    def judge(self, found: Mapping[str, Content]) -> list[str]:
        """What is wrong with the contents that were found after a crash, under every name there is; from then on they
        are certain."""
        wrong = [
            f"{name}: {_size(found.get(name))} instead of {' or '.join(sorted(map(_size, self.may.get(name, {None}))))}"
            for name in {*found, *self.may}
            if found.get(name) not in self.may.get(name, {None})
        ]
        wrong += [
            f"{old} -> {new}: under neither name"
            for (old, new), content in self.moving.items()
            if content not in (found.get(old), found.get(new))
        ]
        self.moving.clear()
        self.may = {name: {found.get(name)} for name in self.may if found.get(name) is not None}
        self.waiting &= set(self.may)
        return wrong


def _size(content: Content) -> str:
    return "nothing" if content is None else f"{len(content)} bytes, {hash(content) & 0xFFFF:04x}"
