"""The command and its process under attack and bad luck: bad input, a full disk, no descriptors, memory."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trio
from botocore.exceptions import ClientError

from s3fsx.errors import ConfigError
from s3fsx.gateway import users
from s3fsx.gateway.directory import fsck
from s3fsx.gateway.serving import Settings, check, open_listeners
from tests.gateway.test_serving import run
from tests.gatewayserver import running_gateway

__all__ = ["run"]
MIB = 1 << 20


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:0", "[::]:0", "[::ffff:127.0.0.1]:0", "[::ffff:0.0.0.0]:0", "0:0", "127.1:0", "localhost.x:0"]
)
def test_without_keys_on_loopback_alone(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        check(Settings(str(tmp_path), listen=listen, no_auth=True))


class Elsewhere(trio.abc.HostnameResolver):
    async def getaddrinfo(self, *_: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("0.0.0.0", 0))]

    async def getnameinfo(self, *_: Any) -> Any:
        raise AssertionError


async def test_a_localhost_that_is_elsewhere(tmp_path: Path) -> None:
    settings = Settings(str(tmp_path), listen="localhost:0", no_auth=True)
    check(settings)
    before = trio.socket.set_custom_hostname_resolver(Elsewhere())
    try:
        with pytest.raises(ConfigError, match="loopback"):
            await open_listeners(settings)
    finally:
        trio.socket.set_custom_hostname_resolver(before)


def test_bad_input_is_one_line(tmp_path: Path, run: Callable[..., Any]) -> None:
    path = str(tmp_path)
    key, cert = str(tmp_path / "key"), str(tmp_path / "cert")
    command = "openssl req -x509 -newkey rsa:2048 -days 2 -subj /CN=x -passout pass:pass"
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    config = tmp_path / "config.toml"
    config.write_text("no_auth = 'yes'\n")
    users_file = Path(users.path_of(path))
    users_file.parent.mkdir()
    none = path + "/none"
    for arguments in (
        ["serve", "--path", path, "--no-auth", "--tls", cert, key],  # whose password nobody can give
        ["serve", "--path", path, "--no-auth", "--tls", none, none],
        ["serve", "--path", path, "--no-auth", "--listen", "127.0.0.1:70000"],
        ["serve", "--path", path, "--no-auth", "--access-log", none + "/x"],
        ["serve", "--path", path, "--access-key-file", none],
        ["serve", "--path", path, "--access-key-file", path],
        ["serve", "--config", str(config)],
        ["serve", "--config", none],
        ["user", "add", "--path", none, "ann"],
        ["user", "add", "--path", path, "a b"],
        ["user", "add", "--path", path, "ann", "--bucket", "x"],
        ["user", "add", "--path", path, "ann", "--bucket", "[x]:rw"],
        ["user", "list", "--path", none],
        ["key", "rm", "--path", none, "x"],
        ["bucket", "add", "--path", none, "bucket"],
        ["bucket", "add", "--path", path, "../x"],
        ["bucket", "rm", "--path", path, "bucket"],
        ["bucket", "rm", "--path", none, "bucket"],
        ["bucket", "list", "--path", none],
        ["fsck", "--path", none],
    ):
        done = run(*arguments)
        assert done.returncode in (1, 2), arguments
        assert len(done.stderr.splitlines()) == 1, (arguments, done.stderr)
        assert "secret" not in done.stdout
        assert not os.path.exists(none)
    for text in ("", "{", '{"users": 1}', '{"users": {"a": {}}}'):
        users_file.write_text(text)
        users_file.chmod(0o600)
        done = run("user", "list", "--path", path)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_users_that_are_added_at_once(tmp_path: Path) -> None:
    from s3fsx.gateway.accounts import Accounts, User

    def add(number: int) -> None:
        with users.alone(str(tmp_path)):
            accounts = users.load(str(tmp_path))
            name = f"u{number}"
            users.save(str(tmp_path), Accounts({**accounts.users, name: User(name)}, accounts.keys))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))
    assert len(users.load(str(tmp_path)).users) == 24


def code(call: Callable[[], Any]) -> int:
    with pytest.raises(ClientError) as found:
        call()
    return int(found.value.response["ResponseMetadata"]["HTTPStatusCode"])


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", path], check=False).returncode:
        pytest.skip("needs to mount a tmpfs")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_disk_that_is_full(small: Path) -> None:
    """Everything that needs room is 507, loses nothing and leaves nothing; what gives room back is done."""
    with running_gateway(small / "buckets") as running:
        c = running.server.client
        c.create_bucket(Bucket="bucket")
        c.put_object(Bucket="bucket", Key="old", Body=b"1" * MIB, Metadata={"a": "1"})
        upload = c.create_multipart_upload(Bucket="bucket", Key="up")["UploadId"]
        part = {"Bucket": "bucket", "Key": "up", "UploadId": upload}
        etag = c.upload_part(**part, PartNumber=1, Body=b"2" * 12 * MIB)["ETag"]
        parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
        assert code(lambda: c.complete_multipart_upload(**part, MultipartUpload=parts)) == 507
        assert code(lambda: c.upload_part(**part, PartNumber=2, Body=b"2" * 12 * MIB)) == 507
        assert code(lambda: c.put_object(Bucket="bucket", Key="old", Body=b"3" * 12 * MIB)) == 507
        assert code(lambda: c.put_object(Bucket="bucket", Key="new/a/b", Body=b"3" * 12 * MIB)) == 507
        filler = small / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        tags = {"TagSet": [{"Key": "a", "Value": "b"}]}
        copy = {"Bucket": "bucket", "Key": "old", "CopySource": "bucket/old", "MetadataDirective": "REPLACE"}
        attempts: list[Callable[[], Any]] = [
            lambda: c.put_object(Bucket="bucket", Key="old", Body=b"4"),
            lambda: c.put_object(Bucket="bucket", Key="empty", Body=b""),
            lambda: c.put_object_tagging(Bucket="bucket", Key="old", Tagging=tags),
            lambda: c.copy_object(**copy),
            lambda: c.create_multipart_upload(Bucket="bucket", Key="other"),
            lambda: c.create_bucket(Bucket="other"),
            lambda: c.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"}),
        ]
        assert [code(attempt) for attempt in attempts] == [507] * len(attempts)
        found = c.get_object(Bucket="bucket", Key="old")
        assert (found["Body"].read(), found["Metadata"]) == (b"1" * MIB, {"a": "1"})
        assert [o["Key"] for o in c.list_objects_v2(Bucket="bucket")["Contents"]] == ["old"]
        assert [u["Key"] for u in c.list_multipart_uploads(Bucket="bucket")["Uploads"]] == ["up"]
        assert [b["Name"] for b in c.list_buckets()["Buckets"]] == ["bucket"]
        c.delete_object(Bucket="bucket", Key="old")
        c.abort_multipart_upload(**part)
        c.put_object(Bucket="bucket", Key="again", Body=b"5" * MIB)
        filler.unlink()
    found_by_fsck = fsck.check(str(small / "buckets"), data=True, repair=False, tell=lambda _: None)
    assert (found_by_fsck.objects, found_by_fsck.damaged, found_by_fsck.foreign, found_by_fsck.left) == (1, 0, 0, 0)


def test_few_descriptors_are_an_answer(tmp_path: Path) -> None:
    """503, which clients try again, and no end of the process."""
    with running_gateway(tmp_path / "buckets") as running:
        c = running.server.client
        c.create_bucket(Bucket="bucket")
        c.put_object(Bucket="bucket", Key="x", Body=b"1")
        pid = running.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        assert before[0] >= min(4096, before[1])
        used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))
        assert code(lambda: c.put_object(Bucket="bucket", Key="y", Body=b"1")) == 503
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        c.put_object(Bucket="bucket", Key="y", Body=b"1")


def resident(pid: int, name: str) -> int:
    """Bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) << 10


