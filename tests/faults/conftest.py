"""The fault proxy before a real store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.checklogs import LogWatch
from tests.faultproxy import FaultProxy
from tests.faults.place import LIMITS, Place
from tests.mount.harness import Mount
from tests.s3server import S3Server


@pytest.fixture
def proxy(rgw: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(rgw.endpoint) as running:
        yield running


@pytest.fixture(scope="module")
def shared(rgw: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One mount for all tests of a module: that it works after each fault without a remount is part of the promise."""
    bucket = rgw.make_bucket("faults")
    home = tmp_path_factory.mktemp("faults") / "node"
    with FaultProxy(rgw.endpoint) as running:
        options = {**LIMITS, "endpoint": running.endpoint}
        with Mount(rgw, bucket, "", home, LogWatch(), options) as mount:
            yield Place(mount, running)


@pytest.fixture
def place(shared: Place, log_watch: LogWatch) -> Iterator[Place]:
    log_watch.follow(shared.mount.log_file)
    shared.proxy.injected.clear()
    yield shared
    shared.proxy.clear()
