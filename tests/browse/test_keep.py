"""The keep rules: cases made by hand after Proxmox's documentation, and a second formulation of the whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.browse.keep import KEEP, PROTECTED, REMOVE, RENAMED, Candidate, Keep, mark
from s3fsx.browse.names import Archive, parse


@pytest.fixture(autouse=True, params=["UTC", "Europe/Vienna", "America/St_Johns"])
def zone(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


def candidate(when: str, *, vmid: int = 100, kind: str = "qemu", protected: bool = False) -> Candidate:
    archive = parse(f"vzdump-{kind}-{vmid}-{when}.vma.zst")
    assert archive is not None
    return Candidate(archive, protected)


def days(*texts: str) -> list[Candidate]:
    return [candidate(f"2026_{text.replace('-', '_')}-22_00_00") for text in texts]


def kept(candidates: list[Candidate], keep: Keep) -> list[str]:
    marks = mark(candidates, keep)
    return [
        c.archive.name.split("-", 3)[3].split("-22")[0][5:].replace("_", "-")
        for c, found in zip(candidates, marks, strict=True)
        if found == KEEP
    ]


def test_nothing_to_keep_is_to_keep_all() -> None:
    assert kept(days("11-01", "11-02"), Keep()) == ["11-01", "11-02"]


def test_the_last_ones_are_the_newest() -> None:
    assert kept(days("11-03", "11-01", "11-02"), Keep(last=2)) == ["11-03", "11-02"]


def test_one_a_day_is_the_newest_of_the_day() -> None:
    hourly = [candidate(f"2026_11_0{day}-{hour:02}_00_00") for day in (1, 2, 3) for hour in (1, 9, 23)]
    marks = mark(hourly, Keep(daily=2))
    assert [c.archive.name[16:29] for c, m in zip(hourly, marks, strict=True) if m == KEEP] == [
        "2026_11_02-23",
        "2026_11_03-23",
    ]


def test_weeks_are_those_of_iso_8601_also_over_new_year() -> None:
    """2026-12-28 to 2027-01-03 is week 53 of 2026; 2027-01-04 begins week 1."""
    found = [candidate(f"{day}-12_00_00") for day in ("2026_12_27", "2026_12_28", "2027_01_03", "2027_01_04")]
    assert mark(found, Keep(weekly=2)) == [REMOVE, REMOVE, KEEP, KEEP]
    assert mark(found, Keep(yearly=2)) == [REMOVE, KEEP, REMOVE, KEEP]


def test_a_period_that_an_earlier_rule_keeps_one_of_does_not_count() -> None:
    """The documentation: "the rules are applied in order, and each covers only what the ones before have not"."""
    backups = days("11-20", "11-19", "11-18", "11-17", "11-16")
    assert kept(backups, Keep(last=2, daily=2)) == ["11-20", "11-19", "11-18", "11-17"]
    # A week passes over that of the daily ones (from the 16th); the one before it has the 15th.
    backups = days("11-20", "11-19", "11-15", "11-14", "11-08", "11-01", "10-31")
    assert kept(backups, Keep(daily=2, weekly=2, monthly=1)) == ["11-20", "11-19", "11-15", "11-08", "10-31"]


def test_what_a_rule_has_removed_no_later_one_keeps() -> None:
    """keep-daily removes the older one of the 20th though keep-hourly, had it come later, would want it."""
    backups = [candidate(f"2026_11_{text}") for text in ("20-12_00_00", "20-11_00_00", "19-12_00_00")]
    assert mark(backups, Keep(daily=2, weekly=5)) == [KEEP, REMOVE, KEEP]


def test_gaps_are_no_periods() -> None:
    assert kept(days("11-20", "09-10", "03-01"), Keep(daily=3)) == ["11-20", "09-10", "03-01"]


def test_the_example_of_the_documentation() -> None:
    """Proxmox VE Administration Guide, "Backup Retention": a daily backup, keep-last 3, keep-daily 13, keep-yearly 8
    and, for the months between, keep-monthly 11."""
    day, all_days = datetime(2026, 11, 27, 22), []
    for _ in range(3 * 365):
        all_days.append(candidate(day.strftime("%Y_%m_%d-%H_%M_%S")))
        day -= timedelta(days=1)
    rules = Keep(last=3, daily=13, monthly=11, yearly=8)
    names = [c.archive.name[16:26] for c, m in zip(all_days, mark(all_days, rules), strict=True) if m == KEEP]
    assert names[:16] == [f"2026_11_{n}" for n in range(27, 11, -1)], "3, and 13 days beyond them"
    assert names[16:27] == [
        *("2026_10_31", "2026_09_30", "2026_08_31", "2026_07_31", "2026_06_30", "2026_05_31"),
        *("2026_04_30", "2026_03_31", "2026_02_28", "2026_01_31", "2025_12_31"),
    ]
    assert names[27:] == ["2024_12_31", "2023_12_31"], "2025 and 2026 are kept by the months"


def test_protected_ones_stay_and_do_not_count() -> None:
    backups = [candidate(f"2026_11_{n}-22_00_00", protected=n == 20) for n in (20, 19, 18)]
    assert mark(backups, Keep(last=1)) == [PROTECTED, KEEP, REMOVE]
    assert mark(backups, Keep(daily=1)) == [PROTECTED, KEEP, REMOVE]


def test_renamed_ones_stay_and_do_not_count() -> None:
    renamed = [
        parse("vzdump-qemu-100-golden.vma.zst"),
        parse("mine.tar"),
        parse("vzdump-qemu-9-2026_11_20-22_00_00.vma"),
    ]
    found = [Candidate(archive, protected=False) for archive in renamed if archive is not None] + days("11-20", "11-19")
    assert mark(found, Keep(last=1)) == [RENAMED, RENAMED, RENAMED, KEEP, REMOVE]


def test_each_guest_by_itself() -> None:
    one = [candidate("2026_11_20-22_00_00", vmid=v, kind=k) for v, k in ((100, "qemu"), (100, "lxc"), (101, "qemu"))]
    assert mark(one, Keep(last=1)) == [KEEP] * 3


# -- the same, said otherwise: a set of what is kept, period by period, instead of marks passed from rule to rule

FORMATS = {
    "last": "%s",
    "hourly": "%Y%m%d%H",
    "daily": "%Y%m%d",
    "weekly": "%G%V",
    "monthly": "%Y%m",
    "yearly": "%Y",
}


def expected(times: list[float], keep: Keep) -> set[int]:
    """Indices that are kept, of one guest's unprotected backups."""
    if not keep:
        return set(range(len(times)))
    kept: set[int] = set()
    lost: set[int] = set()
    order = sorted(range(len(times)), key=lambda i: times[i], reverse=True)
    for rule, form in FORMATS.items():
        limit = getattr(keep, rule)
        names = {i: datetime.fromtimestamp(times[i]).astimezone().strftime(form) for i in order}
        covered = {names[i] for i in kept}
        free = [i for i in order if i not in kept and i not in lost and names[i] not in covered]
        chosen = list(dict.fromkeys(names[i] for i in free))[:limit]
        for period in chosen:
            first, *others = [i for i in free if names[i] == period]
            kept.add(first)
            # Up to where the rule stops looking: at the first of a period that it may not fill any more.
            stop = next((n for n, i in enumerate(free) if names[i] not in chosen), len(free))
            lost |= {i for i in others if free.index(i) < stop}
    return kept


