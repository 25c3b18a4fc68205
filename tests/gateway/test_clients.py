"""Programs that people use S3 with, against ``s3fsx gateway serve``. The bytes that each brings back are compared.

Debian's packages (contrib/test.sh installs them); a program that is not there is skipped by name.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import random
import shutil
import subprocess
import time
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from tests.gatewayserver import Running, running_gateway
from tests.s3server import S3Server

pytestmark = pytest.mark.slow  # each starts several programs in Python or Go: 1 to 10 s

MIB = 1 << 20
SEARCH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"  # Debian's, not those of a virtual environment
LIMIT = 120.0  # seconds for one command, on a machine that is busy with others
SIZES = {  # of the tree that goes up and comes back
    "empty": 0,
    "small": 1000,
    "with space+plus&%41.txt": 3000,
    "grüße/こんにちは": 70_000,
    "a/b/c/d": 1,
    "large": 18 * MIB + 11,  # several parts for each of them
}


@dataclass(frozen=True)
class Shell:
    """Starts programs with an environment of their own, in which is nothing of this one."""

    home: Path
    server: S3Server
    more: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return {
            "PATH": SEARCH,
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "AWS_ACCESS_KEY_ID": self.server.access_key,
            "AWS_SECRET_ACCESS_KEY": self.server.secret_key,
            "AWS_DEFAULT_REGION": self.server.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            **self.more,
        }

    def __call__(self, *command: str | Path, code: int = 0) -> str:
        program = program_of(str(command[0]))
        done = subprocess.run(
            [program, *map(str, command[1:])],
            env=self.environment(),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert done.returncode == code, (command, done.returncode, done.stdout[-3000:], done.stderr[-3000:])
        return done.stdout

    @contextlib.contextmanager
    def mounted(self, mountpoint: Path, *command: str | Path) -> Iterator[Path]:
        """While the program, which stays in the foreground, has it mounted. At the end it has ended."""
        program = program_of(str(command[0]))
        mountpoint.mkdir()
        log = self.home / f"{mountpoint.name}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [program, *map(str, command[1:])], env=self.environment(), stdout=output, stderr=output
            )
        try:
            limit = time.monotonic() + LIMIT
            while not os.path.ismount(mountpoint):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < limit, log.read_text()
                time.sleep(0.05)
            yield mountpoint
            subprocess.run(["umount", mountpoint], check=True, timeout=LIMIT)
            assert process.wait(LIMIT) == 0, log.read_text()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(LIMIT)
            subprocess.run(["umount", "-l", mountpoint], capture_output=True, timeout=LIMIT)


def program_of(name: str) -> str:
    found = shutil.which(name, path=SEARCH)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def content(seed: str, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def contents(directory: Path) -> dict[str, tuple[int, str]]:
    """Of all files below it: size and SHA-256 of what is read."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            found[str(path.relative_to(directory))] = (len(data), hashlib.sha256(data).hexdigest())
    return found


