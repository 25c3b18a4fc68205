"""One heap for all threads: what one gave back, the next one uses."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, threading
from s3fsx.service.heap import tame_malloc

def address_space():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize")))

if sys.argv[1] == "tamed":
    assert tame_malloc()
barrier = threading.Barrier(5)

def allocate():
    held = bytearray(100_000)
    barrier.wait()
    barrier.wait()

before = address_space()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
barrier.wait()
print((address_space() - before) >> 10)
barrier.wait()
"""


def test_threads_get_no_heaps_of_their_own() -> None:
    def grown(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert grown("as it is") - grown("tamed") >= 64  # MiB: the address space that glibc reserves per heap
