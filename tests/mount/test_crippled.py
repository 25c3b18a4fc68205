"""vzdump on a store from which a proxy takes something: the backup comes out whole, or its rename fails."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.faultkinds import Refuse
from tests.faultproxy import FaultProxy, Rule
from tests.mount.conftest import MakeMount
from tests.s3server import S3Server

pytestmark = pytest.mark.mount

DATA = b"\x28\xb5\x2f\xfd" + random.Random(3).randbytes(20 << 20)
STEM = "vzdump-qemu-100-2026_11_20-13_15_26"


@pytest.fixture
def proxy(bucket_on: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(bucket_on.endpoint) as running:
        yield running


def test_without_any_copy_or_batch_a_backup_is_whole(proxy: FaultProxy, make_mount: MakeMount) -> None:
    kinds = frozenset({"COPY", "COPY PART", "DELETE MANY"})
    with proxy.fault(Rule(Refuse(501, "NotImplemented"), kinds=kinds)):
        mount = make_mount(endpoint=proxy.endpoint)
        assert "weaker on this store: " in mount.log()
        waiting, final = mount.path / f"dump/{STEM}.vma.dat", mount.path / f"dump/{STEM}.vma.zst"
        waiting.write_bytes(DATA)
        os.rename(waiting, final)
        assert final.read_bytes() == DATA


@pytest.mark.expect_log(r"InvalidPart")
def test_refused_parts_fail_the_rename_and_show_no_backup(proxy: FaultProxy, make_mount: MakeMount) -> None:
    mount = make_mount(endpoint=proxy.endpoint)
    waiting, final = mount.path / f"dump/{STEM}.vma.dat", mount.path / f"dump/{STEM}.vma.zst"
    with proxy.fault(Rule(Refuse(400, "InvalidPart"), kinds=frozenset({"COMPLETE"}))):
        waiting.write_bytes(DATA)
        with pytest.raises(OSError, match="Errno"):
            os.rename(waiting, final)
        assert proxy.injected["Refuse"] >= 1
        assert not final.exists()
    waiting.unlink(missing_ok=True)
    assert list((mount.path / "dump").iterdir()) == []
