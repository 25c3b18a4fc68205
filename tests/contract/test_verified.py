"""Verified reads rest on what real stores do with ETags: of objects in one piece, of those in parts, and of copies."""

from __future__ import annotations

import random

import pytest

from s3fsx.errors import Corrupted
from s3fsx.store.objects import MIN_PART, ObjectInfo, Payload, Store
from s3fsx.store.sumstore import DIRECTORY
from s3fsx.store.verified import VerifiedStore

BODY = random.Random(11).randbytes(2 * MIN_PART + 12_345)


async def uploaded(store: Store, key: str) -> ObjectInfo:
    upload_id = await store.create_upload(key, metadata={"mode": "420"})
    parts = [
        await store.upload_part(key, upload_id, n + 1, Payload.of(BODY[n * MIN_PART : (n + 1) * MIN_PART]))
        for n in range(3)
    ]
    await store.complete_upload(key, upload_id, parts)
    return await store.head(key)


async def read(store: VerifiedStore, info: ObjectInfo) -> tuple[bytes, int]:
    """By a node that has nothing in memory: the bytes, and how many of them were verified."""
    reader = VerifiedStore(store._inner, "")
    data = await reader.get_range(info.key, 0, info.size, etag=info.etag, size=info.size)
    return data, reader.counters.verified


async def kept(store: Store) -> int:
    return len((await store.list_page(DIRECTORY)).objects)


async def test_an_object_in_parts_its_copies_and_its_end(store: Store) -> None:
    verified = VerifiedStore(store, "")
    first = await uploaded(verified, "a")
    assert await read(verified, first) == (BODY, len(BODY))
    second = await verified.copy("a", "b", etag=first.etag)
    assert await read(verified, second) == (BODY, len(BODY))
    assert await kept(store) == 2
    await verified.delete("a", known=first)
    assert await kept(store) == 1
    third = await verified.copy("b", "b", etag=second.etag, metadata={"mode": "384"})  # chmod
    assert await read(verified, third) == (BODY, len(BODY))
    assert await kept(store) == 1
    assert await verified.sums.orphans() == []
    await store.delete("b")
    (orphan,) = await verified.sums.orphans()
    await store.delete(orphan)
    assert await kept(store) == 0


async def test_an_object_in_one_piece(store: Store) -> None:
    verified = VerifiedStore(store, "")
    small = await verified.put("small", Payload.of(BODY[:1000]), metadata={})
    assert await read(verified, small) == (BODY[:1000], 1000)
    moved = await verified.copy("small", "moved", etag=small.etag)
    assert await read(verified, moved) == (BODY[:1000], 1000)
    assert await kept(store) == 0
    large = await verified.put("large", Payload.of(BODY), metadata={})
    assert await read(verified, large) == (BODY, len(BODY))
    assert await kept(store) == 1


async def test_a_part_copied_on_the_server_brings_its_checksums(store: Store) -> None:
    verified = VerifiedStore(store, "")
    source = await uploaded(verified, "a")
    upload_id = await verified.create_upload("longer", metadata={})
    copied = await verified.copy_part("longer", upload_id, 1, "a", 0, source.size, etag=source.etag)
    tail = await verified.upload_part("longer", upload_id, 2, Payload.of(b"tail"))
    await verified.complete_upload("longer", upload_id, [copied, tail])
    assert await read(verified, await verified.head("longer")) == (BODY + b"tail", len(BODY) + 4)


@pytest.mark.expect_log("is not what was stored")
async def test_an_etag_that_is_not_of_these_bytes(store: Store) -> None:
    """What a store that lies would have to look like: the right ETag and other bytes."""
    info = await store.put("k", Payload.of(b"what is there"), metadata={})
    verified = VerifiedStore(_Lying(store), "")  # type: ignore[arg-type]
    with pytest.raises(Corrupted):
        await verified.get_range("k", 0, info.size, etag=info.etag, size=info.size)


class _Lying:
    """Flips the first bit of every range."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def get_range(self, key: str, start: int, length: int, *, etag: str, size: int = 0) -> bytes:
        data = await self._inner.get_range(key, start, length, etag=etag)
        return bytes([data[0] ^ 1]) + data[1:]
