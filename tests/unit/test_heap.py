"""What was given back is the kernel's again, also where something small lies above it: near the limit, and when all is
done."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys, trio
from s3fsx.service.heap import SLACK, keep_trimmed, resident, tame_malloc

async def main():
    held, budget, left = 0, int(sys.argv[1]) << 20, int(sys.argv[2])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_trimmed, lambda: held, budget)
        await trio.sleep(0.5)
        before = resident()
        blocks = [bytearray(b"x") * (1 << 20) for _ in range(96)]
        held = len(blocks) << 20
        full = resident()
        assert full - before > 90 << 20, full - before
        blocks = blocks[::32]  # what is left pins the top of the heap
        held = left << 20
        before += (len(blocks) - left) << 20
        with trio.move_on_after(float(sys.argv[3])):
            while resident() > before + held + SLACK:
                await trio.sleep(0.1)
        print((resident() - before - held) >> 20)
        nursery.cancel_scope.cancel()

assert tame_malloc()
trio.run(main)
"""


@pytest.mark.parametrize(
    ("what", "budget", "held", "given_back"),
    [("near the limit", 16, 3, True), ("nothing in use", 1024, 0, True), ("far from it, busy", 1024, 3, False)],
)
def test_holes_in_the_heap_go_back_to_the_kernel(what: str, budget: int, held: int, given_back: bool) -> None:
    """budget, held: MiB. Holes of a busy mount with room are kept: its next block goes there."""
    seconds = "30" if given_back else "3"
    command = [sys.executable, "-c", PROGRAM, str(budget), str(held), seconds]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90)
    assert (int(done.stdout) <= 16) == given_back  # MiB, SLACK and something
