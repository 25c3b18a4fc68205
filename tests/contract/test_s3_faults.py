"""What S3Store makes of lost answers, bad bytes, refusals and silence."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from s3fsx.errors import (
    AccessDenied,
    BucketMissing,
    ConnectionFailed,
    Corrupted,
    DeadlineExceeded,
    EndpointDown,
    Exists,
    NotFound,
    NotSupported,
    S3fsxError,
    ServerFault,
    StoreError,
    UploadGone,
)
from s3fsx.s3.body import Body
from s3fsx.s3.options import S3Options
from s3fsx.s3.probe import probe
from s3fsx.s3.store import S3Store
from s3fsx.store.endpoint import Endpoint
from s3fsx.store.objects import MIN_PART, WRITE_ID, Capabilities, Payload
from tests import policy
from tests.s3server import S3Server

from .conftest import Place

ALL = Capabilities("etag", conditional_put=True)


def on_call(
    store: S3Store, client: str, method: str, hook: Callable[[Callable[..., Any], dict[str, Any]], Any]
) -> None:
    """The next call of a boto method goes to hook(method, parameters), the ones after it as always."""
    target = store._requests.client(client)
    original = getattr(target, method)

    def once(**params: Any) -> Any:
        setattr(target, method, original)
        return hook(original, params)

    setattr(target, method, once)


def lose_answer(call: Callable[..., Any], params: dict[str, Any]) -> None:
    call(**params)
    raise ConnectionResetError("answer lost")


# Failed after the effect.


async def test_a_conditional_put_whose_answer_was_lost_has_succeeded(place: Place) -> None:
    async with place.store(ALL) as store:
        on_call(store, "unsigned", "put_object", lose_answer)
        made = await store.put("k", Payload.of(b"mine"), metadata={WRITE_ID: "1"}, only_if_absent=True)
        assert store.requests["PutObject"] == 2
        assert await store.head("k") == made


async def test_a_conditional_put_that_somebody_else_won_has_not(place: Place) -> None:
    def somebody_else(call: Callable[..., Any], params: dict[str, Any]) -> None:
        call(**(params | {"Body": b"them", "Metadata": {WRITE_ID: "2"}}))
        raise ConnectionResetError("answer lost")

    async with place.store(ALL) as store:
        on_call(store, "unsigned", "put_object", somebody_else)
        with pytest.raises(Exists):
            await store.put("k", Payload.of(b"mine"), metadata={WRITE_ID: "1"}, only_if_absent=True)
        assert await store.get_range("k", 0, 4, etag="") == b"them"


async def test_a_complete_whose_answer_was_lost_has_succeeded(place: Place) -> None:
    async with place.store() as store:
        upload = await store.create_upload("k", metadata={WRITE_ID: "1"})
        part = await store.upload_part("k", upload, 1, Payload.of(b"mine"))
        on_call(store, "slow", "complete_multipart_upload", lose_answer)
        await store.complete_upload("k", upload, [part])
        assert (await store.head("k")).size == 4


@pytest.mark.expect_log("werkzeug: Error on request", optional=True)  # moto: a KeyError for an upload that is gone
async def test_a_complete_after_a_restart_knows_its_object_by_the_parts(place: Place) -> None:
    async with place.store() as store:
        upload = await store.create_upload("k", metadata={WRITE_ID: "1"})
        part = await store.upload_part("k", upload, 1, Payload.of(b"mine"))
        await store.complete_upload("k", upload, [part])
    async with place.store() as restarted:
        await restarted.complete_upload("k", upload, [part])
        other = await restarted.create_upload("k", metadata={})
        theirs = await restarted.upload_part("k", other, 1, Payload.of(b"them"))
        await restarted.complete_upload("k", other, [theirs])
    async with place.store() as late:
        with pytest.raises(UploadGone):
            await late.complete_upload("k", upload, [part])


async def test_a_lost_answer_to_the_rest(place: Place) -> None:
    async with place.store() as store:
        source = await store.put("s", Payload.of(b"body"), metadata={})
        on_call(store, "unsigned", "put_object", lose_answer)
        await store.put("k", Payload.of(b"1"), metadata={})
        on_call(store, "slow", "copy_object", lose_answer)
        assert (await store.copy("s", "t", etag=source.etag)).size == 4
        on_call(store, "metadata", "delete_object", lose_answer)
        await store.delete("k")
        upload = await store.create_upload("u", metadata={})
        on_call(store, "unsigned", "upload_part", lose_answer)
        await store.upload_part("u", upload, 1, Payload.of(b"1"))
        assert len(await store.list_parts("u", upload)) == 1
        on_call(store, "metadata", "abort_multipart_upload", lose_answer)
        await store.abort_upload("u", upload)
        assert await store.list_uploads("") == ()


async def test_a_batch_of_deletions_whose_answer_was_lost(place: Place) -> None:
    async with place.store() as store:
        for key in ("a", "b"):
            await store.put(key, Payload.of(b"1"), metadata={})
        on_call(store, "metadata", "delete_objects", lose_answer)
        assert await store.delete_many({"a": None, "b": None}) == {}
        assert (await store.list_page("")).objects == ()
        assert (store.requests["DeleteObjects"], store.requests["DeleteObject"]) == (2, 0)


@pytest.mark.parametrize("lost", ["Deleted", "all"])
async def test_what_a_batch_did_not_delete_is_deleted_singly(place: Place, lost: str) -> None:
    """An answer that does not name what was asked for proves nothing."""

    def half(call: Callable[..., Any], params: dict[str, Any]) -> Any:
        answer = call(**params | {"Delete": {"Objects": params["Delete"]["Objects"][:1]}})
        return answer if lost == "Deleted" else {"ResponseMetadata": answer["ResponseMetadata"]}

    async with place.store() as store:
        for key in ("a", "b"):
            await store.put(key, Payload.of(b"1"), metadata={})
        on_call(store, "metadata", "delete_objects", half)
        assert await store.delete_many({"a": None, "b": None}) == {}
        assert (await store.list_page("")).objects == ()
        assert (store.requests["DeleteObjects"], store.requests["DeleteObject"]) == (1, 2)


@pytest.mark.rgw
async def test_a_batch_of_which_some_may_not_be_deleted(rgw: S3Server) -> None:
    bucket = rgw.make_bucket("batch")
    refusal = {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject"}
    refusal["Resource"] = f"arn:aws:s3:::{bucket}/kept/*"
    rgw.client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [refusal]}))
    async with Place(rgw, bucket).store() as store:
        for key in ("a", "kept/b", "c"):
            await store.put(key, Payload.of(b"1"), metadata={})
        failed = await store.delete_many(dict.fromkeys(("a", "kept/b", "c", "kept/never")))
        assert {key: type(error) for key, error in failed.items()} == dict.fromkeys(
            ("kept/b", "kept/never"), AccessDenied
        )
        assert [info.key for info in (await store.list_page("", delimiter="")).objects] == ["kept/b"]
        assert (store.requests["DeleteObjects"], store.requests["DeleteObject"]) == (1, 0)


@pytest.mark.rgw
async def test_keys_that_may_not_delete_in_batches_delete_singly(rgw: S3Server) -> None:
    """Ceph RGW 16 asks for the right to delete the bucket's name as if it were an object's."""
    bucket = rgw.make_bucket("batch")
    policy.grant(rgw, bucket, "p/")
    async with Place(rgw, bucket).store(access_key=rgw.alt_access_key, secret_key=rgw.alt_secret_key) as store:
        for key in ("p/a", "p/b"):
            await store.put(key, Payload.of(b"1"), metadata={})
        assert await store.delete_many({"p/a": None, "p/b": None}) == {}
        assert (await store.list_page("p/")).objects == ()


# Bytes that arrive wrong.


def corrupt(call: Callable[..., Any], params: dict[str, Any]) -> Any:
    return call(**(params | {"Body": Body(Payload.of(b"BROKEN"))}))


@pytest.mark.expect_log("arrived with MD5 .* sending it again")
async def test_a_part_that_arrives_wrong_is_sent_again(place: Place) -> None:
    async with place.store(Capabilities("etag")) as store:
        upload = await store.create_upload("k", metadata={})
        on_call(store, "unsigned", "upload_part", corrupt)
        part = await store.upload_part("k", upload, 1, Payload.of(b"broken"))
        await store.complete_upload("k", upload, [part])
        assert await store.get_range("k", 0, 6, etag="") == b"broken"


@pytest.mark.expect_log("arrived with MD5 .* sending it again")
async def test_a_part_that_never_arrives_right_is_an_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place.store(Capabilities("etag")) as store:
        upload = await store.create_upload("k", metadata={})
        client = store._requests.client("unsigned")
        right = client.upload_part
        monkeypatch.setattr(client, "upload_part", lambda **params: corrupt(right, params), raising=False)
        with pytest.raises(Corrupted):
            await store.upload_part("k", upload, 1, Payload.of(b"broken"))
        assert store.requests["UploadPart"] == 3
        await store.abort_upload("k", upload)


@pytest.mark.rgw
async def test_with_sha256_the_store_itself_refuses_what_differs(rgw: Any) -> None:
    async with Place(rgw, rgw.make_bucket()).store(Capabilities("sha256")) as store:
        assert await store.refuses_wrong("sha256", "k")
        with pytest.raises(NotFound):
            await store.head("k")
        assert not await store.refuses_wrong("crc32", "k")


# What the probe finds out.


EXPECTED = {
    "rgw": Capabilities("sha256", conditional_put=True, part_copy=True, md5_etags=True),
    "gateway": Capabilities("crc32", conditional_put=True, conditional_complete=True, part_copy=True, md5_etags=True),
    "moto": Capabilities("etag", conditional_put=True, conditional_complete=True, part_copy=True, md5_etags=True),
}


async def test_the_probe_tells_the_truth_and_leaves_nothing(place: Place) -> None:
    async with place.store() as store:
        found = await probe(store, "pre/")
        assert found == store.capabilities == EXPECTED[place.server.name]
        assert store.requests.total() <= 14 + 3 * (found.integrity == "etag")  # a part, whose ETag has to be an MD5
        assert (await store.list_page("", delimiter="")).objects == ()
        assert await store.list_uploads("") == ()


async def test_at_mount_the_probe_copies_and_completes_nothing(place: Place) -> None:
    async with place.store() as store:
        found = await probe(store, "pre/", multipart=False)
        assert found.integrity == EXPECTED[place.server.name].integrity
        assert found.conditional_put
        assert found.part_copy
        part = {"CreateMultipartUpload", "UploadPart", "AbortMultipartUpload"} if found.integrity == "etag" else set()
        asked = {"PutObject", "HeadObject", "DeleteObject", "GetObjectLockConfiguration", *part}
        assert set(store.requests) == asked
        store.reset_counters()
        assert not store.requests
        assert not store.endpoint.errors


async def test_a_store_that_refuses_a_conditional_complete_gets_a_plain_one(place: Place) -> None:
    async with place.store() as store:
        store.capabilities = replace(EXPECTED[place.server.name], conditional_complete=True)
        conditions: list[object] = []

        def refuse(call: Callable[..., Any], params: dict[str, Any]) -> None:
            conditions.append(params.get("IfNoneMatch"))
            raise NotSupported("501")

        on_call(store, "slow", "complete_multipart_upload", refuse)
        upload_id = await store.create_upload("new", metadata={})
        part = await store.upload_part("new", upload_id, 1, Payload.of(b"x"))
        await store.complete_upload("new", upload_id, [part], only_if_absent=True)
        assert conditions == ["*"]
        assert not store.capabilities.conditional_complete
        assert (await store.head("new")).size == 1


async def test_with_kms_an_etag_proves_nothing(place: Place) -> None:
    if place.server.name != "moto":
        pytest.skip("RGW verifies SHA-256 and needs no ETag; the gateway encrypts nothing and says so")
    async with place.store(sse="aws:kms") as store:
        found = await probe(store, "")
        assert found.integrity == "sha256"
        assert "not verified" in found.notes[0]


@pytest.mark.parametrize("method", ["put_object", "create_multipart_upload", "upload_part_copy"])
async def test_a_probe_that_fails_cleans_up(place: Place, method: str) -> None:
    client = {"put_object": "unsigned", "create_multipart_upload": "metadata", "upload_part_copy": "slow"}[method]

    def deny(call: Callable[..., Any], params: dict[str, Any]) -> None:
        raise AccessDenied("no")

    async with place.store() as store:
        on_call(store, client, method, deny)
        with pytest.raises(AccessDenied):
            await probe(store, "")
        assert store.capabilities == Capabilities()
        assert (await store.list_page("", delimiter="")).objects == ()
        assert await store.list_uploads("") == ()


async def test_the_ping_is_one_request(place: Place) -> None:
    async with place.store() as store:
        await store.ping()
        assert store.requests == {"ListObjectsV2": 1}
        assert store.endpoint.requests == 0


# Refusals.


@contextmanager
def one_clear_line(kind: type[S3fsxError], *words: str) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    text = str(caught.value)
    assert "\n" not in text
    assert "testsecret" not in text
    for word in words:
        assert word.lower() in text.lower()


async def test_no_bucket(place: Place) -> None:
    async with place.store(bucket="no-such-bucket-here") as store:
        with one_clear_line(BucketMissing, "LIST", "404 NoSuchBucket"):
            await store.list_page("")
        with pytest.raises(BucketMissing):
            await store.abort_upload("k", "x")


@pytest.mark.rgw
async def test_bad_credentials(rgw: Any) -> None:
    here = Place(rgw, rgw.make_bucket())
    async with here.store(secret_key="wrong" * 8) as store:
        with one_clear_line(AccessDenied, "SignatureDoesNotMatch", "secret key"):
            await store.list_page("")
    async with here.store(access_key="NOSUCHKEY") as store:
        with one_clear_line(AccessDenied, "InvalidAccessKeyId", "access key"):
            await store.list_page("")
    async with here.store(access_key=rgw.alt_access_key, secret_key=rgw.alt_secret_key) as store:
        with one_clear_line(AccessDenied, "403"):
            await store.put("k", Payload.of(b"x"), metadata={})
        with one_clear_line(AccessDenied, "403"):
            await probe(store, "")
        assert not store.down


def unreachable(**changes: Any) -> S3Store:
    given = S3Options("b", access_key="a", secret_key="testsecret", connect_timeout=0.3, read_timeout=0.3)
    # Making the first client alone takes a second on a busy machine.
    return S3Store(replace(given, metadata_deadline=5.0, read_deadline=1.0, **changes), Endpoint("it"))


async def test_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with unreachable(endpoint=f"http://127.0.0.1:{closed.getsockname()[1]}", attempts=2) as store:
            with one_clear_line(ConnectionFailed, "HEAD k", "cannot connect", "refused"):
                await store.head("k")


@contextmanager
def silent_server() -> Iterator[str]:
    """Accepts, reads nothing and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.expect_log("it is down")
