#!/usr/bin/python3
"""A throw-away Ceph RADOS Gateway on loopback, from the distribution's packages: a real S3 server in about two seconds.

    apt-get install --no-install-recommends radosgw ceph-mon ceph-osd python3-rados libtcmalloc-minimal4

    contrib/rgw.py up    [--dir D] [--size GIB] [--store memstore|bluestore] [--log]   start it, print its environment
    contrib/rgw.py down  [--dir D]                                                     stop it and delete D
    contrib/rgw.py run   [--dir D] ...    start it, print one JSON line, and take it down when standard input ends

One monitor, one OSD, one radosgw; no mgr, no cephx, no systemd. ``up`` leaves a running one alone and restarts a dead
radosgw on the same data. ``run`` is for tests: its cluster cannot outlive the process that holds the pipe. Ports are
free ones of the moment, so any number of these run side by side in directories of their own.

Needs the distribution's own Python (python3-rados is compiled for it) and works with Ceph 16 (Debian 12) and 18 (13).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

PACKAGES = "radosgw ceph-mon ceph-osd python3-rados libtcmalloc-minimal4"
USERS = {
    "tester": ("S3FSXTESTKEY00000001", "s3fsxtestsecret000000000000000000000001"),
    "other": ("S3FSXTESTKEY00000002", "s3fsxtestsecret000000000000000000000002"),
}
REGION = "us-east-1"
LOOPBACK = "127.0.0.1"
DAEMONS = {"rgw": "radosgw", "osd": "ceph-osd", "mon": "ceph-mon"}  # name: program, in the order they stop
START_LIMIT = 60.0  # seconds; 1.5 is usual, a loaded CI machine has been seen to need 10
QUIET = (
    "ms osd bluestore bluefs bdev rocksdb objecter rgw mon paxos auth monc client filestore memdb objclass perfcounter "
    "tp leveldb finisher heartbeatmap context throttle timer"
)


class RgwError(Exception):
    """One line for the user."""


def configuration(d: Path, state: dict[str, str]) -> str:
    """ceph.conf. The values that are not obvious:

    - read_lease_ratio: a single-replica pool whose OSD was stopped for more than 16 s never serves again with the
      default, which would make every SIGSTOP test the last one.
    - crc modes: without cephx there is no key to secure a connection with.
    - paxos and objecter intervals: their defaults (1 s, 5 s) are most of the start-up time.
    - ops log: one JSON line per request with the operation's name; the header list makes a server-side copy visible.
    - wpq: Ceph 17 and later would benchmark the device first, for mClock.
    """
    log = d / "log"
    quiet = "\n".join(f"debug_{name} = 0/0" for name in QUIET.split())
    ops_log = (
        f"rgw_enable_ops_log = true\nrgw_ops_log_rados = false\nrgw_ops_log_file_path = {log}/ops.log\n"
        "rgw_log_nonexistent_bucket = true\nrgw_log_http_headers = http_x_amz_copy_source"
        if state["log"]
        else "rgw_enable_ops_log = false"
    )
    return f"""[global]
fsid = {state["fsid"]}
mon_host = v2:127.0.0.1:{state["mon_port"]}/0
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
public_network = 127.0.0.0/8
ms_bind_ipv4 = true
ms_bind_msgr1 = false
ms_async_op_threads = 2
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
auth_supported = none
keyring = /dev/null
log_file = {log}/$name.log
mon_cluster_log_file = {log}/cluster.log
run_dir = {d}/run
admin_socket = {d}/run/$name.asok
crash_dir = {d}/run
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_pool_default_read_lease_ratio = 100000
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
objecter_tick_interval = 0.2
{quiet}
[mon]
mon_data = {d}/mon
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
mon_data_avail_warn = 1
mon_data_avail_crit = 0
[osd]
osd_data = {d}/osd
osd_objectstore = {state["store"]}
osd_journal =
memstore_device_bytes = {int(state["size"]) << 30}
bluestore_block_create = true
bluestore_block_size = {int(state["size"]) << 30}
bluestore_fsck_on_mkfs = false
bluestore_cache_autotune = false
bluestore_cache_size = {256 << 20}
bdev_aio_poll_ms = 20
osd_op_queue = wpq
osd_op_num_shards = 2
osd_op_num_threads_per_shard = 2
osd_numa_auto_affinity = false
[client.rgw]
rgw_frontends = beast endpoint={state["address"]}:{state["port"]} ssl_endpoint={state["address"]}:{state["tls_port"]} \
ssl_certificate={d}/tls.pem tcp_nodelay=1
ms_mon_client_mode = crc
ms_client_mode = crc
rgw_dns_name = localhost
rgw_thread_pool_size = 64
{ops_log}
rgw_enable_usage_log = false
rgw_gc_obj_min_wait = 10
rgw_gc_processor_period = 10
rgw_gc_processor_max_time = 10
rgw_run_sync_thread = false
rgw_dynamic_resharding = false
"""


def free_ports(count: int) -> list[int]:
    """Distinct ports free on loopback now; all are held until all are known."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def environment() -> dict[str, str]:
    """tcmalloc takes a third off the CPU time of large GETs; its absence is no reason to fail."""
    libraries = sorted(Path("/usr/lib").glob("*-linux-gnu/libtcmalloc_minimal.so.4"))
    return {**os.environ, "LC_ALL": "C", **({"LD_PRELOAD": str(libraries[0])} if libraries else {})}


