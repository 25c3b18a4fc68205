"""``s3fsx gateway serve`` as a process of its own, over a directory or another S3, with two users."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from s3fsx.gateway.accounts import Accounts, User
from s3fsx.gateway.users import load, save
from tests.s3server import S3Server

ACCOUNTS = Accounts(
    {"admin": User("admin", admin=True), "other": User("other")},
    {"gatewaykey1": ("admin", "gatewaysecret1"), "gatewaykey2": ("other", "gatewaysecret2")},
)


@dataclass(frozen=True)
class Running:
    server: S3Server
    process: subprocess.Popen[str]
    path: Path


def allow(server: S3Server, bucket: str, right: str) -> None:
    """The alternative user's right to this bucket: "rw", "ro", or "" for none."""
    assert server.served is not None
    accounts = load(str(server.served))
    other = accounts.users["other"]
    rights = {name: had for name, had in other.buckets.items() if name != bucket} | ({bucket: right} if right else {})
    save(str(server.served), replace(accounts, users={**accounts.users, "other": replace(other, buckets=rights)}))


@contextmanager
def running_gateway(directory: Path, arguments: Sequence[str] = (), users: Accounts = ACCOUNTS) -> Iterator[Running]:
    """Over the directory, which may have been served before. Whoever kills the process says so to ``process``."""
    with _running(directory, ["--path", str(directory), *arguments], users) as running:
        yield running


@contextmanager
def running_proxy(
    state: Path, upstream: S3Server, arguments: Sequence[str] = (), users: Accounts = ACCOUNTS
) -> Iterator[Running]:
    """In front of the upstream, with its first key."""
    keys = state.parent / f"{state.name}.upstream"
    keys.write_text(f"{upstream.access_key}:{upstream.secret_key}\n")
    keys.chmod(0o600)
    own = ["--upstream", upstream.endpoint, "--upstream-key-file", str(keys), "--state", str(state)]
    with _running(state, [*own, *arguments], users) as running:
        yield running


@contextmanager
def _running(directory: Path, arguments: Sequence[str], users: Accounts) -> Iterator[Running]:
    directory.mkdir(exist_ok=True)
    save(str(directory), users)
    log = directory.parent / f"{directory.name}.log"
    access_log = directory.parent / f"{directory.name}.access"
    where = ["--listen", "127.0.0.1:0", "--access-log", str(access_log)]
    command = [sys.executable, "-m", "s3fsx", "gateway", "serve", *where]
    with log.open("a") as stderr:
        process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"https?://\S+", line)
        assert found is not None, log.read_text()
        (access, (_, secret)), (other, (_, other_secret)) = ACCOUNTS.keys.items()
        server = S3Server(
            "gateway",
            found[0],
            "us-east-1",
            access,
            secret,
            other,
            other_secret,
            log_path=access_log,
            pid=process.pid,
            served=directory,
        )
        yield Running(server, process, directory)
        if "client" in vars(server):
            server.client.close()
    finally:
        process.terminate()
        process.communicate(timeout=40)
    if process.returncode not in (0, -9):
        raise AssertionError(f"exit code {process.returncode}: {log.read_text()}")
    assert "Traceback" not in log.read_text(), log.read_text()