def objects(client: Any, bucket: str) -> dict[str, tuple[int, str]]:
    """The same of a bucket, by boto3, whatever program wrote it; directories' markers left out."""
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", ()):
            if not entry["Key"].endswith("/"):
                with contextlib.closing(client.get_object(Bucket=bucket, Key=entry["Key"])["Body"]) as body:
                    data = body.read()
                assert len(data) == entry["Size"]
                found[entry["Key"]] = (len(data), hashlib.sha256(data).hexdigest())
    return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_gateway(tmp_path_factory.mktemp("clients") / "buckets") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, and signed by it cert.pem and key.pem of 127.0.0.1, in one directory."""
    where = tmp_path_factory.mktemp("ca")
    (where / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ours -keyout ca.key -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout key.pem -out request",
        "x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=where, check=True, capture_output=True)
    return where


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory, ca: Path) -> Iterator[Running]:
    arguments = ["--tls", str(ca / "cert.pem"), str(ca / "key.pem")]
    with running_gateway(tmp_path_factory.mktemp("tls") / "buckets", arguments) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("tree")
    for name, size in SIZES.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content(name, size))
    return top


@pytest.fixture
def shell(tmp_path: Path, running: Running) -> Shell:
    home = tmp_path / "home"
    home.mkdir()
    return Shell(home, running.server)


@pytest.fixture
def bucket(running: Running) -> str:
    return running.server.make_bucket("clients")


def test_boto3_as_it_comes_over_tls(tls: Running, ca: Path, tmp_path: Path) -> None:
    """Its defaults are a CRC32 of everything; over TLS it follows the body, as a trailer of ``aws-chunked``."""
    server = tls.server
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        verify=str(ca / "ca.pem"),
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )
    trailers = []
    client.meta.events.register(
        "before-send.s3.*", lambda request, **_: trailers.append(request.headers.get("x-amz-trailer"))
    )
    client.create_bucket(Bucket="boto")
    large = content("boto", 18 * MIB + 11)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(large)
    parts = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB)
    client.upload_file(
        str(source), "boto", "large", Config=parts, ExtraArgs={"Metadata": {"a": "b"}, "ContentType": "x/y"}
    )
    client.put_object(Bucket="boto", Key="small", Body=b"small")
    if "request_checksum_calculation" in Config.OPTION_DEFAULTS:  # botocore >= 1.36
        assert {t if isinstance(t, str) else t.decode() for t in trailers if t} == {"x-amz-checksum-crc32"}
        assert len([t for t in trailers if t]) == 4
        small = client.head_object(Bucket="boto", Key="small", ChecksumMode="ENABLED")
        assert small["ChecksumCRC32"] == base64.b64encode(zlib.crc32(b"small").to_bytes(4, "big")).decode()
    head = client.head_object(Bucket="boto", Key="large")
    assert (head["Metadata"], head["ContentType"], head["ETag"][-3:]) == ({"a": "b"}, "x/y", '-3"')
    client.download_file("boto", "large", str(target), Config=parts)
    assert target.read_bytes() == large
    client.copy({"Bucket": "boto", "Key": "large"}, "boto", "copy", Config=parts)
    assert objects(client, "boto")["copy"] == (len(large), hashlib.sha256(large).hexdigest())
    client.close()


def test_boto3_presigned(running: Running, bucket: str) -> None:
    client = running.server.client
    data = content("presigned", 300_000)
    names = {"Bucket": bucket, "Key": "a b/ü+&=?"}
    url = client.generate_presigned_url("put_object", names, ExpiresIn=60)
    with urllib.request.urlopen(urllib.request.Request(url, data, method="PUT"), timeout=LIMIT) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(client.generate_presigned_url("get_object", names), timeout=LIMIT) as answer:
        assert answer.read() == data


def test_aws_cli(shell: Shell, bucket: str, running: Running, tree: Path, tmp_path: Path) -> None:
    def aws(*words: str | Path) -> str:
        return shell("aws", "--endpoint-url", running.server.endpoint, *words)

    url = f"s3://{bucket}"
    aws("s3", "sync", "--quiet", tree, url + "/tree")
    aws("s3", "sync", "--quiet", url + "/tree", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(tree)
    assert aws("s3", "sync", tree, url + "/tree") == ""  # sizes and times: there is nothing to do

    aws("s3", "cp", "--quiet", tree / "large", url + "/one")
    aws("s3", "cp", "--quiet", url + "/one", url + "/two")  # several parts, copied by the server
    aws("s3", "mv", "--quiet", url + "/two", url + "/three")
    got = aws("s3api", "head-object", "--bucket", bucket, "--key", "three", "--query", "ContentLength")
    assert int(got) == SIZES["large"]
    aws("s3", "rm", "--quiet", "--recursive", url + "/tree")
    assert {k: v[1] for k, v in objects(running.server.client, bucket).items()} == {
        name: contents(tree)["large"][1] for name in ("one", "three")
    }
    presigned = aws("s3", "presign", url + "/three").strip()
    with urllib.request.urlopen(presigned, timeout=LIMIT) as answer:
        assert answer.read() == (tree / "large").read_bytes()

    names = ("--bucket", bucket, "--key", "by-hand")
    upload = aws("s3api", "create-multipart-upload", *names, "--query", "UploadId", "--output", "text").strip()
    part = ("--part-number", "1", "--body", str(tree / "small"))
    etag = aws(
        "s3api", "upload-part", *names, "--upload-id", upload, *part, "--query", "ETag", "--output", "text"
    ).strip()
    listed = aws("s3api", "list-parts", *names, "--upload-id", upload, "--query", "Parts[].Size", "--output", "text")
    assert listed.split() == ["1000"]
    complete = f"Parts=[{{PartNumber=1,ETag={etag}}}]"
    aws("s3api", "complete-multipart-upload", *names, "--upload-id", upload, "--multipart-upload", complete)
    aws("s3api", "get-object", *names, tmp_path / "by-hand")
    assert (tmp_path / "by-hand").read_bytes() == (tree / "small").read_bytes()
    aws("s3", "rb", "--force", url)
    assert not (running.path / bucket).exists()


def rclone(shell: Shell, **more: str) -> Shell:
    settings = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ENV_AUTH": "true",
        "ENDPOINT": shell.server.endpoint,
        "REGION": shell.server.region,
        "CHUNK_SIZE": "5Mi",
        "UPLOAD_CUTOFF": "5Mi",
        **more,
    }
    return Shell(shell.home, shell.server, {f"RCLONE_CONFIG_G_{name}": value for name, value in settings.items()})


def test_rclone(shell: Shell, bucket: str, running: Running, tree: Path, tmp_path: Path) -> None:
    run = rclone(shell)
    remote = f"g:{bucket}/tree"
    run("rclone", "copy", tree, remote)
    run("rclone", "check", "--download", tree, remote)
    run("rclone", "check", tree, remote)  # by ETag, and by its own MD5 in the metadata of what came in parts
    changed = tmp_path / "changed"
    shutil.copytree(tree, changed)
    (changed / "small").unlink()
    (changed / "new").write_bytes(content("new", 6 * MIB))
    run("rclone", "sync", changed, remote)
    run("rclone", "sync", remote, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(changed)
    run("rclone", "moveto", remote + "/large", remote + "/moved")
    with run.mounted(
        tmp_path / "mnt", "rclone", "mount", remote, tmp_path / "mnt", "--vfs-cache-mode", "writes"
    ) as mnt:
        assert (mnt / "moved").read_bytes() == (tree / "large").read_bytes()
        (mnt / "written").write_bytes(content("written", 7 * MIB))
        # It uploads after close, 5 s later unless told; umount does not wait for that.
        limit = time.monotonic() + LIMIT
        while not running.server.client.list_objects_v2(Bucket=bucket, Prefix="tree/written")["KeyCount"]:
            assert time.monotonic() < limit
            time.sleep(0.2)
    there = objects(running.server.client, bucket)
    assert there["tree/written"][1] == hashlib.sha256(content("written", 7 * MIB)).hexdigest()
    assert there["tree/moved"] == contents(tree)["large"]
    run("rclone", "purge", f"g:{bucket}")
    assert not (running.path / bucket).exists()


def test_restic_over_tls(tls: Running, ca: Path, tree: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    more = {
        "RESTIC_REPOSITORY": f"s3:{tls.server.endpoint}/restic/repository",
        "RESTIC_PASSWORD": "secret",
        "RESTIC_CACHE_DIR": str(home / "cache"),
    }
    shell = Shell(home, tls.server, more)

    def restic(*words: str | Path) -> str:
        return shell("restic", "--cacert", ca / "ca.pem", *words)

    source = tmp_path / "source"
    shutil.copytree(tree, source)
    restic("init")
    restic("backup", source)
    (source / "large").write_bytes(content("other", 9 * MIB))
    restic("backup", source)
    restic("forget", "--keep-last", "1", "--prune")
    restic("check", "--read-data")
    restic("restore", "latest", "--target", tmp_path / "back")
    assert contents(tmp_path / "back" / source.relative_to("/")) == contents(source)


def test_s3fs_with_the_bucket_in_the_host(shell: Shell, bucket: str, running: Running, tmp_path: Path) -> None:
    """``bucket.localhost``: curl takes every name below localhost for this machine, so no DNS is needed."""
    keys = tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text(f"{running.server.access_key}:{running.server.secret_key}\n")
    url = running.server.endpoint.replace("127.0.0.1", "localhost")
    options = f"url={url},passwd_file={keys},endpoint={running.server.region},multipart_size=5"
    command = ("s3fs", bucket, tmp_path / "mnt", "-f", "-o", options)
    large = content("s3fs", 18 * MIB + 11)
    with shell.mounted(tmp_path / "mnt", *command) as mnt:
        (mnt / "d").mkdir()
        (mnt / "d" / "large").write_bytes(large)
        (mnt / "d" / "large").rename(mnt / "moved")
        (mnt / "moved").chmod(0o640)
        with (mnt / "moved").open("ab") as file:
            file.write(b"and more")
        (mnt / "gone").write_bytes(b"x")
        (mnt / "gone").unlink()
    assert objects(running.server.client, bucket) == {
        "moved": (len(large) + 8, hashlib.sha256(large + b"and more").hexdigest())
    }
    (tmp_path / "mnt").rmdir()
    with shell.mounted(tmp_path / "mnt", *command) as mnt:
        assert (mnt / "moved").read_bytes() == large + b"and more"
        assert (mnt / "moved").stat().st_mode & 0o777 == 0o640
        assert sorted(os.listdir(mnt)) == ["d", "moved"]


def test_s3cmd(shell: Shell, bucket: str, running: Running, tree: Path, tmp_path: Path) -> None:
    host = running.server.endpoint.partition("://")[2]
    (shell.home / ".s3cfg").write_text(
        f"[default]\naccess_key = {running.server.access_key}\nsecret_key = {running.server.secret_key}\n"
        f"host_base = {host}\nhost_bucket = {host}\nuse_https = False\nmultipart_chunk_size_mb = 5\n"
    )
    url = f"s3://{bucket}"
    shell("s3cmd", "sync", f"{tree}/", f"{url}/tree/")
    (tmp_path / "back").mkdir()
    shell("s3cmd", "sync", f"{url}/tree/", f"{tmp_path}/back/")
    assert contents(tmp_path / "back") == contents(tree)
    shell("s3cmd", "cp", f"{url}/tree/small", f"{url}/copied")
    shell("s3cmd", "mv", f"{url}/copied", f"{url}/moved")
    shell("s3cmd", "get", f"{url}/moved", tmp_path / "moved")
    assert (tmp_path / "moved").read_bytes() == (tree / "small").read_bytes()
    assert "1000" in shell("s3cmd", "info", f"{url}/moved")
    shell("s3cmd", "del", "--recursive", "--force", f"{url}/tree/")
    assert list(objects(running.server.client, bucket)) == ["moved"]


def test_duplicity(shell: Shell, bucket: str, running: Running, tree: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tree, source)
    run = Shell(shell.home, shell.server, {"PASSPHRASE": "secret"})
    backend = ("--no-encryption", "--s3-endpoint-url", running.server.endpoint)
    url = f"boto3+s3://{bucket}/backup"
    run("duplicity", "full", *backend, "--volsize", "10", source, url)
    run("duplicity", "verify", *backend, "--compare-data", url, source)
    (source / "small").write_bytes(b"changed")
    run("duplicity", "verify", *backend, "--compare-data", url, source, code=1)
    run("duplicity", "incremental", *backend, source, url)
    shutil.rmtree(run.home / ".cache" / "duplicity")  # what it knows has to come from the bucket
    run("duplicity", "restore", *backend, url, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(source)
