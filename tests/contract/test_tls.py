"""TLS to the store: what is not verified is not spoken to, and nothing falls back to what is readable."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from s3fsx.errors import ConnectionFailed, Rejected, S3fsxError
from s3fsx.s3.options import S3Options
from s3fsx.s3.store import S3Store
from s3fsx.s3.tls import TlsReuse
from s3fsx.store.endpoint import Endpoint
from s3fsx.store.objects import Payload
from tests.faultproxy import FaultProxy, Rule
from tests.hostile import answer, listing
from tests.s3server import S3Server

LINE = "the store's certificate"


def store(endpoint: str, **changes: Any) -> S3Store:
    given: dict[str, Any] = {
        "access_key": "a",
        "secret_key": "testsecret",
        "attempts": 1,
        "connect_timeout": 5.0,
    } | changes
    return S3Store(S3Options("bucket", endpoint, **given), Endpoint("it"))


async def refusal(endpoint: str, **changes: Any) -> S3fsxError:
    async with store(endpoint, **changes) as made:
        with pytest.raises(S3fsxError) as caught:
            await made.list_page("")
    assert "testsecret" not in str(caught.value)
    return caught.value


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, and certificates of it: good, expired, for another name."""
    place = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=place, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-subj", "/CN=ca", "-days", "30", "-keyout", "ca.key", "-out", "ca.crt")
    for name, host, days in (
        ("good", "localhost", "30"),
        ("expired", "localhost", "-1"),
        ("other", "other.test", "30"),
    ):
        openssl("req", *key, "-subj", f"/CN={host}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (place / "names").write_text(f"subjectAltName=DNS:{host}")
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", days, "-extfile", "names", "-out", f"{name}.crt",
        )  # fmt: skip
    return place


def speak(context: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    """This old version, and no other."""
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = context.maximum_version = version


@contextmanager
def tls_server(authority: Path, name: str, version: ssl.TLSVersion | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """One connection at a time, each told an empty listing. (url, the first bytes of each request that was readable)"""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / f"{name}.crt", authority / f"{name}.key")
    if version:
        speak(context, version)
    heard: list[bytes] = []
    body = listing().encode()
    reply = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            try:
                raw.settimeout(5)
                with context.wrap_socket(raw, server_side=True) as client:
                    heard.append(client.recv(65536))
                    client.sendall(reply)
            except OSError:
                raw.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"https://localhost:{listener.getsockname()[1]}", heard
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


async def test_our_own_server_is_understood(authority: Path) -> None:
    """Or the refusals below would prove nothing."""
    with tls_server(authority, "good") as (url, heard):
        async with store(url, ca_file=str(authority / "ca.crt")) as made:
            assert (await made.list_page("")).objects == ()
    assert heard[0].startswith(b"GET /bucket")


@pytest.mark.expect_log("urllib3.connection: Certificate did not match", optional=True)
@pytest.mark.parametrize(
    ("name", "ca", "words"),
    [
        ("good", "", "is not trusted: check ca_file"),
        ("expired", "ca.crt", "has expired"),
        ("other", "ca.crt", "is for another host name"),
    ],
)
async def test_what_cannot_be_verified_gets_no_request(authority: Path, name: str, ca: str, words: str) -> None:
    with tls_server(authority, name) as (url, heard):
        error = await refusal(url, ca_file=str(authority / ca) if ca else None)
    assert isinstance(error, Rejected)
    assert f"{LINE} {words}" in str(error)
    assert not any(heard)


@pytest.mark.expect_log("urllib3.connection: Certificate did not match", optional=True)
async def test_an_address_is_a_host_name_too(authority: Path) -> None:
    with tls_server(authority, "good") as (url, heard):
        error = await refusal(url.replace("localhost", "127.0.0.1"), ca_file=str(authority / "ca.crt"))
    assert f"{LINE} is for another host name" in str(error)
    assert not any(heard)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_versions_are_not_spoken(authority: Path, version: ssl.TLSVersion) -> None:
    with tls_server(authority, "good", version) as (url, heard):
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(authority / "ca.crt")
        speak(old, version)
        raw = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 5)
        with raw, old.wrap_socket(raw, server_hostname="localhost") as one:
            one.sendall(b"an old client")  # or the server would refuse everybody
        for settings in ({"ca_file": str(authority / "ca.crt")}, {"verify_tls": False}):
            assert isinstance(await refusal(url, **settings), ConnectionFailed | Rejected)
        assert heard == [b"an old client"]


async def test_https_never_becomes_http() -> None:
    """A proxy that strips TLS, and a store that offers http:// instead."""
    with FaultProxy("http://127.0.0.1:1") as clear:
        clear.add(Rule(answer(listing())))
        for settings in ({}, {"verify_tls": False}):
            error = await refusal(clear.endpoint.replace("http://", "https://"), **settings)
            assert isinstance(error, Rejected | ConnectionFailed)
        assert not clear.seen
        # An http proxy is asked for a tunnel, and never for the thing itself.
        error = await refusal("https://s3.example.test", proxy=clear.endpoint)
        assert set(clear.seen) == {"CONNECT BUCKET"}


