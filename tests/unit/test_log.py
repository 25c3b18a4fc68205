from __future__ import annotations

import io
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3fsx.service import log

LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d (?P<rest>.*)$")


@pytest.fixture(autouse=True)
def same_logging_afterwards() -> Iterator[None]:
    """setup() replaces the root's handlers: pytest's own must come back."""
    root = logging.getLogger()
    handlers, level, errors = root.handlers[:], root.level, logging.raiseExceptions
    for handler in handlers:
        root.removeHandler(handler)  # so that setup() does not close them
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    logging.raiseExceptions = errors
    logging.captureWarnings(False)


def lines(path: Path) -> list[str]:
    found = []
    for line in path.read_text().splitlines():
        match = LINE.match(line)
        found.append(match["rest"] if match else line)
    return found


def test_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log.setup("info", str(path))
    logging.getLogger("s3fsx.writer").info("part %d", 3)
    logging.getLogger("s3fsx.writer").debug("not this")
    logging.getLogger("botocore.auth").info("nor this")
    logging.getLogger("other.lib").warning("two\nlines")
    assert lines(path) == ["INFO writer: part 3", r"WARNING other.lib: two\nlines"]


def test_a_command_says_what_its_user_has_to_know_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    """The end of an outage is in its error, which names the endpoint."""
    log.for_command(debug=False)
    logging.getLogger("s3fsx.endpoint").warning("S3 endpoint is down: refused")
    logging.getLogger("s3fsx.browse").info("stays")
    logging.getLogger("s3fsx.browse").warning("GET x: 503; going on as soon as there is an\nanswer")
    logging.getLogger("s3fsx.verify").warning("healed")
    logging.getLogger("asyncio").error("broken")
    assert capsys.readouterr().err.splitlines() == [
        r"s3fsx: GET x: 503; going on as soon as there is an\nanswer", "s3fsx: healed", "s3fsx: broken",
    ]  # fmt: skip
    log.for_command(debug=True)
    logging.getLogger("s3fsx.endpoint").warning("is down")
    assert LINE.match(capsys.readouterr().err)
    log.setup("error", foreground=True)
    logging.getLogger("s3fsx.browse").warning("a mount has its own level")
    assert capsys.readouterr().err == ""


def test_where_the_log_of_a_mount_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroup = tmp_path / "cgroup"
    monkeypatch.setattr(log, "_CGROUP", str(cgroup))
    assert log.place("/var/log/x", daemon=False) == "/var/log/x"
    assert log.place("", daemon=True) == "journalctl -t s3fsx"
    assert log.place("", daemon=False) == "the standard error of s3fsx mount"
    cgroup.write_text("0::/system.slice/system-s3fsx.slice/s3fsx@s3\\x2dbackup.service\n")
    assert log.place("", daemon=False) == r"journalctl -u 's3fsx@s3\x2dbackup.service'"
    cgroup.write_text("0::/user.slice/user-0.slice/user@0.service/app.slice\n")
    assert log.place("", daemon=False) == "the standard error of s3fsx mount"


def test_a_moved_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log.setup("info", str(path))
    logging.getLogger("s3fsx.a").info("one")
    path.rename(tmp_path / "log.1")
    logging.getLogger("s3fsx.a").info("two")
    assert lines(path) == ["INFO a: two"]


def test_a_file_that_nobody_rotates_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LIMIT", 2000)
    path = tmp_path / "log"
    log.setup("info", str(path))
    for i in range(1000):
        logging.getLogger("s3fsx.a").info("line %d", i)
        assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 2 * (2000 + 100)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.1"]
    kept = lines(tmp_path / "log.1") + lines(path)
    assert kept == [f"INFO a: line {i}" for i in range(1000 - len(kept), 1000)]


def test_a_log_that_cannot_be_moved_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LIMIT", 10)
    (tmp_path / "log.1" / "in the way").mkdir(parents=True)
    log.setup("info", str(tmp_path / "log"))
    for i in range(3):
        logging.getLogger("s3fsx.a").info("line %d", i)
    assert lines(tmp_path / "log") == [f"INFO a: line {i}" for i in range(3)]


def test_a_device_is_left_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LIMIT", 0)
    log.setup("info", "/dev/null")
    logging.getLogger("s3fsx.a").info("gone")
    assert Path("/dev/null").is_char_device()


def failing() -> None:
    try:
        raise RuntimeError("deep\nreason")
    except RuntimeError:
        logging.getLogger("s3fsx.a").exception("it failed")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_traceback_only_with_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    log.setup("info", foreground=True)
    failing()
    (line,) = terminal.getvalue().splitlines()
    assert LINE.match(line)
    assert line.endswith(r"ERROR a: it failed (RuntimeError: deep\nreason)")
    log.setup("info", foreground=True, debug=True)
    failing()
    assert "Traceback" in terminal.getvalue()


def test_a_log_file_keeps_tracebacks(tmp_path: Path) -> None:
    log.setup("info", str(tmp_path / "log"))
    failing()
    assert "Traceback" in (tmp_path / "log").read_text()


def test_without_a_system_log_lines_are_lost_without_harm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log, "SYSLOG", "/nonexistent/log")
    log.setup("info")
    logging.getLogger("s3fsx.a").error("gone")
    assert capsys.readouterr() == ("", "")


def test_the_system_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log"))
        server.settimeout(5)
        monkeypatch.setattr(log, "SYSLOG", str(tmp_path / "log"))
        log.setup("info")
        logging.getLogger("s3fsx.a").warning("hello")
        # <28>: facility daemon (3 * 8) and severity warning (4), syslog(3)
        assert server.recv(1000).rstrip(b"\0") == b"<28>s3fsx: WARNING a: hello"


def test_a_file_that_cannot_be_opened() -> None:
    with pytest.raises(OSError, match="No such file"):
        log.setup("info", "/nonexistent/directory/log")


def test_answers_that_the_kernel_no_longer_waits_for_are_no_errors(tmp_path: Path) -> None:
    log.setup("info", str(tmp_path / "log"))
    pyfuse3 = logging.getLogger("pyfuse3")
    pyfuse3.error("fuse_release(): fuse_reply_* failed with %s", "No such file or directory")
    pyfuse3.error("fuse_read(): fuse_reply_* failed with %s", "Invalid argument")
    assert (tmp_path / "log").read_text().count("ERROR") == 1
