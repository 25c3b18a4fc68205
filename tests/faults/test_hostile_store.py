"""A hostile store under a real mount: an error with an errno, or hidden names; then it works on, without a remount."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable

import pytest

from tests.exchange import Request
from tests.faultproxy import Rule
from tests.faults.place import Place
from tests.hostile import (
    ETAG,
    EXTERNAL,
    Says,
    answer,
    chunk,
    contents,
    endless,
    entities,
    head,
    listing,
)
from tests.mount.harness import eventually

pytestmark = [
    pytest.mark.mount,
    pytest.mark.rgw,
    pytest.mark.expect_log("is down|sending it again|WARNING fuse: ", optional=True),
]
IN_TIME = 60.0  # seconds; the deadlines are 2 s, a listing may take several requests, and the machine may be busy

LISTINGS: dict[str, Callable[[], Says]] = {
    "billion laughs": lambda: answer(listing(contents("d/&a9;"), doctype=entities()).replace("&amp;", "&")),
    "external entity": lambda: answer(listing(contents("d/&a;"), doctype=EXTERNAL).replace("&amp;", "&")),
    "200 MB": lambda: endless(head(200, Content_Length=str(200 << 20)), b"{" * (1 << 20)),
    "without an end": lambda: endless(head(200, Transfer_Encoding="chunked"), chunk(b"{" * (1 << 20))),
    "byte by byte": lambda: endless(head(200), b"<", 0.1),
    "100 Continue": lambda: endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
    "the same page for ever": lambda: answer(listing(contents("d/a"), token="t")),
    "negative size": lambda: answer(listing(contents("d/a", -1))),
    "elsewhere": lambda: answer(listing(contents("e/a"))),
    "no listing": lambda: answer("<html>log in</html>"),
    "nothing": lambda: answer(""),
    "redirect": lambda: answer("", 307, Location="http://127.0.0.1:1/"),
}


_numbers = itertools.count()


@pytest.fixture
def name(place: Place) -> str:
    """A directory that is known and was never looked into, with the file ``a``: only the store can answer for it."""
    made = f"hostile{next(_numbers)}"
    place.view.put(f"{made}/a", b"content")
    eventually(lambda: made in os.listdir(place.mount.path), f"{made} is seen")
    return made


def attempt(call: Callable[[], object]) -> str:
    start = time.monotonic()
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    finally:
        assert time.monotonic() - start < IN_TIME
    return ""


def alive(place: Place, name: str) -> None:
    """The store is honest again, and it is the same process that finds the truth."""
    place.proxy.clear()
    assert place.mount.process is not None
    assert place.mount.process.poll() is None
    directory = place.mount.path / name
    eventually(lambda: os.statvfs(place.mount.path).f_blocks > 0, "the storage is active again")
    eventually(lambda: attempt(lambda: (directory / "a").read_bytes()) == "", "the file can be read")
    eventually(lambda: os.listdir(directory) == ["a"], "the directory shows what is there")
    assert (directory / "a").read_bytes() == b"content"
    assert place.mount.rss_peak_mib() < 128 + 128


@pytest.mark.parametrize("make", LISTINGS.values(), ids=LISTINGS)
def test_listings(place: Place, name: str, make: Callable[[], Says]) -> None:
    with place.proxy.fault(Rule(make(), {"LIST"})):
        assert attempt(lambda: os.listdir(place.mount.path / name)) == "EIO"
        assert os.statvfs(place.mount.path).f_namemax == 255
    alive(place, name)


NAMES = [
    "..", ".", "../x", "/etc/passwd", "a//b", "x" * 256, "y" * 5_000_000, ".s3fsx/x", "b/", "\u00e9" * 128,
    "%00", "%FF%FE", "%0A", "%1B%5B31m", "%2E%2E",
]  # fmt: skip


def test_names(place: Place, name: str) -> None:
    """What cannot be a name is not shown, whatever it would lead to; what only looks odd is."""
    entries = [contents(f"{name}/{odd}") for odd in (*NAMES, "a", "a")]
    bodies = {
        True: listing(*entries, "<EncodingType>url</EncodingType>").encode(),
        False: listing(f"<CommonPrefixes><Prefix>{name}/</Prefix></CommonPrefixes>").encode(),
    }

    def pieces(request: Request) -> list[bytes]:
        body = bodies[f"prefix={name}" in request.head.start]
        return [head(200, Content_Length=str(len(body))) + body]

    with place.proxy.fault(Rule(Says(pieces), {"LIST"}), Rule(answer("", 404), {"HEAD"})):
        shown: list[str] = []

        def read() -> bool:
            shown[:] = [entry.name for entry in os.scandir(place.mount.path / name)]
            return bool(shown)

        eventually(lambda: attempt(read) == "", "it is listed")  # 5 MB may take a busy machine more than 2 s
        assert set(shown) <= {"a", "\n", "\x1b[31m"}
    assert all(line.isprintable() for line in place.mount.log().splitlines())
    alive(place, name)


METADATA: dict[str, dict[str, str]] = {
    "nonsense": {"mode": "99999999999", "uid": "-1", "gid": "1e400", "mtime": "nan"},
    "infinite": {"mode": "0777777777777", "uid": "4294967295", "gid": "99999999999999999999", "mtime": "1e400"},
    "setuid": {"mode": "36333", "uid": "0", "gid": "0", "mtime": "-1"},
    "a device": {"mode": "8630", "mtime": "inf"},
}


@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA)
def test_metadata(place: Place, name: str, metadata: dict[str, str]) -> None:
    fields = {f"x_amz_meta_{field}": value for field, value in metadata.items()}
    says = answer("", 200, **{"Content_Length": "7", "ETag": ETAG, **fields})
    with place.proxy.fault(Rule(says, {"HEAD"}, key=f"{name}/a")):
        # What the tests before did to the list may have made the mount ask for no attributes for some seconds.
        eventually(lambda: bool(os.stat(place.mount.path / name / "a") and place.proxy.injected), "it is asked for")
        status = os.stat(place.mount.path / name / "a")
        assert status.st_mode & ~0o777 == 0o100000
        assert (status.st_uid, status.st_gid) == (0, 0)
        assert 0 <= status.st_mtime < 1 << 33
    alive(place, name)


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
def test_reads(place: Place, name: str, make: Callable[[], Says]) -> None:
    with place.proxy.fault(Rule(make(), {"GET"})):
        assert attempt(lambda: (place.mount.path / name / "a").read_bytes()) in ("EIO", "ESTALE")
    alive(place, name)


def test_afterwards_backups_work(place: Place) -> None:
    place.works_again()
