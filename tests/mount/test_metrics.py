"""A real mount is scraped while it writes and in an outage; what it counts is what the store has counted."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from s3fsx.metrics.catalogue import METRICS
from s3fsx.metrics.textfile import name_of
from s3fsx.service import statusview
from s3fsx.service.status import read_status, socket_path
from tests.metrics.promtool import run as promtool
from tests.mount.conftest import MakeMount
from tests.mount.harness import COMMAND, Mount, environment, eventually

MIB = 1 << 20


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text: str = answer.read().decode()
        return text


def value(text: str, name: str, *labels: str) -> float:
    """The sum of the samples that have these labels."""
    lines = [
        line for line in text.splitlines() if line.startswith(name + "{") and all(label in line for label in labels)
    ]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def s3fsx(mount: Mount, *arguments: str) -> subprocess.CompletedProcess[str]:
    where = ["-o", f"runtime_dir={mount.options['runtime_dir']}"]
    command = [*COMMAND, *arguments, str(mount.path), *where]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, env=environment(mount.server), cwd="/", check=False
    )


@pytest.mark.expect_log(r"", optional=True)
def test_what_is_scraped_is_what_happened(make_mount: MakeMount, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    collected = tmp_path / "textfile"
    collected.mkdir()
    mount = make_mount(
        metrics_listen=port, metrics_textfile=collected, list_ttl="0s", read_timeout="2s", metadata_deadline="3s"
    )
    eventually(lambda: f"127.0.0.1:{port}" in mount.log(), "it listens")
    before, mark = scraped(port), mount.server.mark(mount.bucket)
    data = os.urandom(20 * MIB)
    with (mount.path / "dump/big").open("wb", buffering=0) as file:
        file.write(data)
        during = scraped(port)
        assert value(during, "s3fsx_unpublished_bytes") == len(data)
        assert value(during, "s3fsx_writers") == 1
        # Here and not by the command: its child's copy of the descriptor would publish the file when it is closed.
        document = read_status(socket_path(str(mount.options["runtime_dir"]), str(mount.path)))
        assert document["log"] == str(mount.log_file)
        shown = [text for _, text in statusview.lines(str(mount.path), document)]
        assert [text for text in shown if "dump/big: 20.0 MiB" in text] != [], shown
    assert (mount.path / "dump/big").read_bytes() == data
    after = scraped(port)
    asked = mount.server.requests(mark, mount.bucket)
    for operation, kind in (("UploadPart", "PUT PART"), ("CompleteMultipartUpload", "COMPLETE"), ("GetObject", "GET")):
        labels = ("s3fsx_s3_requests_total", f'operation="{operation}"')
        counted = value(after, *labels) - value(before, *labels)
        given_up = value(after, "s3fsx_s3_requests_total", f'operation="{operation}"', 'outcome="abandoned"')
        # A range that nobody wants any more ends its connection, perhaps before the store has logged it.
        assert counted - given_up <= sum(request.kind == kind for request in asked) <= counted, operation
    sent = sum(request.bytes_received for request in asked if request.kind in ("PUT", "PUT PART"))
    assert value(after, "s3fsx_s3_sent_bytes_total") - value(before, "s3fsx_s3_sent_bytes_total") == sent >= len(data)
    assert value(after, "s3fsx_unpublished_bytes") == value(after, "s3fsx_unfinished_uploads") == 0
    assert abs(value(after, "s3fsx_endpoint_clock_skew_seconds")) < 60
    assert value(after, "s3fsx_fuse_request_duration_seconds_count", 'operation="write"') > 0
    assert [m.name for m in METRICS if f"# TYPE {m.name} " not in after and m.labels != ("operation",)] == []
    promtool("check", "metrics", text=after)
    assert (collected / name_of(str(mount.path))).read_text().startswith("# HELP s3fsx_info")
    names = re.findall(r"^# TYPE (\S+)", s3fsx(mount, "metrics").stdout, re.MULTILINE)
    assert names == re.findall(r"^# TYPE (\S+)", after, re.MULTILINE)
    _in_an_outage(mount, port)
    mount.umount()
    assert os.listdir(collected) == []
    mount.start()


def _in_an_outage(mount: Mount, port: int) -> None:
    assert mount.server.pid is not None
    os.kill(mount.server.pid, signal.SIGSTOP)
    try:
        subprocess.run(["ls", str(mount.path / "dump/none")], capture_output=True, timeout=60, check=False)
        eventually(lambda: value(scraped(port), "s3fsx_endpoint_up") == 0, "the outage is noticed", 60)
        shown = s3fsx(mount, "status")
        assert shown.returncode == 1
        assert "OUTAGE" in shown.stdout.splitlines()[1]
        document = json.loads(s3fsx(mount, "status", "--json").stdout)[str(mount.path)]
        assert document["endpoint"]["outages"] == 1
    finally:
        os.kill(mount.server.pid, signal.SIGCONT)
    eventually(lambda: value(scraped(port), "s3fsx_endpoint_up") == 1, "it is back", 60)


def test_a_watch_ends_with_a_signal(mount: Mount) -> None:
    where = ["-o", f"runtime_dir={mount.options['runtime_dir']}"]
    watch = subprocess.Popen(
        # A shell's background jobs, and what they start, ignore SIGINT.
        ["env", "--default-signal=INT", *COMMAND, "status", str(mount.path), "--watch", "0.2", *where],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(mount.server),
        cwd="/",
    )
    assert watch.stdout is not None
    seen = 0
    end = time.monotonic() + 60
    while seen < 2 and time.monotonic() < end:
        seen += str(mount.path) in watch.stdout.readline()
    watch.send_signal(signal.SIGINT)
    rest, _ = watch.communicate(timeout=30)
    assert (seen, watch.returncode, "\033" in rest) == (2, 0, False)
