"""The command: what it refuses, what it serves with which options, and how it ends."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from s3fsx import cli
from s3fsx.commands import gateway
from s3fsx.gateway.serving import Settings, snippets
from s3fsx.service import log
from tests.gatewayserver import running_gateway

Run = Callable[..., "Done"]


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``s3fsx gateway ...`` in this process: a Python of its own for each takes seconds on a busy machine."""
    monkeypatch.setattr(gateway, "keep_private", lambda: None)  # cannot be undone, and pytest goes on
    monkeypatch.setattr(log, "setup", lambda *_, **__: None)

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        try:
            code = cli.main(["gateway", *arguments])
        except SystemExit as exited:  # argparse's
            code = int(str(exited.code))
        return Done(code, *capsys.readouterr())

    return call


def test_what_is_refused_before_it_serves(tmp_path: Path, run: Run) -> None:
    path = str(tmp_path)
    keys = tmp_path / "keys"
    keys.write_text("access:secret-secret\n")
    keys.chmod(0o644)
    assert run("bucket", "add", "--path", path, "inside").returncode == 0
    upstream = ["--upstream-key-file", str(keys), "--state", path]
    config = tmp_path / "config.toml"
    config.write_text("pth = 'x'\n")
    mistyped = tmp_path / "mistyped.toml"
    mistyped.write_text("acl = 'yes'\n")
    for arguments, words in (
        ([], "--path DIR"),
        (["--path", path], "nobody has a key"),
        (["--path", path, "--no-auth", "--listen", "0.0.0.0:0"], "loopback"),
        (["--path", path, "--access-key-file", str(keys)], "chmod 600"),
        (["--path", path + "/none", "--no-auth"], "mkdir"),
        (["--path", str(tmp_path / "inside"), "--no-auth"], f"serve {path}"),
        (["--path", path, "--no-auth", "--listen", "nonsense"], "HOST:PORT"),
        (["--config", str(config)], "no setting 'pth'"),
        (["--config", str(mistyped)], "acl: true or false"),
        (["--upstream", "http://127.0.0.1:1", "--path", path, "--no-auth"], "not both"),
        (["--upstream", "http://127.0.0.1:1", "--no-auth"], "--upstream-key-file FILE"),
        ([*upstream, "--no-auth", "--upstream", "127.0.0.1:1"], "http://HOST:PORT"),
        ([*upstream, "--no-auth", "--upstream", "http://127.0.0.1:1"], "chmod 600"),
        (["--path", path, "--no-auth", "--state", path], "state is for --upstream"),
    ):
        done = run("serve", *arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "secret-secret" not in done.stderr


def test_users_keys_and_buckets(tmp_path: Path, run: Run) -> None:
    path = ["--path", str(tmp_path)]
    made = dict(line.split(" = ") for line in run("user", "add", *path, "ann", "--bucket", "b*:ro").stdout.splitlines())
    assert (tmp_path / ".s3fsx-gateway" / "users.json").stat().st_mode & 0o777 == 0o600
    assert run("user", "list", *path).stdout == "ann  b*:ro\n"
    assert run("bucket", "add", *path, "bbb").returncode == 0
    assert run("bucket", "add", *path, "Bad").returncode == 2
    assert "'bbb'" in run("bucket", "add", *path, "bbb").stderr
    mistyped = run("bucket", "add", *path, "--owner", "anna", "ccc")
    assert (mistyped.returncode, "there are: ann" in mistyped.stderr) == (2, True)
    assert run("bucket", "list", *path).stdout == "bbb  admin  unversioned\n"
    assert run("bucket", "add", *path, "--owner", "ann", "ccc").returncode == 0
    for right in ("bbb", "bbb:rx", ":ro", "a:b:ro"):
        assert f"right {right!r}: " in run("user", "add", *path, "bob", "--bucket", right).stderr
    assert run("key", "add", *path, "ann").returncode == 0
    assert len(run("key", "list", *path).stdout.splitlines()) == 2
    assert run("key", "rm", *path, made["access_key"]).returncode == 0
    assert run("bucket", "rm", *path, "bbb").returncode == 0
    assert run("user", "rm", *path, "ann").returncode == 0
    assert run("user", "rm", *path, "ann").returncode == 2
    assert run("key", "list", *path).stdout == ""


def test_the_snippets_survive_a_shell() -> None:
    """rclone needs its quotes around the colons of the URL, which the shell must not take."""
    endpoint = "https://127.0.0.1:9000"
    words = [shlex.split(line) for line in snippets(endpoint, Settings("/srv/s3")).splitlines()[1:]]
    assert f":s3,provider=Other,env_auth,endpoint='{endpoint}',region=us-east-1:" in words[1]


def test_a_reader_may_not_write_and_a_new_key_works_at_once(tmp_path: Path, run: Run) -> None:
    with running_gateway(tmp_path / "buckets") as running:
        running.server.client.create_bucket(Bucket="shared")
        running.server.client.put_object(Bucket="shared", Key="x", Body=b"1")
        told = run("user", "add", "--path", str(running.path), "ann", "--bucket", "sha*:ro").stdout
        made = dict(line.split(" = ") for line in told.splitlines())
        reader = running.server.new_client(made["access_key"], made["secret_key"])
        try:
            assert reader.get_object(Bucket="shared", Key="x")["Body"].read() == b"1"
            assert [b["Name"] for b in reader.list_buckets()["Buckets"]] == ["shared"]
            attempts: list[Callable[[], Any]] = [
                lambda: reader.put_object(Bucket="shared", Key="y", Body=b""),
                lambda: reader.delete_object(Bucket="shared", Key="x"),
                lambda: reader.create_bucket(Bucket="other"),
            ]
            for call in attempts:
                with pytest.raises(ClientError, match="AccessDenied"):
                    call()
        finally:
            reader.close()
        again = run("serve", "--path", str(running.path), "--listen", "127.0.0.1:0")
        assert (again.returncode, "another s3fsx gateway" in again.stderr) == (1, True)


def client_of(endpoint: str, **config: Any) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="gatewaykey1",
        aws_secret_access_key="gatewaysecret1",
        config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}, **config),
    )


