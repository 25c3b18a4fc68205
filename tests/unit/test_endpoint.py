from __future__ import annotations

import contextlib
import logging
import math
import random
from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from s3fsx.errors import (
    AccessDenied,
    BucketMissing,
    Changed,
    ConnectionFailed,
    DeadlineExceeded,
    EndpointDown,
    Exists,
    NotFound,
    ServerFault,
    StoreError,
    Throttled,
    UploadGone,
)
from s3fsx.store.endpoint import (
    BACKOFF_BASE,
    BACKOFF_CAP,
    FAILURES,
    IDLE_AFTER,
    PROBE_EVERY,
    PROBE_LIMIT,
    Endpoint,
    backoff,
)

pytestmark = pytest.mark.expect_log("is down", optional=True)


class Script:
    """An attempt that raises (or returns) one after the other, the last for ever, each after ``seconds``."""

    def __init__(self, *outcomes: StoreError | str, seconds: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.seconds = seconds
        self.at: list[float] = []

    async def __call__(self) -> str:
        self.at.append(trio.current_time())
        await trio.sleep(self.seconds)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome


def endpoint(seed: int = 1) -> Endpoint:
    return Endpoint("store", rng=random.Random(seed), now=lambda: 1000.0 + trio.current_time())


async def open_breaker(e: Endpoint) -> None:
    with pytest.raises(EndpointDown):
        await e.call(Script(ConnectionFailed("refused")), what="X", deadline=30)
    assert e.down


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_is_jittered_and_capped(attempt: int, draw: float) -> None:
    limit = min(BACKOFF_CAP, BACKOFF_BASE * 2 ** min(attempt - 1, 20))
    assert 0 <= backoff(attempt, draw) <= limit
    assert backoff(attempt, draw) == pytest.approx(draw * limit)


async def test_a_transient_failure_is_repeated(autojump_clock: MockClock) -> None:
    e, script = endpoint(), Script(ServerFault("500"), Throttled("slow"), "fine")
    assert await e.call(script, what="X", deadline=10) == "fine"
    assert (e.requests, e.retries) == (3, 2)
    assert e.errors == {"ServerFault": 1, "Throttled": 1}
    assert e.last_error == "slow"
    assert e.last_success == pytest.approx(1000.0 + trio.current_time())


async def test_a_final_answer_is_not_repeated(autojump_clock: MockClock) -> None:
    e = endpoint()
    with pytest.raises(NotFound):
        await e.call(Script(NotFound("404")), what="X", deadline=10)
    assert e.requests == 1
    assert e.last_success is not None


async def test_what_a_question_is_asked_for_is_no_error(autojump_clock: MockClock) -> None:
    e = endpoint()
    for error in (NotFound("404"), UploadGone("aborted"), Exists("412"), Changed("412"), AccessDenied("403")):
        with pytest.raises(type(error)):
            await e.call(Script(error), what="X", deadline=10)
    assert (dict(e.errors), e.last_error) == ({"AccessDenied": 1}, "403")
    assert e.requests == 5


async def test_refusing_everything_is_told_until_something_succeeds(autojump_clock: MockClock) -> None:
    """A key that was revoked: each 403 is an answer, and no outage."""
    e = endpoint()

    async def ask(answer: StoreError | str) -> None:
        with contextlib.suppress(StoreError):
            await e.call(Script(answer), what="X", deadline=10)

    await ask(AccessDenied("403"))
    await watched(e, Script(AccessDenied("may not list at the top")), 300)
    assert e.refused_for == 0, "one question that may not be asked"
    await ask(NotFound("404"))
    await ask(BucketMissing("gone"))
    assert e.refused_for == pytest.approx(300, abs=1)
    assert not e.down
    await ask("fine")
    assert e.refused_for == 0
    await ask(AccessDenied("403"))
    await watched(e, Script("fine"), IDLE_AFTER + 2)
    await ask(AccessDenied("403"))
    assert e.refused_for == 0, "an idle mount has asked by itself"


async def test_keys_that_are_revoked_are_noticed_by_an_idle_mount(autojump_clock: MockClock) -> None:
    """Not only when the next backup fails."""
    e = endpoint()
    await watched(e, Script("fine"), IDLE_AFTER + 2)
    await watched(e, Script(AccessDenied("403 InvalidAccessKeyId")), 10 * IDLE_AFTER)
    assert e.refused_for > 5 * IDLE_AFTER
    assert not e.down
    await watched(e, Script("fine"), IDLE_AFTER + 2)
    assert e.refused_for == 0


async def test_attempts_limit_the_repeats_and_give_the_last_error(autojump_clock: MockClock) -> None:
    e = endpoint()
    with pytest.raises(Throttled, match="third"):
        await e.call(Script(Throttled("1"), Throttled("2"), Throttled("third")), what="X", deadline=99, attempts=3)
    assert e.requests == 3


async def test_retry_after_is_honoured(autojump_clock: MockClock) -> None:
    script = Script(Throttled("slow", retry_after=7), "fine")
    await endpoint().call(script, what="X", deadline=10)
    assert script.at[1] - script.at[0] == pytest.approx(7)


async def test_a_wait_beyond_the_deadline_is_not_begun(autojump_clock: MockClock) -> None:
    start = trio.current_time()
    with pytest.raises(DeadlineExceeded, match="GET k: not done within 10 s; last: slow"):
        await endpoint().call(Script(Throttled("slow", retry_after=60)), what="GET k", deadline=10)
    assert trio.current_time() - start < 1


async def test_a_hanging_attempt_is_cut_at_the_deadline(autojump_clock: MockClock) -> None:
    start, e = trio.current_time(), endpoint()
    with pytest.raises(DeadlineExceeded):
        await e.call(Script("never", seconds=math.inf), what="X", deadline=10)
    assert trio.current_time() - start == pytest.approx(10)
    assert e.down  # nobody got an answer in all that time
    assert e.errors == {"DeadlineExceeded": 1}


async def test_an_attempt_that_must_not_be_cut_may_finish_late(autojump_clock: MockClock) -> None:
    assert await endpoint().call(Script("late", seconds=15), what="X", deadline=10, interrupt=False) == "late"
    late = Script(ConnectionFailed("timed out"), seconds=15)
    with pytest.raises(DeadlineExceeded, match="timed out"):
        await endpoint().call(late, what="X", deadline=10, interrupt=False)
    assert len(late.at) == 1


async def test_a_deadline_with_answers_to_others_does_not_open_the_breaker(autojump_clock: MockClock) -> None:
    e = endpoint()

    async def others() -> None:
        await trio.sleep(5)
        await e.call(Script("fine"), what="other", deadline=1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        with pytest.raises(DeadlineExceeded):
            await e.call(Script("never", seconds=math.inf), what="X", deadline=10)
    assert not e.down


async def test_three_failures_in_a_row_open_the_breaker(autojump_clock: MockClock) -> None:
    e = endpoint()
    for i in range(FAILURES):
        assert not e.down
        with pytest.raises(ConnectionFailed):
            await e.call(Script(ConnectionFailed("refused")), what="X", deadline=10, attempts=1)
        await trio.sleep(0.6 * (i < FAILURES - 1))
    assert e.down
    assert e.down_since == pytest.approx(1000.0 + trio.current_time())
    script = Script("fine")
    with pytest.raises(EndpointDown, match="refused"):
        await e.call(script, what="X", deadline=10)
    assert script.at == []


async def test_a_burst_at_one_moment_is_no_outage(autojump_clock: MockClock) -> None:
    e = endpoint()
    async with trio.open_nursery() as nursery:
        for _ in range(20):

            async def one() -> None:
                await e.call(Script(ConnectionFailed("reset"), "fine"), what="X", deadline=10)

            nursery.start_soon(one)
    assert not e.down


async def test_throttling_neither_opens_nor_closes(autojump_clock: MockClock) -> None:
    e = endpoint()
    for _ in range(10):
        with pytest.raises(Throttled):
            await e.call(Script(Throttled("503")), what="X", deadline=10, attempts=1)
        await trio.sleep(1)
    assert not e.down
    await open_breaker(e)
    with pytest.raises(DeadlineExceeded):
        await e.call(Script(Throttled("503")), what="X", deadline=5, through_outage=True)
    assert e.down


async def test_a_transfer_goes_through_an_outage_and_ends_it(autojump_clock: MockClock) -> None:
    e = endpoint()
    await open_breaker(e)
    script = Script(*[ConnectionFailed("refused")] * 5, "fine")
    assert await e.call(script, what="part", deadline=120, through_outage=True) == "fine"
    assert not e.down
    assert max(b - a for a, b in zip(script.at, script.at[1:], strict=False)) <= BACKOFF_CAP


async def test_those_who_wait_are_told_at_once_when_the_breaker_opens(autojump_clock: MockClock) -> None:
    e = endpoint()
    failed_at: list[float] = []

    async def patient() -> None:
        with pytest.raises(EndpointDown):
            await e.call(Script(Throttled("slow", retry_after=100)), what="X", deadline=200)
        failed_at.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(patient)
        await trio.sleep(1)
        with pytest.raises(DeadlineExceeded):
            await e.call(Script("never", seconds=math.inf), what="Y", deadline=10)
        opened = trio.current_time()
    assert failed_at == [pytest.approx(opened)]


async def watched(e: Endpoint, probe: Callable[[], Awaitable[object]], seconds: float) -> None:
    with trio.move_on_after(seconds):
        await e.watch(probe)


async def test_the_probe_finds_the_recovery_and_both_are_logged_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    e = endpoint()
    await open_breaker(e)
    opened = trio.current_time()
    probe = Script(*[ConnectionFailed("refused")] * 5, "fine")
    await watched(e, probe, 30)
    assert not e.down
    assert [t - opened for t in probe.at] == pytest.approx([PROBE_EVERY * i for i in range(1, 7)])
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]
    assert caplog.records[1].getMessage() == "store is back after 12 s"


async def test_a_hung_probe_has_its_own_limit(autojump_clock: MockClock) -> None:
    e = endpoint()
    await open_breaker(e)
    probe = Script("never", seconds=math.inf)
    await watched(e, probe, 20)
    assert e.down
    assert probe.at[1] - probe.at[0] == pytest.approx(PROBE_LIMIT + PROBE_EVERY)


async def test_an_idle_mount_asks_at_most_once_a_minute(autojump_clock: MockClock) -> None:
    e, probe = endpoint(), Script("fine")
    await e.call(Script("fine"), what="X", deadline=1)
    await watched(e, probe, 10 * IDLE_AFTER + 1)
    assert len(probe.at) == 10


async def test_a_busy_mount_is_not_probed(autojump_clock: MockClock) -> None:
    e, probe = endpoint(), Script("fine")

    async def work() -> None:
        for _ in range(20):
            await e.call(Script("fine"), what="X", deadline=1)
            await trio.sleep(IDLE_AFTER / 2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched, e, probe, 10 * IDLE_AFTER)
        nursery.start_soon(work)
    assert len(probe.at) <= 1  # before the first answer


async def test_an_idle_mount_notices_an_outage_soon_after_its_probe_fails(autojump_clock: MockClock) -> None:
    e = endpoint()
    await e.call(Script("fine"), what="X", deadline=1)
    start = trio.current_time()
    await watched(e, Script(ConnectionFailed("refused")), 60.1 + FAILURES * PROBE_EVERY)
    assert e.down
    assert trio.current_time() - start < 70


async def test_one_call_that_fails_fast_is_looked_into(autojump_clock: MockClock) -> None:
    """Five attempts may all fail within a second, too short for the breaker; nobody may ask again for a minute."""
    e = endpoint()
    await e.call(Script("fine"), what="X", deadline=1)
    with pytest.raises(ConnectionFailed):
        await e.call(Script(ConnectionFailed("refused")), what="X", deadline=10, attempts=1)
    await watched(e, Script(ConnectionFailed("refused")), 8)
    assert e.down


async def test_a_refusal_by_the_store_ends_an_outage(autojump_clock: MockClock) -> None:
    e = endpoint()
    await open_breaker(e)
    await watched(e, Script(NotFound("404")), 3)
    assert not e.down


@given(st.lists(st.sampled_from(["conn", "fault", "slow", "404", "ok"]), max_size=40), st.integers(0, 2**16))
def test_the_breaker_is_open_exactly_after_a_run_of_failures(events: list[str], seed: int) -> None:
    """Model: events one second apart; open after FAILURES failures with no answer between."""
    outcomes: dict[str, StoreError | str] = {
        "conn": ConnectionFailed("c"),
        "fault": ServerFault("f"),
        "slow": Throttled("s"),
        "404": NotFound("n"),
        "ok": "ok",
    }

    async def main() -> None:
        e, run = endpoint(seed), 0
        for event in events:
            with contextlib.suppress(StoreError):
                await e.call(Script(outcomes[event]), what="X", deadline=10, attempts=1, through_outage=True)
            if event in ("conn", "fault"):
                run += 1
            elif event != "slow":
                run = 0
            assert e.down == (run >= FAILURES)
            await trio.sleep(1)

    trio.run(main, clock=MockClock(autojump_threshold=0))