async def test_silence_ends_by_the_deadline_and_opens_the_breaker() -> None:
    with silent_server() as url:
        async with unreachable(endpoint=url, read_timeout=30.0) as store:
            start = time.monotonic()
            with one_clear_line(DeadlineExceeded, "GET k", "within 1 s"):
                await store.get_range("k", 0, 1, etag="")
            assert time.monotonic() - start < 2
            assert store.down
            start = time.monotonic()
            with pytest.raises(EndpointDown):
                await store.list_page("")
            assert time.monotonic() - start < 0.5


@pytest.mark.expect_log("it is down", optional=True)
async def test_a_part_into_silence_ends_by_the_socket_and_by_cancellation() -> None:
    with silent_server() as url:
        body = Payload.of(bytes(64 << 20))
        async with unreachable(endpoint=url, write_deadline=0.1, connect_timeout=0.5) as store:
            start = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await store.upload_part("k", "u", 1, body)
            assert time.monotonic() - start < 3
        async with unreachable(endpoint=url, write_deadline=60.0, connect_timeout=1.0) as store:
            start = time.monotonic()
            with trio.move_on_after(0.2):
                await store.upload_part("k", "u", 1, body)
            assert time.monotonic() - start < 3  # one blocked send, not the rest of the body


async def test_something_that_is_not_s3() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(4096)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhello <xml")

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        async with unreachable(endpoint=f"http://127.0.0.1:{port}", attempts=1) as store:
            with one_clear_line(StoreError, "LIST"):
                await store.list_page("")
            with one_clear_line(ServerFault, "GET k", "none of S3"):
                await store.get_range("k", 5, 4, etag="")
        nursery.cancel_scope.cancel()


