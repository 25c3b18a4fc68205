"""Answers of something on the way that is not S3: a portal's page to log in, an ingress that was just reloaded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import pytest

from s3fsx.errors import BucketMissing, Corrupted, NotFound, NotSupported, Rejected, ServerFault, Transient, UploadGone
from s3fsx.s3.client import ClientMaker
from s3fsx.s3.options import S3Options
from s3fsx.s3.store import S3Store
from s3fsx.store.endpoint import Endpoint
from s3fsx.store.objects import Capabilities, Payload, UploadedPart
from tests.faultproxy import FaultProxy, Rule
from tests.hostile import ETAG, Says, answer, contents, listing

pytestmark = pytest.mark.expect_log("it is down|is down:", optional=True)

LOGIN = "<html><body>Please log in</body></html>"
PART = UploadedPart(1, 4, ETAG)
SIGN = "tx1"

OPERATIONS: dict[str, Callable[[S3Store], Awaitable[object]]] = {
    "LIST": lambda s: s.list_page("d/"),
    "HEAD": lambda s: s.head("k"),
    "GET": lambda s: s.get_range("k", 0, 4, etag=ETAG),
    "GET ALL": lambda s: s.get("k", limit=1 << 20),
    "PUT": lambda s: s.put("k", Payload.of(b"body"), metadata={}),
    "DELETE": lambda s: s.delete("k"),
    "COPY": lambda s: s.copy("k", "k", etag=""),
    "CREATE UPLOAD": lambda s: s.create_upload("k", metadata={}),
    "PUT PART": lambda s: s.upload_part("k", "u", 1, Payload.of(b"body")),
    "COPY PART": lambda s: s.copy_part("k", "u", 1, "k", 0, 4, etag=""),
    "COMPLETE": lambda s: s.complete_upload("k", "u", [PART]),
    "ABORT": lambda s: s.abort_upload("k", "u"),
    "LIST PARTS": lambda s: s.list_parts("k", "u"),
    "LIST UPLOADS": lambda s: s.list_uploads("d/"),
    "GET HOLD": lambda s: s.legal_hold("k"),
    "PUT HOLD": lambda s: s.set_legal_hold("k", True),
    "GET RETENTION": lambda s: s.retained_until("k"),
    "GET LOCK": lambda s: s.has_object_lock(),
}


class Place:
    """One proxy and its boto3 clients for all tests."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.options = S3Options("bucket", proxy.endpoint, access_key="a", secret_key="b", attempts=1)
        make = ClientMaker(self.options)
        self.clients = {name: make(name) for name in ("metadata", "slow", "signed", "unsigned")}

    def says(self, *answers: Says) -> None:
        """The last one to every request; each one before it once."""
        self.proxy.clear()
        for one in answers[:-1]:
            self.proxy.add(Rule(one, times=1))
        self.proxy.add(Rule(answers[-1]))

    def store(self, integrity: str = "crc32", *, md5_etags: bool = False) -> S3Store:
        """Every request is one attempt."""
        store = S3Store(self.options, Endpoint(), Capabilities(integrity, md5_etags=md5_etags))
        store._requests._clients.update(self.clients)
        # They are for all tests, and of urllib3 1.26 a closed pool stays closed.
        store._requests.close = lambda: None  # type: ignore[method-assign]
        for name in ("settle", "part", "publish", "copy_part"):
            setattr(store._lanes, name, replace(getattr(store._lanes, name), attempts=1))
        return store


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    with FaultProxy("http://127.0.0.1:1") as proxy:
        made = Place(proxy)
        yield made
        for client in made.clients.values():
            client.close()


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    yield shared
    shared.proxy.clear()


@pytest.mark.parametrize("page", [LOGIN, "<!doctype html>\n<HTML><p>Please log in", "ok", '{"ok": true}'])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_page_to_log_in_is_no_success(place: Place, operation: str, page: str) -> None:
    place.says(answer(page, Content_Type="text/html"))
    async with place.store() as store:
        with pytest.raises(Transient):
            await OPERATIONS[operation](store)


@pytest.mark.parametrize("operation", ["PUT", "PUT PART", "DELETE", "ABORT", "COMPLETE", "COPY", "COPY PART"])
@pytest.mark.parametrize("integrity", ["crc32", "sha256", "etag"])
async def test_an_empty_success_is_none(place: Place, operation: str, integrity: str) -> None:
    place.says(answer())
    async with place.store(integrity) as store:
        with pytest.raises(ServerFault):
            await OPERATIONS[operation](store)


