"""A store far away: what a mount has in flight at once, counted where the requests arrive; no time is measured."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3fsx.transfer.concurrency import START
from tests.checklogs import LogWatch
from tests.exchange import Exchange
from tests.faultkinds import Delay
from tests.faultproxy import FaultProxy, Rule
from tests.mount.harness import Mount
from tests.s3server import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.rgw, pytest.mark.slow]

MIB = 1 << 20
SIZE = 128 * MIB


class Far:
    """Each request takes ``seconds`` longer. peak: the most that were under way at once, by kind."""

    def __init__(self, seconds: float) -> None:
        self.peak: Counter[str] = Counter()
        self._delay = Delay(seconds)
        self._now: Counter[str] = Counter()
        self._lock = threading.Lock()

    def run(self, exchange: Exchange) -> None:
        kind = exchange.request.kind
        with self._lock:
            self._now[kind] += 1
            self.peak[kind] = max(self.peak[kind], self._now[kind])
        try:
            self._delay.run(exchange)
        finally:
            with self._lock:
                self._now[kind] -= 1


@pytest.fixture
def far(s3: S3Server, proxy: FaultProxy, tmp_path: Path, log_watch: LogWatch) -> Iterator[Mount]:
    options = {"endpoint": proxy.endpoint, "part_size": "5MiB"}
    with Mount(s3, s3.make_bucket("far"), "", tmp_path / "node", log_watch, options) as mount:
        yield mount
        proxy.clear()


def test_many_ranges_and_many_parts_are_under_way_at_once(far: Mount, proxy: FaultProxy) -> None:
    data = os.urandom(MIB)
    parts = Far(0.7)
    with proxy.fault(Rule(parts, {"PUT PART"})), open(far.path / "dump" / "a", "wb", buffering=0) as file:
        for _ in range(SIZE // MIB):
            assert file.write(data) == MIB
    assert START < parts.peak["PUT PART"] <= 16  # one would be enough for a store that answers at once
    ranges = Far(0.2)
    with proxy.fault(Rule(ranges, {"GET"}, key="dump/a")), open(far.path / "dump" / "a", "rb", buffering=0) as file:
        for _ in range(SIZE // MIB):
            assert file.read(MIB) == data
    assert ranges.peak["GET"] >= 3


def test_two_streams_of_one_open_file_are_both_fetched_ahead(far: Mount, proxy: FaultProxy) -> None:
    body = os.urandom(MIB) * 64
    far.view.put("import/disk.raw", body)
    proxy.seen.clear()
    with open(far.path / "import" / "disk.raw", "rb", buffering=0) as file:
        for offset in range(0, 32 * MIB, 128 << 10):
            for start in (offset, 32 * MIB + offset):
                assert os.pread(file.fileno(), 128 << 10, start) == body[start : start + (128 << 10)]
    assert proxy.seen["GET"] <= 40, "blocks were fetched again and again"