async def test_an_answer_cut_short_is_asked_for_again(place: Place) -> None:
    class Short:
        def __init__(self, body: Any) -> None:
            self.body = body

        def read(self) -> bytes:
            data: bytes = self.body.read()
            return data[:-1]

        def close(self) -> None:
            self.body.close()

    def cut(call: Callable[..., Any], params: dict[str, Any]) -> Any:
        answer = call(**params)
        return answer | {"Body": Short(answer["Body"])}

    async with place.store() as store:
        info = await store.put("k", Payload.of(b"0123456789"), metadata={})
        on_call(store, "unsigned", "get_object", cut)
        assert await store.get_range("k", 0, 10, etag=info.etag) == b"0123456789"
        assert store.requests["GetObject"] == 2


# Threads.


async def test_data_does_not_starve_metadata(place: Place) -> None:
    release = threading.Event()

    def wait(call: Callable[..., Any], params: dict[str, Any]) -> Any:
        release.wait(20)
        return call(**params)

    async with place.store(max_uploads=1, max_downloads=1) as store, trio.open_nursery() as nursery:
        await store.put("k", Payload.of(b"1"), metadata={})
        on_call(store, "unsigned", "put_object", wait)
        nursery.start_soon(lambda: store.put("slow", Payload.of(b"1"), metadata={}))
        await trio.sleep(0.05)
        with trio.fail_after(5):
            assert (await store.head("k")).size == 1
            assert await store.get_range("k", 0, 1, etag="") == b"1"
        release.set()