async def test_an_etag_of_a_web_server_is_none_of_s3(place: Place) -> None:
    place.says(answer(ETag='"5f3c-27"'))
    async with place.store() as store:
        for operation in ("PUT", "PUT PART"):
            with pytest.raises(ServerFault):
                await OPERATIONS[operation](store)
    place.says(answer(ETag='"opaque"', x_amz_request_id=SIGN))
    async with place.store() as store:
        assert (await store.put("k", Payload.of(b"body"), metadata={})).etag == "opaque"


async def test_a_delete_that_s3_answers_is_believed(place: Place) -> None:
    place.says(answer(status=204))
    async with place.store() as store:
        await store.delete("k")
        await store.abort_upload("k", "u")
    place.says(answer(x_amz_request_id=SIGN))
    async with place.store() as store:
        await store.delete("k")
        await store.abort_upload("k", "u")


@pytest.mark.expect_log("sending it again")
async def test_where_etags_are_md5s_a_small_put_has_its_own(place: Place) -> None:
    place.says(answer(ETag=ETAG, x_amz_request_id=SIGN))
    async with place.store(md5_etags=True) as store:
        with pytest.raises(Corrupted):
            await store.put("k", Payload.of(b"body"), metadata={})
        large = await store.put("k", Payload.of(bytes((8 << 20) + 1)), metadata={})
        assert large.etag == ETAG
    place.says(answer(ETag=ETAG, x_amz_server_side_encryption="aws:kms", x_amz_request_id=SIGN))
    async with place.store(md5_etags=True) as store:
        assert (await store.put("k", Payload.of(b"body"), metadata={})).etag == ETAG


@pytest.mark.parametrize("page", ["404 page not found\n", "<html><h1>404 Not Found</h1></html>", "<html><hr>nginx", ""])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_404_that_is_not_of_s3_says_nothing(place: Place, operation: str, page: str) -> None:
    place.says(answer(page, 404, Content_Type="text/html"))
    async with place.store() as store:
        with pytest.raises(Transient):
            await OPERATIONS[operation](store)


async def test_a_404_of_s3_is_believed(place: Place) -> None:
    place.says(answer("<Error><Code>NoSuchKey</Code></Error>", 404))
    async with place.store() as store:
        with pytest.raises(NotFound):
            await OPERATIONS["GET"](store)
        with pytest.raises(UploadGone):
            await OPERATIONS["LIST PARTS"](store)
    place.says(answer(status=404, x_amz_request_id=SIGN))
    async with place.store() as store:
        with pytest.raises(NotFound):
            await store.head("k")
        assert store.requests == {"HeadObject": 1}


async def test_a_404_to_a_head_without_a_sign_is_looked_up_in_the_list(place: Place) -> None:
    place.says(answer(status=404), answer(listing(contents("k"))))
    async with place.store() as store:
        with pytest.raises(ServerFault):
            await store.head("k")
    place.says(answer(status=404), answer(listing(contents("k2"))))
    async with place.store() as store:
        with pytest.raises(NotFound):
            await store.head("k")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "ObjectLockConfigurationNotFoundError"),
        (404, "NoSuchKey"),
        (501, "NotImplemented"),
        (405, "MethodNotAllowed"),
    ],
)
async def test_no_object_lock_where_the_store_says_so(place: Place, status: int, code: str) -> None:
    place.says(answer(f"<Error><Code>{code}</Code></Error>", status))
    async with place.store() as store:
        assert not await store.has_object_lock()


async def test_what_else_is_said_to_the_question_is_no_answer(place: Place) -> None:
    for status, body, kind in (
        (400, "<Error><Code>InvalidRequest</Code></Error>", Rejected),
        (405, LOGIN, NotSupported),
        (404, "<Error><Code>NoSuchBucket</Code></Error>", BucketMissing),
    ):
        place.says(answer(body, status))
        async with place.store() as store:
            with pytest.raises(kind):
                await store.has_object_lock()


NO_SUCH_KEY = "<Error><Code>NoSuchKey</Code></Error>"


@pytest.mark.parametrize(("there", "error"), [(["k"], ServerFault), (["k.notes"], NotFound), ([], NotFound)])
async def test_a_version_that_is_read_is_gone_when_the_list_says_so_too(
    place: Place, there: list[str], error: type[Exception]
) -> None:
    """In S3's own words: of an object that was there a moment ago they are not enough."""
    place.says(answer(NO_SUCH_KEY, 404, x_amz_request_id=SIGN), answer(listing(*map(contents, there))))
    async with place.store() as store:
        with pytest.raises(error, match="and it is listed" if error is ServerFault else "not in the bucket's list"):
            await store.get_range("k", 0, 4, etag=ETAG)