def test_signature_version_2_only_when_switched_on(tmp_path: Path) -> None:
    for arguments in ([], ["--sigv2"]):
        with running_gateway(tmp_path / "buckets", arguments) as running:
            client = client_of(running.server.endpoint, signature_version="s3")
            try:
                if not arguments:
                    with pytest.raises(ClientError, match="Signature version 2 is not supported"):
                        client.list_buckets()
                    continue
                client.create_bucket(Bucket="old")
                client.put_object(Bucket="old", Key="a b/ü+", Body=b"1", Metadata={"x": "y"})
                assert client.get_object(Bucket="old", Key="a b/ü+", ResponseContentType="a/b")["ContentType"] == "a/b"
                assert client.get_object_tagging(Bucket="old", Key="a b/ü+")["TagSet"] == []
                url = client.generate_presigned_url("get_object", Params={"Bucket": "old", "Key": "a b/ü+"})
                assert "AWSAccessKeyId" in url
                assert urllib.request.urlopen(url).read() == b"1"
                with pytest.raises(OSError, match="403"):
                    urllib.request.urlopen(url.replace("Expires=", "Expires=1"))
            finally:
                client.close()


def test_tls_and_the_access_log(tmp_path: Path) -> None:
    key, cert, access_log = tmp_path / "key.pem", tmp_path / "cert.pem", tmp_path / "access.log"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    arguments = ["--tls", str(cert), str(key), "--access-log", str(access_log)]
    with running_gateway(tmp_path / "buckets", arguments) as running:
        assert running.server.endpoint.startswith("https:")
        session = boto3.session.Session()
        client = session.client(
            "s3",
            endpoint_url=running.server.endpoint,
            region_name="us-east-1",
            aws_access_key_id="gatewaykey1",
            aws_secret_access_key="gatewaysecret1",
            verify=str(cert),
            config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
        )
        try:
            client.create_bucket(Bucket="tls")
            client.put_object(Bucket="tls", Key="x", Body=b"1" * 3_000_000)
            assert client.get_object(Bucket="tls", Key="x")["Body"].read() == b"1" * 3_000_000
        finally:
            client.close()
    entries = [json.loads(line) for line in access_log.read_text().splitlines()]
    assert [entry["status"] for entry in entries] == [200, 200, 200]
    assert (entries[1]["user"], entries[1]["path"], entries[2]["sent"]) == ("admin", "/tls/x", 3_000_000)
    assert "gatewaysecret1" not in access_log.read_text()


def test_what_is_under_way_ends_before_the_gateway_does(tmp_path: Path) -> None:
    with running_gateway(tmp_path / "buckets") as running:
        client = running.server.client
        client.create_bucket(Bucket="bucket")
        url = client.generate_presigned_url("put_object", Params={"Bucket": "bucket", "Key": "slow"})
        split = urlsplit(url)
        with socket.create_connection((split.hostname or "", split.port or 0), timeout=30) as slow:
            head = f"PUT {split.path}?{split.query} HTTP/1.1\r\nhost: {split.netloc}\r\ncontent-length: 10\r\n\r\n"
            slow.sendall(head.encode() + b"12345")
            time.sleep(0.5)  # until it is being answered; were it not, the connection would be closed without one
            running.process.send_signal(signal.SIGTERM)
            finish = threading.Timer(0.5, slow.sendall, (b"67890",))
            finish.start()
            assert slow.recv(100).startswith(b"HTTP/1.1 200")
        assert running.process.wait(30) == 0
    assert (tmp_path / "buckets" / "bucket" / "slow").read_bytes() == b"1234567890"


def test_no_auth(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "s3fsx", "gateway", "serve", "--path", str(tmp_path), "--listen", "127.0.0.1:0"]
    with subprocess.Popen([*command, "--no-auth"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().split()[2]
        client = client_of(endpoint)
        try:
            client.create_bucket(Bucket="bucket")
            client.put_object(Bucket="bucket", Key="x", Body=b"1" * 100_000)
            assert (tmp_path / "bucket" / "x").read_bytes() == b"1" * 100_000
        finally:
            client.close()
            process.terminate()
    assert process.returncode == 0
