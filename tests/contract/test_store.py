"""What every Store does, the fake as well as a real one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import trio

from s3fsx.errors import BadRange, Changed, Corrupted, Exists, NotFound, Rejected, TooLarge, UploadGone
from s3fsx.store.objects import MIN_PART, WRITE_ID, ObjectInfo, Payload, Store, UploadedPart

ODD_KEYS = [
    "a b",
    "a+b",
    "a%20b",
    "a%b",
    "a&b=c;d",
    "ünï/cödé/漢字/🦀",
    "tab\there",
    "new\nline",
    "quote'\"<>&amp;",
    "back\\slash",
    "colon:semi;",
    "tilde~*!()@$,?#[]{}|^`",
    " leading",
    "trailing ",
    "double//slash",
    "dir/",
    "x" * 200,
]
PART = bytes(range(256)) * (MIN_PART // 256)


def is_moto(request: pytest.FixtureRequest) -> bool:
    return bool(request.node.callspec.params["store"] == "moto")


async def put(store: Store, key: str, data: bytes = b"data") -> ObjectInfo:
    return await store.put(key, Payload.of(data), metadata={})


async def listed(store: Store, prefix: str, delimiter: str = "/", limit: int = 1000) -> AsyncIterator[str]:
    token = None
    while True:
        page = await store.list_page(prefix, delimiter=delimiter, token=token, limit=limit)
        assert len(page.objects) + len(page.prefixes) <= limit
        for name in sorted([o.key for o in page.objects] + list(page.prefixes), key=str.encode):
            yield name
        token = page.next_token
        if token is None:
            return


async def names(store: Store, prefix: str, delimiter: str = "/", limit: int = 1000) -> list[str]:
    return [name async for name in listed(store, prefix, delimiter, limit)]


# Objects.


async def test_what_is_put_can_be_asked_for(store: Store) -> None:
    made = await store.put(
        "dump/x",
        Payload((b"ab", memoryview(b"cd"), bytearray(b"e")), 5, Payload.of(b"abcde").grains),
        metadata={"mode": "33188", WRITE_ID: "w1"},
    )
    there = await store.head("dump/x")
    assert (there.key, there.size, there.etag) == (made.key, 5, made.etag)
    assert there.metadata == made.metadata == {"mode": "33188", WRITE_ID: "w1"}
    assert abs(there.modified - time.time()) < 60
    assert abs(there.modified - made.modified) <= 2
    assert await store.get_range("dump/x", 0, 5, etag=there.etag) == b"abcde"


async def test_an_empty_object(store: Store) -> None:
    made = await put(store, "empty", b"")
    assert (await store.head("empty")).size == 0
    assert (await store.list_page("empty")).objects[0].etag == made.etag
    assert await store.get_range("empty", 0, 0, etag=made.etag) == b""


async def test_what_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.head("nothing")
    with pytest.raises(NotFound):
        await store.get_range("nothing", 0, 1, etag="")


async def test_put_replaces(store: Store) -> None:
    first = await put(store, "k", b"one")
    second = await put(store, "k", b"three")
    assert first.etag != second.etag
    assert await store.get_range("k", 0, 5, etag="") == b"three"


async def test_put_if_absent(store: Store) -> None:
    await store.put("new", Payload.of(b"1"), metadata={WRITE_ID: "a"}, only_if_absent=True)
    if store.capabilities.conditional_put:
        with pytest.raises(Exists):
            await store.put("new", Payload.of(b"2"), metadata={WRITE_ID: "b"}, only_if_absent=True)
        assert await store.get_range("new", 0, 1, etag="") == b"1"


async def test_bytes_that_changed_in_memory_are_not_stored(store: Store) -> None:
    good = Payload.of(b"as written")
    with pytest.raises(Corrupted):
        await store.put("k", Payload((b"as wriTTen",), good.size, good.grains), metadata={})
    with pytest.raises(NotFound):
        await store.head("k")


async def test_metadata_that_http_cannot_carry_is_refused(store: Store) -> None:
    with pytest.raises(Rejected):
        await store.put("k", Payload.of(b""), metadata={"name": "grün"})


async def test_delete(store: Store) -> None:
    await put(store, "k")
    await store.delete("k")
    with pytest.raises(NotFound):
        await store.head("k")
    await store.delete("k")


async def test_delete_many(store: Store, request: pytest.FixtureRequest) -> None:
    """Odd names, names that are not there, and one that stays."""
    odd = [key for key in ODD_KEYS if not (is_moto(request) and "\n" in key)]
    there = {key: await put(store, key) for key in [*odd, "stays"]}
    doomed: dict[str, ObjectInfo | None] = {key: there[key] for key in odd}
    assert await store.delete_many({**doomed, "never/was": None}) == {}
    assert await names(store, "", "") == ["stays"]
    assert await store.delete_many({"stays": None}) == {}
    assert await store.delete_many({}) == {}
    assert await names(store, "", "") == []


async def test_delete_more_than_a_thousand(store: Store) -> None:
    keys = [f"many/{number:04}" for number in range(1001)]
    for key in keys[::200]:
        await put(store, key)
    assert await store.delete_many(dict.fromkeys(keys)) == {}
    assert await names(store, "", "") == []


# Ranges and versions.


async def test_ranges(store: Store) -> None:
    info = await put(store, "k", b"0123456789")
    for start, length in [(0, 10), (0, 1), (9, 1), (3, 4)]:
        assert await store.get_range("k", start, length, etag=info.etag) == b"0123456789"[start : start + length]
    for start, length in [(5, 6), (10, 1), (99, 1)]:
        with pytest.raises(BadRange):
            await store.get_range("k", start, length, etag=info.etag)


async def test_another_version_is_never_read(store: Store) -> None:
    old = await put(store, "k", b"old")
    new = await put(store, "k", b"new")
    with pytest.raises(Changed):
        await store.get_range("k", 0, 3, etag=old.etag)
    assert await store.get_range("k", 0, 3, etag=new.etag) == b"new"


# Listings.


async def test_odd_keys_survive_everything(store: Store, request: pytest.FixtureRequest) -> None:
    odd = [
        key for key in ODD_KEYS if not (is_moto(request) and "\n" in key)
    ]  # its URL routes do not match across lines
    for key in odd:
        await put(store, "odd/" + key, key.encode())
    expected = sorted(("odd/" + key for key in odd), key=str.encode)
    assert await names(store, "odd/", "") == expected
    assert await names(store, "odd/", "", limit=4) == expected
    for key in expected:
        assert (await store.head(key)).size == len(key.encode()) - 4
        await store.copy(key, "copy", etag="")
        assert await store.get_range("copy", 0, len(key.encode()) - 4, etag="") == key[4:].encode()
        upload = await store.create_upload(key, metadata={})
        assert [u.key for u in await store.list_uploads("odd/")] == [key]
        await store.abort_upload(key, upload)
        await store.delete(key)
    assert await names(store, "odd/") == []


async def test_the_token_of_the_next_page_is_told_early(store: Store, request: pytest.FixtureRequest) -> None:
    for name in ("a", "b&c", "d"):
        await put(store, f"e/{name}")
    told: list[str] = []
    page = await store.list_page("e/", limit=1, early=told.append)
    assert page.next_token is not None
    by_boto3 = request.node.callspec.params["store"] == "boto3"  # which parses all of it first
    assert told == ([] if by_boto3 else [page.next_token])
    last = await store.list_page("e/", token=page.next_token, early=told.append)
    assert [info.key for info in last.objects] == ["e/b&c", "e/d"]
    assert len(told) <= 1


async def test_control_characters_in_keys(store: Store, request: pytest.FixtureRequest) -> None:
    if is_moto(request):
        pytest.skip("moto writes them into its XML as they are")
    await put(store, "odd/bell\x07")
    await put(store, "odd/cr\r\x1f/x")
    assert await names(store, "odd/") == ["odd/bell\x07", "odd/cr\r\x1f/"]
    assert (await store.head("odd/bell\x07")).size == 4
    for key in ["odd/bell\x07", "odd/cr\r\x1f/x"]:
        await store.delete(key)
    assert await names(store, "odd/") == []


async def test_a_directory_and_an_object_of_one_name(store: Store) -> None:
    for key in ["a", "a/", "a/b", "a/c/d", "a-b", "ab", "a/b/"]:
        await put(store, key)
    assert await names(store, "") == ["a", "a-b", "a/", "ab"]
    assert await names(store, "a/") == ["a/", "a/b", "a/b/", "a/c/"]
    assert await names(store, "a") == ["a", "a-b", "a/", "ab"]
    assert await names(store, "zz") == []
    page = await store.list_page("a/")
    assert [o.key for o in page.objects] == ["a/", "a/b"]
    assert page.prefixes == ("a/b/", "a/c/")
    assert page.objects[0].metadata is None


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_pages_neither_lose_nor_repeat(store: Store, limit: int) -> None:
    for key in ["p/a", "p/b/1", "p/b/2", "p/b/3", "p/b0", "p/c/1", "p/d", "p/d/1", "p/ü/1", "p/ü/2"]:
        await put(store, key)
    assert await names(store, "p/", limit=limit) == ["p/a", "p/b/", "p/b0", "p/c/", "p/d", "p/d/", "p/ü/"]


async def test_more_than_a_page(store: Store) -> None:
    keys = [f"many/vzdump-{i:04}" for i in range(1010)]
    limiter = trio.CapacityLimiter(8)

    async def one(key: str) -> None:
        async with limiter:
            await put(store, key, b"")

    async with trio.open_nursery() as nursery:
        for key in keys:
            nursery.start_soon(one, key)
    assert len((await store.list_page("many/")).objects) == 1000
    assert await names(store, "many/") == keys


async def test_a_listing_says_what_head_says(store: Store) -> None:
    await put(store, "l/k", b"12345")
    found = (await store.list_page("l/")).objects[0]
    there = await store.head("l/k")
    assert (found.key, found.size, found.etag) == (there.key, there.size, there.etag)
    assert abs(found.modified - there.modified) <= 1
    assert found.storage_class == there.storage_class == "STANDARD"


# Multipart uploads.


async def upload(store: Store, key: str, *bodies: bytes) -> tuple[str, list[UploadedPart]]:
    upload_id = await store.create_upload(key, metadata={"mode": "420"})
    parts = [await store.upload_part(key, upload_id, n, Payload.of(body)) for n, body in enumerate(bodies, 1)]
    return upload_id, parts


async def test_an_upload_appears_when_it_is_complete(store: Store) -> None:
    upload_id, parts = await upload(store, "big", PART, b"tail")
    with pytest.raises(NotFound):
        await store.head("big")
    assert [(u.key, u.upload_id) for u in await store.list_uploads("b")] == [("big", upload_id)]
    assert await store.list_uploads("c") == ()
    seen = await store.list_parts("big", upload_id)
    assert [(p.number, p.size, p.etag) for p in seen] == [(p.number, p.size, p.etag) for p in parts]
    assert [p.crc32 for p in parts] == [Payload.of(PART).crc32, Payload.of(b"tail").crc32]
    await store.complete_upload("big", upload_id, parts)
    there = await store.head("big")
    assert there.size == MIN_PART + 4
    assert there.metadata == {"mode": "420"}
    assert there.etag.endswith("-2")
    assert await store.get_range("big", MIN_PART - 2, 6, etag=there.etag) == PART[-2:] + b"tail"
    assert await store.list_uploads("") == ()


async def test_a_small_object_whole_whatever_its_size(store: Store) -> None:
    await put(store, "k", b"0123456789")
    assert await store.get("k", limit=10) == b"0123456789"
    with pytest.raises(TooLarge):
        await store.get("k", limit=9)
    await put(store, "empty", b"")
    assert await store.get("empty", limit=1) == b""
    with pytest.raises(NotFound):
        await store.get("nothing", limit=10)


async def test_parts_in_any_order_and_repeated(store: Store) -> None:
    upload_id = await store.create_upload("k", metadata={})
    third = await store.upload_part("k", upload_id, 30, Payload.of(b"end"))
    await store.upload_part("k", upload_id, 2, Payload.of(b"replaced"))
    second = await store.upload_part("k", upload_id, 2, Payload.of(PART))
    assert [p.number for p in await store.list_parts("k", upload_id)] == [2, 30]
    with pytest.raises(Rejected):
        await store.complete_upload("k", upload_id, [third, second])
    await store.complete_upload("k", upload_id, [second, third])
    assert await store.get_range("k", 0, MIN_PART + 3, etag="") == PART + b"end"


async def test_a_complete_that_does_not_fit_publishes_nothing(store: Store) -> None:
    upload_id, parts = await upload(store, "k", b"too small", b"tail")
    with pytest.raises(Rejected):
        await store.complete_upload("k", upload_id, parts)
    wrong = UploadedPart(1, 9, "0" * 32, None)
    with pytest.raises(Rejected):
        await store.complete_upload("k", upload_id, [wrong])
    with pytest.raises(NotFound):
        await store.head("k")
    await store.abort_upload("k", upload_id)


async def test_completing_again_what_is_complete_is_fine(store: Store) -> None:
    upload_id, parts = await upload(store, "k", b"tail")
    await store.complete_upload("k", upload_id, parts)
    await store.complete_upload("k", upload_id, parts)


@pytest.mark.expect_log("werkzeug: Error on request", optional=True)  # moto, see below
async def test_an_aborted_upload_is_gone(store: Store, request: pytest.FixtureRequest) -> None:
    upload_id, parts = await upload(store, "k", b"x")
    await store.abort_upload("k", upload_id)
    await store.abort_upload("k", upload_id)
    if not is_moto(request):  # where it is a KeyError in the server
        with pytest.raises(UploadGone):
            await store.upload_part("k", upload_id, 2, Payload.of(b"y"))
    with pytest.raises(UploadGone):
        await store.list_parts("k", upload_id)
    with pytest.raises(UploadGone):
        await store.complete_upload("k", upload_id, parts)
    assert await store.list_uploads("") == ()


async def test_the_old_object_stays_until_complete(store: Store) -> None:
    await put(store, "k", b"old")
    upload_id, parts = await upload(store, "k", b"newer")
    assert await store.get_range("k", 0, 3, etag="") == b"old"
    if store.capabilities.conditional_complete:
        with pytest.raises(Exists):
            await store.complete_upload("k", upload_id, parts, only_if_absent=True)
        assert await store.get_range("k", 0, 3, etag="") == b"old"
    await store.complete_upload("k", upload_id, parts)
    assert await store.get_range("k", 0, 5, etag="") == b"newer"


async def test_a_part_that_changed_in_memory_is_refused(store: Store) -> None:
    upload_id = await store.create_upload("k", metadata={})
    good = Payload.of(b"as written")
    with pytest.raises(Corrupted):
        await store.upload_part("k", upload_id, 1, Payload((b"as writteN",), good.size, good.grains))
    assert await store.list_parts("k", upload_id) == ()
    await store.abort_upload("k", upload_id)


async def test_too_many_parts(store: Store) -> None:
    upload_id = await store.create_upload("k", metadata={})
    with pytest.raises(TooLarge):
        await store.upload_part("k", upload_id, 10_001, Payload.of(b"x"))
    await store.abort_upload("k", upload_id)


async def test_uploads_of_several_keys(store: Store, request: pytest.FixtureRequest) -> None:
    made = [(key, await store.create_upload(key, metadata={})) for key in ["u/a", "u/b", "u/b", "v"]]
    found = await store.list_uploads("u/")
    assert sorted((u.key, u.upload_id) for u in found) == sorted(made[:3])
    if not is_moto(request):  # to which every upload began in 2010
        assert all(abs(u.initiated - time.time()) < 60 for u in found)
    for key, upload_id in made:
        await store.abort_upload(key, upload_id)


# Copies on the server.


async def test_copy_keeps_or_replaces_metadata(store: Store) -> None:
    source = await store.put("s", Payload.of(b"body"), metadata={"a": "1"})
    kept = await store.copy("s", "t", etag=source.etag)
    assert (kept.key, kept.size, kept.metadata) == ("t", 4, {"a": "1"})
    replaced = await store.copy("s", "t", etag=source.etag, metadata={"b": "2"})
    assert replaced.metadata == {"b": "2"}
    assert await store.get_range("t", 0, 4, etag=replaced.etag) == b"body"
    onto_itself = await store.copy("s", "s", etag=source.etag, metadata={"c": "3"})
    assert onto_itself.metadata == {"c": "3"}
    emptied = await store.copy("s", "s", etag="", metadata={})
    assert emptied.metadata == {}


async def test_copy_of_what_is_not_there_any_more(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.copy("nothing", "t", etag="")
    old = await put(store, "s", b"old")
    await put(store, "s", b"new")
    with pytest.raises(Changed):
        await store.copy("s", "t", etag=old.etag)
    with pytest.raises(Changed):
        await store.copy("s", "s", etag=old.etag, metadata={"mode": "600"})
    assert (await store.head("s")).metadata == {}


async def test_copied_and_sent_parts_together(store: Store) -> None:
    source = await put(store, "s", PART + b"0123456789")
    upload_id = await store.create_upload("k", metadata={})
    first = await store.copy_part("k", upload_id, 1, "s", 0, MIN_PART, etag=source.etag)
    second = await store.upload_part("k", upload_id, 2, Payload.of(PART))
    third = await store.copy_part("k", upload_id, 3, "s", MIN_PART + 3, 4, etag=source.etag)
    assert [p.size for p in await store.list_parts("k", upload_id)] == [MIN_PART, MIN_PART, 4]
    await store.complete_upload("k", upload_id, [first, second, third])
    there = await store.head("k")
    assert there.size == 2 * MIN_PART + 4
    assert await store.get_range("k", MIN_PART - 1, 2, etag=there.etag) == PART[-1:] + PART[:1]
    assert await store.get_range("k", 2 * MIN_PART, 4, etag=there.etag) == b"3456"


async def test_a_part_of_another_version_is_not_copied(store: Store) -> None:
    old = await put(store, "s", b"old")
    await put(store, "s", b"new")
    upload_id = await store.create_upload("k", metadata={})
    with pytest.raises(Changed):
        await store.copy_part("k", upload_id, 1, "s", 0, 3, etag=old.etag)
    await store.abort_upload("k", upload_id)


@pytest.mark.parametrize("store", ["fake", pytest.param("rgw", marks=pytest.mark.rgw)], indirect=True)
async def test_a_part_of_nothing_is_not_copied(store: Store) -> None:
    """moto answers 404 without a document, which is not believed."""
    upload_id = await store.create_upload("k", metadata={})
    with pytest.raises(NotFound):
        await store.copy_part("k", upload_id, 1, "nothing", 0, 3, etag="")
    await store.abort_upload("k", upload_id)