async def test_parts_in_parallel(place: Place) -> None:
    async with place.store(max_uploads=3) as store:
        upload = await store.create_upload("k", metadata={})
        bodies = [Payload.of(bytes([n]) * MIN_PART) for n in range(6)]
        async with trio.open_nursery() as nursery:
            for number, body in enumerate(bodies, 1):
                nursery.start_soon(store.upload_part, "k", upload, number, body)
        parts = await store.list_parts("k", upload)
        assert len(parts) == 6
        await store.complete_upload("k", upload, parts)
        for n in range(6):
            assert await store.get_range("k", n * MIN_PART, 2, etag="") == bytes([n]) * 2


# Connections that are kept.


class KeepAlive:
    """Answers PUT and GET, of one byte, and POST once there is a second connection; tells which connection each request
    came on.

    hang_up: what it does on a connection that had a request: "when idle" right after the answer, "when asked" when the
    next request has come.
    """

    def __init__(self, hang_up: str = "") -> None:
        self.hang_up = hang_up
        self.requests: list[tuple[int, str]] = []
        self.closed = threading.Event()
        self.second = threading.Event()  # connection
        self.url = ""

    def _serve(self, number: int, client: socket.socket) -> None:
        with client, client.makefile("rb") as stream:
            count = 0
            while line := stream.readline():
                size = 0
                while (field := stream.readline()) not in (b"\r\n", b""):
                    if field.lower().startswith(b"content-length:"):
                        size = int(field.split(b":")[1])
                stream.read(size)
                self.requests.append((number, line.split()[0].decode()))
                count += 1
                if self.hang_up == "when asked" and count == 2 and number == 0:
                    return
                tag = b'ETag: "0cc175b9c0f1b6a831c399e269772661"\r\nx-amz-request-id: 1\r\n'
                body = b"a" if line.startswith(b"GET") else b""
                if line.startswith(b"POST"):
                    assert self.second.wait(20)
                    body = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(body) + tag + b"\r\n" + body)
                if self.hang_up == "when idle":
                    break
        self.closed.set()

    @contextmanager
    def running(self) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            threads: list[threading.Thread] = []

            def accept() -> None:
                while True:
                    try:
                        client, _ = server.accept()
                    except OSError:
                        return
                    client.settimeout(20)
                    threads.append(threading.Thread(target=self._serve, args=(len(threads), client)))
                    threads[-1].start()
                    if len(threads) == 2:
                        self.second.set()

            thread = threading.Thread(target=accept)
            thread.start()
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for thread in threads:
                thread.join(10)


