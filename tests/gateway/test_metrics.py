"""``gateway serve --metrics``: what is told is what was asked for; Prometheus' own tool finds nothing wrong."""

from __future__ import annotations

import re
import socket
import stat
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from s3fsx.errors import ConfigError
from s3fsx.gateway.meter import FAMILIES
from s3fsx.gateway.serving import Settings, check
from tests.gatewayserver import running_gateway
from tests.metrics.promtool import run as promtool
from tests.mount.harness import eventually

BODY = b"x" * 3_000_000


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def asked(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def value(text: str, sample: str) -> float:
    found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0


def test_what_is_told_is_what_was_asked_for(tmp_path: Path) -> None:
    port = free_port()
    with running_gateway(tmp_path / "buckets", ["--metrics", f"127.0.0.1:{port}"]) as running:
        eventually(lambda: listens(port), "metrics are told")
        client = running.server.client
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="x", Body=BODY)
        for _ in range(3):
            assert client.get_object(Bucket="bucket", Key="x")["Body"].read() == BODY
        with pytest.raises(ClientError, match="NoSuchKey"):
            client.get_object(Bucket="bucket", Key="y")
        forged = running.server.new_client(secret_key="another")
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            forged.get_object(Bucket="bucket", Key="x")
        forged.close()
        where = urlsplit(running.server.endpoint)
        with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as raw:
            raw.sendall(b"no HTTP\r\n\r\n")
            assert raw.recv(4096).startswith(b"HTTP/1.1 400 ")
        eventually(lambda: value(asked(port), "s3fsx_gateway_requests_in_flight{}") == 0, "all is answered")
        text = asked(port)
        requests = 's3fsx_gateway_requests_total{operation="%s",status="%s"}'
        assert value(text, requests % ("CreateBucket", "2xx")) == 1
        assert value(text, requests % ("PutObject", "2xx")) == 1
        assert value(text, requests % ("GetObject", "2xx")) == 3
        assert value(text, requests % ("GetObject", "4xx")) == 1
        assert value(text, requests % ("none", "4xx")) == 2
        for code in ("NoSuchKey", "SignatureDoesNotMatch", "InvalidRequest"):
            assert value(text, f's3fsx_gateway_errors_total{{code="{code}"}}') == 1, code
        durations = "s3fsx_gateway_request_duration_seconds"
        assert value(text, f'{durations}_count{{operation="GetObject"}}') == 4
        assert value(text, f'{durations}_bucket{{operation="GetObject",le="+Inf"}}') == 4
        assert value(text, f'{durations}_sum{{operation="PutObject"}}') > 0
        assert len(BODY) <= value(text, "s3fsx_gateway_received_bytes_total{}") < len(BODY) + 10_000
        assert 3 * len(BODY) < value(text, "s3fsx_gateway_sent_bytes_total{}") < 3 * len(BODY) + 50_000
        assert value(text, "s3fsx_gateway_connections_total{}") >= 3
        assert "gatewaykey1" not in text
        promtool("check", "metrics", text=text)
        assert [name for name, kind, *_ in FAMILIES if f"# TYPE {name} {kind}\n" not in text] == []


def test_what_is_under_way(tmp_path: Path) -> None:
    """On a Unix socket, which only its owner may open."""
    path = tmp_path / "metrics"
    with running_gateway(tmp_path / "buckets", ["--metrics", f"unix:{path}", "--no-auth"]) as running:
        eventually(path.exists, "metrics are told")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

        def told(sample: str) -> float:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(str(path))
                client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
                text = b"".join(iter(lambda: client.recv(1 << 16), b"")).decode()
            return value(text.replace("\r\n", "\n"), sample)

        where = urlsplit(running.server.endpoint)
        with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as slow:
            slow.sendall(b"PUT /bucket HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n12345")
            eventually(lambda: told("s3fsx_gateway_requests_in_flight{}") == 1, "it is under way")
            assert told("s3fsx_gateway_connections{}") == 1
            slow.sendall(b"67890")
            assert slow.recv(4096).startswith(b"HTTP/1.1 400 ")  # no document
        eventually(lambda: told("s3fsx_gateway_connections{}") == 0, "it has ended")
        assert told("s3fsx_gateway_requests_in_flight{}") == 0
        assert told("s3fsx_gateway_received_bytes_total{}") == 10
    eventually(lambda: not path.exists(), "the socket goes with the gateway")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0.0.0.0:9470", "metrics 0.0.0.0:9470 is for other machines, too: set metrics_public, or use 127.0.0.1"),
        ("store.example.com:9470", "metrics 'store.example.com:9470': a name, where an address is needed"),
        ("127.0.0.1:0", "metrics '127.0.0.1:0': use HOST:PORT"),
        ("unix:relative", "metrics 'unix:relative': "),
    ],
)
def test_where_nobody_else_may_look(tmp_path: Path, given: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        check(Settings(str(tmp_path), metrics=given))


def test_it_may_be_public_and_is_off_by_default(tmp_path: Path) -> None:
    check(Settings(str(tmp_path), metrics="0.0.0.0:9470", metrics_public=True))
    assert Settings(str(tmp_path)).metrics_address == ""


def test_an_address_that_is_taken_is_a_warning(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with running_gateway(tmp_path / "buckets", ["--metrics", where]) as running:
            running.server.client.create_bucket(Bucket="bucket")
            log = tmp_path / "buckets.log"
            end = time.monotonic() + 30
            while f"metrics {where}: Address already in use" not in log.read_text():
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.05)
