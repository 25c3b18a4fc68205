"""A part's bytes against a plain bytearray."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from s3fsx.transfer.memory import CHUNK, Budget
from s3fsx.transfer.partbuffer import PartBuffer

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.floats(0, 1), st.sampled_from([1, 1000, CHUNK - 1, CHUNK, CHUNK + 1])),
        st.tuples(st.just("zeros"), st.just(0.0), st.sampled_from([1, 1000, CHUNK])),
        st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
        st.tuples(st.just("payload"), st.just(0.0), st.just(0)),
    ),
    max_size=12,
)


def pattern(size: int, seed: int) -> bytes:
    return (bytes((i * 7 + seed) & 0xFF for i in range(251)) * (size // 251 + 1))[:size]


@given(STEPS)
def test_against_a_bytearray(steps: list[tuple[str, float, int]]) -> None:
    budget = Budget(16 * CHUNK)
    lease = budget.admit(0)
    buffer, model = PartBuffer(lease, 1000), bytearray()
    for number, (what, where, size) in enumerate(steps):
        if what == "cut":
            length = int(where * len(model))
            buffer.cut(length)
            del model[length:]
        elif what == "payload":
            payload = buffer.payload()
            assert b"".join(payload.chunks) == model
            assert (payload.size, payload.crc32) == (len(model), zlib.crc32(model))
        else:
            at = len(model) if what == "zeros" or number % 2 else int(where * len(model))
            data = bytes(size) if what == "zeros" else pattern(size, number)
            full = False
            while at + size > buffer.length + buffer.room and not full:
                full = not buffer.try_reserve()
            if full:
                continue
            if what == "zeros":
                buffer.append_zeros(size)
            else:
                buffer.write(at, data)
            model[at : at + size] = data
        assert (buffer.length, buffer.end) == (len(model), 1000 + len(model))
        assert lease.held == len(buffer.chunks) * CHUNK <= budget.total
        for offset in (0, len(model) // 2, max(0, len(model) - 10)):
            assert buffer.read(offset, CHUNK + 5) == model[offset : offset + CHUNK + 5]
    payload = buffer.payload()
    assert b"".join(payload.chunks) == model
    assert payload.crc32 == zlib.crc32(model)
    del payload
    buffer.release()
    buffer.release()  # harmless
    assert (lease.held, budget.committed) == (0, 0)


def test_a_chunk_is_refused_when_the_budget_is_used_up() -> None:
    buffer = PartBuffer(Budget(CHUNK).admit(0), 0)
    assert buffer.try_reserve()
    assert not buffer.try_reserve()
    assert buffer.room == CHUNK


def test_the_crc_is_of_what_came_in_and_not_of_what_memory_made_of_it() -> None:
    buffer = PartBuffer(Budget(CHUNK).admit(0), 0)
    buffer.try_reserve()
    buffer.write(0, b"as it came")
    buffer.chunks[0][3] ^= 1
    assert buffer.payload().crc32 == zlib.crc32(b"as it came")