@pytest.mark.slow
def test_memory_is_that_of_the_connections(tmp_path: Path) -> None:
    """Eight PUTs and GETs of 64 MiB at once, and eight readers that do not read."""
    with running_gateway(tmp_path / "buckets") as running:
        c = running.server.client
        c.create_bucket(Bucket="bucket")
        c.put_object(Bucket="bucket", Key="x", Body=b"1")
        before = resident(running.process.pid, "VmRSS:")
        size = 64 * MIB
        zeros = tmp_path / "zeros"
        with zeros.open("wb") as file:
            file.truncate(size)

        def both(number: int) -> int:
            with zeros.open("rb") as file:
                c.put_object(Bucket="bucket", Key=f"{number}", Body=file)
            body = c.get_object(Bucket="bucket", Key=f"{number}")["Body"]
            return sum(len(piece) for piece in body.iter_chunks(MIB))

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(both, range(8))) == [size] * 8
        bodies = [c.get_object(Bucket="bucket", Key="0")["Body"] for _ in range(8)]
        grown = resident(running.process.pid, "VmHWM:") - before
        for body in bodies:
            body.close()
        assert grown < 100 * MIB


def test_listing_while_all_is_rewritten(tmp_path: Path) -> None:
    """No key that is there throughout is missing from the pages."""
    with running_gateway(tmp_path / "buckets") as running:
        c = running.server.client
        c.create_bucket(Bucket="bucket")
        wanted = [f"k{number:03}" for number in range(60)]
        for key in wanted:
            c.put_object(Bucket="bucket", Key=key, Body=b"")
        enough = threading.Event()

        def rewrite(first: int) -> None:
            number = first
            while not enough.is_set():
                key = wanted[number % len(wanted)]
                c.put_object(Bucket="bucket", Key=key, Body=b"%d" % number)
                c.put_object(Bucket="bucket", Key=f"{key}/{number}", Body=b"")  # moves it aside
                c.delete_object(Bucket="bucket", Key=f"{key}/{number}")
                number += 7

        threads = [threading.Thread(target=rewrite, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                pages = c.get_paginator("list_objects_v2").paginate(Bucket="bucket", PaginationConfig={"PageSize": 7})
                found = [o["Key"] for page in pages for o in page.get("Contents", ())]
                assert found == sorted(found)
                assert len(found) == len(set(found))
                assert set(wanted) <= set(found)
        finally:
            enough.set()
            for thread in threads:
                thread.join(60)


def test_secrets_are_told_once(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("anaccess:verysecretsecret\n")
    keys.chmod(0o600)
    log = tmp_path / "access.log"
    with running_gateway(tmp_path / "buckets", ["--access-key-file", str(keys), "--access-log", str(log)]) as running:
        client = running.server.new_client("anaccess", "verysecretsecret")
        try:
            client.list_buckets()
        finally:
            client.close()
        seen = Path(f"/proc/{running.process.pid}/cmdline").read_bytes().decode()
        seen += Path(f"/proc/{running.process.pid}/environ").read_bytes().decode()
    seen += log.read_text() + (tmp_path / "buckets.log").read_text()
    assert "anaccess" not in seen
    assert "verysecretsecret" not in seen
    assert log.stat().st_mode & 0o077 == 0
