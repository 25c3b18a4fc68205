"""The fault proxy before a real store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.checklogs import PASSED, LogWatch
from tests.faultproxy import FaultProxy
from tests.faults.crashing import Node, crash_site
from tests.faults.place import LIMITS, Place
from tests.mount.harness import Mount
from tests.s3server import S3Server


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3.endpoint) as running:
        yield running


@pytest.fixture(scope="module")
def shared(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One mount for all tests of a module: that it works after each fault without a remount is part of the promise."""
    bucket = s3.make_bucket("faults")
    home = tmp_path_factory.mktemp("faults") / "node"
    with FaultProxy(s3.endpoint) as running:
        options = {**LIMITS, "endpoint": running.endpoint}
        with Mount(s3, bucket, "", home, LogWatch(), options) as mount:
            yield Place(mount, running)


@pytest.fixture
def place(shared: Place, log_watch: LogWatch) -> Iterator[Place]:
    log_watch.follow(shared.mount.log_file)
    shared.proxy.injected.clear()
    yield shared
    shared.proxy.clear()


TALLY: Counter[str] = Counter()  # of all crash tests of the run


@pytest.fixture(scope="module")
def site(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with crash_site(s3, tmp_path_factory.mktemp("crash"), TALLY) as node:
        yield node


@pytest.fixture
def node(site: Node, log_watch: LogWatch) -> Iterator[Node]:
    log_watch.follow(site.mount.log_file)
    with site.test():
        yield site


@pytest.fixture(scope="module")
def _lasting(site: Node) -> Iterator[Node]:
    with site.test():
        yield site


@pytest.fixture
def lasting(_lasting: Node, log_watch: LogWatch, request: pytest.FixtureRequest) -> Iterator[Node]:
    """What one test leaves is there for the next one, which is another kill in the life of the same files."""
    log_watch.follow(_lasting.mount.log_file)
    yield _lasting
    if not request.node.stash.get(PASSED, False):
        _lasting.wipe()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY:
        terminalreporter.write_line(
            f"crash ledger: {TALLY['kills']} kills, {TALLY['told']} operations had returned success, "
            f"{TALLY['bytes']} bytes compared afterwards, {TALLY['lost']} lost"
        )
