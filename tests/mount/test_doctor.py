"""``s3fsx doctor`` on faults that are really there: a store, a mount, files, a disk."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from s3fsx.service.status import read_status, socket_path
from tests.mount.conftest import MakeMount, with_tls
from tests.mount.harness import COMMAND, ROOT, Mount, environment, eventually
from tests.s3server import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.rgw]

SECRET = "a-secret/with+signs=="
LISTING = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>pve/</Prefix><KeyCount>0</KeyCount>
<MaxKeys>1</MaxKeys><Delimiter>/</Delimiter><IsTruncated>false</IsTruncated></ListBucketResult>"""


@dataclass(frozen=True)
class Doctor:
    """etc: instead of /etc/s3fsx. pve: instead of /etc/pve."""

    server: S3Server
    home: Path

    @property
    def etc(self) -> Path:
        return self.home / "etc"

    @property
    def pve(self) -> Path:
        return self.home / "pve"

    def configure(self, settings: Mapping[str, object], name: str = "store", mode: int = 0o600) -> None:
        self.etc.mkdir(mode=0o700, exist_ok=True)
        given: dict[str, object] = {
            "bucket": "nothing-there",
            "endpoint": self.server.endpoint,
            "region": self.server.region,
            "access_key": self.server.alt_access_key,
            "secret_key": self.server.alt_secret_key,
            "state_dir": str(self.home / "state"),
            "cache_dir": str(self.home / "cache"),
            "runtime_dir": str(self.home / "run"),
            **settings,
        }
        file = self.etc / f"{name}.toml"
        file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items()))
        file.chmod(mode)

    def run(self, *arguments: str, code: int = 1) -> str:
        env = environment(self.server, S3FSX_CONFIG_DIR=str(self.etc), S3FSX_PVE_DIR=str(self.pve))
        env["S3FSX_UNIT_DIR"] = str(self.home / "units")
        done = subprocess.run(
            [*COMMAND, "doctor", *arguments], env=env, cwd=ROOT, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == code, done
        assert done.stderr == "" or ("--bundle" in arguments and done.stderr.count("\n") == 1), done
        return done.stdout

    def findings(self, *arguments: str, code: int = 1) -> list[Mapping[str, Any]]:
        """Those that are no notes, of "store" where nothing else is named: this machine may have other mounts."""
        told = self.run("--json", *(arguments or ("store",)), code=code)
        found: list[Mapping[str, Any]] = json.loads(told)["findings"]
        ours = str(self.home / "small")  # elsewhere tmpfs is that of the machine's /tmp
        return [
            finding
            for finding in found
            if finding["severity"] != "note" and ("is on tmpfs" not in finding["what"] or ours in finding["what"])
        ]

    def only(self, *arguments: str, code: int = 1) -> Mapping[str, Any]:
        found = self.findings(*arguments, code=code)
        assert len(found) == 1, found
        return found[0]


@pytest.fixture
def doctor(s3: S3Server, tmp_path: Path) -> Doctor:
    return Doctor(s3, tmp_path)


def own(doctor: Doctor, mount: Mount) -> None:
    """The configuration of a mount that runs."""
    options = {name: str(value) for name, value in mount.options.items()}
    doctor.configure({"bucket": mount.bucket, "prefix": mount.prefix, **options})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def answering(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(time.time() - 1200, usegmt=True)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_mount_that_is_well(doctor: Doctor, mount: Mount) -> None:
    own(doctor, mount)
    for target in ("store", str(mount.path / ".")):
        assert doctor.findings(target, code=0) == []
    text = doctor.run("store", code=0)
    assert (
        f"store: s3://{mount.bucket}/pve/ at {mount.server.endpoint}, mounted on {mount.path}, the store answers"
        in text
    )
    assert "nothing is wrong" in text or "is on tmpfs" in text


@pytest.mark.expect_log("S3 endpoint is down")
@pytest.mark.expect_log("not done within", optional=True)
def test_an_outage(doctor: Doctor, mount: Mount) -> None:
    """The mount's own words, and the store's, which is asked anew."""
    own(doctor, mount)
    pid = mount.server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        socket_of = socket_path(str(mount.options["runtime_dir"]), str(mount.path))
        asking = subprocess.Popen(["touch", str(mount.path / "dump" / "x")], stderr=subprocess.DEVNULL)
        eventually(lambda: "'down': True" in str(read_status(socket_of)["endpoint"]), "the mount has noticed it", 90)
        found = doctor.findings()
    finally:
        os.kill(pid, signal.SIGCONT)
    asking.wait(60)
    assert [finding["severity"] for finding in found] == ["FAULT", "FAULT"]
    assert found[0]["what"].startswith("OUTAGE for ")
    assert "curl -v" in found[1]["fix"]


@pytest.mark.parametrize(
    ("settings", "what", "fix"),
    [
        ({"secret_key": SECRET}, "the secret key does not fit the access key", "correct secret_key"),
        ({"access_key": "NOBODYKNOWSME0000001"}, "the store does not know this access key", "correct access_key"),
        ({}, "bucket 'nothing-there' does not exist at", "create the bucket"),
        ({"endpoint": "http://no-such-host.invalid"}, "no-such-host.invalid", "getent hosts"),
        ({"verify_reeds": True}, "verify_reeds", "every setting: s3fsx config show"),
        ({"part_size": "lots"}, "part_size", "every setting: s3fsx config show"),
        ({"ca_file": "/nonexistent.pem"}, "no such file", "every setting: s3fsx config show"),
    ],
)
def test_what_the_settings_lead_to(doctor: Doctor, settings: dict[str, object], what: str, fix: str) -> None:
    doctor.configure(settings)
    found = doctor.only()
    assert (found["severity"], found["where"]) == ("FAULT", "store")
    assert what in found["what"]
    assert fix in found["fix"]
    assert SECRET not in doctor.run("store")


def test_keys_that_others_can_read(doctor: Doctor) -> None:
    doctor.configure({}, mode=0o644)
    assert "chmod 600" in doctor.only()["what"]


def test_nobody_listens(doctor: Doctor) -> None:
    doctor.configure({"endpoint": f"http://127.0.0.1:{free_port()}"})
    assert "nothing listens there" in doctor.only()["fix"]


def test_a_store_that_hangs(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        doctor.configure({"endpoint": f"http://127.0.0.1:{listener.getsockname()[1]}"})
        start = time.monotonic()
        found = doctor.only()
        assert time.monotonic() - start < 60
    assert "curl -v" in found["fix"]


def test_a_port_with_tls(doctor: Doctor) -> None:
    endpoint = with_tls(doctor.server)
    doctor.configure({"endpoint": endpoint})
    assert "ca_file" in doctor.only()["fix"], doctor.only()
    doctor.configure({"endpoint": endpoint.replace("https", "http")})
    assert "https" in doctor.only()["fix"]


def test_a_port_without_tls(doctor: Doctor) -> None:
    doctor.configure({"endpoint": doctor.server.endpoint.replace("http", "https")})
    assert "plain http" in doctor.only()["fix"], doctor.only()


def test_a_clock_that_is_off(doctor: Doctor) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/xml")
        handler.send_header("Content-Length", str(len(LISTING)))
        handler.end_headers()
        handler.wfile.write(LISTING)

    with answering(answer) as endpoint:
        doctor.configure({"endpoint": endpoint})
        found = doctor.only(code=0)
    assert found["severity"] == "warning"
    assert "differ by 20m" in found["what"]
    assert "set-ntp" in found["fix"]


def test_a_daemon_that_was_killed(doctor: Doctor, mount: Mount) -> None:
    own(doctor, mount)
    os.kill(mount.pid, signal.SIGKILL)
    eventually(lambda: "dead on" in doctor.run("store"), "the kernel has noticed it")
    found = doctor.only()
    mount.kill9()
    assert "its daemon has ended" in found["what"]
    assert f"s3fsx umount {mount.path}" in found["fix"]


def test_what_a_crash_left(doctor: Doctor, mount: Mount) -> None:
    own(doctor, mount)
    file = os.open(mount.path / "dump" / "vzdump-qemu-100-2026_01_01-00_00_00.vma.dat", os.O_WRONLY | os.O_CREAT)
    os.write(file, os.urandom(20 << 20))
    eventually(lambda: mount.view.uploads() != [], "the upload has begun")
    mount.kill9()
    with contextlib.suppress(OSError):
        os.close(file)
    found = doctor.only(code=0)
    assert "vzdump-qemu-100-2026_01_01-00_00_00" in found["what"]
    assert "not finished in the bucket" in found["what"]
    assert "mount it once more" in found["fix"]
    mount.start()
    assert doctor.findings(code=0) == []


def test_a_mount_of_the_same_bucket_at_another_store(doctor: Doctor, mount: Mount) -> None:
    """mountinfo knows bucket and prefix only."""
    own(doctor, mount)
    options = {name: str(value) for name, value in mount.options.items()}
    elsewhere = {**options, "endpoint": f"http://127.0.0.1:{free_port()}"}
    doctor.configure({"bucket": mount.bucket, "prefix": mount.prefix, **elsewhere}, "other")
    text = doctor.run("other")
    assert f"mounted on {mount.path}" not in text
    assert "configured, and not mounted on this machine" in text


def test_kernel_tuning(doctor: Doctor, mount: Mount) -> None:
    own(doctor, mount)
    device = next(
        line.split()[2] for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {mount.path} " in line
    )
    setting = Path(f"/sys/class/bdi/{device}/read_ahead_kb")
    eventually(lambda: int(setting.read_text()) == 1024, "s3fsx has tuned it")
    setting.write_text("128\n")
    found = doctor.only(code=0)
    assert (found["severity"], found["what"][:27]) == ("warning", "read_ahead_kb is 128, not 1")


def test_a_storage_of_proxmox(doctor: Doctor, make_mount: MakeMount, tmp_path: Path) -> None:
    mount = make_mount()
    own(doctor, mount)
    doctor.pve.mkdir()
    section = f"dir: backup\n\tpath {mount.path}\n\tcontent backup,images\n"
    (doctor.pve / "storage.cfg").write_text(section)
    found = doctor.findings()
    assert [finding["fix"] for finding in found] == [
        "pvesm set backup --is_mountpoint yes",
        "pvesm set backup --content backup,iso,vztmpl,snippets",
    ]
    (doctor.pve / "storage.cfg").write_text(f"dir: backup\n\tpath {mount.path}\n\tcontent backup\n\tis_mountpoint 1\n")
    assert doctor.findings(code=0) == []
    mount.umount()
    (doctor.pve / "storage.cfg").write_text(f"dir: store\n\tpath {mount.path}\n\tcontent backup\n\tis_mountpoint yes\n")
    (mount.path / "vzdump-left.vma").write_bytes(b"on the root disk")
    found = doctor.findings()
    assert [(finding["severity"], finding["what"]) for finding in found] == [
        ("FAULT", f"{mount.path}: not mounted"),
        ("warning", f"{mount.path}: nothing is mounted there, and 1 entries lie in it on the local disk"),
    ]
    (mount.path / "vzdump-left.vma").unlink()


def test_the_disk_of_the_journal(doctor: Doctor, tmp_path: Path) -> None:
    state = tmp_path / "small"
    state.mkdir()
    bucket = doctor.server.make_bucket("doctor")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(state)], check=True)
    try:
        owner = {"access_key": doctor.server.access_key, "secret_key": doctor.server.secret_key}
        doctor.configure({"bucket": bucket, "state_dir": str(state / "s3fsx"), **owner})
        (state / "full").write_bytes(bytes(1 << 19))
        found = doctor.findings()
        assert [finding["severity"] for finding in found] == ["FAULT", "warning"]
        assert "0 MiB free" in found[0]["what"]
        assert "on tmpfs" in found[1]["what"]
        subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
        assert "mounted read-only" in doctor.findings()[0]["what"]
    finally:
        subprocess.run(["umount", str(state)], check=True)


def test_what_is_no_storage(doctor: Doctor) -> None:
    for target, why in (("nothing", "nothing.toml: no such file"), (str(doctor.home), "no s3fsx mount")):
        env = environment(doctor.server, S3FSX_CONFIG_DIR=str(doctor.etc))
        done = subprocess.run(
            [*COMMAND, "doctor", target], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert why in done.stdout + done.stderr
        assert done.returncode in (1, 2)


def test_a_bundle_has_no_secrets(doctor: Doctor, mount: Mount, tmp_path: Path) -> None:
    own(doctor, mount)
    doctor.configure({"secret_key": SECRET, "proxy": f"http://user:{SECRET[:8]}@127.0.0.1:1"}, "other")
    file = tmp_path / "bundle.tar.gz"
    doctor.run("--bundle", str(file))  # all of this machine
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as archive:
        names = archive.getnames()
        content = b"".join(archive.extractfile(name).read() for name in names)  # type: ignore[union-attr]
    assert {"s3fsx-doctor/report.json", "s3fsx-doctor/config-store.txt", "s3fsx-doctor/mounts.txt"} <= set(names)
    for secret in (SECRET, SECRET[:8], doctor.server.alt_secret_key):
        assert secret.encode() not in content
    assert mount.bucket.encode() in content


def test_what_hangs_is_told(doctor: Doctor, mount: Mount, tmp_path: Path) -> None:
    """A file system that does not answer, below a directory of s3fsx and above what is asked for."""
    own(doctor, mount)
    doctor.configure({"state_dir": str(mount.path / "state"), "log_file": str(mount.path / "log")}, "below")
    os.mkfifo(tmp_path / "pipe", 0o600)
    doctor.configure({"log_file": str(tmp_path / "pipe")}, "pipe")
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        assert f"{mount.path}/state: its file system does not answer" in doctor.run("below")
        doctor.run("pipe")
        doctor.run()
        env = environment(doctor.server, S3FSX_CONFIG_DIR=str(doctor.etc))
        asked = [*COMMAND, "doctor", str(mount.path / "a" / "b")]
        done = subprocess.run(asked, env=env, cwd=ROOT, capture_output=True, text=True, timeout=90)
    finally:
        os.kill(mount.pid, signal.SIGCONT)
    assert (done.returncode, done.stderr) == (2, f"s3fsx: {mount.path}/a: its file system does not answer\n")
