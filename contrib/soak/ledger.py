"""What was promised, what became of it, and what was done to break it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .content import Content

_SHOWN = 20  # of each kind of finding; the count is exact


@dataclass
class Possible:
    """What may be under a name: one of these, whole, or nothing where ``absent``."""

    contents: list[Content]
    absent: bool = True


@dataclass
class Ledger:
    """Thread-safe. acknowledged: a call returned success for it and nobody has begun to change it; uncertain: a call
    that changes it is under way, failed, or its answer was lost. Paths are relative to the mount.

    findings: what must not be: lost, damaged, half visible, a hang, an error without a fault. faults: by kind.
    """

    seed: int
    started: float = field(default_factory=time.time)
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)
    worst: dict[str, float] = field(default_factory=dict)
    acknowledged: dict[str, tuple[Content, float]] = field(default_factory=dict)
    uncertain: dict[str, Possible] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _pins: Counter[str] = field(default_factory=Counter)

    def add(self, what: str, amount: int = 1) -> None:
        with self.lock:
            self.counts[what] += amount

    def fault(self, kind: str) -> None:
        with self.lock:
            self.faults[kind] += 1

    def found(self, kind: str, text: str) -> None:
        """Something that must not be."""
        with self.lock:
            self.findings[kind] += 1
            if len(self.shown) < _SHOWN:
                self.shown.append(f"{kind}: {text}")

    def at_worst(self, name: str, value: float) -> None:
        with self.lock:
            self.worst[name] = max(value, self.worst.get(name, 0.0))

    # -- files

    def attempt(self, path: str, content: Content) -> None:
        """A call that creates or replaces it is about to be made."""
        with self.lock:
            old = self.acknowledged.pop(path, None)
            possible = self.uncertain.setdefault(path, Possible([] if old is None else [old[0]], absent=old is None))
            possible.contents.append(content)

    def acknowledge(self, path: str, content: Content) -> None:
        with self.lock:
            self.uncertain.pop(path, None)
            self.acknowledged[path] = (content, time.monotonic())
            self.counts["files_acknowledged"] += 1
            self.counts["bytes_written"] += content.size

    def renamed(self, old: str, new: str, content: Content) -> None:
        with self.lock:
            self.gone(old)
            self.acknowledge(new, content)

    def free(self, path: str) -> bool:
        """Nobody reads it just now."""
        with self.lock:
            return not self._pins[path]

    def remove(self, path: str) -> None:
        """A call that removes it is about to be made."""
        with self.lock:
            old = self.acknowledged.pop(path, None)
            possible = self.uncertain.setdefault(path, Possible([] if old is None else [old[0]]))
            possible.absent = True

    def gone(self, path: str) -> None:
        """A call said that there is nothing of that name (any more)."""
        with self.lock:
            self.acknowledged.pop(path, None)
            self.uncertain.pop(path, None)

    def files(self, below: str) -> dict[str, Content]:
        """What is acknowledged there."""
        with self.lock:
            return {path: content for path, (content, _) in self.acknowledged.items() if path.startswith(below)}

    def older_than(self, seconds: float, below: str) -> set[str]:
        """Acknowledged for that long."""
        now = time.monotonic()
        with self.lock:
            items = self.acknowledged.items()
            return {path for path, (_, when) in items if path.startswith(below) and now - when > seconds}

    def pin(self, path: str) -> Content | None:
        """For as long as it is read: it is not removed meanwhile. None: it is not acknowledged (any more)."""
        with self.lock:
            known = self.acknowledged.get(path)
            if known is not None:
                self._pins[path] += 1
            return None if known is None else known[0]

    def unpin(self, path: str) -> None:
        with self.lock:
            self._pins[path] -= 1

    # -- the end

    @property
    def good(self) -> bool:
        return not self.findings

    def report(self) -> dict[str, Any]:
        with self.lock:
            kinds = ("lost", "damaged", "half_visible", "hangs", "errors_without_a_fault", "left_over_uploads")
            return {
                "seed": self.seed,
                "seconds": round(time.time() - self.started, 1),
                **dict(sorted(self.counts.items())),
                "faults": dict(sorted(self.faults.items())),
                **{name: round(value, 1) for name, value in sorted(self.worst.items())},
                **{kind: self.findings[kind] for kind in kinds},
                "findings": self.shown,
            }