def pid_of(d: Path, name: str) -> int | None:
    """The daemon's pid while it runs; a recycled pid and a zombie, which has no program any more, do not count.

    Not by its name: the main thread of Ceph 18's radosgw calls itself notif-worker0.
    """
    try:
        pid = int((d / f"{name}.pid").read_text())
        program = Path(f"/proc/{pid}/exe").readlink()
    except (OSError, ValueError):
        return None
    return pid if program.name == DAEMONS[name] else None


def spawn(d: Path, name: str, *command: str) -> None:
    """Own session: they must not see the terminal's Ctrl-C before ``down`` or ``run`` takes them down in order.

    In /, as systemd does: the OSD of Debian 13's Ceph looks for its classes in lib/x86_64-linux-gnu.
    """
    with (d / "log" / f"{name}.out").open("ab") as out:
        child = subprocess.Popen(
            [*command, "-c", str(d / "ceph.conf")],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment(),
            start_new_session=True,
        )
    (d / f"{name}.pid").write_text(str(child.pid))


def call(d: Path, *command: str) -> None:
    """Runs a tool of Ceph to its end; radosgw-admin blocks until the OSD serves, hence the limit."""
    full = [*command, "-c", str(d / "ceph.conf")]
    try:
        done = subprocess.run(full, capture_output=True, text=True, env=environment(), timeout=START_LIMIT, check=False)
    except subprocess.TimeoutExpired as e:
        raise RgwError(f"{command[0]} did not end within {START_LIMIT:.0f} s; see {d}/log") from e
    with (d / "log" / "setup.out").open("a") as out:
        out.write(f"$ {' '.join(full)}\n{done.stdout}{done.stderr}")
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise RgwError(f"{command[0]} failed: {' / '.join(said)}")


def make_osd(d: Path, osd_uuid: str) -> None:
    """Tells the monitor about the OSD; it waits for the quorum by itself."""
    import rados  # here, so that ``down`` works without it

    client = rados.Rados(conffile=str(d / "ceph.conf"), name="client.admin")
    client.connect(timeout=30)
    try:
        for command in [{"prefix": "osd new", "uuid": osd_uuid}] + [
            {"prefix": "osd set", "key": flag} for flag in ("noscrub", "nodeep-scrub", "noout")
        ]:
            code, _, text = client.mon_command(json.dumps(command), b"")
            if code:
                raise RgwError(f"{command['prefix']}: {text}")
    finally:
        client.shutdown()


