"""Who may do what, under attack: other users, browsers, forms, signatures that say less than they seem to."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import HmacV1QueryAuth, S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from s3fsx.errors import ConfigError
from s3fsx.gateway import users
from s3fsx.gateway.accounts import Accounts, User
from s3fsx.gateway.directory.provider import DirectoryBackend
from s3fsx.gateway.errors import S3Error
from s3fsx.gateway.form import check_policy
from s3fsx.gateway.gateway import Gateway
from s3fsx.gateway.messages import FileRange, Request, Response
from s3fsx.gateway.model import Bucket, Query
from s3fsx.gateway.serving import AccessLog
from tests.gateway.test_backend import root

__all__ = ["root"]
HOST = "127.0.0.1:9000"
ACCOUNTS = Accounts(
    {
        "owner": User("owner"),
        "writer": User("writer", {"bucket": "rw"}),
        "reader": User("reader", {"bucket": "ro"}),
        "frozen": User("frozen", {"bucket": "rw"}, admin=True, read_only=True),
        "stranger": User("stranger"),
    },
    {f"key-{name}": (name, f"secret-{name}") for name in ("owner", "writer", "reader", "frozen", "stranger")},
)


@dataclass
class Bytes:
    data: bytes
    length: int | None = None
    chunked: bool = False
    received: int = 0
    told: bool = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.told:
            raise StopAsyncIteration
        self.told = True
        return self.data


@dataclass
class Asker:
    gateway: Gateway
    log: list[str] = field(default_factory=list)

    async def raw(self, method: str, target: str, headers: dict[str, str], data: bytes = b"") -> tuple[int, bytes]:
        pairs = [(name.lower(), value) for name, value in headers.items()]
        request = Request("1", method, target.encode(), pairs, Bytes(data, len(data)), "", secure=False)
        answer = await self.gateway(request)
        return answer.status, _bytes(answer)

    async def __call__(
        self, user: str, method: str, target: str, data: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """Signed for the user; (status, code of the error)."""
        request = AWSRequest(method, f"http://{HOST}{target}", headers=headers, data=data)
        S3SigV4Auth(Credentials(f"key-{user}", f"secret-{user}"), "s3", "us-east-1").add_auth(request)
        given = {**{str(name): str(value) for name, value in request.headers.items()}, "host": HOST}
        status, body = await self.raw(method, target, given, data)
        return status, body.decode().partition("<Code>")[2].partition("</Code>")[0]


def _bytes(answer: Response) -> bytes:
    if isinstance(answer.body, FileRange):
        os.close(answer.body.descriptor)
        return b""
    assert isinstance(answer.body, bytes)
    return answer.body


@pytest.fixture
async def backend(root: Path) -> DirectoryBackend:
    made = DirectoryBackend(str(root))
    await made.create_bucket(Bucket("bucket", 0, "owner", {"versioning": "Enabled", "lock": {"rule": None}}))
    return made


@pytest.fixture
async def ask(backend: DirectoryBackend) -> Asker:
    return Asker(Gateway(backend, lambda: ACCOUNTS, "us-east-1", ["localhost"], sigv2=True))


@pytest.fixture
async def free(backend: DirectoryBackend) -> Asker:
    return Asker(Gateway(backend, None, "us-east-1", ["localhost", "s3.home"]))


PART = b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>e</ETag></Part></CompleteMultipartUpload>"
CHANGES: list[tuple[str, str, bytes, dict[str, str]]] = [
    ("PUT", "/bucket/x", b"1", {}),
    ("PUT", "/bucket/x", b"", {"x-amz-copy-source": "/bucket/there"}),
    ("DELETE", "/bucket/there", b"", {}),
    ("DELETE", "/bucket/there?versionId={version}", b"", {}),
    ("POST", "/bucket?delete=", b"<Delete><Object><Key>there</Key></Object></Delete>", {}),
    ("PUT", "/bucket/there?tagging=", b"<Tagging><TagSet></TagSet></Tagging>", {}),
    ("DELETE", "/bucket/there?tagging=", b"", {}),
    ("PUT", "/bucket/there?acl=", b"", {"x-amz-acl": "private"}),
    ("PUT", "/bucket/there?legal-hold=", b"<LegalHold><Status>ON</Status></LegalHold>", {}),
    (
        "PUT",
        "/bucket/there?retention=",
        b"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>",
        {},
    ),
    ("POST", "/bucket/x?uploads=", b"", {}),
    ("PUT", "/bucket/up?uploadId={upload}&partNumber=1", b"1", {}),
    ("PUT", "/bucket/up?uploadId={upload}&partNumber=1", b"", {"x-amz-copy-source": "/bucket/there"}),
    ("POST", "/bucket/up?uploadId={upload}", PART, {}),
    ("DELETE", "/bucket/up?uploadId={upload}", b"", {}),
]
CONFIGURES: list[tuple[str, str, bytes, dict[str, str]]] = [
    ("DELETE", "/bucket", b"", {}),
    ("PUT", "/bucket?versioning=", b"<V/>", {}),
    ("PUT", "/bucket?object-lock=", b"<V/>", {}),
    ("PUT", "/bucket?tagging=", b"<V/>", {}),
    ("DELETE", "/bucket?tagging=", b"", {}),
    ("PUT", "/bucket?lifecycle=", b"<V/>", {}),
    ("DELETE", "/bucket?lifecycle=", b"", {}),
    ("DELETE", "/bucket?policy=", b"", {}),
    ("PUT", "/bucket?acl=", b"", {"x-amz-acl": "private"}),
]
READS = [
    *[
        f"/bucket?{sub}="
        for sub in ("location", "versioning", "object-lock", "tagging", "lifecycle", "acl", "versions")
    ],
    *[f"/bucket?{sub}=" for sub in ("uploads", "policy", "cors", "list-type=2&a", "logging")],
    *[f"/bucket/there?{sub}=" for sub in ("tagging", "acl", "retention", "legal-hold", "versionId={version}&a")],
    "/bucket",
    "/bucket/there",
    "/bucket/up?uploadId={upload}",
]


async def test_every_operation_asks_for_its_right(ask: Asker, backend: DirectoryBackend) -> None:
    assert (await ask("owner", "PUT", "/bucket/there", b"1"))[0] == 200
    version = (await backend.head("bucket", "there")).version
    upload = (await backend.create_upload("bucket", await backend.head("bucket", "there"))).id

    def filled(target: str) -> str:
        return target.replace("{version}", version).replace("{upload}", upload)

    for user in ("stranger", "reader", "frozen"):
        for method, target, data, headers in (*CHANGES, *CONFIGURES):
            assert await ask(user, method, filled(target), data, headers) == (403, "AccessDenied"), (user, target)
    for method, target, data, headers in CONFIGURES:
        assert await ask("writer", method, filled(target), data, headers) == (403, "AccessDenied"), target
    for target in READS:
        assert await ask("stranger", "GET", filled(target)) == (403, "AccessDenied"), target
        assert (await ask("stranger", "HEAD", filled(target)))[0] in (403, 501), target
        assert (await ask("reader", "GET", filled(target)))[0] != 403, target
    for headers in ({"x-amz-copy-source": "/bucket/there"}, {"x-amz-copy-source": f"bucket/there?versionId={version}"}):
        assert await ask("stranger", "PUT", "/mine-of-stranger", b"") in ((200, ""),)
        assert await ask("stranger", "PUT", "/mine-of-stranger/x", b"", headers) == (403, "AccessDenied")
        own = await backend.create_upload("mine-of-stranger", await backend.head("bucket", "there"))
        target = f"/mine-of-stranger/there?uploadId={own.id}&partNumber=1"
        assert await ask("stranger", "PUT", target, b"", headers) == (403, "AccessDenied")
    # An upload of another bucket is none of this one, and one of another key neither.
    assert await ask("stranger", "GET", f"/mine-of-stranger/there?uploadId={upload}") == (404, "NoSuchUpload")
    assert await ask("owner", "GET", f"/bucket/other?uploadId={upload}") == (404, "NoSuchUpload")


async def test_retention_is_shortened_by_the_owner_alone(ask: Asker, backend: DirectoryBackend) -> None:
    """A backup client with rw must not be able to delete what GOVERNANCE keeps, by one header more."""
    until = (datetime.now(UTC) + timedelta(days=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    lock = {"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": until}
    bypass = {"x-amz-bypass-governance-retention": "true"}
    assert (await ask("writer", "PUT", "/bucket/kept", b"1", lock))[0] == 200
    version = (await backend.head("bucket", "kept")).version
    empty = b"<Retention></Retention>"
    delete = f"<Delete><Object><Key>kept</Key><VersionId>{version}</VersionId></Object></Delete>".encode()
    assert await ask("writer", "DELETE", f"/bucket/kept?versionId={version}", b"", bypass) == (403, "AccessDenied")
    assert await ask("writer", "PUT", "/bucket/kept?retention=", empty, bypass) == (403, "AccessDenied")
    assert await ask("writer", "POST", "/bucket?delete=", delete, bypass) == (200, "AccessDenied")
    assert (await ask("owner", "DELETE", f"/bucket/kept?versionId={version}", b"", {}))[0] == 403
    assert (await ask("owner", "DELETE", f"/bucket/kept?versionId={version}", b"", bypass))[0] == 204


# Browsers: with --no-auth any page that somebody looks at could write to 127.0.0.1.


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:9000"}, 200),
        ({"host": "[::1]:9000"}, 200),
        ({"host": "s3.home:9000"}, 200),
        ({"host": "evil.example:9000"}, 403),  # a name that now leads to 127.0.0.1
        ({"host": "localhost.evil.example"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:8000"}, 403),  # another program of this machine
        ({"origin": f"http://{HOST}"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),  # a link that was followed
        ({"sec-fetch-site": "none"}, 200),
    ],
)
async def test_pages_of_others_may_not_ask_where_nobody_has_a_key(
    free: Asker, headers: dict[str, str], status: int
) -> None:
    assert (await free.raw("GET", "/", {"host": HOST, **headers}))[0] == status
    assert (await free.raw("POST", "/bucket?uploads=", {"host": HOST, **headers}))[0] in (status, 501)


def form(**fields: str) -> bytes:
    body = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    )
    return body + b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\ndata\r\n--b--\r\n'


FORM = {"host": HOST, "content-type": "multipart/form-data; boundary=b"}


async def test_forms_without_keys(free: Asker, ask: Asker, backend: DirectoryBackend) -> None:
    assert (await free.raw("POST", "/bucket", FORM, form(key="x")))[0] == 204
    assert (await backend.head("bucket", "x")).size == 4
    status, _ = await free.raw("POST", "/bucket", {**FORM, "origin": "http://evil.example"}, form(key="y"))
    assert status == 403
    status, _ = await free.raw("POST", "/bucket", FORM, form(key="z", success_action_redirect="http://[bad"))
    assert status == 204
    locked = {"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": "2099-01-01T00:00:00Z"}
    assert (await free.raw("POST", "/bucket", FORM, form(key="l", **locked)))[0] == 204
    assert (await backend.head("bucket", "l")).mode == "GOVERNANCE"
    assert (await ask.raw("POST", "/bucket?delete", FORM, form(key="x")))[0] == 403


def test_a_policy_is_for_the_buckets_it_names() -> None:
    policy: dict[str, Any] = {"expiration": "2099-01-01T00:00:00Z", "conditions": [["starts-with", "$key", ""]]}
    with pytest.raises(S3Error, match="Extra input fields: bucket"):
        check_policy(policy, {"key": "x", "bucket": "any"}, 0)
    policy["conditions"].append({"Bucket": "one"})
    with pytest.raises(S3Error, match="Condition failed"):
        check_policy(policy, {"key": "x", "bucket": "any"}, 0)
    assert check_policy(policy, {"key": "x", "bucket": "one"}, 0) == (0, 5 << 30)


# Signatures.


async def test_a_query_that_is_said_twice(ask: Asker, backend: DirectoryBackend) -> None:
    """Version 2 signs one of two values: that one is meant."""
    for number in (b"1", b"2"):
        assert (await ask("owner", "PUT", "/bucket/x", number))[0] == 200
    wanted, other = ((await backend.list_versions("bucket", Query())).entries)[:2]
    request = AWSRequest("GET", f"http://{HOST}/bucket/x?versionId={wanted.version}")
    HmacV1QueryAuth(Credentials("key-owner", "secret-owner"), expires=60).add_auth(request)
    query = str(request.url).partition("?")[2]
    assert (await ask.raw("GET", f"/bucket/x?{query}", {"host": HOST}))[0] == 200
    for changed in (f"versionId={other.version}&{query}", f"{query}&versionId={other.version}"):
        status, body = await ask.raw("GET", f"/bucket/x?{changed}", {"host": HOST})
        assert status == 403 or changed.startswith(query), body


@pytest.mark.parametrize("value", ["é", "x", "STREAMING-NONSENSE", "0" * 63])
async def test_hashes_that_are_none(free: Asker, value: str) -> None:
    headers = {"host": HOST, "x-amz-content-sha256": value, "x-amz-decoded-content-length": "1"}
    assert (await free.raw("PUT", "/bucket/x", headers, b"1"))[0] == 400


async def test_numbers_of_many_digits(free: Asker) -> None:
    many = "1" * 5000
    for target in (
        f"/bucket/x?partNumber={many}",
        f"/bucket/x?uploadId=1&part-number-marker={many}",
        f"/bucket?max-keys={many}",
        "/bucket?max-keys=-1",
        "/bucket?max-keys=x",
    ):
        await free.raw("PUT", "/bucket/x", {"host": HOST}, b"1")
        assert (await free.raw("GET", target, {"host": HOST}))[0] in (400, 404, 416), target
    assert (await free.raw("PUT", f"/bucket/x?uploadId=1&partNumber={many}", {"host": HOST}))[0] == 400
    part = {"host": HOST, "x-amz-object-attributes": "ObjectParts", "x-amz-max-parts": "-1"}
    assert (await free.raw("GET", "/bucket/x?attributes", part))[0] in (200, 400)


async def test_documents_that_are_too_much(free: Asker) -> None:
    host = {"host": HOST}
    deep = b"<Delete>" + b"<a>" * 200_000 + b"</a>" * 200_000 + b"</Delete>"
    many = b"<Delete>" + b"<Object><Key>x</Key></Object>" * 1001 + b"</Delete>"
    for data in (deep, many, b"<Delete/>", b"<Delete><Object/></Delete>", b"", b"\xff\xfe<", b"<?xml version='1.0'"):
        assert (await free.raw("POST", "/bucket?delete", host, data))[0] == 400
    over = b"<Delete>" + b" " * (2 << 20) + b"</Delete>"
    assert (await free.raw("POST", "/bucket?delete", host, over))[0] == 400


# Users and their file.


def test_a_key_file_gives_no_rights_to_users(tmp_path: Path) -> None:
    """Its keys are those of "admin": a user of that name with fewer rights would have them all."""
    keys = tmp_path / "keys"
    keys.write_text("access:secret-secret\n")
    keys.chmod(0o600)
    root = tmp_path / "root"
    root.mkdir()
    for user, refused in ((User("admin", read_only=True), True), (User("admin", admin=True), False)):
        users.save(str(root), Accounts({"admin": user}, {"other": ("admin", "secret-secret")}))
        if refused:
            with pytest.raises(ConfigError, match="admin"):
                users.Current(str(root), str(keys), print)
        else:
            assert set(users.Current(str(root), str(keys), print)().keys) == {"access", "other"}


def test_a_key_file_that_is_half_written(tmp_path: Path) -> None:
    """And that ends within the same tick of the clock."""
    keys = tmp_path / "keys"
    keys.write_text("access:secret-secr")
    keys.chmod(0o600)
    os.utime(keys, ns=(10**18, 10**18))
    warned: list[str] = []
    current = users.Current(str(tmp_path), str(keys), warned.append)
    with keys.open("a") as file:
        file.write("et\n")
    os.utime(keys, ns=(10**18, 10**18))
    assert current().keys == {"access": ("admin", "secret-secret")}
    assert warned == []


def test_a_file_of_users_that_somebody_else_made(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root, to give a file away")
    users.save(str(tmp_path), ACCOUNTS)
    os.chown(users.path_of(str(tmp_path)), 12345, 0)
    with pytest.raises(ConfigError, match="belongs to uid 12345"):
        users.load(str(tmp_path))


@pytest.mark.expect_log("access log cannot be written: No space left")
async def test_a_log_that_cannot_be_written_changes_no_answer(
    backend: DirectoryBackend, caplog: pytest.LogCaptureFixture
) -> None:
    asker = Asker(Gateway(backend, None, "us-east-1", [], AccessLog("/dev/full")))
    for _ in range(3):
        assert (await asker.raw("PUT", "/bucket/x", {"host": HOST}, b"1"))[0] == 200
    assert len(caplog.records) == 1
