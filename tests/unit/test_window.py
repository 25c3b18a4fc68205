from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.transfer.window import BACK, FIRST, IDLE, NEAR, RUNS, Block, Plan, Window

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
HUGE = 100 * GIB


class Caller:
    """Does with plans what a reader does, and checks every promise of a plan on the way.

    starving: every read has to wait, as when the store is slower than the reader.
    """

    def __init__(self, window: Window, size: int, *, starving: bool) -> None:
        self.window = window
        self.size = size
        self.starving = starving
        self.known: set[Block] = set()
        self.fetched: list[Block] = []

    def read(self, offset: int, length: int) -> Plan:
        before = set(self.known)
        plan = self.window.read(offset, length)
        end = min(offset + length, self.size)
        if offset >= end:
            assert plan == Plan()
            return plan
        position = offset
        for block in plan.need:
            assert block.start <= position < block.end
            position = block.end
        assert position >= end
        assert not before & set(plan.ahead)
        assert not set(plan.need) & set(plan.ahead)
        assert set(plan.drop) <= before | set(plan.need)
        assert not set(plan.drop) & {*plan.need, *plan.ahead}
        self.fetched += [block for block in plan.need if block not in before] + list(plan.ahead)
        self.known = (before | {*plan.need, *plan.ahead}) - set(plan.drop)
        self.check()
        if self.starving:
            self.window.starved()
        return plan

    def check(self) -> None:
        blocks = sorted(self.known)
        assert all(block.length > 0 and block.start >= 0 and block.end <= self.size for block in blocks)
        assert all(one.end <= other.start for one, other in pairwise(blocks))
        assert self.window.planned == sum(block.length for block in blocks)

    def shrink(self) -> None:
        gone = set(self.window.shrink())
        assert gone <= self.known
        self.known -= gone
        self.check()

    def forget(self, block: Block) -> None:
        self.window.forget(block)
        self.known.discard(block)
        self.check()

    @property
    def cost(self) -> int:
        return sum(block.length for block in self.fetched)

    def read_all(self, reads: Iterable[tuple[int, int]]) -> None:
        for offset, length in reads:
            self.read(offset, length)


def caller(
    size: int, limit: int = 64 * MIB, *, first: int = 128 * KIB, block: int = 8 * MIB, starving: bool = True
) -> Caller:
    return Caller(Window(size, first=first, block=block, limit=limit), size, starving=starving)


def sequence(start: int, stop: int, step: int) -> list[tuple[int, int]]:
    return [(offset, min(step, stop - offset)) for offset in range(start, stop, step)]


sizes = st.integers(1, 200 * MIB)
limits = st.one_of(st.just(0), st.integers(1, 64 * MIB))
lengths = st.one_of(st.integers(1, 256 * KIB), st.sampled_from([4 * KIB, 128 * KIB, MIB]), st.integers(1, 20 * MIB))
moves = st.lists(
    st.one_of(
        st.tuples(st.just("on"), st.just(0), lengths),
        st.tuples(st.just("on"), st.integers(-5 * MIB, 5 * MIB), lengths),
        st.tuples(st.just("at"), st.integers(0, 210 * MIB), lengths),
        st.tuples(st.just("shrink"), st.just(0), st.just(0)),
        st.tuples(st.just("forget"), st.integers(0, 100), st.just(0)),
    ),
    max_size=60,
)


@given(sizes, limits, moves, st.booleans())
def test_any_reads_are_covered_by_few_disjoint_blocks(
    size: int, limit: int, steps: list[tuple[str, int, int]], starving: bool
) -> None:
    reader = caller(size, limit, starving=starving)
    position = 0
    for kind, number, length in steps:
        if kind == "shrink":
            reader.shrink()
        elif kind == "forget" and reader.known:
            reader.forget(sorted(reader.known)[number % len(reader.known)])
        elif kind in ("on", "at"):
            offset = max(0, position + number) if kind == "on" else number
            plan = reader.read(offset, length)
            position = offset + length
            held = sum(block.length for block in reader.known - set(plan.need))
            assert held <= RUNS * (NEAR + limit + 2 * 8 * MIB)
            assert sum(block.length for block in plan.ahead) <= limit + 8 * MIB


@given(sizes, limits, st.integers(0, 50 * MIB), st.lists(lengths, min_size=1, max_size=150))
def test_a_sequential_reader_plans_each_byte_once(size: int, limit: int, start: int, steps: list[int]) -> None:
    reader = caller(size, limit)
    begin = position = min(start, size - 1)
    for length in steps:
        reader.read(position, length)
        position = min(position + length, size)
        assert sum(block.end - max(block.start, position) for block in reader.known if block.end > position) <= (
            limit + 8 * MIB
        )
    fetched = sorted(reader.fetched)
    assert all(one.end == other.start for one, other in pairwise(fetched))
    assert fetched[0].start == begin - begin % (128 * KIB)
    assert fetched[-1].end >= position


