"""The S3 servers, one of each per session, started when the first test asks."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.gatewayserver import running_gateway, running_proxy
from tests.rgw import RgwUnavailableError, running_rgw
from tests.s3server import STORE, S3Server

pytest_plugins = ["tests.checklogs"]

# The wall clock of a busy machine is no property of the code: 2 s of data generation have failed a run that was fine.
settings.register_profile("s3fsx", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("s3fsx")


@pytest.fixture(scope="session")
def rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real Ceph RGW. Its absence fails the test: there is no skipping of what only a real server shows."""
    if STORE != "rgw":
        pytest.skip(f"needs what only Ceph RGW has, and S3FSX_TEST_STORE is {STORE}")
    try:
        with running_rgw(tmp_path_factory.mktemp("ceph") / "rgw") as server:
            yield server
            server.client.close()
    except RgwUnavailableError as e:
        pytest.fail(str(e), pytrace=False)


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """moto's server in a thread of this process: a second opinion for small objects. It checks no signature."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        server = S3Server(
            name="moto",
            endpoint=f"http://{host}:{port}",
            region="us-east-1",
            access_key="motokey1",
            secret_key="motosecret1",
            alt_access_key="motokey2",
            alt_secret_key="motosecret2",
        )
        yield server
        server.client.close()
    finally:
        running.stop()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Our own, over a directory, in memory where there is room: an object is three fsyncs, of a disk that all share."""
    with in_memory(tmp_path_factory) as directory, running_gateway(directory / "buckets") as running:
        yield running.server


@contextmanager
def in_memory(otherwise: pytest.TempPathFactory) -> Iterator[Path]:
    """Buckets stay to the end of the session, and in a container /dev/shm may have 64 MiB."""
    shm = Path("/dev/shm")
    if shm.is_dir() and shutil.disk_usage(shm).free > 6 << 30:
        with tempfile.TemporaryDirectory(prefix="s3fsx-gateway-", dir=shm) as directory:
            yield Path(directory)
    else:
        yield otherwise.mktemp("gateway")


@pytest.fixture(scope="session")
def open_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Our own without keys, for requests that are not signed."""
    with running_gateway(tmp_path_factory.mktemp("open") / "buckets", ["--no-auth"]) as running:
        yield running.server


@pytest.fixture(scope="session")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Our own, in front of our own."""
    directory = tmp_path_factory.mktemp("proxied")
    with (
        running_gateway(directory / "buckets") as upstream,
        running_proxy(directory / "state", upstream.server) as running,
    ):
        yield running.server


@pytest.fixture(scope="session")
def proxied_rgw(rgw: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Our own, in front of Ceph."""
    with running_proxy(tmp_path_factory.mktemp("proxied") / "state", rgw) as running:
        yield replace(running.server, name="proxied_rgw")


@pytest.fixture(scope="session")
def s3(request: pytest.FixtureRequest) -> S3Server:
    """What mounts are tested on: RGW, or our own with S3FSX_TEST_STORE=gateway in the environment."""
    server: S3Server = request.getfixturevalue(STORE)
    return server


@pytest.fixture(params=["s3"])
def bucket_on(request: pytest.FixtureRequest) -> S3Server:
    """``s3``, or the fixtures of ``@pytest.mark.parametrize("bucket_on", STORES, indirect=True)``."""
    server: S3Server = request.getfixturevalue(request.param)
    return server
