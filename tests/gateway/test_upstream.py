"""The gateway in front of another one: whose what is, what is compared on the way, what an upstream in trouble is."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.client
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from s3fsx import cli
from s3fsx.commands import gateway as gateway_command
from s3fsx.gateway.accounts import Accounts, User
from s3fsx.service import log
from tests.faultkinds import CLOCK_SKEW, SERVER_ERROR, SLOW_DOWN, CutShort, Refuse, Reset
from tests.faultproxy import FaultProxy, Rule
from tests.gatewayserver import ACCOUNTS, Running, running_gateway, running_proxy
from tests.s3server import S3Server

MIB = 1 << 20
USERS = Accounts(
    {**ACCOUNTS.users, "reader": User("reader", {"shared-*": "ro"}), "writer": User("writer", {"shared-*": "rw"})},
    {**ACCOUNTS.keys, "readerkey": ("reader", "readersecret"), "writerkey": ("writer", "writersecret")},
)


@dataclass(frozen=True)
class Chain:
    """upstream: as one reaches it directly; faults: between it and the proxy."""

    upstream: S3Server
    faults: FaultProxy
    proxy: Running

    @property
    def server(self) -> S3Server:
        return self.proxy.server

    def client(self, access: str, secret: str) -> Any:
        return self.server.new_client(access, secret)


@pytest.fixture(scope="module")
def chained(gateway: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with FaultProxy(gateway.endpoint) as faults:
        between = replace(gateway, endpoint=faults.endpoint)
        with running_proxy(tmp_path_factory.mktemp("chain") / "state", between, users=USERS) as running:
            yield Chain(gateway, faults, running)


@pytest.fixture
def chain(chained: Chain) -> Iterator[Chain]:
    yield chained
    chained.faults.clear()


def code(call: Callable[[], Any]) -> tuple[str, int]:
    with pytest.raises(ClientError) as found:
        call()
    response = found.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_rights_are_the_gateways_own(chain: Chain) -> None:
    c = chain.server.client
    c.create_bucket(Bucket="shared-one")
    c.create_bucket(Bucket="private-one")
    c.put_object(Bucket="shared-one", Key="x", Body=b"1")
    reader, writer = chain.client("readerkey", "readersecret"), chain.client("writerkey", "writersecret")
    try:
        assert reader.get_object(Bucket="shared-one", Key="x")["Body"].read() == b"1"
        assert [b["Name"] for b in reader.list_buckets()["Buckets"]] == ["shared-one"]
        writer.put_object(Bucket="shared-one", Key="y", Body=b"2")
        refused: list[Callable[[], Any]] = [
            lambda: reader.put_object(Bucket="shared-one", Key="x", Body=b""),
            lambda: reader.delete_object(Bucket="shared-one", Key="x"),
            lambda: reader.create_multipart_upload(Bucket="shared-one", Key="x"),
            lambda: reader.get_object(Bucket="private-one", Key="x"),
            lambda: writer.list_objects_v2(Bucket="private-one"),
            lambda: writer.copy_object(Bucket="shared-one", Key="z", CopySource="private-one/x"),
            lambda: writer.copy_object(Bucket="shared-one", Key="z", CopySource="/private-one/%2e/x"),
            lambda: writer.delete_bucket(Bucket="shared-one"),
            lambda: writer.put_bucket_versioning(Bucket="shared-one", VersioningConfiguration={"Status": "Enabled"}),
            lambda: writer.create_bucket(Bucket="elsewhere"),
        ]
        for call in refused:
            assert code(call) == ("AccessDenied", 403)
        assert code(lambda: writer.put_object(Bucket="shared-one", Key="a/../../private-one/x", Body=b"")) == (
            "InvalidURI",
            400,
        )
        assert code(lambda: writer.put_object(Bucket="shared-one", Key="y", Body=b"", ACL="public-read")) == (
            "NotImplemented",
            501,
        )
    finally:
        reader.close()
        writer.close()


def test_whose_a_bucket_is_outlives_the_process(gateway: S3Server, tmp_path: Path) -> None:
    gateway.client.create_bucket(Bucket="of-the-upstream")
    for again in (False, True):
        with running_proxy(tmp_path / "state", gateway) as running:
            server = running.server
            other = server.new_client(server.alt_access_key, server.alt_secret_key)
            try:
                if not again:
                    other.create_bucket(Bucket="of-other-one")
                    claim = functools.partial(other.create_bucket, Bucket="of-the-upstream")
                    assert code(claim) == ("BucketAlreadyExists", 409)
                other.create_bucket(Bucket="of-other-one")  # in us-east-1; elsewhere BucketAlreadyOwnedByYou
                other.put_object(Bucket="of-other-one", Key="x", Body=b"1")
                assert [b["Name"] for b in other.list_buckets()["Buckets"]] == ["of-other-one"]
                assert code(functools.partial(other.list_objects_v2, Bucket="of-the-upstream")) == ("AccessDenied", 403)
                if again:
                    other.delete_object(Bucket="of-other-one", Key="x")
                    other.delete_bucket(Bucket="of-other-one")
                    gateway.client.create_bucket(Bucket="of-other-one")  # another one of that name
                    assert code(functools.partial(other.list_objects_v2, Bucket="of-other-one")) == (
                        "AccessDenied",
                        403,
                    )
            finally:
                other.close()


def test_a_wrong_body_is_never_seen_upstream(chain: Chain) -> None:
    bucket = chain.server.make_bucket("wrong")
    c = chain.server.client
    for size in (0, 10, MIB, 3 * MIB + 7):
        c.put_object(Bucket=bucket, Key="x", Body=b"old")
        digest = hashlib.md5(b"another").digest()
        url = urlsplit(c.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "x"}))
        connection = http.client.HTTPConnection(url.netloc, timeout=60)
        try:
            connection.request(
                "PUT", f"{url.path}?{url.query}", bytes(size), {"Content-MD5": base64.b64encode(digest).decode()}
            )
            response = connection.getresponse()
            assert (response.status, b"<Code>BadDigest</Code>" in response.read()) == (400, True)
        finally:
            connection.close()
        assert chain.upstream.client.get_object(Bucket=bucket, Key="x")["Body"].read() == b"old"


def test_a_client_that_goes_leaves_what_was(chain: Chain) -> None:
    bucket = chain.server.make_bucket("gone")
    c = chain.server.client
    c.put_object(Bucket=bucket, Key="x", Body=b"old")
    url = urlsplit(c.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "x"}))
    connection = http.client.HTTPConnection(url.netloc, timeout=60)
    connection.putrequest("PUT", f"{url.path}?{url.query}")
    connection.putheader("Content-Length", str(4 * MIB))
    connection.endheaders(bytes(3 * MIB))
    connection.close()
    assert c.get_object(Bucket=bucket, Key="x")["Body"].read() == b"old"
    assert chain.upstream.client.get_object(Bucket=bucket, Key="x")["Body"].read() == b"old"


def test_an_upstream_that_dies_under_a_get(chain: Chain) -> None:
    bucket = chain.server.make_bucket("dies")
    c = chain.server.client
    c.put_object(Bucket=bucket, Key="x", Body=bytes(4 * MIB))
    chain.faults.add(Rule(CutShort(honest=True), {"GET"}, key="x"))
    url = urlsplit(c.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "x"}))
    connection = http.client.HTTPConnection(url.netloc, timeout=60)
    try:
        connection.request("GET", f"{url.path}?{url.query}")
        response = connection.getresponse()
        assert (response.status, response.getheader("Content-Length")) == (200, str(4 * MIB))
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            response.read()
    finally:
        connection.close()


def test_an_upstream_that_dies_under_a_put(chain: Chain) -> None:
    bucket = chain.server.make_bucket("dies")
    chain.faults.add(Rule(Reset("request body"), {"PUT"}, key="x"))
    for size in (10, 4 * MIB):
        put = functools.partial(chain.server.client.put_object, Bucket=bucket, Key="x", Body=bytes(size))
        assert code(put) == ("ServiceUnavailable", 503)


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        (SLOW_DOWN, ("SlowDown", 503)),
        (SERVER_ERROR, ("InternalError", 500)),
        (CLOCK_SKEW, ("ServiceUnavailable", 503)),  # it is not the client's clock
        (Refuse(403, "InvalidAccessKeyId"), ("ServiceUnavailable", 503)),
        (Refuse(403, "AccessDenied"), ("AccessDenied", 403)),
        (Refuse(301, "PermanentRedirect"), ("ServiceUnavailable", 503)),
    ],
)
def test_what_the_upstream_says(chain: Chain, fault: Refuse, wanted: tuple[str, int]) -> None:
    bucket = chain.server.make_bucket("says")
    chain.faults.add(Rule(fault, {"GET"}, key="x"))
    assert code(lambda: chain.server.client.get_object(Bucket=bucket, Key="x")) == wanted


def test_the_state_is_no_directory_of_buckets(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gateway_command, "keep_private", lambda: None)  # cannot be undone, and pytest goes on
    monkeypatch.setattr(log, "setup", lambda *_, **__: None)
    path = ["--path", str(chain.proxy.path)]
    for arguments in (["bucket", "add", *path, "new"], ["bucket", "list", *path], ["fsck", *path]):
        assert cli.main(["gateway", *arguments]) == 2
        assert "use an S3 client" in capsys.readouterr().err
    assert cli.main(["gateway", "serve", *path, "--no-auth", "--listen", "127.0.0.1:0"]) == 2
    assert "--upstream" in capsys.readouterr().err


def test_settings_of_a_file(gateway: S3Server, tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text('region = "eu-north-1"\nupstream_trailers = true\nupstream = "http://127.0.0.1:1"\n')
    with running_proxy(tmp_path / "state", gateway, ["--config", str(config)]) as running:
        server = replace(running.server, region="eu-north-1")
        c = server.new_client()
        try:
            bucket = server.make_bucket("region")
            told = c.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]
            assert told["x-amz-bucket-region"] == "eu-north-1"
            assert c.get_bucket_location(Bucket=bucket)["LocationConstraint"] == "eu-north-1"
            assert code(lambda: c.get_bucket_location(Bucket="not-there-x")) == ("NoSuchBucket", 404)
        finally:
            c.close()
            server.client.close()


def test_an_upstream_that_is_not_there(tmp_path: Path) -> None:
    with running_gateway(tmp_path / "buckets") as upstream:
        gone = upstream.server
    with running_proxy(tmp_path / "state", gone) as running:
        c = running.server.client
        assert code(lambda: c.list_buckets()) == ("ServiceUnavailable", 503)
        with pytest.raises(ClientError) as found:
            c.put_object(Bucket="bucket", Key="x", Body=bytes(2 * MIB))
        assert found.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "5"
    log = (tmp_path / "state.log").read_text()
    assert "the upstream was asked for its buckets" in log
    assert gone.secret_key not in log


@pytest.mark.parametrize("trailers", [False, True])
def test_checksums_in_trailers(gateway: S3Server, tmp_path: Path, trailers: bool) -> None:
    """As boto3 sends them over TLS. Compared here; told to an upstream that takes them."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    arguments = ["--tls", str(cert), str(key), *(["--upstream-trailers"] if trailers else [])]
    bucket = gateway.make_bucket("trailers")
    with running_proxy(tmp_path / "state", gateway, arguments) as running:
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=running.server.endpoint,
            region_name="us-east-1",
            aws_access_key_id=running.server.access_key,
            aws_secret_access_key=running.server.secret_key,
            verify=str(cert),
            config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
        )
        try:
            for size, told in ((10, True), (2 * MIB + 3, trailers)):
                client.put_object(Bucket=bucket, Key="x", Body=b"1" * size, ChecksumAlgorithm="SHA1")
                found = client.get_object(Bucket=bucket, Key="x", ChecksumMode="ENABLED")
                assert found["Body"].read() == b"1" * size
                assert ("ChecksumSHA1" in found) is told
                assert "ContentEncoding" not in found
        finally:
            client.close()
