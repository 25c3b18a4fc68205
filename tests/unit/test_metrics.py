from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.configuration.values import is_local, listen
from s3fsx.fs.unpublished import Unpublished
from s3fsx.metrics import prices, server
from s3fsx.metrics.exposition import Family, Sample, merged, render
from s3fsx.metrics.histogram import Histogram
from s3fsx.metrics.textfile import TextFile, name_of
from s3fsx.metrics.traffic import Traffic
from s3fsx.service import statusview

UNQUOTED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=False))
def test_a_line_tells_label_and_value_again(label: str, value: float) -> None:
    text = render([Family("s3fsx_x", "gauge", "Two\nlines.", (Sample({"path": label}, value),))])
    head, kind, line, end = text.split("\n")
    assert (head, kind, end) == ("# HELP s3fsx_x Two\\nlines.", "# TYPE s3fsx_x gauge", "")
    match = re.fullmatch(r's3fsx_x\{path="((?:[^"\\]|\\.)*)"\} (\S+)', line, re.DOTALL)
    assert match is not None
    assert re.sub(r"\\.", lambda found: UNQUOTED[found[0]], match[1]) == label
    assert float(match[2]) == value


def test_a_name_that_is_no_utf8_makes_valid_text() -> None:
    text = render([Family("s3fsx_x", "gauge", "", (Sample({"path": "a\udcff"}, 1),))])
    assert 'path="a\ufffd"'.encode() in text.encode()


def test_a_family_stands_once_for_several_mounts() -> None:
    one, two = (Family("s3fsx_x", "gauge", "X.", (Sample({"mountpoint": m}, 1),)) for m in ("/a", "/b"))
    text = render(merged([[one], [two]]))
    assert text.count("# TYPE") == 1
    assert text.count("\ns3fsx_x{") == 2


@given(st.lists(st.floats(0, 1000)))
def test_classes_of_a_histogram_add_up(values: list[float]) -> None:
    histogram = Histogram((0.5, 1.0, 100.0))
    for value in values:
        histogram.observe(value)
    document: Any = histogram.document()
    assert document["count"] == len(values)
    assert document["sum"] == pytest.approx(sum(values))
    for bound, count in document["buckets"].items():
        assert count == sum(value <= float(bound) for value in values)


def test_the_cost_of_requests() -> None:
    outcomes = {"UploadPart": {"ok": 1000, "ServerFault": 50}, "GetObject": {"ok": 500, "NotFound": 500}}
    found = prices.cost(outcomes, 10**9, 2 * 10**9, {"received_gb": 0.5})
    assert found == pytest.approx({"put": 0.005, "get": 0.0004, "delete": 0, "sent_gb": 0, "received_gb": 1.0})


def test_every_operation_has_a_price() -> None:
    source = (Path(prices.__file__).parents[1] / "s3" / "store.py").read_text()
    operations = set(
        re.findall(r'"((?:Get|Put|List|Head|Delete|Create|Upload|Complete|Abort|Copy)[A-Za-z0-9]+)"', source)
    )
    parameters = {"UploadId", "CopySourceRange"}
    assert len(operations) > 12
    assert operations - parameters <= set(prices.CLASSES)


def test_the_clock_of_the_store_is_compared_every_ten_seconds() -> None:
    traffic = Traffic(now=lambda: 1_700_000_000.0)
    answer = {"ResponseMetadata": {"HTTPHeaders": {"date": "Tue, 14 Nov 2023 22:14:20 GMT"}}}  # 60 s later
    assert traffic.seen({}) == {}
    assert traffic.clock_skew is None
    traffic.seen(answer)
    assert traffic.clock_skew == 60.5
    traffic.seen({"ResponseMetadata": {"HTTPHeaders": {"date": "Tue, 14 Nov 2023 22:13:20 GMT"}}})
    assert traffic.clock_skew == 60.5


class _Writer:
    dirty = True
    settled_at: float | None = None
    error: Exception | None = None
    size = 5
    upload: None = None
    path = "dump/x"


def test_the_age_of_what_is_unpublished() -> None:
    now = 100.0
    unpublished = Unpublished(lambda: now)
    first, second = _Writer(), _Writer()
    unpublished.begin(first, first, first)
    now = 130.0
    unpublished.begin(second, second, second)
    assert [each.since for each in unpublished.pending()] == [100.0, 130.0]
    first.dirty = False
    assert [each.since for each in unpublished.pending()] == [130.0]


