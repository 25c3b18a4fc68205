"""Directories as large as a bucket's: listing, finding, looking for what is not there, and the memory it takes.

S3FSX_TEST_ENTRIES=100000 for the full number.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.checklogs import LogWatch
from tests.manyserver import SIZE, many_objects, name
from tests.mount.harness import Mount

pytestmark = [pytest.mark.mount, pytest.mark.slow]

ENTRIES = int(os.environ.get("S3FSX_TEST_ENTRIES", "10000"))
PER_ENTRY = 1200  # bytes; measured 900 to 1000 with 100 000


def rss(mount: Mount) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{mount.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def test_a_large_directory(tmp_path: Path, log_watch: LogWatch) -> None:
    spent: dict[str, float] = {}

    def timed(what: str, *command: str) -> str:
        begin = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=280)
        spent[what] = round(time.monotonic() - begin, 2)
        return done.stdout

    with many_objects({"pve/dump/": ENTRIES}) as (server, asked):
        # Long lives: on a busy machine a listing would be out of date before find has asked for each of its names, and
        # then each is a HEAD.
        options = {"ro": True, "metadata_deadline": "60s", "list_ttl": "10m", "attr_ttl": "10m"}
        with Mount(server, "many", "pve/", tmp_path / "node", log_watch, options) as mount:
            before = rss(mount)
            dump = str(mount.path / "dump")
            # Not ls -l: it asks for two extended attributes of each file, which takes ten times as long.
            lines = sorted(timed("find -printf", "find", dump, "-type", "f", "-printf", "%f %s\\n").splitlines())
            assert lines == [f"{name(n)} {SIZE}" for n in range(ENTRIES)]
            pages = asked["pve/dump/"]
            assert pages <= ENTRIES // 1000 + 2
            assert len(timed("ls", "ls", dump).splitlines()) == ENTRIES
            misses = "import os,sys\nfor n in range(1000): assert not os.path.exists(f'{sys.argv[1]}/{n}.notes')"
            timed("1000 misses", sys.executable, "-c", misses, dump)
            limit = PER_ENTRY + (16 << 20) / ENTRIES  # the heap may keep 16 MiB, see heap.py
            for _ in range(100):  # a second without use, before what the listing left behind is given back
                if (per_entry := (rss(mount) - before) / ENTRIES) < limit:
                    break
                time.sleep(0.1)
            assert asked["pve/dump/"] <= pages + 4  # and the mount's own few
            sys.stdout.write(f"directory of {ENTRIES}: {spent} s, {per_entry:.0f} bytes each\n")  # pytest -s shows it
    assert per_entry < limit