def one_at_a_time(url: str) -> S3Store:
    return S3Store(S3Options("b", url, access_key="a", secret_key="b", attempts=1), Endpoint())


async def test_a_connection_is_used_again() -> None:
    server = KeepAlive()
    with server.running() as url:
        async with one_at_a_time(url) as store:
            for _ in range(3):
                await store.put("k", Payload.of(b"a"), metadata={})
                assert await store.get_range("k", 0, 1, etag="") == b"a"
    assert server.requests == [(0, "PUT"), (0, "GET")] * 3


async def test_while_an_upload_is_created_a_connection_for_its_first_part_is_made() -> None:
    server = KeepAlive()
    with server.running() as url:
        async with one_at_a_time(url) as store:
            upload = await store.create_upload("k", metadata={})  # answered when there are two
            connections = store._requests.client("unsigned")._lean[1].connections
            for _ in range(2000):  # until its thread has given it back
                if connections._idle:
                    break
                await trio.sleep(0.01)
            await store.upload_part("k", upload, 1, Payload.of(b"a"))
    assert sorted(what for _, what in server.requests) == ["POST", "PUT"]
    assert {number for number, _ in server.requests} == {0, 1}, "no third"


async def test_a_connection_that_the_store_has_closed_meanwhile_fails_no_request() -> None:
    server = KeepAlive("when idle")
    with server.running() as url:
        async with one_at_a_time(url) as store:
            for _ in range(3):
                server.closed.clear()
                await store.put("k", Payload.of(b"a"), metadata={})
                assert await trio.to_thread.run_sync(server.closed.wait, 10)
    assert [kind for _, kind in server.requests] == ["PUT"] * 3
    assert len({number for number, _ in server.requests}) == 3


