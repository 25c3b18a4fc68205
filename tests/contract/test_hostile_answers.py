"""A hostile store against S3Store: whatever it answers, one of our errors within the deadline, and bounded memory."""

from __future__ import annotations

import gzip
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import pytest
import trio

from s3fsx.errors import DeadlineExceeded, Rejected, S3fsxError, ServerFault, Transient
from s3fsx.s3 import store as s3
from s3fsx.s3.client import ClientMaker
from s3fsx.s3.lanes import Lanes
from s3fsx.s3.options import S3Options
from s3fsx.s3.store import S3Store
from s3fsx.store.endpoint import Endpoint
from s3fsx.store.objects import Capabilities, ObjectInfo, Payload, UploadedPart
from tests.faultproxy import FaultProxy, Rule
from tests.hostile import (
    ETAG,
    EXTERNAL,
    MIB,
    QUADRATIC,
    WHEN,
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

pytestmark = pytest.mark.expect_log("it is down|sending it again", optional=True)

NOBODY = "http://127.0.0.1:1"  # behind the proxy; nothing hostile is ever passed on
LIMIT = 15.0  # seconds for an operation with deadlines of 1.5 s and two attempts, on a busy machine
# What one answer may make us take: 8 MiB, and what fits into the sockets' buffers on the way.
TAKEN = 24 * MIB
PART = UploadedPart(1, 4, ETAG)

Operation = Callable[[S3Store], Awaitable[object]]
OPERATIONS: dict[str, Operation] = {
    "LIST": lambda s: s.list_page("d/"),
    "HEAD": lambda s: s.head("k"),
    "GET": lambda s: s.get_range("k", 0, 4, etag=ETAG),
    "PUT": lambda s: s.put("k", Payload.of(b"body"), metadata={}),
    "DELETE": lambda s: s.delete("k"),
    "COPY": lambda s: s.copy("k", "k", etag=ETAG),
    "CREATE UPLOAD": lambda s: s.create_upload("k", metadata={}),
    "PUT PART": lambda s: s.upload_part("k", "u", 1, Payload.of(b"body")),
    "COPY PART": lambda s: s.copy_part("k", "u", 1, "k", 0, 4, etag=""),
    "COMPLETE": lambda s: s.complete_upload("k", "u", [PART]),
    "ABORT": lambda s: s.abort_upload("k", "u"),
    "LIST PARTS": lambda s: s.list_parts("k", "u"),
    "LIST UPLOADS": lambda s: s.list_uploads("d/"),
    "PING": lambda s: s.ping(),
}


class Place:
    """One proxy and its boto3 clients for all tests: to make them takes a second on a busy machine."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.options = S3Options(
            "bucket", proxy.endpoint, access_key="a", secret_key="testsecret", attempts=2, connect_timeout=1.5,
            read_timeout=1.5, metadata_deadline=1.5, read_deadline=1.5, write_deadline=1.5,
        )  # fmt: skip
        make = ClientMaker(self.options)
        self.clients = {name: make(name) for name in ("metadata", "ping", "slow", "signed", "unsigned")}

    def patient(self) -> S3Store:
        """For answers that take their time to be read."""
        store = self.store()
        store._lanes = Lanes(replace(self.options, metadata_deadline=LIMIT))
        return store

    def store(self, **changes: object) -> S3Store:
        options = replace(self.options, **changes)  # type: ignore[arg-type]
        store = S3Store(options, Endpoint("it"), Capabilities("sha256"))
        if set(changes) <= {"attempts"}:
            store._requests._clients.update(self.clients)
            # They are for all tests, and of urllib3 1.26 a closed pool stays closed.
            store._requests.close = lambda: None  # type: ignore[method-assign]
        return store


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    with FaultProxy(NOBODY) as running:
        made = Place(running)
        yield made
        for client in made.clients.values():
            client.close()


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    shared.proxy.seen.clear()
    yield shared
    shared.proxy.clear()


async def attack(place: Place, says: Says, operation: str) -> S3fsxError:
    """The error it ends with: one of ours, in one short line, in time."""
    proxy = place.proxy
    proxy.add(Rule(says))
    start = time.monotonic()
    async with place.store() as store:
        with pytest.raises(S3fsxError) as caught:
            await OPERATIONS[operation](store)
    assert time.monotonic() - start < LIMIT
    assert proxy.seen, "the attack never came to pass"
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 600
    assert "testsecret" not in text
    assert says.sent.bytes < TAKEN * max(1, sum(proxy.seen.values()))
    return caught.value


def parts(entries: str, more: str = "") -> str:
    return f"<ListPartsResult>{entries}{more}</ListPartsResult>"


def part(number: object = 1, size: object = 4, etag: str = ETAG, more: str = "") -> str:
    return f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag><Size>{size}</Size>{more}</Part>"


def uploads(entries: str, more: str = "") -> str:
    return f"<ListMultipartUploadsResult>{entries}{more}</ListMultipartUploadsResult>"


def upload(key: str = "d/k", name: str = "u", when: str = WHEN) -> str:
    return f"<Upload><Key>{key}</Key><UploadId>{name}</UploadId><Initiated>{when}</Initiated></Upload>"


def created(name: str) -> str:
    return f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"


RANGE = {"Content_Range": "bytes 0-3/9", "ETag": f'"{ETAG}"'}
FINE = contents("d/a")

# What an answer says.
NONSENSE: dict[str, tuple[str, Says]] = {
    "billion laughs": ("LIST", answer(listing(contents("&a9;"), doctype=entities()).replace("&amp;", "&"))),
    "billion laughs in parts": ("LIST PARTS", answer(entities() + parts(part(etag="&a9;")))),
    "billion laughs in an error": ("PUT", answer(entities() + "<Error><Code>&a9;</Code></Error>", 400)),
    "quadratic": ("LIST", answer(listing(contents("&a;" * 99), doctype=QUADRATIC).replace("&amp;", "&"))),
    "external entity": ("LIST", answer(listing(contents("&a;"), doctype=EXTERNAL).replace("&amp;", "&"))),
    "external entity in an error": ("GET", answer(EXTERNAL + "<Error><Code>&a;</Code></Error>", 403)),
    "five million elements": ("LIST", answer(listing("<a/>" * 1_500_000))),
    "deeply nested": ("LIST", answer(listing("<a>" * 250_000 + "</a>" * 250_000))),
    "truncated XML": ("LIST", answer(listing(FINE)[:-20])),
    "UTF-16": ("LIST", answer(listing(FINE).encode("utf-16"))),
    "invalid UTF-8": ("LIST", answer(listing(contents("d/X")).encode().replace(b"X", b"\xff\xfe"))),
    "control characters": ("LIST", answer(listing(contents("d/X")).replace("X", "\x01"))),
    "not XML": ("LIST", answer(b"\x00" * 1000)),
    "no key": ("LIST", answer(listing("<Contents><Size>1</Size></Contents>"))),
    "no size": ("LIST", answer(listing(f"<Contents><Key>d/a</Key><LastModified>{WHEN}</LastModified></Contents>"))),
    "no time": ("LIST", answer(listing("<Contents><Key>d/a</Key><Size>1</Size></Contents>"))),
    "negative size": ("LIST", answer(listing(contents("d/a", -5)))),
    "huge size": ("LIST", answer(listing(contents("d/a", 1 << 63)))),
    "size of 5000 digits": ("LIST", answer(listing(contents("d/a", "9" * 5000)))),
    "size in words": ("LIST", answer(listing(contents("d/a", "large")))),
    "size as float": ("LIST", answer(listing(contents("d/a", "1e3")))),
    "time in words": ("LIST", answer(listing(contents("d/a", modified="yesterday")))),
    "year 0": ("LIST", answer(listing(contents("d/a", modified="0000-01-01T00:00:00Z")))),
    "year 99999": ("LIST", answer(listing(contents("d/a", modified="99999-01-01T00:00:00Z")))),
    "ETag of two lines": ("LIST", answer(listing(contents("d/a", etag="a&#10;X-Evil: 1")))),
    "ETag with quotes": ("LIST", answer(listing(contents("d/a", etag='a&quot;, "b')))),
    "ETag of 64 KiB": ("LIST", answer(listing(contents("d/a", etag="a" * (64 << 10))))),
    "key outside of the prefix": ("LIST", answer(listing(FINE, contents("elsewhere/a")))),
    "key above the prefix": ("LIST", answer(listing(contents("../a")))),
    "prefix outside of the prefix": (
        "LIST",
        answer(listing("<CommonPrefixes><Prefix>elsewhere/</Prefix></CommonPrefixes>")),
    ),
    "more, without a token": ("LIST", answer(listing(FINE).replace("false", "true"))),
    "no body": ("LIST", answer("")),
    "a page to log in": ("LIST", answer("<html><body>Log in</body></html>")),
    "no parts at all": ("LIST PARTS", answer("")),
    "no uploads at all": ("LIST UPLOADS", answer("")),
    "UTF-16 and entities": (
        "LIST",
        answer(
            listing(contents("&a;"), doctype=QUADRATIC)
            .replace("&amp;", "&")
            .replace("UTF-8", "UTF-16")
            .encode("utf-16")
        ),
    ),
    "HEAD without a length": ("HEAD", Says(lambda _: [head(200, ETag=ETAG)])),
    "HEAD with a negative length": ("HEAD", answer(Content_Length="-5", ETag=ETAG)),
    "HEAD with a length in words": ("HEAD", answer(Content_Length="large", ETag=ETAG)),
    "HEAD with an endless length": ("HEAD", answer(Content_Length="9" * 60, ETag=ETAG)),
    "HEAD with a bad time": ("HEAD", answer(Content_Length="5", ETag=ETAG, Last_Modified="yesterday")),
    "HEAD with an ETag of quotes": ("HEAD", answer(Content_Length="5", ETag='"a" "b')),
    "HEAD with 60 KiB of metadata": ("HEAD", answer(Content_Length="5", ETag=ETAG, x_amz_meta_mode="7" * 60_000)),
    "a header of 1 MiB": ("HEAD", answer(Content_Length="5", x_amz_meta_a="a" * MIB)),
    "a thousand headers": ("HEAD", answer("", 200, **{f"x_amz_meta_{n}": "a" for n in range(1000)})),
    "status 0": ("HEAD", answer(status=0)),
    "status 999": ("PUT", answer(status=999)),
    "status 1000": ("PUT", answer(status=1000)),
    "not HTTP": ("LIST", Says(lambda _: [b"SSH-2.0-OpenSSH_9.2\r\n"])),
    "HTTP/9": ("LIST", Says(lambda _: [b"HTTP/9.9 200 OK\r\n\r\n"])),
    "parts: number 0": ("LIST PARTS", answer(parts(part(0)))),
    "parts: number 10001": ("LIST PARTS", answer(parts(part(10_001)))),
    "parts: number -1": ("LIST PARTS", answer(parts(part(-1)))),
    "parts: negative size": ("LIST PARTS", answer(parts(part(1, -1)))),
    "parts: 6 GiB": ("LIST PARTS", answer(parts(part(1, 6 << 30)))),
    "parts: ETag of two lines": ("LIST PARTS", answer(parts(part(etag="a&#13;&#10;b")))),
    "parts: no ETag": (
        "LIST PARTS",
        answer(parts("<Part><PartNumber>1</PartNumber><Size>4</Size></Part>")),
    ),
    "uploads: key elsewhere": ("LIST UPLOADS", answer(uploads(upload("elsewhere/k")))),
    "uploads: id of two lines": ("LIST UPLOADS", answer(uploads(upload(name="a&#10;b")))),
    "uploads: id of 64 KiB": ("LIST UPLOADS", answer(uploads(upload(name="a" * (64 << 10))))),
    "uploads: no id": (
        "LIST UPLOADS",
        answer(uploads(f"<Upload><Key>d/k</Key><Initiated>{WHEN}</Initiated></Upload>")),
    ),
    "uploads: bad time": ("LIST UPLOADS", answer(uploads(upload(when="soon")))),
    "new upload: empty id": ("CREATE UPLOAD", answer(created(""))),
    "new upload: id of two lines": ("CREATE UPLOAD", answer(created("a&#10;b"))),
    "new upload: id of 64 KiB": ("CREATE UPLOAD", answer(created("a" * (64 << 10)))),
    "new upload: no id": ("CREATE UPLOAD", answer("<InitiateMultipartUploadResult/>")),
    "part: no ETag": ("PUT PART", answer()),
    "part: ETag of 64 KiB": ("PUT PART", answer(ETag="a" * 60_000)),
    "copied part: no result": ("COPY PART", answer("<CopyPartResult/>")),
    "range: another": ("GET", answer(b"body", 206, **{**RANGE, "Content_Range": "bytes 4-7/9"})),
    "range: longer": ("GET", answer(b"body and", 206, **{**RANGE, "Content_Range": "bytes 0-7/9"})),
    "range: shorter": ("GET", answer(b"bo", 206, **{**RANGE, "Content_Range": "bytes 0-1/9"})),
    "range: backwards": ("GET", answer(b"body", 206, **{**RANGE, "Content_Range": "bytes 3-0/9"})),
    "range: negative": ("GET", answer(b"body", 206, **{**RANGE, "Content_Range": "bytes -4-3/9"})),
    "range: in words": ("GET", answer(b"body", 206, **{**RANGE, "Content_Range": "some"})),
    "range: of 5000 digits": ("GET", answer(b"body", 206, **{**RANGE, "Content_Range": f"bytes 0-{'9' * 5000}/9"})),
    "range: a lie, more comes": ("GET", answer(b"body and more", 206, **RANGE)),
    "range: a lie, less comes": ("GET", answer(b"bo", 206, **RANGE)),
    "range: length too large": ("GET", answer(b"body", 206, **RANGE, Content_Length="99")),
    "range: negative length": ("GET", answer(b"body", 206, **RANGE, Content_Length="-4")),
    "range: the length is a lie": ("GET", Says(lambda _: [head(206, Content_Length="4", **RANGE) + b"bo"])),
    "range: another version": ("GET", answer(b"body", 206, **{**RANGE, "ETag": '"other"'})),
    "range: zipped": ("GET", answer(gzip.compress(bytes(MIB)), 206, **RANGE, Content_Encoding="gzip")),
    "zipped listing": ("LIST", answer(gzip.compress(listing(FINE).encode()), Content_Encoding="gzip")),
    "a bad chunk": ("LIST", Says(lambda _: [head(200, Transfer_Encoding="chunked") + b"zz\r\nabc\r\n"])),
    "a negative chunk": ("LIST", Says(lambda _: [head(200, Transfer_Encoding="chunked") + b"-5\r\nabc\r\n"])),
    "Retry-After for ever": ("PUT", answer(status=503, Retry_After="9" * 400)),
    "Retry-After in superscript": ("PUT", Says(lambda _: [b"HTTP/1.1 503 So\r\nRetry-After: \xb2\r\n\r\n"])),
    "an error of 5 MB in one line": ("PUT", answer(f"<Error><Message>{'x' * 5_000_000}</Message></Error>", 400)),
    "an error with control characters": ("PUT", answer("<Error><Message>a&#10;\x7f\u202e</Message></Error>", 400)),
}


@pytest.mark.parametrize(("operation", "says"), NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_is_an_error(place: Place, operation: str, says: Says) -> None:
    await attack(place, says, operation)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("status", [102, 103, 199])
async def test_an_interim_answer_is_no_success(place: Place, operation: str, status: int) -> None:
    assert isinstance(await attack(place, answer(status=status, ETag=ETAG), operation), S3fsxError)


# Where it sends us.


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("status", [301, 303, 307])
async def test_no_redirect_is_followed(place: Place, operation: str, status: int) -> None:
    with FaultProxy(NOBODY) as elsewhere:
        elsewhere.add(Rule(answer(listing())))
        body = (
            f"<Error><Code>PermanentRedirect</Code><Endpoint>{elsewhere.endpoint}</Endpoint><Region>evil</Region>"
            "<Bucket>bucket</Bucket></Error>"
        )
        says = answer(body, status, Location=f"{elsewhere.endpoint}/bucket/k", x_amz_bucket_region="evil-1")
        error = await attack(place, says, operation)
        assert isinstance(error, Rejected)
        assert "not followed" in str(error)
        assert not elsewhere.seen
        assert sum(place.proxy.seen.values()) == 1, "asked again, for another region"


@pytest.mark.parametrize("operation", ["LIST", "HEAD"])
async def test_the_region_is_the_one_that_was_configured(place: Place, operation: str) -> None:
    body = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>evil&#10;X: 1</Region></Error>"
    await attack(place, answer(body, 400, x_amz_bucket_region="evil-1"), operation)
    assert set(place.proxy.seen) <= {operation}


# How much it sends, and how long.

JSON = bytes(MIB).replace(b"\0", b"{")
CHUNKED = head(200, Transfer_Encoding="chunked", ETag=ETAG)
ENDLESS: dict[str, tuple[str, Callable[[], Says]]] = {
    "listing of 200 MB": ("LIST", lambda: endless(head(200, Content_Length=str(200 * MIB)), JSON)),
    "listing without an end": ("LIST", lambda: endless(head(200), JSON)),
    "listing in endless chunks": ("LIST", lambda: endless(CHUNKED, chunk(JSON))),
    "error of 200 MB": ("PUT", lambda: endless(head(400, Content_Length=str(200 * MIB)), JSON)),
    "error of 200 MB to a GET": ("GET", lambda: endless(head(403, Content_Length=str(200 * MIB)), JSON)),
    "error in endless chunks to a GET": ("GET", lambda: endless(CHUNKED.replace(b"200", b"500"), chunk(JSON))),
    "range in endless chunks": (
        "GET",
        lambda: endless(head(206, Transfer_Encoding="chunked", **RANGE), chunk(JSON)),
    ),
    "range without an end": ("GET", lambda: endless(head(206, **RANGE), JSON)),
    "the whole instead of a range": ("GET", lambda: endless(head(200, Content_Length=str(200 * MIB)), JSON)),
    "a delete's answer of 200 MB": ("DELETE", lambda: endless(head(200, Content_Length=str(200 * MIB)), JSON)),
    "a part's answer without an end": ("PUT PART", lambda: endless(head(200, ETag=ETAG), JSON)),
    "complete's answer without an end": ("COMPLETE", lambda: endless(head(200), b" " * MIB)),
    "headers without an end": ("HEAD", lambda: endless(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 1000)),
    "one header without an end": ("HEAD", lambda: endless(b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * MIB)),
    "a status line without an end": ("HEAD", lambda: endless(b"HTTP/1.1 200 ", b"b" * MIB)),
}
DRIPPING: dict[str, tuple[str, Callable[[], Says]]] = {
    "100 Continue for ever": ("LIST", lambda: endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01)),
    "100 Continue for ever to a delete": ("DELETE", lambda: endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01)),
    "a status line, byte by byte": ("LIST", lambda: endless(b"HTTP/1.1 200 ", b"b", 0.1)),
    "headers, byte by byte": ("LIST", lambda: endless(b"HTTP/1.1 200 OK\r\nX-A: ", b"b", 0.1)),
    "a listing, byte by byte": ("LIST", lambda: endless(head(200), b"b", 0.1)),
    "a listing in chunks of a byte": ("LIST", lambda: endless(CHUNKED, chunk(b"b"), 0.1)),
    "a range, byte by byte": (
        "GET",
        lambda: endless(head(206, Content_Length="999", **{**RANGE, "Content_Range": "bytes 0-998/999"}), b"b", 0.1),
    ),
    "a delete's answer, byte by byte": ("DELETE", lambda: endless(head(200), b"b", 0.1)),
    "a part's answer, byte by byte": ("PUT PART", lambda: endless(head(200, ETag=ETAG), b"b", 0.1)),
    "complete's answer, blank by blank": ("COMPLETE", lambda: endless(CHUNKED, chunk(b" "), 0.1)),
    "a list of parts, byte by byte": ("LIST PARTS", lambda: endless(head(200), b"b", 0.1)),
    "an abort's answer, byte by byte": ("ABORT", lambda: endless(head(204), b"b", 0.1)),
    "a copy's answer, blank by blank": ("COPY", lambda: endless(CHUNKED, chunk(b" "), 0.1)),
}


@pytest.mark.parametrize(("operation", "make"), ENDLESS.values(), ids=ENDLESS)
async def test_no_answer_fills_the_memory(place: Place, operation: str, make: Callable[[], Says]) -> None:
    tracemalloc.start()
    try:
        await attack(place, make(), operation)
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("operation", "make"), DRIPPING.values(), ids=DRIPPING)
async def test_no_answer_takes_for_ever(place: Place, operation: str, make: Callable[[], Says]) -> None:
    before = trio.to_thread.current_default_thread_limiter()
    says = make()
    if operation == "GET":
        place.proxy.add(Rule(says))
        async with place.store() as store:
            with pytest.raises(S3fsxError):
                await store.get_range("k", 0, 999, etag=ETAG)
    elif operation == "ABORT":  # a 204 has no body: it is a success at once
        place.proxy.add(Rule(says))
        async with place.store() as store:
            with trio.fail_after(LIMIT):
                await store.abort_upload("k", "u")
    else:
        assert isinstance(await attack(place, says, operation), Transient | DeadlineExceeded)
    assert before.borrowed_tokens == 0


async def test_threads_do_not_stay_behind_with_an_answer_that_drips(place: Place) -> None:
    """Abandoned by their callers, they hold a place in their lane; eight of them, and nothing could be asked."""
    drip = place.proxy.add(Rule(endless(head(200), b"b", 0.1)))
    async with place.store(attempts=1) as store, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(S3fsxError):
                await store.list_page("d/")

        for _ in range(16):
            nursery.start_soon(ask)
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    place.proxy.remove(drip)
    place.proxy.add(Rule(answer(listing(FINE))))
    async with place.store(attempts=1) as store:
        with trio.fail_after(LIMIT):
            assert len((await store.list_page("d/")).objects) == 1


# Lists of parts and of uploads without an end.


MORE = "<IsTruncated>true</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker>"


@pytest.mark.parametrize(
    ("operation", "page"),
    [
        ("LIST PARTS", lambda n: parts(part(1), MORE)),
        ("LIST PARTS", lambda n: parts(part(2 - n % 2), MORE)),
        (
            "LIST UPLOADS",
            lambda n: uploads(upload(), "<IsTruncated>true</IsTruncated><NextKeyMarker>a</NextKeyMarker>"),
        ),
        (
            "LIST UPLOADS",
            lambda n: uploads("", f"<IsTruncated>true</IsTruncated><NextKeyMarker>{n % 2}</NextKeyMarker>"),
        ),
        ("LIST UPLOADS", lambda n: uploads("", f"<IsTruncated>true</IsTruncated><NextKeyMarker>{n}</NextKeyMarker>")),
    ],
    ids=["parts: the same", "parts: two in turn", "uploads: the same", "uploads: two in turn", "uploads: always new"],
)
async def test_no_list_goes_on_for_ever(
    place: Place, operation: str, page: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "MOST_PAGES", 30)
    place.proxy.add(Rule(paged(page)))
    async with place.store() as store:
        with trio.fail_after(60), pytest.raises((ServerFault, DeadlineExceeded)):
            await OPERATIONS[operation](store)


async def test_ten_thousand_parts_are_read_and_no_more(place: Place) -> None:
    asked: list[int] = []

    def page(n: int) -> str:
        asked.append(n)
        return parts("".join(part(n * 1000 + i) for i in range(1, 1001)), MORE if n < 10 else "")

    place.proxy.add(Rule(paged(page)))
    async with place.store() as store:
        with pytest.raises((ServerFault, DeadlineExceeded)):
            await store.list_parts("k", "u")


# What is odd, and true.


ODD: dict[str, tuple[str, ObjectInfo]] = {
    "year 9999": (contents("d/a", modified="9999-12-31T23:59:59Z"), ObjectInfo("d/a", 1, ETAG, 253402300799.0)),
    "before 1970": (contents("d/a", modified="1901-01-01T00:00:00Z"), ObjectInfo("d/a", 1, ETAG, -2177452800.0)),
    "no ETag": (contents("d/a", etag=""), ObjectInfo("d/a", 1, "", 1795176000.0)),
    "a key of 5 MB": (contents("d/" + "a" * 5_000_000), ObjectInfo("d/" + "a" * 5_000_000, 1, ETAG, 1795176000.0)),
    "a class of 64 KiB": (
        contents("d/a").replace("STANDARD", "S" * (64 << 10)),
        ObjectInfo("d/a", 1, ETAG, 1795176000.0, "UNKNOWN"),
    ),
}


@pytest.mark.parametrize(("entry", "info"), ODD.values(), ids=ODD)
async def test_what_is_odd_but_possible_is_told(place: Place, entry: str, info: ObjectInfo) -> None:
    place.proxy.add(Rule(answer(listing(entry))))
    async with place.patient() as store:
        page = await store.list_page("d/")
    assert page.objects == (info,)


async def test_hostile_metadata_is_passed_on_as_text(place: Place) -> None:
    """What it means is decided in ``attributes``, which takes nothing it does not know."""
    values = {"mode": "99999999999", "uid": "-1", "gid": "1e400", "mtime": "nan", "a": "\u00b2\u00bc"}
    fields = {f"x_amz_meta_{name}": value for name, value in values.items()}
    latin = head(200, Content_Length="5", ETag=ETAG, **fields).decode().encode("latin-1")
    place.proxy.add(Rule(Says(lambda _: [latin])))
    async with place.store() as store:
        assert (await store.head("k")).metadata == values
