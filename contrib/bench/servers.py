"""Small S3 servers beside one another: ``python -m contrib.bench.servers [--pys3local PROGRAM]``, as root for Ceph.

Each is started on an empty directory, asked by one client over one connection with header signatures and unsigned
payload, and ended; in turn, so many rounds. Prints a line of JSON for each round of each server: MiB/s of large
objects, CPU seconds of the server per GiB, small requests a second and their CPU. The gateway does fsync, the others
keep what they have in memory (moto, Ceph) or in files without fsync (pys3local).
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from s3fsx.s3.sign import UNSIGNED, Keys, authorization

from .meter import cpu_seconds

RGW = Path(__file__).parents[1] / "rgw.py"
BUCKET = "default"  # the only one that pys3local has by itself
SMALL = 1000  # bytes


@dataclass(frozen=True)
class Server:
    """pids: whose CPU is counted, with their children."""

    endpoint: str
    keys: Keys
    pids: tuple[int, ...]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


@contextmanager
def process(command: list[str], port: int, keys: Keys) -> Iterator[Server]:
    """Until it takes connections. Raises OSError."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            for _ in range(300):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield Server(f"http://127.0.0.1:{port}", keys, (child.pid,))
        finally:
            child.terminate()


@contextmanager
def gateway(directory: Path, program: str) -> Iterator[Server]:
    port, keys = free_port(), Keys("benchkey1", "benchsecret1")
    (directory / "buckets").mkdir()
    (directory / "keys").write_text(f"{keys.access}:{keys.secret}\n")
    (directory / "keys").chmod(0o600)
    where = ["--path", str(directory / "buckets"), "--access-key-file", str(directory / "keys")]
    command = [sys.executable, "-m", "s3fsx", "gateway", "serve", *where, "--listen", f"127.0.0.1:{port}"]
    with process(command, port, keys) as server:
        yield server


@contextmanager
def moto(directory: Path, program: str) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with process(command, port, Keys("benchkey1", "benchsecret1")) as server:
        yield server


@contextmanager
def pys3local(directory: Path, program: str) -> Iterator[Server]:
    port = free_port()
    command = [program, "serve", "--path", str(directory), "--listen", f"127.0.0.1:{port}"]
    with process(command, port, Keys("test", "test")) as server:
        yield server


@contextmanager
def ceph(directory: Path, program: str) -> Iterator[Server]:
    command = ["/usr/bin/python3", str(RGW), "run", "--dir", str(directory / "rgw")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            said = json.loads(child.stdout.readline())
            pids = tuple(int(path.read_text()) for path in (directory / "rgw").rglob("*.pid"))
            yield Server(said["endpoint"], Keys(said["access_key"], said["secret_key"]), pids or (said["pid"],))
        finally:
            child.stdin.close()


class Client:
    def __init__(self, server: Server) -> None:
        self._host = urlsplit(server.endpoint).netloc
        self._keys = server.keys
        self._connection = http.client.HTTPConnection(self._host, timeout=120)
        self._buffer = bytearray(1 << 20)

    def ask(self, method: str, path: str, body: bytes = b"") -> int:
        """Bytes of the answer. Raises OSError for anything but a success."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers = {"host": self._host, "x-amz-date": stamp, "x-amz-content-sha256": UNSIGNED}
        headers["authorization"] = authorization(self._keys, "us-east-1", method, path, "", headers)
        self._connection.request(method, path, body or None, headers)
        answer = self._connection.getresponse()
        size = 0
        while done := answer.readinto(self._buffer):
            size += done
        if answer.status not in (200, 204):
            raise OSError(f"{method} {path}: {answer.status}")
        return size


def measured(server: Server, mib: int, objects: int, small: int) -> dict[str, float]:
    client = Client(server)
    try:
        client.ask("PUT", f"/{BUCKET}")
    except OSError:
        client = Client(server)  # it is there
    large, little = bytes(range(256)) * (mib << 12), b"x" * SMALL
    result: dict[str, float] = {}

    def timed(name: str, count: int, run: Callable[[int], int | None]) -> tuple[float, float]:
        cpu, began = sum(map(cpu_seconds, server.pids)), time.monotonic()
        for number in range(count):
            run(number)
        return time.monotonic() - began, sum(map(cpu_seconds, server.pids)) - cpu

    def fetched(number: int) -> None:
        if client.ask("GET", f"/{BUCKET}/large{number}") != len(large):
            raise OSError("another length")

    for name, run in (("put", lambda n: client.ask("PUT", f"/{BUCKET}/large{n}", large)), ("get", fetched)):
        seconds, cpu = timed(name, objects, run)
        result[f"{name} MiB/s"] = round(mib * objects / seconds, 1)
        result[f"{name} CPU-s/GiB"] = round(cpu * 1024 / (mib * objects), 2)
    for name, run in (
        ("small put", lambda n: client.ask("PUT", f"/{BUCKET}/small{n}", little)),
        ("small get", lambda n: client.ask("GET", f"/{BUCKET}/small{n}")),
    ):
        seconds, cpu = timed(name, small, run)
        result[f"{name}/s"] = round(small / seconds, 1)
        result[f"{name} CPU ms"] = round(cpu * 1000 / small, 2)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pys3local", default="", metavar="PROGRAM", help="pip install pys3local; left out without")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--mib", type=int, default=64, help="of a large object (%(default)s)")
    parser.add_argument("--objects", type=int, default=8, help="large ones (%(default)s)")
    parser.add_argument("--small", type=int, default=300, help="small ones (%(default)s)")
    given = parser.parse_args()
    servers = [("gateway", gateway), ("moto", moto), ("ceph", ceph)]
    if given.pys3local:
        servers.append(("pys3local", pys3local))
    for number in range(given.rounds):
        for name, start in servers:
            with tempfile.TemporaryDirectory() as directory, start(Path(directory), given.pys3local) as server:
                try:
                    result = measured(server, given.mib, given.objects, given.small)
                except OSError as error:
                    sys.stdout.write(json.dumps({"server": name, "round": number, "error": str(error)}) + "\n")
                    continue
            sys.stdout.write(json.dumps({"server": name, "round": number, **result}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
