"""``s3fsx``: the command in this process, which saves a second of start-up for each of a hundred calls."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from s3fsx import cli
from s3fsx.browse import place
from s3fsx.service import log
from tests.mount.harness import environment
from tests.s3server import S3Server


class Done(NamedTuple):
    code: int
    out: str
    err: str


class Command:
    """``s3fsx("ls", "s3://bucket", code=2)``; ``use(server)`` first."""

    def __init__(self, capfd: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capfd = capfd
        self._patch = patch
        self._options = ""

    def use(self, server: S3Server) -> None:
        for name, value in environment(server).items():
            self._patch.setenv(name, value)
        self._options = f"endpoint={server.endpoint},region={server.region}"

    def __call__(self, name: str, *arguments: str, code: int = 0) -> Done:
        self._capfd.readouterr()
        try:
            found = cli.main([name, "-o", self._options, *arguments])
        except SystemExit as end:  # argparse
            found = int(end.code or 0)
        out, err = self._capfd.readouterr()
        assert found == code, (out, err)
        assert "Traceback" not in err
        return Done(found, out, err)

    def fails(self, *arguments: str, code: int = 2) -> str:
        """The one line of a failure."""
        lines = self(*arguments, code=code).err.strip().splitlines()
        assert len(lines) == 1, lines
        return lines[0]


@pytest.fixture
def s3fsx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    for name in list(os.environ):
        if name.startswith(("S3FSX_", "AWS_")):
            monkeypatch.delenv(name)
    (tmp_path / "etc").mkdir()
    monkeypatch.setenv("S3FSX_CONFIG_DIR", str(tmp_path / "etc"))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    for module in cli.COMMANDS:
        monkeypatch.setattr(module, "keep_private", lambda: None, raising=False)  # cannot be undone, and pytest goes on
    monkeypatch.setattr(place, "tame_malloc", lambda: None)
    monkeypatch.setattr(log, "setup", lambda *_, **__: None)  # the handlers are pytest's
    yield Command(capfd, monkeypatch)
    monkeypatch.undo()
    time.tzset()