def certificate(d: Path, address: str) -> None:
    key, crt = d / "tls.key", d / "tls.crt"
    names = f"subjectAltName=DNS:localhost,DNS:*.localhost,IP:127.0.0.1,IP:{address}"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -addext {names}"
    subprocess.run(
        [*command.split(), "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(crt)],
        check=True,
        capture_output=True,
    )
    (d / "tls.pem").write_text(key.read_text() + crt.read_text())


def answers(address: str, port: int) -> bool:
    connection = http.client.HTTPConnection(address, port, timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status in (200, 403)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def start_rgw(d: Path) -> None:
    spawn(d, "rgw", "radosgw", "-f", "-n", "client.rgw")


def wait_for_rgw(d: Path, state: dict[str, str]) -> None:
    limit = time.monotonic() + START_LIMIT
    while not answers(state["address"], int(state["port"])):
        if pid_of(d, "rgw") is None:
            raise RgwError(f"radosgw ended: {(d / 'log' / 'rgw.out').read_text()[-500:]}")
        if time.monotonic() > limit:
            raise RgwError(f"radosgw does not answer after {START_LIMIT:.0f} s; see {d}/log")
        time.sleep(0.02)


def create(d: Path, store: str, size: int, log: bool, address: str) -> dict[str, str]:
    """A new cluster in d. The OSD formats itself while the monitor starts; users are made while radosgw starts."""
    stop(d)
    for name in ("log", "run", "mon", "osd"):
        (d / name).mkdir(parents=True)
    port, tls_port, mon_port = map(str, free_ports(3))
    state = {"port": port, "tls_port": tls_port, "mon_port": mon_port, "fsid": str(uuid.uuid4()), "store": store}
    state |= {"size": str(size), "log": "1" if log else "", "address": address}
    (d / "ceph.conf").write_text(configuration(d, state))
    conf, osd_uuid = ["-c", str(d / "ceph.conf")], str(uuid.uuid4())
    certificate(d, address)
    with (d / "log" / "mkfs-osd.out").open("wb") as out:
        mkfs = subprocess.Popen(
            ["ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_uuid, *conf], stdout=out, stderr=out
        )
    try:
        monmap = str(d / "monmap")
        monitor = f"[v2:127.0.0.1:{mon_port}]"
        call(d, "monmaptool", "--create", "--clobber", "--fsid", state["fsid"], "--addv", "a", monitor, monmap)
        call(d, "ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap)
        spawn(d, "mon", "ceph-mon", "-f", "-i", "a")
        make_osd(d, osd_uuid)
        if mkfs.wait(START_LIMIT):
            raise RgwError(f"ceph-osd --mkfs failed: {(d / 'log' / 'mkfs-osd.out').read_text()[-500:]}")
    finally:
        mkfs.kill()
        mkfs.wait()
    spawn(d, "osd", "ceph-osd", "-f", "-i", "0")
    for number, (uid, (access, secret)) in enumerate(USERS.items()):
        keys = ["--access-key", access, "--secret-key", secret]
        call(
            d, "radosgw-admin", "-n", "client.rgw", "user", "create", "--uid", uid, "--display-name", uid,
            "--max-buckets=0", *keys,
        )  # fmt: skip
        if number == 0:
            start_rgw(d)  # not before the first user: both would create the default zone and one of them fails
    wait_for_rgw(d, state)
    (d / "state.json").write_text(json.dumps(state))  # last: its presence means the cluster is complete
    return state


def up(d: Path, store: str, size: int, log: bool, address: str) -> dict[str, object]:
    """Idempotent. What it returns is what ``run`` prints: everything a client has to know."""
    check_packages()
    state = json.loads((d / "state.json").read_text()) if (d / "state.json").exists() else {}
    if state and pid_of(d, "mon") and pid_of(d, "osd"):
        if not pid_of(d, "rgw"):
            start_rgw(d)
        wait_for_rgw(d, state)
    else:
        state = create(d, store, size, log, address)
    (access, secret), (alt_access, alt_secret) = USERS.values()
    name = "localhost" if state["address"] == LOOPBACK else state["address"]
    return {
        "endpoint": f"http://{state['address']}:{state['port']}",
        "tls_endpoint": f"https://{name}:{state['tls_port']}",
        "ca_file": str(d / "tls.crt"),
        "region": REGION,
        "access_key": access,
        "secret_key": secret,
        "alt_access_key": alt_access,
        "alt_secret_key": alt_secret,
        "log_path": str(d / "log" / "ops.log") if state["log"] else "",
        "pid": pid_of(d, "rgw"),
    }


def stop(d: Path) -> None:
    """SIGKILL by pid file (nothing here is worth keeping), then the directory, if it is one of ours."""
    for name in DAEMONS:
        pid = pid_of(d, name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            limit = time.monotonic() + 10
            while pid_of(d, name) is not None and time.monotonic() < limit:
                time.sleep(0.01)
    if (d / "ceph.conf").exists():
        shutil.rmtree(d)


def check_packages() -> None:
    missing = [tool for tool in ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd") if shutil.which(tool) is None]
    try:
        import rados  # noqa: F401
    except ImportError:
        missing.append("python3-rados (for /usr/bin/python3)")
    if missing:
        raise RgwError(
            f"Ceph RGW is not installed ({', '.join(missing)} missing); as root: "
            f"apt-get install --no-install-recommends {PACKAGES}"
        )


def run(d: Path, store: str, size: int, log: bool, address: str) -> None:
    """SIGTERM and Ctrl-C end it as the end of standard input does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.stdout.write(json.dumps(up(d, store, size, log, address)) + "\n")
        sys.stdout.flush()
        while sys.stdin.read(4096):
            pass
    except KeyboardInterrupt:
        pass
    finally:
        stop(d)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("up", "down", "run"))
    parser.add_argument("--dir", type=Path, default=Path("/tmp/s3fsx-rgw"), help="state directory (%(default)s)")
    parser.add_argument(
        "--size", type=int, default=8, help="GiB the OSD pretends to have; memstore uses what is filled"
    )
    parser.add_argument("--store", choices=("memstore", "bluestore"), default="memstore")
    parser.add_argument(
        "--address", default=LOOPBACK, help="where radosgw listens; the others stay on loopback (%(default)s)"
    )
    parser.add_argument("--log", action="store_true", help="one JSON line per request in DIR/log/ops.log")
    options = parser.parse_args()
    d: Path = options.dir.absolute()
    try:
        if options.command == "down":
            stop(d)
        elif options.command == "run":
            run(d, options.store, options.size, options.log, options.address)
        else:
            info = up(d, options.store, options.size, options.log, options.address)
            sys.stdout.write(
                "export AWS_ENDPOINT_URL={endpoint} AWS_DEFAULT_REGION={region} AWS_ACCESS_KEY_ID={access_key} "
                "AWS_SECRET_ACCESS_KEY={secret_key}\n# TLS: {tls_endpoint} with CA {ca_file}; radosgw is pid {pid}\n"
                "# a second user: {alt_access_key} {alt_secret_key}\n".format(**info)
            )
    except RgwError as e:
        sys.stderr.write(f"rgw.py: {e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
