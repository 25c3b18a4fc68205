"""A test fails when something logs WARNING or worse that the test did not declare.

A warning nobody expects is a bug of the program or of the test. Declare one where it is the point:

    @pytest.mark.expect_log(r"endpoint .* is down")             must come, at least once
    @pytest.mark.expect_log(r"retrying", optional=True)         may come

or inside the test, ``expect_log(r"...")``. Patterns are searched in ``LEVEL logger: message``. What s3fsx processes
write into their log files counts as well: the mount harness hands the files over with ``LogWatch.follow``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# The log file's format is `2026-11-20T12:00:00 LEVEL module: text`; a traceback's lines belong to the line above.
LOUD_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\S+ (?P<text>(?:WARNING|ERROR|CRITICAL) .*)$", re.MULTILINE)


@dataclass
class LogWatch:
    """What was logged during one test, and what was declared.

    seen: every loud line so far. files: log files, read again at each check from where the last one ended.
    """

    declared: dict[str, bool] = field(default_factory=dict)  # pattern -> optional
    seen: list[str] = field(default_factory=list)
    files: dict[Path, int] = field(default_factory=dict)
    reported: int = 0

    def expect(self, pattern: str, *, optional: bool = False) -> None:
        re.compile(pattern)
        self.declared[pattern] = optional

    def follow(self, path: Path) -> None:
        """Loud lines of this file count from its present end on."""
        self.files.setdefault(path, path.stat().st_size if path.exists() else 0)

    def undeclared(self) -> list[str]:
        """New loud lines that no pattern matches; each is told once."""
        self._read_files()
        new, self.reported = self.seen[self.reported :], len(self.seen)
        return [line for line in new if not any(re.search(p, line) for p in self.declared)]

    def missing(self) -> list[str]:
        """Declared patterns that never came though they must."""
        self._read_files()
        return [p for p, optional in self.declared.items() if not optional and not self._came(p)]

    def _came(self, pattern: str) -> bool:
        return any(re.search(pattern, line) for line in self.seen)

    def _read_files(self) -> None:
        for path, offset in self.files.items():
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(offset)
                text = file.read()
            complete = text.rfind(b"\n") + 1  # a line being written is for the next time
            self.files[path] = offset + complete
            self.seen.extend(m["text"] for m in LOUD_LINE.finditer(text[:complete].decode(errors="replace")))


class Collector(logging.Handler):
    def __init__(self, watch: LogWatch) -> None:
        super().__init__(logging.WARNING)
        self.watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        self.watch.seen.append(f"{record.levelname} {record.name}: {record.getMessage()}")


WATCH = pytest.StashKey[LogWatch]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "expect_log(pattern, optional=False): a WARNING or worse that belongs to this test"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    watch = item.stash[WATCH] = LogWatch()
    for mark in item.iter_markers("expect_log"):
        watch.expect(*mark.args, **mark.kwargs)
    collector = Collector(watch)
    logging.getLogger().addHandler(collector)
    try:
        return (yield)
    finally:
        logging.getLogger().removeHandler(collector)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    yield  # a test that failed by itself is not judged by its log as well
    complain("logged but not declared", item.stash[WATCH].undeclared())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """After the fixtures: a mount that a fixture takes down may have something to say, too."""
    yield
    watch = item.stash[WATCH]
    complain("logged but not declared", watch.undeclared())
    if item.stash.get(PASSED, False):
        complain("declared with expect_log but never logged", watch.missing())


PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report


def complain(what: str, lines: list[str]) -> None:
    if lines:
        pytest.fail(f"{what}:\n  " + "\n  ".join(lines), pytrace=False)


@pytest.fixture
def log_watch(request: pytest.FixtureRequest) -> LogWatch:
    """The running test's watch."""
    watch: LogWatch = request.node.stash[WATCH]
    return watch


@pytest.fixture
def expect_log(log_watch: LogWatch) -> Callable[..., None]:
    """``expect_log(pattern, optional=False)``"""
    return log_watch.expect
