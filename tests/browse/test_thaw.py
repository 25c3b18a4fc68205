"""Cold storage classes: moto has them; a store that has none says so."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.errors import NotFound
from s3fsx.s3 import cold as s3cold
from s3fsx.s3.cold import Frozen, parse_restore
from s3fsx.s3.store import S3Store
from s3fsx.store.endpoint import Endpoint
from tests.browse.conftest import Command
from tests.contract.conftest import options
from tests.s3server import S3Server

NAME = "vzdump-qemu-100-2026_11_20-13_15_26.vma.zst"
EXPIRY = "Fri, 21 Dec 2012 00:00:00 GMT"


@pytest.mark.parametrize(
    ("header", "state"),
    [
        ("", Frozen("GLACIER", False, 0.0)),
        ('ongoing-request="true"', Frozen("GLACIER", True, 0.0)),
        (
            'ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"',
            Frozen("GLACIER", False, 1356048000.0),
        ),
        ('ongoing-request="false", expiry-date="nonsense"', Frozen("GLACIER", False, 0.0)),
        ("nonsense", Frozen("GLACIER", False, 0.0)),
    ],
)
def test_what_the_store_says(header: str, state: Frozen) -> None:
    assert parse_restore("GLACIER", header) == state
    assert state.readable == (state.until > 0)


@given(st.text(max_size=100))
def test_whatever_the_store_says(header: str) -> None:
    assert parse_restore("STANDARD", header).readable


async def test_there_and_back(moto: S3Server) -> None:
    bucket = moto.make_bucket("cold")
    moto.client.put_object(Bucket=bucket, Key="cold", Body=b"x", StorageClass="DEEP_ARCHIVE")
    moto.client.put_object(Bucket=bucket, Key="warm", Body=b"x")
    async with S3Store(options(moto, bucket), Endpoint()) as store:
        assert not (await s3cold.look(store, "cold")).readable
        assert (await s3cold.look(store, "warm")).readable
        await s3cold.restore(store, "cold", 3, "Bulk")
        state = await s3cold.look(store, "cold")
        assert state.asked or state.readable
        with pytest.raises(NotFound):
            await s3cold.look(store, "absent")


def test_the_command(moto: S3Server, s3fsx: Command) -> None:
    bucket = moto.make_bucket("cold")
    key = f"pve/dump/{NAME}"
    moto.client.put_object(Bucket=bucket, Key=key, Body=b"x" * 100, StorageClass="GLACIER")
    source = f"s3://{bucket}/pve"
    s3fsx.use(moto)
    assert "GLACIER" in s3fsx("backups", source).out
    for command in (("get", f"{source}:{NAME}", "/tmp"), ("show", f"{source}:{NAME}")):
        said = s3fsx(*command, code=1).err
        assert f"{NAME}: GLACIER: frozen: s3fsx thaw --wait first" in said
    assert "no backup that could be restored" in s3fsx("drill", source, code=1).err
    assert s3fsx("verify", "--all", "-s", source).out.startswith("unknown")
    done = s3fsx("thaw", f"{source}:{NAME}", "--days", "2", "--wait")
    assert f"{NAME}  GLACIER: can be read until " in done.out


@pytest.mark.rgw
def test_a_store_without_cold_classes_says_so(rgw: S3Server) -> None:
    bucket = rgw.make_bucket("cold")

    async def ask() -> None:
        async with S3Store(options(rgw, bucket), Endpoint()) as store:
            await s3cold.restore(store, "x", 1, "Standard")

    rgw.client.put_object(Bucket=bucket, Key="x", Body=b"x")
    with pytest.raises(Exception, match="RESTORE x") as said:
        trio.run(ask)
    assert "NotSupported" in type(said.value).__name__ or "Rejected" in type(said.value).__name__
