"""Pages of a listing: prefixes rolled up, cut after a number of entries. Pure.

The source gives keys in order and can be told to go on behind a prefix, so that what is rolled up is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Keys(Protocol):
    """In the order of their UTF-8."""

    def __next__(self) -> bytes: ...
    def __iter__(self) -> Keys: ...
    def seek(self, key: bytes) -> None:
        """The next key is the first one not before ``key``."""
        ...


@dataclass(frozen=True, slots=True)
class Cut(Generic[T]):
    """next_key: where to go on, the last key or prefix told; empty at the end. next_mark: of the last entry."""

    entries: list[T]
    prefixes: list[bytes]
    next_key: bytes
    next_mark: str


def successor(prefix: bytes) -> bytes | None:
    """The first key behind all that begin with ``prefix``; None: there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


def cut(
    keys: Keys,
    of_key: Callable[[bytes], Iterator[tuple[T, str]]],
    prefix: bytes,
    delimiter: bytes,
    after: bytes,
    limit: int,
) -> Cut[T]:
    """of_key: the entries of one key with their marks; none where it has gone meanwhile.

    after: a key, or a prefix that was told as the last one. It is left to of_key to leave out entries of ``after``;
    whoever lists plain keys seeks behind it.
    """
    entries: list[T] = []
    prefixes: list[bytes] = []
    last, mark = b"", ""
    if delimiter and after.startswith(prefix) and delimiter in after[len(prefix) :]:
        rolled = _rolled(after, prefix, delimiter)
        if rolled == after:  # that prefix was told
            behind = successor(after)
            if behind is None:
                return Cut(entries, prefixes, b"", "")
            keys.seek(behind)
    while True:
        try:
            key = next(keys)
        except StopIteration:
            return Cut(entries, prefixes, b"", "")
        if delimiter and delimiter in key[len(prefix) :]:
            rolled = _rolled(key, prefix, delimiter)
            if len(entries) + len(prefixes) == limit:
                return Cut(entries, prefixes, last, mark)
            prefixes.append(rolled)
            last, mark = rolled, ""
            behind = successor(rolled)
            if behind is None:
                return Cut(entries, prefixes, b"", "")
            keys.seek(behind)
            continue
        for entry, its_mark in of_key(key):
            if len(entries) + len(prefixes) == limit:
                return Cut(entries, prefixes, last, mark)
            entries.append(entry)
            last, mark = key, its_mark


def _rolled(key: bytes, prefix: bytes, delimiter: bytes) -> bytes:
    end = key.index(delimiter, len(prefix)) + len(delimiter)
    return key[:end]
