"""Results as a table: medians over the rounds, the spread, and how each tool compares with the first one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from .jobs import Result

STEPS = ("write", "close", "rename", "in_bucket")
TRANSFERS = ("PUT PART", "PUT", "GET")
COPIES = ("COPY", "COPY PART")


def table(results: Sequence[Result]) -> str:
    """Markdown, one table per job; tools in the order of their first result, ratios to the first."""
    return "\n\n".join(_job(job, [r for r in results if r.job == job]) for job in ("write", "read"))


def _job(job: str, results: Sequence[Result]) -> str:
    columns = [f"{job}, MB/s", "min-max", "ratio", "CPU-s/GiB", "ratio", "peak RSS MiB", "local disk MiB"]
    columns += [f"{step.replace('_', ' ')} s" for step in STEPS] if job == "write" else []
    columns += ["requests", "copies"]
    lines = [_line(["tool", *columns]), _line(["---"] + ["---:"] * len(columns))]
    by_tool: dict[str, list[Result]] = {}
    for result in results:
        by_tool.setdefault(result.tool, []).append(result)
    first = next(iter(by_tool.values()), [])
    for tool, rounds in by_tool.items():
        rates = [r.mb_s for r in rounds]
        cpu = median(r.cpu_s_per_gib for r in rounds)
        cells = [
            tool,
            f"{median(rates):.0f}",
            f"{min(rates):.0f}-{max(rates):.0f}",
            f"{median(rates) / median(r.mb_s for r in first):.2f}",
            f"{cpu:.2f}",
            f"{cpu / median(r.cpu_s_per_gib for r in first):.2f}",
            f"{max(r.rss_peak for r in rounds) / 2**20:.0f}",
            f"{max(r.disk_peak for r in rounds) / 2**20:.0f}",
        ]
        if job == "write":
            cells += [_seconds(rounds, step) for step in STEPS]
        lines.append(_line([*cells, _requests(rounds), _copies(rounds)]))
    return "\n".join(lines)


def _seconds(rounds: Sequence[Result], step: str) -> str:
    known = [r.steps[step] for r in rounds if step in r.steps]
    return f"{median(known):.2f}" if known else "-"


def _requests(rounds: Sequence[Result]) -> str:
    """Of the last round: transfers by kind, then the number of all others but copies."""
    asked = Counter(rounds[-1].requests)
    shown = [f"{asked[kind]} {kind}" for kind in TRANSFERS if asked[kind]]
    rest = sum(count for kind, count in asked.items() if kind not in TRANSFERS + COPIES)
    return ", ".join([*shown, f"{rest} other"])


def _copies(rounds: Sequence[Result]) -> str:
    """Server-side copies, each of which moves the backup, or a part of it, once more."""
    asked = Counter(rounds[-1].requests)
    return ", ".join(f"{asked[kind]} {kind}" for kind in COPIES if asked[kind]) or "0"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
