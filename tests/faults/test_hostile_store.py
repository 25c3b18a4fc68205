"""A hostile store under a real mount: an error with an errno, or hidden names; then it works on, without a remount."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

import pytest

from tests.faultproxy import Rule
from tests.faults.place import Place
from tests.hostile import (
    ETAG,
    EXTERNAL,
    QUADRATIC,
    Says,
    answer,
    chunk,
    contents,
    endless,
    entities,
    head,
    listing,
    paged,
)

pytestmark = [
    pytest.mark.mount,
    pytest.mark.rgw,
    pytest.mark.expect_log("is down|sending it again|WARNING fuse: ", optional=True),
]
IN_TIME = 60.0  # seconds; the deadlines are 2 s, a listing may take several requests, and the machine may be busy

LISTINGS: dict[str, Callable[[], Says]] = {
    "billion laughs": lambda: answer(listing(contents("d/&a9;"), doctype=entities()).replace("&amp;", "&")),
    "quadratic": lambda: answer(listing(contents("d/" + "&a;" * 99), doctype=QUADRATIC).replace("&amp;", "&")),
    "external entity": lambda: answer(listing(contents("d/&a;"), doctype=EXTERNAL).replace("&amp;", "&")),
    "a million tags": lambda: answer(listing("<a/>" * 1_000_000)),
    "200 MB": lambda: endless(head(200, Content_Length=str(200 << 20)), b"{" * (1 << 20)),
    "without an end": lambda: endless(head(200, Transfer_Encoding="chunked"), chunk(b"{" * (1 << 20))),
    "byte by byte": lambda: endless(head(200), b"<", 0.1),
    "100 Continue": lambda: endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
    "the same page for ever": lambda: answer(listing(contents("d/a"), token="t")),
    "pages in turn": lambda: paged(lambda n: listing(contents(f"d/{n}"), token=f"{n % 3}")),
    "negative size": lambda: answer(listing(contents("d/a", -1))),
    "huge size": lambda: answer(listing(contents("d/a", 1 << 63))),
    "elsewhere": lambda: answer(listing(contents("e/a"))),
    "above": lambda: answer(listing(contents("../../etc/passwd"))),
    "ETag of two lines": lambda: answer(listing(contents("d/a", etag="a&#10;b"))),
    "no listing": lambda: answer("<html>log in</html>"),
    "nothing": lambda: answer(""),
    "redirect": lambda: answer("", 307, Location="http://127.0.0.1:1/"),
}


@pytest.fixture
def directory(place: Place) -> str:
    place.view.put("d/a", b"content")
    return str(place.mount.path / "d")


def attempt(call: Callable[[], object]) -> str:
    start = time.monotonic()
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    finally:
        assert time.monotonic() - start < IN_TIME
    return ""


def alive(place: Place, directory: str) -> None:
    """The store is honest again, and it is the same process."""
    place.proxy.clear()
    assert place.mount.process is not None
    assert place.mount.process.poll() is None
    place.works_again()
    assert os.listdir(directory) == ["a"]
    with open(f"{directory}/a", "rb") as file:
        assert file.read() == b"content"
    assert place.mount.rss_peak_mib() < 128 + 128


@pytest.mark.parametrize("make", LISTINGS.values(), ids=LISTINGS)
def test_listings(place: Place, directory: str, make: Callable[[], Says]) -> None:
    with place.proxy.fault(Rule(make(), {"LIST"})):
        time.sleep(0.3)  # what was known is out of date
        assert attempt(lambda: os.listdir(directory)) == "EIO"
        assert os.statvfs(place.mount.path).f_namemax == 255
    alive(place, directory)


NAMES = [
    "..", ".", "../x", "/etc/passwd", "a//b", "x" * 256, "y" * 5_000_000, ".s3fsx/x", "b/", "\u00e9" * 128,
    "%00", "%FF%FE", "%0A", "%1B%5B31m", "%2E%2E",
]  # fmt: skip


def test_names(place: Place, directory: str) -> None:
    """What cannot be a name is not shown, whatever it would lead to; what only looks odd is."""
    entries = [contents(f"d/{name}") for name in (*NAMES, "a", "a")]
    body = listing(*entries, "<EncodingType>url</EncodingType>")
    with place.proxy.fault(Rule(answer(body), {"LIST"}), Rule(answer("", 404), {"HEAD"})):
        time.sleep(0.3)
        shown: list[str] = []
        assert attempt(lambda: shown.extend(os.listdir(directory))) in ("", "EIO")
        assert set(shown) <= {"a", "\n", "\x1b[31m", ".s3fsx"}
        assert attempt(lambda: os.stat(f"{directory}/../d/..")) == ""
    assert all(line.isprintable() for line in place.mount.log().splitlines())
    alive(place, directory)


METADATA: dict[str, dict[str, str]] = {
    "nonsense": {"mode": "99999999999", "uid": "-1", "gid": "1e400", "mtime": "nan"},
    "infinite": {"mode": "0777777777777", "uid": "4294967295", "gid": "99999999999999999999", "mtime": "1e400"},
    "setuid": {"mode": "36333", "uid": "0", "gid": "0", "mtime": "-1"},
    "a device": {"mode": "8630", "mtime": "inf"},
}


@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA)
def test_metadata(place: Place, directory: str, metadata: dict[str, str]) -> None:
    fields = {f"x_amz_meta_{name}": value for name, value in metadata.items()}
    place.view.put("d/b", b"four", **metadata)
    with place.proxy.fault(Rule(answer("", Content_Length="4", ETag=ETAG, **fields), {"HEAD"}, key="d/b")):
        time.sleep(0.3)
        status = os.stat(f"{directory}/b")
        assert status.st_mode & ~0o777 == 0o100000
        assert (status.st_uid, status.st_gid) == (0, 0)
        assert 0 <= status.st_mtime < 1 << 33
    place.view.delete("d/b")
    time.sleep(0.3)
    alive(place, directory)


READS: dict[str, Callable[[], Says]] = {
    "another range": lambda: answer(b"content", 206, Content_Range="bytes 7-13/14"),
    "too much": lambda: endless(
        head(206, Transfer_Encoding="chunked", Content_Range="bytes 0-6/7"), chunk(b"x" * 1000)
    ),
    "too little": lambda: answer(b"con", 206, Content_Range="bytes 0-6/7"),
    "another version": lambda: answer(b"CONTENT", 206, Content_Range="bytes 0-6/7", ETag='"other"'),
    "nothing after the head": lambda: Says(lambda _: [head(206, Content_Length="7", Content_Range="bytes 0-6/7")]),
    "a huge error": lambda: endless(head(500, Content_Length=str(200 << 20)), b"<" * (1 << 20)),
    "redirect": lambda: answer("", 301, Location="http://127.0.0.1:1/"),
}


@pytest.mark.parametrize("make", READS.values(), ids=READS)
def test_reads(place: Place, directory: str, make: Callable[[], Says]) -> None:
    place.view.put("d/a", b"content")
    with place.proxy.fault(Rule(make(), {"GET"})):
        time.sleep(0.3)
        got: list[bytes] = []

        def read() -> None:
            with open(f"{directory}/a", "rb") as file:
                got.append(file.read())

        assert attempt(read) in ("EIO", "ESTALE")
        assert got == []
    place.view.put("d/a", b"content")
    time.sleep(0.3)
    alive(place, directory)
