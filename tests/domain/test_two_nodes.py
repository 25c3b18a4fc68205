"""Two nodes on one store that has conditional writes; and nodes whose clock is not the store's."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from s3fsx.errors import Changed, DeadlineExceeded, EndpointDown, Exists, S3fsxError
from tests.domain.conftest import Make
from tests.domain.harness import MIB, pattern
from tests.fakestore import FakeStore

TEMPORARY = "dump/vzdump-qemu-1-2026_11_20-13_15_26.vma.dat"
FINAL = TEMPORARY.replace(".dat", ".zst")

pytestmark = pytest.mark.expect_log("could not be|be tried again", optional=True)


async def both(*calls: Callable[[], Awaitable[None]]) -> list[S3fsxError | None]:
    """What each of the calls failed with, begun at the same moment."""
    outcomes: list[S3fsxError | None] = [None] * len(calls)

    async def run(number: int) -> None:
        try:
            await calls[number]()
        except S3fsxError as e:
            outcomes[number] = e

    async with trio.open_nursery() as nursery:
        for number in range(len(calls)):
            nursery.start_soon(run, number)
    return outcomes


@pytest.mark.parametrize("size", [1000, 20 * MIB], ids=["PUT", "multipart"])
@pytest.mark.parametrize("seed", range(10))
async def test_one_of_two_new_files_wins_whole(make: Make, size: int, seed: int) -> None:
    store = FakeStore(latency=(0.01, 0.5), seed=seed)
    nodes = [make(store), make(store)]
    bodies = [pattern(size, n) for n in range(2)]
    handles = []
    for node, body in zip(nodes, bodies, strict=True):
        handle = await node.create("template/iso/x.iso")
        await node.fill(handle, body)
        handles.append(handle)
    outcomes = await both(*(partial(node.close, handle) for node, handle in zip(nodes, handles, strict=True)))
    [lost] = [e for e in outcomes if e is not None]
    assert isinstance(lost, Exists)
    winner = outcomes.index(None)
    assert nodes[0].stored("template/iso/x.iso") == bodies[winner]
    for node in nodes:
        await node.idle()
    for node in nodes:
        await node.nothing_left()


@pytest.mark.parametrize("seed", range(5))
async def test_one_of_two_appends_wins(make: Make, seed: int) -> None:
    store = FakeStore(latency=(0.01, 0.5), seed=seed)
    nodes = [make(store), make(store)]
    await nodes[0].write("snippets/log", b"begin")
    handles = []
    for number, node in enumerate(nodes):
        handle = await node.open("snippets/log", 2)
        await node.fill(handle, bytes([65 + number]), 5)
        handles.append(handle)
    await nodes[0].close(handles[0])
    with pytest.raises(Changed):
        await nodes[1].close(handles[1])
    assert nodes[0].stored("snippets/log") == b"beginA"


@pytest.mark.parametrize("skew", [-600.0, 600.0], ids=["10 min ahead of the store", "10 min behind"])
async def test_clocks_that_differ(make: Make, skew: float) -> None:
    """The store's clock is ``skew`` off; it refuses more than 15 minutes itself (RequestTimeTooSkewed)."""
    store = FakeStore(now=lambda: time.time() + skew)
    mount, body = make(store), b"\x28\xb5\x2f\xfd" + pattern(17 * MIB)
    await mount.write(TEMPORARY, body)
    mount = await mount.restarted()
    await mount.rename(TEMPORARY, FINAL)
    assert mount.stored(FINAL) == body
    await mount.write(FINAL + ".notes", b"first")
    await mount.write(FINAL + ".notes", b"second")
    await trio.sleep(10)
    assert await mount.read(FINAL + ".notes") == b"second"
    await mount.rename(FINAL + ".notes", FINAL + ".log")
    await mount.unlink(FINAL)
    assert mount.paths() == [FINAL + ".log"]
    await mount.nothing_left()


@pytest.mark.parametrize("skew", [-600.0, 600.0])
async def test_an_upload_whose_id_was_never_learnt_is_found_in_spite_of_the_clocks(make: Make, skew: float) -> None:
    store = FakeStore(now=lambda: time.time() + skew)
    mount = make(store)
    store.fail_next("create_upload", DeadlineExceeded("no answer"), after_effect=True)
    with pytest.raises(DeadlineExceeded):
        await mount.write(TEMPORARY, b"\x28\xb5\x2f\xfd" + pattern(17 * MIB))
    assert len(store.uploads) == 1
    await (await mount.restarted()).nothing_left()


async def test_a_stray_of_ours_is_removed_and_another_nodes_object_is_not(make: Make) -> None:
    """The rename's Complete had its effect and its answer was lost; then another node replaced the object; then
    vzdump gives up here and deletes its temporary file."""
    store = FakeStore()
    one, two = make(store), make(store)
    await one.write(TEMPORARY, b"\x28\xb5\x2f\xfd" + pattern(17 * MIB))
    store.fail_next("complete_upload", EndpointDown("no answer"), after_effect=True)
    with pytest.raises(EndpointDown):
        await one.rename(TEMPORARY, FINAL)
    await two.write(FINAL, b"theirs")
    await one.unlink(TEMPORARY)
    assert one.stored(FINAL) == b"theirs"
    await one.nothing_left()
