"""Which backups a prune keeps: the algorithm of Proxmox, in the order and with the ties it has there. Pure.

PVE::Storage::prune_mark_backup_group, and PVE::Storage::Plugin::prune_backups for what comes into a group. Each rule
goes through the backups of one guest, the newest first, and keeps the newest of each of its periods, until it has kept
as many as it may. A period in which an earlier rule keeps one is passed over and does not count; what a rule finds in a
period it has just filled is removed, whatever later rules say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .names import Archive

KEEP, REMOVE, PROTECTED, RENAMED = "keep", "remove", "protected", "renamed"


@dataclass(frozen=True, slots=True)
class Keep:
    """How many of each to keep. Nothing above 0: everything."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    def __bool__(self) -> bool:
        return any((self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly))


@dataclass(frozen=True, slots=True)
class Candidate:
    archive: Archive
    protected: bool


def _period(form: str) -> Callable[[float], str]:
    return lambda when: time.strftime(form, time.localtime(when))


# In the order in which they are applied. %G and %V: the year and week of ISO 8601.
_RULES: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("last", str),
    ("hourly", _period("%H/%d/%m/%Y")),
    ("daily", _period("%d/%m/%Y")),
    ("weekly", _period("%V/%G")),
    ("monthly", _period("%m/%Y")),
    ("yearly", _period("%Y")),
)


def mark(candidates: Sequence[Candidate], keep: Keep) -> list[str]:
    """One of KEEP, REMOVE, PROTECTED, RENAMED for each candidate, in their order. Protected and renamed ones are kept,
    and count for nothing."""
    marks: list[str | None] = []
    groups: dict[tuple[str, int], list[int]] = {}
    for i, candidate in enumerate(candidates):
        archive = candidate.archive
        standard = archive.when is not None and archive.vmid is not None and archive.kind
        if standard:
            groups.setdefault((archive.kind, archive.vmid or 0), []).append(i)
        marks.append(PROTECTED if candidate.protected else None if standard else RENAMED)
    for members in groups.values():
        _mark_group(members, [candidate.archive.when or 0.0 for candidate in candidates], marks, keep)
    return [found or KEEP for found in marks]


def _mark_group(members: Iterable[int], times: Sequence[float], marks: list[str | None], keep: Keep) -> None:
    if not keep:
        return
    newest_first = sorted(members, key=lambda i: -times[i])
    for name, period in _RULES:
        _apply(newest_first, times, marks, getattr(keep, name), period)
    for i in newest_first:
        marks[i] = marks[i] or REMOVE


def _apply(
    newest_first: Sequence[int],
    times: Sequence[float],
    marks: list[str | None],
    count: int,
    period: Callable[[float], str],
) -> None:
    if not count:
        return
    before = {period(times[i]) for i in newest_first if marks[i] == KEEP}
    filled: set[str] = set()
    for i in newest_first:
        this = period(times[i])
        if marks[i] is not None or this in before:
            continue
        if this in filled:
            marks[i] = REMOVE
        elif len(filled) < count:
            filled.add(this)
            marks[i] = KEEP
        else:
            return
