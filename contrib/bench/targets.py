"""The targets that s3fsx has set itself, against what was measured. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from .link import CONDITIONS, Condition
from .report import MIB, figure, grouped, paired_ratio
from .result import Result

OURS = "s3fsx"
OTHERS = ("s3fs", "rclone-writes", "rclone-off")
METADATA = (
    "small write", "small list", "small stat", "small read", "small delete", "list cold", "list warm", "prune",
)  # fmt: skip
RSS = 300 * MIB
CPU = {"write": 2.5, "vzdump": 2.5, "read": 1.2}  # seconds per GiB
DISK = 1 * MIB  # "0": journal and cache of names are not the backup
FIRST_BYTE = 0.020  # seconds above one round trip
OF_LINK = 0.95


@dataclass(frozen=True)
class Row:
    """One target under one condition of the network. met: None where what it needs was not measured."""

    number: int
    link: str
    target: str
    seen: str
    met: bool | None


Groups = dict[tuple[str, str], dict[str, list[Result]]]


def rows(results: Sequence[Result]) -> list[Row]:
    """For every condition that was measured, in the order of the targets."""
    groups = grouped(results)
    links = list(dict.fromkeys(link for link, _ in groups))
    return [row for check in CHECKS for link in links for row in check(groups, link)]


def _condition(link: str) -> Condition:
    return CONDITIONS[link.removesuffix(" tls")]


def _ratio(groups: Groups, link: str, job: str, against: Sequence[str], reference: str | None = None) -> float | None:
    """reference: the job of the others, when it has another name."""
    ours = groups.get((link, job), {}).get(OURS, [])
    by_tool = groups.get((link, reference or job), {})
    return paired_ratio(ours, [r for tool in against for r in by_tool.get(tool, [])])


def _at_least(
    groups: Groups,
    number: int,
    link: str,
    job: str,
    factor: float,
    against: Sequence[str],
    reference: str | None = None,
) -> Iterator[Row]:
    """A row when s3fsx has done the job."""
    if OURS not in groups.get((link, job), {}):
        return
    ratio = _ratio(groups, link, job, against, reference)
    name = "the best of s3fs and rclone" if against is OTHERS else against[0]
    seen = "not measured" if ratio is None else f"{ratio:.2f}x"
    yield Row(number, link, f"{job}: at least {factor:g}x {name}", seen, None if ratio is None else ratio >= factor)


def _writing(groups: Groups, link: str) -> Iterator[Row]:
    if _condition(link).mbit:
        return
    for job in ("write", "vzdump"):
        yield from _at_least(groups, 1, link, job, 1.5, OTHERS)
        yield from _at_least(groups, 1, link, job, 0.8, ("boto3",), "write")


def _reading(groups: Groups, link: str) -> Iterator[Row]:
    if not _condition(link).mbit:
        yield from _at_least(groups, 2, link, "read", 2.0, OTHERS)
        yield from _at_least(groups, 2, link, "read", 0.7, ("boto3",))
    rounds = groups.get((link, "first byte"), {}).get(OURS)
    if rounds:
        limit = _condition(link).delay_ms / 1000 + FIRST_BYTE
        seen = median(r.seconds for r in rounds)
        yield Row(2, link, f"first byte within {limit * 1000:.0f} ms", figure(seen, 0), seen <= limit)


def _random(groups: Groups, link: str) -> Iterator[Row]:
    for _, job in [key for key in groups if key[0] == link and key[1].startswith("random")]:
        if job.endswith("cold"):
            yield from _at_least(groups, 3, link, job, 1.0, OTHERS)
        else:
            yield from _at_least(groups, 3, link, job, 0.5, ("local",))


def _metadata(groups: Groups, link: str) -> Iterator[Row]:
    for job in METADATA:
        yield from _at_least(groups, 4, link, job, 1.0, OTHERS)


def _cost(groups: Groups, link: str) -> Iterator[Row]:
    ours = {job: by_tool[OURS] for (where, job), by_tool in groups.items() if where == link and OURS in by_tool}
    if not ours:
        return
    worst, job = max((max(r.rss_peak for r in rounds), job) for job, rounds in ours.items())
    yield Row(5, link, f"peak RSS <= {RSS // MIB} MiB", f"{worst / MIB:.0f} MiB ({job})", worst <= RSS)
    for job in ("write", "vzdump"):
        if job in ours:
            disk = max(r.disk_peak for r in ours[job])
            yield Row(5, link, f"{job}: no local disk", f"{disk / MIB:.1f} MiB", disk < DISK)
    for job, limit in CPU.items():
        if job in ours:
            seen = median(r.cpu_s_per_gib or 0.0 for r in ours[job])
            yield Row(5, link, f"{job}: <= {limit} CPU-s/GiB", f"{seen:.2f}", seen <= limit)


def _link(groups: Groups, link: str) -> Iterator[Row]:
    payload = _condition(link).payload
    if not payload:
        return
    for job in ("write", "read"):
        rounds = groups.get((link, job), {}).get(OURS)
        if rounds:
            share = median(r.speed for r in rounds) / payload
            target = f"{job}: at least {OF_LINK:.0%} of the {payload / 1e6:.1f} MB/s that TCP has there"
            yield Row(6, link, target, f"{share:.1%}", share >= OF_LINK)


CHECKS: tuple[Callable[[Groups, str], Iterator[Row]], ...] = (_writing, _reading, _random, _metadata, _cost, _link)


def target_table(results: Sequence[Result]) -> str:
    """Markdown."""
    words = {True: "yes", False: "**no**", None: "-"}
    lines = ["| # | network | target | seen | met |", "| --- | --- | --- | ---: | --- |"]
    lines += [f"| {r.number} | {r.link} | {r.target} | {r.seen} | {words[r.met]} |" for r in rows(results)]
    return "\n".join(lines)