@given(st.integers(1, 4 * MIB), st.integers(0, HUGE // 2), st.sampled_from([4 * KIB, 64 * KIB, 128 * KIB, MIB]))
def test_reading_a_little_costs_a_little(amount: int, start: int, step: int) -> None:
    reader = caller(HUGE)
    reader.read_all(sequence(start, start + amount, step))
    assert reader.cost <= 3 * amount + 4 * 128 * KIB


@pytest.mark.parametrize("step", [4 * KIB, 128 * KIB, MIB])
def test_head_of_a_huge_file(step: int) -> None:
    reader = caller(HUGE)
    reader.read_all(sequence(0, MIB, step))
    assert reader.cost < 4 * MIB


@pytest.mark.parametrize("step", [4 * KIB, 128 * KIB, MIB])
def test_by_default_blocks_are_whole_grains_and_the_head_of_a_huge_file_still_costs_little(step: int) -> None:
    reader = caller(HUGE, first=FIRST)
    reader.read_all(sequence(0, MIB, step))
    assert reader.cost < 4 * MIB
    reader.read_all(sequence(MIB, 100 * MIB, step))
    reader.read_all((offset, 4 * KIB) for offset in (50 * GIB + 5, 7 * GIB - 1, 20 * GIB))
    assert all(block.start % MIB == 0 and block.length % MIB == 0 for block in reader.fetched)
    assert [block.length for block in reader.fetched[-4:]] == [MIB] * 4  # the second of them is across a border


def test_an_object_that_is_verified_as_a_whole_is_one_block() -> None:
    size = 8 * MIB - 5
    reader = caller(size, first=8 * MIB)
    reader.read_all([(size - 10, 4 * KIB), (0, 128 * KIB), (3 * MIB, MIB)])
    assert reader.fetched == [Block(0, size)]


def test_a_sequential_reader_gets_large_blocks_and_the_whole_limit() -> None:
    reader = caller(GIB)
    reader.read_all(sequence(0, 200 * MIB, 128 * KIB))
    assert reader.fetched[0] == Block(0, 128 * KIB)
    lengths = [block.length for block in reader.fetched]
    assert lengths == sorted(lengths)
    assert {block.length for block in reader.fetched if block.start >= 64 * MIB} == {16 * MIB}
    assert max(block.end for block in reader.known) >= 264 * MIB
    assert reader.window.ahead == 64 * MIB
    assert min(block.start for block in reader.known) >= 200 * MIB - BACK - 8 * MIB
    assert len(reader.fetched) <= 50


def test_a_whole_file_in_order_is_fetched_exactly_once() -> None:
    size = 300 * MIB + 12_345
    reader = caller(size)
    reader.read_all(sequence(0, size, 128 * KIB))
    assert reader.cost == size


@pytest.mark.parametrize("span", [MIB, 4 * MIB])
@pytest.mark.parametrize("seed", range(5))
def test_requests_that_overtake_each_other_are_still_sequential(span: int, seed: int) -> None:
    size = 256 * MIB
    shuffled = random.Random(seed)
    reader = caller(size)
    for start in range(0, size, span):
        reads = sequence(start, start + span, 128 * KIB)
        shuffled.shuffle(reads)
        reader.read_all(reads)
        if 128 * MIB <= start < 256 * MIB - span:
            assert reader.window.ahead == 64 * MIB
    counted = Counter[int]()
    for block in reader.fetched:
        counted.update(range(block.start // (128 * KIB), -(-block.end // (128 * KIB))))
    assert set(counted.values()) == {1}
    assert reader.cost == size


@given(st.lists(st.integers(0, HUGE // (4 * KIB) - 1), min_size=1, max_size=50))
def test_a_random_reader_fetches_one_small_block_per_read(pages: list[int]) -> None:
    reader = caller(HUGE)
    places: list[int] = []
    for page in pages:
        offset = page * 4 * KIB
        if all(abs(offset - place) > NEAR + MIB for place in places):
            before = reader.cost
            plan = reader.read(offset, 4 * KIB)
            assert plan.ahead == ()
            assert reader.cost - before <= 128 * KIB
            places.append(offset)
    assert reader.window.planned <= RUNS * 128 * KIB


@pytest.mark.parametrize("stride", [512 * KIB, MIB, 3 * MIB])
def test_a_strided_reader_does_not_pass_for_a_sequential_one(stride: int) -> None:
    reader = caller(HUGE)
    reader.read_all((offset, 4 * KIB) for offset in range(0, 1000 * stride, stride))
    assert reader.cost <= 1000 * 128 * KIB
    assert reader.window.planned <= NEAR + 128 * KIB  # though none was read completely


def test_random_reads_in_a_small_area_cost_little_more_than_that_area() -> None:
    reader = caller(HUGE)
    places = random.Random(7)
    reader.read_all((50 * GIB + places.randrange(512) * 4 * KIB, 4 * KIB) for _ in range(500))
    assert reader.cost <= 6 * MIB  # for 500 reads in 2 MiB


def test_a_far_seek_starts_small_again_and_frees_the_old_place_once_it_is_no_glance() -> None:
    reader = caller(HUGE)
    reader.read_all(sequence(0, 100 * MIB, 128 * KIB))
    old = set(reader.known)
    assert reader.read(50 * GIB, 4 * KIB) == Plan(need=(Block(50 * GIB, 128 * KIB),))
    reader.read_all(sequence(50 * GIB + 4 * KIB, 50 * GIB + IDLE + MIB, 4 * KIB))
    assert not old & reader.known
    assert reader.window.ahead > 0


def test_one_that_looks_elsewhere_now_and_then_is_still_a_sequential_reader() -> None:
    size = 300 * MIB
    reader = caller(HUGE)
    places = random.Random(3)
    glances = 0
    for offset, length in sequence(0, size, 128 * KIB):
        reader.read(offset, length)
        if places.random() < 0.05:
            glances += 1
            reader.read(50 * GIB + places.randrange(1000) * 10 * MIB, 4 * KIB)
    assert reader.cost <= size + 64 * MIB + 8 * MIB + glances * 128 * KIB


@given(
    st.lists(st.integers(0, 30), min_size=2, max_size=RUNS, unique=True),
    st.lists(st.integers(0, RUNS - 1), min_size=1, max_size=150),
    st.sampled_from([64 * KIB, 128 * KIB, MIB]),
    st.booleans(),
)
def test_several_streams_of_one_file_fetch_each_byte_once(
    places: list[int], turns: list[int], step: int, starving: bool
) -> None:
    reader = caller(HUGE, starving=starving)
    starts = [place * GIB for place in places]
    fronts = list(starts)
    latest = [0] * len(starts)
    done = 0
    for turn in turns:
        lagging = min(range(len(starts)), key=lambda i: latest[i])
        stream = lagging if done - latest[lagging] > IDLE - 4 * step else turn % len(starts)
        reader.read(fronts[stream], step)
        done += step
        fronts[stream] += step
        latest[stream] = done
    counted = Counter[int]()
    for block in reader.fetched:
        counted.update(range(block.start // (128 * KIB), -(-block.end // (128 * KIB))))
    assert set(counted.values()) == {1}
    for start, front in zip(starts, fronts, strict=True):
        read = front - start
        ahead = sum(block.length for block in reader.fetched if start <= block.start < start + GIB) - read
        assert ahead <= 2 * read + 4 * 128 * KIB


def test_streams_that_read_ahead_share_the_limit() -> None:
    reader = caller(HUGE)
    for offset, length in sequence(0, 200 * MIB, 128 * KIB):
        reader.read(offset, length)
        reader.read(50 * GIB + offset, length)
    assert reader.window.ahead == 32 * MIB
    ahead = [sum(b.length for b in reader.known if b.start >= front) for front in (200 * MIB, 50 * GIB + 200 * MIB)]
    assert max(ahead) - 50 * GIB <= 48 * MIB
    reader.read_all(sequence(200 * MIB, 300 * MIB, 128 * KIB))  # the other one was left
    assert reader.window.ahead == 64 * MIB
    assert all(block.start < GIB for block in reader.known)


def test_one_that_meets_another_stream_uses_what_it_has() -> None:
    reader = caller(HUGE)
    fetched = 0
    for offset, length in sequence(0, 64 * MIB, 128 * KIB):
        reader.read(offset, length)
        reader.read(64 * MIB + offset, length)
    fetched = reader.cost
    assert fetched <= (128 + 64 + 8) * MIB


def test_a_reader_that_never_waits_holds_two_blocks_and_one_that_does_the_limit() -> None:
    reader = caller(GIB, starving=False)
    reader.read_all(sequence(0, 200 * MIB, 128 * KIB))
    assert reader.window.ahead == 16 * MIB
    assert max(block.end for block in reader.known) <= 224 * MIB
    assert max(block.length for block in reader.fetched) == 8 * MIB
    reader.window.starved()
    reader.window.starved()  # all the reads that wait for the same block
    assert reader.window.ahead == 32 * MIB
    reader.read_all(sequence(200 * MIB, 231 * MIB, 128 * KIB))
    reader.window.starved()  # the longer distance has not been read through yet
    assert reader.window.ahead == 32 * MIB
    reader.read_all(sequence(231 * MIB, 233 * MIB, 128 * KIB))
    reader.window.starved()
    assert reader.window.ahead == 64 * MIB
    reader.window.starved()
    assert reader.window.ahead == 64 * MIB


def test_a_jump_into_what_is_planned_already_uses_it() -> None:
    reader = caller(HUGE)
    reader.read_all(sequence(0, 200 * MIB, 128 * KIB))
    before = reader.cost
    plan = reader.read(240 * MIB, 128 * KIB)
    assert plan.need == (Block(240 * MIB, 16 * MIB),)
    assert reader.cost - before <= 48 * MIB
    assert plan.drop  # what was jumped over


def test_a_second_reading_of_a_small_file_reads_ahead_again() -> None:
    size = 3 * MIB
    reader = caller(size)
    for _ in range(2):
        reader.read_all(sequence(0, size, 128 * KIB))
    assert reader.cost <= 2 * size
    assert len(reader.fetched) <= 18  # the second time as the first, not in blocks of 128 KiB


def test_small_steps_back_are_free() -> None:
    reader = caller(HUGE)
    reader.read_all(sequence(0, 32 * MIB, 128 * KIB))
    before = reader.cost
    assert reader.read(31 * MIB, 128 * KIB).ahead == ()
    assert reader.cost == before
    reader = caller(HUGE, 0)
    reader.read_all(sequence(0, 8 * MIB, 128 * KIB))
    reader.read_all(sequence(8 * MIB - BACK, 8 * MIB, 128 * KIB))
    assert reader.cost == 8 * MIB
    assert reader.window.planned <= BACK


def test_blocks_leave_room_for_two_within_the_limit() -> None:
    reader = caller(HUGE, 6 * MIB)
    reader.read_all(sequence(0, 64 * MIB, 128 * KIB))
    assert max(block.length for block in reader.fetched) == 2 * MIB


def test_a_read_across_a_block_border_needs_both() -> None:
    reader = caller(HUGE)
    reader.read(0, 128 * KIB)
    assert reader.read(100 * KIB, 100 * KIB).need == (Block(0, 128 * KIB), Block(128 * KIB, 128 * KIB))


def test_one_large_first_read_is_one_block() -> None:
    assert caller(HUGE).read(0, MIB) == Plan(need=(Block(0, MIB),))
    assert caller(HUGE).read(5, 200 * KIB).need == (Block(0, 256 * KIB),)


def test_at_and_beyond_the_end() -> None:
    reader = caller(1000)
    assert reader.read(0, 128 * KIB) == Plan(need=(Block(0, 1000),))
    assert reader.read(1000, 10) == Plan()
    assert reader.read(5000, 10) == Plan()
    assert reader.read(0, 0) == Plan()
    assert caller(0).read(0, 4096) == Plan()


def test_no_read_ahead_with_limit_zero() -> None:
    reader = caller(HUGE, 0)
    for offset, length in sequence(0, 16 * MIB, 128 * KIB):
        assert reader.read(offset, length).ahead == ()
    assert reader.cost == 16 * MIB


def test_shrink_halves_and_reading_on_recovers() -> None:
    reader = caller(HUGE)
    reader.read_all(sequence(0, 200 * MIB, 128 * KIB))
    reader.shrink()
    assert reader.window.ahead == 32 * MIB
    assert max(block.end for block in reader.known) <= (200 + 32 + 8) * MIB
    for _ in range(40):
        reader.shrink()
    assert reader.window.ahead == 0
    reader.read_all(sequence(200 * MIB, 400 * MIB, 128 * KIB))
    assert reader.window.ahead == 64 * MIB


def test_a_forgotten_block_is_planned_again() -> None:
    reader = caller(HUGE)
    block = reader.read(0, 4 * KIB).need[0]
    reader.forget(block)
    reader.forget(block)
    assert reader.read(0, 4 * KIB).need == (block,)
    assert reader.fetched == [block, block]


@pytest.mark.parametrize(("first", "block"), [(0, MIB), (3, MIB), (128 * KIB, 64 * KIB), (128 * KIB, 384 * KIB)])
def test_sizes_that_do_not_fit_together(first: int, block: int) -> None:
    with pytest.raises(ValueError, match="power"):
        Window(1, first=first, block=block, limit=0)