async def test_a_request_that_the_store_had_is_not_sent_again_behind_the_endpoints_back() -> None:
    """It may have had its effect: only who made it knows whether it can be repeated."""
    server = KeepAlive("when asked")
    with server.running() as url:
        async with one_at_a_time(url) as store:
            await store.put("k", Payload.of(b"a"), metadata={})
            with one_clear_line(ConnectionFailed, "PUT k", "closed connection without response"):
                await store.put("k", Payload.of(b"a"), metadata={})
            await store.put("k", Payload.of(b"a"), metadata={})
    assert server.requests[:2] == [(0, "PUT"), (0, "PUT")]
    assert [kind for number, kind in server.requests[2:] if number] == ["PUT"]


class Pours:
    """One answer of 1 GiB. poured: bytes that were taken when the other side hung up. begun: a MiB was."""

    def __init__(self) -> None:
        self.poured = 0
        self.begun = threading.Event()
        self.over = threading.Event()

    def serve(self, server: socket.socket) -> None:
        client, _ = server.accept()
        with client:
            client.settimeout(30)
            client.recv(64 << 10)
            head = (
                f"HTTP/1.1 206 OK\r\nContent-Length: {1 << 30}\r\nContent-Range: bytes 0-{(1 << 30) - 1}/{1 << 30}\r\n"
            )
            piece = head.encode() + b'ETag: "e"\r\n\r\n'
            try:
                while self.poured < 1 << 30:
                    client.sendall(piece)
                    self.poured += len(piece)
                    piece = bytes(1 << 20)
                    if self.poured > len(piece):
                        self.begun.set()
                        self.over.wait(0.02)
            except OSError:
                self.over.set()


async def test_a_range_that_nobody_wants_any_more_ends_its_connection() -> None:
    """Or it would keep its place among the downloads, and the wire busy, until all of it has come."""
    pours = Pours()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=pours.serve, args=(server,), daemon=True)
        thread.start()
        async with S3Store(
            S3Options("b", f"http://127.0.0.1:{server.getsockname()[1]}", access_key="a", secret_key="b"), Endpoint()
        ) as store:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: store.get_range("k", 0, 1 << 30, etag="e", size=1 << 30))
                assert await trio.to_thread.run_sync(pours.begun.wait, 30)
                nursery.cancel_scope.cancel()
            assert await trio.to_thread.run_sync(pours.over.wait, 30)
            assert pours.poured < 1 << 29
            lane = store._lanes.download.limiter
            for _ in range(3000):
                if not lane.borrowed_tokens:
                    break
                await trio.sleep(0.01)
            assert not lane.borrowed_tokens
        thread.join(30)
