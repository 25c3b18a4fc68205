"""What is listed ahead of a reader, as far as that is a matter of order."""

from __future__ import annotations

from collections.abc import Iterable

from s3fsx.fs.walks import AHEAD, Walk

NAMES = [f"{n:02}" for n in range(30)]


def through(walk: Walk, names: Iterable[str], *, cold: bool = False, large: bool = False) -> list[list[str]]:
    return [walk.read(name, cold=cold, large=large) for name in names]


def test_each_once_and_at_most_so_many_in_front() -> None:
    walk = Walk(NAMES)
    ahead = through(walk, NAMES)
    assert [len(names) for names in ahead[:9]] == [0, 2, 2, 2, 2, 2, 2, 2, 1]
    assert [name for names in ahead for name in names] == NAMES[2:]
    assert all(not names or NAMES.index(names[-1]) <= at + AHEAD for at, names in enumerate(ahead))
    assert walk.over


def test_who_is_slower_than_listings_live() -> None:
    walk = Walk(NAMES)
    through(walk, NAMES[:4])
    assert through(walk, NAMES[4:], cold=True) == [[]] * 26


def test_after_large_ones_it_begins_anew() -> None:
    walk = Walk(NAMES)
    through(walk, NAMES[:3])  # 03 to 05 are listed ahead
    assert through(walk, NAMES[3:6], cold=True, large=True) == [[], [], []]
    assert through(walk, NAMES[6:7], cold=True) == [["07", "08"]]
    assert through(Walk(NAMES), NAMES, large=True) == [[]] * 30


def test_a_jump_begins_anew() -> None:
    walk = Walk(NAMES)
    through(walk, NAMES[:4])
    assert through(walk, ["20", "21", "03", "05", "04", "03", "04"]) == [[], ["22", "23"], [], [], [], [], ["05", "06"]]
