"""What docs/COSTS.md says is asked of the store: an hour of nothing, a listing, a backup, pruning."""

from __future__ import annotations

from collections import Counter

import trio

from s3fsx.configuration.settings import Settings
from s3fsx.service.mount import schedule
from s3fsx.store.endpoint import Endpoint
from tests.domain.conftest import Make
from tests.domain.harness import KIB, SMALL_PART, Domain, pattern
from tests.fakestore import FakeStore

CONTENT = ("dump", "images", "import", "private", "snippets", "template", "template/cache", "template/iso")
HOUR = 3600.0
GIB = 1 << 30


def fill(mount: Domain, count: int) -> list[str]:
    names = [f"vzdump-qemu-{i:05}-2026_11_20-13_15_26.vma.zst" for i in range(count)]
    for name in names:
        mount.store.poke(mount.key(f"dump/{name}"), b"x")
    return names


async def test_an_idle_hour_with_the_polling_of_proxmox_is_sixty_probes(mount: Domain) -> None:
    """pvestatd looks at the mount and the content directories every ten seconds (statfs asks nobody at all)."""
    probes = 0

    async def ping() -> None:
        nonlocal probes
        probes += 1

    endpoint = Endpoint()
    with trio.move_on_after(HOUR):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(endpoint.watch, ping)
            while True:
                for path in CONTENT:
                    assert await mount.lookup(path) is not None
                await trio.sleep(10)
    assert mount.calls() == {}
    assert 58 <= probes <= 60


async def test_an_open_list_of_backups_costs_a_page_for_each_thousand_files_per_look(mount: Domain) -> None:
    """`pvesm list`, or the list of backups in the GUI: name, size, notes and mark of each backup."""
    names = fill(mount, 400)
    for looks in range(1, 4):
        assert await mount.names("dump") == names
        for name in names:
            for suffix in ("", ".notes", ".protected"):
                await mount.lookup(f"dump/{name}{suffix}")
        assert mount.calls() == {"list_page": looks}
        await trio.sleep(10)


async def test_pruning_costs_a_delete_for_each_file_and_listings_now_and_then(make: Make) -> None:
    mount = make(FakeStore(latency=(0.02, 0.02)))
    names = fill(mount, 1000)
    await mount.names("dump")
    for name in names:
        for suffix in ("", ".protected", ".log", ".notes"):
            await mount.lookup(f"dump/{name}{suffix}")
        await mount.unlink(f"dump/{name}")
    calls = mount.calls()
    assert calls["delete"] == 1000
    assert calls["list_page"] <= 10  # 20 s of deletions, a listing is believed for 5
    assert calls["head"] == 0


async def test_a_backup_costs_its_parts_and_six_requests(small: Domain) -> None:
    parts = 6
    handle = await small.create("dump/vzdump-qemu-1-2026_11_20-13_15_26.vma.dat")
    await small.fill(handle, b"\x28\xb5\x2f\xfd" + pattern(parts * SMALL_PART - 4 - KIB))
    await small.close(handle)
    await small.rename(
        "dump/vzdump-qemu-1-2026_11_20-13_15_26.vma.dat", "dump/vzdump-qemu-1-2026_11_20-13_15_26.vma.zst"
    )
    calls = Counter(small.calls())
    assert calls.pop("upload_part") == parts
    assert calls.pop("list_page") <= 2  # whether the name is free
    assert calls == {"create_upload": 1, "list_parts": 1, "complete_upload": 1, "head": 1}  # and the PUT of its sums


async def test_the_number_of_parts_of_a_backup_is_what_the_document_says() -> None:
    plan = schedule(Settings(bucket="b"))
    offset, parts = 0, 0
    while offset < 100 * GIB:
        parts += 1
        offset += plan.size(parts)
    assert parts == PARTS_OF_100_GIB


PARTS_OF_100_GIB = 4950