@pytest.mark.parametrize(
    ("typed", "parsed", "local"),
    [
        ("9469", "127.0.0.1:9469", True),
        ("localhost:9469", "127.0.0.1:9469", True),
        ("[::1]:1", "[::1]:1", True),
        ("0.0.0.0:9469", "0.0.0.0:9469", False),
        ("/run/s3fsx/m.sock", "/run/s3fsx/m.sock", True),
    ],
)
def test_where_to_listen(typed: str, parsed: str, local: bool) -> None:
    assert listen().parse(typed) == parsed
    assert listen().parse(parsed) == parsed
    assert is_local(parsed) == local


@pytest.mark.parametrize("typed", ["example.com:1", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", ":", "a/b"])
def test_where_nobody_can_listen(typed: str) -> None:
    with pytest.raises(ValueError, match="use HOST:PORT"):
        listen().parse(typed)


async def _until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110  # of another program's making
            await trio.sleep(0.01)


async def _ask(path: str, request: bytes) -> bytes:
    with trio.fail_after(10):
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(request)
            return b"".join([piece async for piece in stream])


async def test_only_one_thing_is_served(tmp_path: Path) -> None:
    path = str(tmp_path / "m.sock")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, path, lambda: "s3fsx_x{} 1\n")
        await _until((tmp_path / "m.sock").exists)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        answer = await _ask(path, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
        assert answer.endswith(b"\r\n\r\ns3fsx_x{} 1\n")
        assert b" 404 " in await _ask(path, b"GET / HTTP/1.1\r\n\r\n")
        assert b" 405 " in await _ask(path, b"POST /metrics HTTP/1.1\r\n\r\n")
        assert b" 400 " in await _ask(path, b"\x16\x03\x01\n\n")
        nursery.cancel_scope.cancel()
    assert os.listdir(tmp_path) == []


@pytest.mark.expect_log(r"metrics_textfile .*: No such file or directory; tried again")
async def test_the_text_file_comes_whole_and_goes(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(TextFile(str(tmp_path), "/mnt/a b", lambda: "x 1\n").run)
        nursery.start_soon(TextFile(str(tmp_path / "none"), "/mnt/a", lambda: "").run)
        file = tmp_path / name_of("/mnt/a b")
        await _until(file.exists)
        assert file.read_text() == "x 1\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        assert os.listdir(tmp_path) == ["s3fsx-mnt%2Fa%20b.prom"]
        await trio.sleep(0.2)
        nursery.cancel_scope.cancel()
    assert os.listdir(tmp_path) == []


def test_an_outage_is_the_first_thing_seen_and_old_documents_are_shown() -> None:
    document = {"source": "s3://b/", "endpoint": {"down": True, "last_error": "refused\x1b[2J"}, "uptime_s": 5}
    shown = list(statusview.lines("/m", document))
    assert shown[1] == ("bad", "  OUTAGE: the store does not answer; refused\\x1b[2J")
    assert list(statusview.lines("/m", {})) == [("head", "/m")]
    assert list(statusview.lines("/m", {"error": "dead"})) == [("head", "/m"), ("bad", "  dead")]


def test_operations_stand_below_the_requests_and_money_has_a_currency() -> None:
    histogram = {"count": 3, "sum": 0.3, "buckets": {"0.1": 3}}
    endpoint = {"requests": {"PutObject": 3}, "sent": 5, "received": 6, "cost": {"put": 0.5}, "currency": "USD"}
    cache = {"hits": 0, "misses": 0, "used": 0, "limit": 1024}
    document = {"endpoint": endpoint, "latency": {"s3": {"PutObject": histogram}}, "metadata_cache": cache}
    shown = [text for _, text in statusview.lines("/m", document)]
    assert shown[1:] == [
        "  requests      3, 0 of them retries; 0 errors",
        "                PutObject                      3  half in 100 ms, 99 % in 100 ms",
        "  sent          5 B",
        "  received      6 B",
        "  cost          0.5000 USD by Amazon's prices since the mount, without storage",
        "  metadata      nothing looked up so far; 0 B of 1.0 KiB",
    ]
    endpoint["currency"] = ""
    assert "0.5000 by the setting prices since" in next(t for _, t in statusview.lines("/m", document) if "cost" in t)


def test_a_screen_has_its_size() -> None:
    shown = statusview.screen([("bad", "x" * 30)] * 30, 10, 5, colour=True)
    assert shown.count("\n") == 4
    assert "27 more" in shown
    assert statusview.screen([("bad", "x")], 10, 5, colour=False) == "\033[Hx\033[K\n\033[J"
    assert [statusview.size(n) for n in (5, 1536, 3 << 30)] == ["5 B", "1.5 KiB", "3.0 GiB"]
