"""kill -9 of the gateway at any time: what was acknowledged is there, whole, with its own metadata."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from s3fsx.gateway.directory import fsck
from tests.gatewayserver import running_gateway


def data_of(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest() * (500 + number * 37 % 4000)


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [3])
def test_kill_at_any_time(tmp_path: Path, rounds: int) -> None:
    acknowledged: dict[str, int] = {}
    begun: dict[str, set[int]] = {}
    number = 0
    for _ in range(rounds):
        with running_gateway(tmp_path / "buckets") as running:
            client = running.server.client
            if not client.list_buckets()["Buckets"]:
                client.create_bucket(Bucket="bucket")
            check(client, acknowledged, begun)
            enough = threading.Event()

            def write(name: str, first: int, client: Any = client, enough: threading.Event = enough) -> None:
                for step in range(10_000):
                    key = f"{name}/{step % 5}"
                    begun.setdefault(key, set()).add(first + step)
                    try:
                        body = data_of(first + step)
                        client.put_object(Bucket="bucket", Key=key, Body=body, Metadata={"n": str(first + step)})
                    except (BotoCoreError, ClientError):
                        return
                    acknowledged[key] = first + step
                    begun[key] = {first + step}
                    if step == 25:
                        enough.set()

            threads = [threading.Thread(target=write, args=(f"w{i}", number + 10_000 * i)) for i in range(3)]
            number += 30_000
            for thread in threads:
                thread.start()
            assert enough.wait(60)
            running.process.kill()
            for thread in threads:
                thread.join(60)
    with running_gateway(tmp_path / "buckets") as running:
        check(running.server.client, acknowledged, begun)
    found = fsck.check(str(tmp_path / "buckets"), data=True, repair=True, tell=lambda _: None)
    assert (found.damaged, found.foreign) == (0, 0)
    assert found.objects >= len(acknowledged) > 0


def check(client: Any, acknowledged: dict[str, int], begun: dict[str, set[int]]) -> None:
    listed = {o["Key"]: o["Size"] for o in client.list_objects_v2(Bucket="bucket").get("Contents", ())}
    assert set(acknowledged) <= set(listed)
    for key in listed:
        found = client.get_object(Bucket="bucket", Key=key)
        written = int(found["Metadata"]["n"])
        assert found["Body"].read() == data_of(written)
        assert written in begun[key]
        acknowledged[key] = written
