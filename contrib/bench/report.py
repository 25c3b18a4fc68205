"""Results as tables: medians over the rounds, the spread, and how each tool compares with the first one. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from .result import Result

COPIES = ("COPY", "COPY PART")
MIB = 2**20


def grouped(results: Iterable[Result]) -> dict[tuple[str, str], dict[str, list[Result]]]:
    """(link, job) -> tool -> its rounds; all in the order of their first result."""
    groups: dict[tuple[str, str], dict[str, list[Result]]] = {}
    for result in results:
        groups.setdefault((result.link, result.job), {}).setdefault(result.tool, []).append(result)
    return groups


def paired_ratio(ours: Sequence[Result], theirs: Sequence[Result]) -> float | None:
    """How many times as fast ours is: median of the ratios within the rounds in which both have a result, against the
    fastest of theirs. None when there is no such round."""
    best: dict[int, float] = {}
    for result in theirs:
        best[result.round] = max(best.get(result.round, 0.0), result.speed)
    ratios = [result.speed / best[result.round] for result in ours if result.round in best]
    return median(ratios) if ratios else None


def figure(seconds: float, size: int) -> str:
    """MB/s (10^6 bytes) where bytes are moved, else a time."""
    if size:
        return f"{size / seconds / 1e6:.0f}" if size / seconds > 1e7 else f"{size / seconds / 1e6:.1f}"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def table(results: Sequence[Result]) -> str:
    """Markdown, one table for each condition and job."""
    return "\n\n".join(_job(link, job, by_tool) for (link, job), by_tool in grouped(results).items())


def _job(link: str, job: str, by_tool: dict[str, list[Result]]) -> str:
    first = next(iter(by_tool.values()))
    moved = bool(first[0].size)
    steps = list(dict.fromkeys(step for rounds in by_tool.values() for r in rounds for step in r.steps))
    columns = ["MB/s" if moved else "time", "min-max", "ratio", "CPU-s/GiB" if moved else "CPU s", "peak RSS MiB"]
    columns += ["local disk MiB", *(f"{step} s" for step in steps), "requests", "copies", "sent MiB", "received MiB"]
    lines = [f"**{job}**, {link}", "", _line(["tool", *columns]), _line(["---"] + ["---:"] * len(columns))]
    lines += [_line(_cells(tool, rounds, first, steps)) for tool, rounds in by_tool.items()]
    return "\n".join(lines)


def _cells(tool: str, rounds: Sequence[Result], first: Sequence[Result], steps: Sequence[str]) -> list[str]:
    size = rounds[0].size
    times = sorted(r.seconds for r in rounds)
    spread = (times[-1], times[0]) if size else (times[0], times[-1])
    ratio = paired_ratio(rounds, first)
    cpu = median(r.cpu_s if r.cpu_s_per_gib is None else r.cpu_s_per_gib for r in rounds)
    return [
        tool,
        figure(median(times), size),
        "-".join(figure(t, size) for t in spread),
        "-" if ratio is None else f"{ratio:.2f}",
        f"{cpu:.2f}",
        f"{max(r.rss_peak for r in rounds) / MIB:.0f}",
        f"{max(r.disk_peak for r in rounds) / MIB:.0f}",
        *(_seconds(rounds, step) for step in steps),
        _requests(rounds),
        _copies(rounds),
        f"{median(r.sent for r in rounds) / MIB:.1f}",
        f"{median(r.received for r in rounds) / MIB:.1f}",
    ]


def _seconds(rounds: Sequence[Result], step: str) -> str:
    known = [r.steps[step] for r in rounds if step in r.steps]
    return f"{median(known):.3g}" if known else "-"


def _requests(rounds: Sequence[Result]) -> str:
    """Of the last round, by kind, most first; copies have a column of their own."""
    asked = Counter(rounds[-1].requests)
    return ", ".join(f"{count} {kind}" for kind, count in asked.most_common() if kind not in COPIES) or "0"


def _copies(rounds: Sequence[Result]) -> str:
    """Server-side copies, each of which moves the backup, or a part of it, once more."""
    asked = Counter(rounds[-1].requests)
    return ", ".join(f"{asked[kind]} {kind}" for kind in COPIES if asked[kind]) or "0"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
