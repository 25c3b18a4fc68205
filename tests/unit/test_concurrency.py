"""Concurrency on simulated links: it must find how many in flight are enough, and take no more than that."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.concurrency import START, Concurrency

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
    sending: list[float] = []  # bytes left
    answers: list[float] = []  # when they come
    end, done = now + seconds, 0
    while now < end:
        while len(sending) + len(answers) < concurrency.limit:
            sending.append(PART * (1 + link.noise * (2 * shuffled.random() - 1)))
        speed = min(link.each, link.rate / len(sending)) if sending else 1.0
        step = min(
            min(sending, default=float("inf")) / speed, min(answers, default=float("inf")) - now if answers else 1e9
        )
        now += step
        sending = [left - step * speed for left in sending]
        answers += [now + link.wait for left in sending if left <= 1e-3]
        sending = [left for left in sending if left > 1e-3]
        for answer in [answer for answer in answers if answer <= now + 1e-9]:
            answers.remove(answer)
            concurrency.ended(now, PART, wanted=wanted())
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
    "link", [Link(GBIT, 0.030), Link(GBIT / 10, 0.030), Link(3 * GBIT, 0.0)], ids=["1G", "100M", "local"]
)
def test_where_more_in_flight_is_not_faster_few_stay(link: Link, noise: float) -> None:
    concurrency = Concurrency(64)
    link = Link(link.rate, link.wait, noise=noise)
    limits = []
    for second in range(0, 1800, 60):
        rate = run(concurrency, link, 60, now=second, seed=second)
        limits.append(concurrency.limit)
        assert rate > 0.9 * link.rate
    assert statistics.median(limits) <= 2 * START


def test_a_link_that_becomes_thin_is_stepped_back_from() -> None:
    concurrency = Concurrency(16)
    run(concurrency, Link(10 * GBIT, 0.1), 60)
    assert concurrency.limit > 8
    run(concurrency, Link(GBIT / 4, 0.03), 1200, now=60)
    assert concurrency.limit <= 6


def test_a_writer_that_is_slower_than_the_store_says_nothing() -> None:
    concurrency = Concurrency(16)
    run(concurrency, Link(10 * GBIT, 0.1), 60, wanted=lambda: False)
    assert concurrency.limit == START


@given(
    st.integers(1, 64),
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, 1 << 30), st.booleans()), max_size=300),
)
def test_it_stays_within_its_bounds(most: int, ends: list[tuple[float, int, bool]]) -> None:
    concurrency = Concurrency(most)
    assert concurrency.limit == min(START, most)
    now = 0.0
    for later, size, wanted in ends:
        now += later
        concurrency.ended(now, size, wanted=wanted)
        assert min(START, most) <= concurrency.limit <= most
