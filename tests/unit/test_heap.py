"""What was given back is the kernel's again, also where something small lies above it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import trio
from s3fsx.service.heap import SLACK, keep_trimmed, resident, tame_malloc

async def main():
    held = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_trimmed, lambda: held)
        await trio.sleep(0.5)
        before = resident()
        blocks = [bytearray(b"x") * (1 << 20) for _ in range(96)]
        held = len(blocks) << 20
        full = resident()
        assert full - before > 90 << 20, full - before
        blocks = blocks[::32]  # what is left pins the top of the heap
        held = len(blocks) << 20
        with trio.move_on_after(30):
            while resident() > before + held + SLACK:
                await trio.sleep(0.1)
        print((resident() - before - held) >> 20)
        nursery.cancel_scope.cancel()

assert tame_malloc()
trio.run(main)
"""


def test_holes_in_the_heap_go_back_to_the_kernel() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=90)
    assert int(done.stdout) <= 16  # MiB, SLACK
