"""Concurrency on simulated links: it must find how many in flight are enough, and take no more than that."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.transfer.concurrency import QUICK, START, USUAL, Concurrency

PART = 8 << 20
GBIT = 125e6  # bytes per second


@dataclass
class Link:
    """Transfers share ``rate`` bytes per second, each of them at most ``each``; the answer comes ``wait`` seconds after
    the last byte. noise: how far each transfer's size in time is off."""

    rate: float
    wait: float
    each: float = float("inf")
    noise: float = 0.0


def run(
    concurrency: Concurrency,
    link: Link,
    seconds: float,
    *,
    now: float = 0.0,
    wanted: Callable[[], bool] = lambda: True,
    seed: int = 1,
) -> float:
    """Bytes per second of the last half, with as many in flight as is allowed."""
    shuffled = random.Random(seed)
    sending: list[tuple[float, float]] = []  # bytes left, and when it began
    answers: list[tuple[float, float]] = []  # when they come, and when it began
    end, done = now + seconds, 0
    while now < end:
        while len(sending) + len(answers) < concurrency.limit:
            sending.append((PART * (1 + link.noise * (2 * shuffled.random() - 1)), now))
        speed = min(link.each, link.rate / len(sending)) if sending else 1.0
        sent, answered = (min(there, default=(float("inf"), 0.0))[0] for there in (sending, answers))
        step = min(sent / speed, answered - now)
        now += step
        sending = [(left - step * speed, began) for left, began in sending]
        answers += [(now + link.wait, began) for left, began in sending if left <= 1e-3]
        sending = [(left, began) for left, began in sending if left > 1e-3]
        for answer, began in [there for there in answers if there[0] <= now + 1e-9]:
            answers.remove((answer, began))
            concurrency.ended(now, PART, now - began, wanted=wanted())
            done += PART if now > end - seconds / 2 else 0
    return done / (seconds / 2)


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_latency_that_more_in_flight_hides_is_hidden(noise: float) -> None:
    concurrency = Concurrency(16)
    link = Link(10 * GBIT, 0.100, noise=noise)  # ten in flight fill it
    assert run(concurrency, link, 60) > 0.8 * link.rate
    assert concurrency.limit >= 9


def test_connections_that_the_store_slows_down_one_by_one_are_used_side_by_side() -> None:
    concurrency = Concurrency(32)
    assert run(concurrency, Link(8 * GBIT, 0.02, each=40e6), 60) > 0.9 * 8 * GBIT


@pytest.mark.parametrize("noise", [0.05, 0.2])
@pytest.mark.parametrize(
    ("link", "few"),
    [(Link(GBIT, 0.030), USUAL), (Link(GBIT / 10, 0.030), START), (Link(3 * GBIT, 0.0), USUAL)],
    ids=["1G", "100M", "local"],
)
def test_where_more_in_flight_is_not_faster_few_stay(link: Link, few: int, noise: float) -> None:
    concurrency = Concurrency(64)
    link = Link(link.rate, link.wait, noise=noise)
    limits = []
    for second in range(0, 1800, 60):
        rate = run(concurrency, link, 60, now=second, seed=second)
        limits.append(concurrency.limit)
        assert rate > 0.9 * link.rate
    assert few <= statistics.median(limits) <= 1.5 * few


def test_a_link_that_becomes_thin_is_stepped_back_from() -> None:
    concurrency = Concurrency(16)
    run(concurrency, Link(10 * GBIT, 0.1), 60)
    assert concurrency.limit > 8
    run(concurrency, Link(GBIT / 4, 0.03), 1200, now=60)
    assert concurrency.limit <= 6


def test_the_usual_number_is_in_flight_as_soon_as_one_transfer_was_quick() -> None:
    concurrency = Concurrency(16)
    concurrency.ended(0.3, PART, 0.3, wanted=True)
    assert concurrency.limit == USUAL
    run(concurrency, Link(GBIT, 0.03, noise=0.2), 600, now=0.3)
    assert concurrency.limit >= USUAL


def test_a_thin_link_is_not_tried_with_more() -> None:
    """8 Mbit/s: eight parts at once would take 67 s each, sixteen longer than write_deadline."""
    concurrency = Concurrency(16)
    run(concurrency, Link(1e6, 0.03), 120)
    assert concurrency.limit == START


def test_a_link_that_becomes_thin_takes_the_least_back() -> None:
    concurrency = Concurrency(16)
    run(concurrency, Link(GBIT, 0.03), 10)
    assert concurrency.limit == USUAL
    assert PART * USUAL / (GBIT / 8) > QUICK
    run(concurrency, Link(GBIT / 8, 0.03), 3600, now=10)
    assert concurrency.limit < USUAL


def test_a_writer_that_is_slower_than_the_store_says_nothing() -> None:
    concurrency = Concurrency(16)
    run(concurrency, Link(10 * GBIT, 0.1), 60, wanted=lambda: False)
    assert concurrency.limit == START


@given(
    st.integers(1, 64),
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, 1 << 30), st.floats(0, 10), st.booleans()), max_size=300),
)
def test_it_stays_within_its_bounds(most: int, ends: list[tuple[float, int, float, bool]]) -> None:
    concurrency = Concurrency(most)
    assert concurrency.limit == min(START, most)
    now = 0.0
    for later, size, took, wanted in ends:
        now += later
        concurrency.ended(now, size, took, wanted=wanted)
        assert min(START, most) <= concurrency.limit <= most