async def test_the_answer_over_tls_ends_by_its_deadline_too(authority: Path) -> None:
    """The limits of ``s3.wire`` stand for both kinds of connection."""
    with tls_server(authority, "good") as (url, _):
        async with store(url, ca_file=str(authority / "ca.crt"), metadata_deadline=5.0) as made:
            await made.list_page("")
            pools = made._requests.client("metadata")._endpoint.http_session._manager.pool_classes_by_scheme
    assert {pool.__module__ for pool in pools.values()} == {"s3fsx.s3.wire"}


@pytest.mark.rgw
async def test_rgw(rgw: S3Server) -> None:
    assert rgw.tls_endpoint is not None
    assert rgw.ca_file is not None
    bucket = rgw.make_bucket("tls")
    given: dict[str, Any] = {"access_key": rgw.access_key, "secret_key": rgw.secret_key}
    error = await refusal(rgw.tls_endpoint, **given)
    assert isinstance(error, Rejected)
    assert "check ca_file (verify_tls=false to ignore)" in str(error)
    for settings in ({"ca_file": str(rgw.ca_file)}, {"verify_tls": False}):
        async with S3Store(S3Options(bucket, rgw.tls_endpoint, **given, **settings), Endpoint()) as made:
            assert (await made.list_page("")).objects == ()


@pytest.fixture
def handshakes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of this process: whether each resumed a session."""
    made: list[bool] = []
    shake = ssl.SSLSocket.do_handshake

    def watched(self: ssl.SSLSocket, *args: Any) -> None:
        shake(self, *args)
        made.append(bool(self.session_reused))

    monkeypatch.setattr(ssl.SSLSocket, "do_handshake", watched)
    return made


async def drop_connections(made: S3Store, client: str) -> None:
    """The idle ones, as a store does after a while; a spare that is under way first arrives."""
    lean = made._requests.client(client)._learnt()
    assert lean is not None
    connections = lean[1].connections
    for _ in range(3000):
        if not connections._connecting:
            break
        await trio.sleep(0.01)
    for connection in connections._idle:
        connection.sock.close()


@pytest.mark.rgw
async def test_later_connections_resume_the_session(rgw: S3Server, handshakes: list[bool]) -> None:
    assert rgw.tls_endpoint is not None
    given: dict[str, Any] = {"access_key": rgw.access_key, "secret_key": rgw.secret_key, "ca_file": str(rgw.ca_file)}
    async with S3Store(S3Options(rgw.make_bucket("tls"), rgw.tls_endpoint, **given), Endpoint()) as made:
        await made.put("k", Payload.of(b"body"), metadata={})
        await drop_connections(made, "unsigned")
        assert not handshakes[0]
        del handshakes[:]
        for _ in range(3):
            assert await made.get_range("k", 0, 4, etag="") == b"body"
            await drop_connections(made, "unsigned")
    assert handshakes == [True] * 6  # each time one and a spare


@pytest.mark.rgw
async def test_a_hundred_parts_need_as_many_handshakes_as_connections(rgw: S3Server, handshakes: list[bool]) -> None:
    assert rgw.tls_endpoint is not None
    given: dict[str, Any] = {"access_key": rgw.access_key, "secret_key": rgw.secret_key, "ca_file": str(rgw.ca_file)}
    async with S3Store(S3Options(rgw.make_bucket("tls"), rgw.tls_endpoint, **given), Endpoint()) as made:
        upload = await made.create_upload("k", metadata={})
        async with trio.open_nursery() as nursery:
            for number in range(1, 101):
                nursery.start_soon(made.upload_part, "k", upload, number, Payload.of(b"part"))
        await made.abort_upload("k", upload)
    # One to create and abort, one for each that runs at once, a spare.
    assert len(handshakes) <= 2 + S3Options("b").max_uploads


def test_a_bundle_is_read_again_only_when_it_has_changed(authority: Path, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    TlsReuse(context)
    bundle = tmp_path / "bundle"
    bundle.write_bytes((authority / "ca.crt").read_bytes())
    for _ in range(2):
        context.load_verify_locations(str(bundle))
        assert len(context.get_ca_certs()) == 1
    bundle.write_bytes((authority / "ca.crt").read_bytes() + (authority / "good.crt").read_bytes())
    os.utime(bundle, (1, 1))
    context.load_verify_locations(str(bundle))
    assert context.cert_store_stats()["x509"] == 2
    bundle.unlink()
    with pytest.raises(FileNotFoundError):
        context.load_verify_locations(str(bundle))