@given(
    st.lists(st.integers(0, 900), max_size=40),
    st.lists(st.integers(0, 4), min_size=6, max_size=6),
    st.sampled_from([600.0, 7200.0, 43200.0, 864000.0]),
)
def test_against_a_second_formulation(ticks: list[int], counts: list[int], unit: float) -> None:
    times = [1_790_000_000 + tick * unit for tick in ticks]
    keep = Keep(*counts)
    archives = [Archive(f"{i}", "qemu", 100, when, "vma", "") for i, when in enumerate(times)]
    marks = mark([Candidate(archive, protected=False) for archive in archives], keep)
    assert {i for i, found in enumerate(marks) if found == KEEP} == expected(times, keep)
    assert set(marks) <= {KEEP, REMOVE}


@given(
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from([100, 101, 102]), st.booleans()), max_size=30),
    st.lists(st.integers(0, 3), min_size=6, max_size=6),
)
def test_others_change_nothing(entries: list[tuple[int, int, bool]], counts: list[int]) -> None:
    """Protected ones, and those of other guests, could as well not be there."""
    candidates = [
        Candidate(Archive(f"{i}", "lxc", vmid, 1_790_000_000 + 40_000.0 * tick, "tar", ""), protected)
        for i, (tick, vmid, protected) in enumerate(entries)
    ]
    keep, marks = Keep(*counts), mark(candidates, Keep(*counts))
    for vmid in (100, 101, 102):
        alone = [i for i, c in enumerate(candidates) if c.archive.vmid == vmid and not c.protected]
        assert [marks[i] for i in alone] == mark([candidates[i] for i in alone], keep)
    assert all(marks[i] == PROTECTED for i, c in enumerate(candidates) if c.protected)
