"""Stores that lose something, and what the check says of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from s3fsx.errors import AccessDenied, Corrupted, Rejected
from s3fsx.s3.trials import STALE, pages, sweep, unequal_parts
from s3fsx.store.objects import LIST_LIMIT, ListPage, UploadedPart
from tests.fakestore import FakeStore


class BadPages(FakeStore):
    """Changes what a page says, given whether it is the first."""

    def __init__(self, change: Callable[[ListPage, bool], ListPage]) -> None:
        super().__init__()
        self._change = change

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "/",
        token: str | None = None,
        limit: int = LIST_LIMIT,
        early: Callable[[str], object] | None = None,
    ) -> ListPage:
        page = await super().list_page(prefix, delimiter=delimiter, token=token, limit=limit, early=early)
        return self._change(page, token is None)


class EqualParts(FakeStore):
    """As Cloudflare R2: all parts but the last have one size."""

    async def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[UploadedPart], *, only_if_absent: bool = False
    ) -> str:
        if len({part.size for part in parts[:-1]}) > 1:
            raise Rejected("400 InvalidPart: all non-trailing parts must have the same length")
        return await super().complete_upload(key, upload_id, parts, only_if_absent=only_if_absent)


async def test_whole_pages_pass_and_leave_nothing() -> None:
    store = FakeStore()
    await pages(store, "p/.s3fsx/check-1.pages")
    assert store.count("list_page") == 3
    assert store.keys() == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda page, first: replace(page, objects=page.objects[first:]), id="drops a key"),
        pytest.param(lambda page, first: replace(page, objects=page.objects + page.objects[:1]), id="repeats a key"),
        pytest.param(lambda page, first: replace(page, objects=page.objects[::-1]), id="out of order"),
        pytest.param(lambda page, first: replace(page, next_token=None), id="ends after the first page"),
        pytest.param(lambda page, first: replace(page, next_token="p/"), id="begins again for ever"),
    ],
)
async def test_pages_that_lose_keys_are_refused(change: Callable[[ListPage, bool], ListPage]) -> None:
    store = BadPages(change)
    with pytest.raises(Corrupted, match="cannot be used with this store"):
        await pages(store, "p/.s3fsx/check-1.pages")
    assert store.keys() == []


async def test_unequal_parts_pass_and_leave_nothing() -> None:
    store = FakeStore()
    await unequal_parts(store, "k")
    assert store.keys() == []
    assert not store.uploads


async def test_a_store_that_wants_equal_parts_is_told_with_its_setting() -> None:
    store = EqualParts()
    with pytest.raises(Rejected, match=r"InvalidPart.*part_profile = uniform"):
        await unequal_parts(store, "k")
    assert store.keys() == []
    assert not store.uploads


async def test_other_failures_are_not_taken_for_a_rule_about_parts() -> None:
    store = FakeStore()
    store.fail_next("upload_part", AccessDenied("no"))
    with pytest.raises(AccessDenied, match=r"^no$"):
        await unequal_parts(store, "k")
    assert not store.uploads


async def test_what_killed_checks_left_is_swept_and_nothing_else() -> None:
    store = FakeStore()
    for key in ("p/.s3fsx/check-1", "p/.s3fsx/probe-2", "p/.s3fsx/sums/3", "p/check-4", "other/.s3fsx/check-5"):
        store.poke(key, b"x")
    await store.create_upload("p/.s3fsx/check-6.parts", metadata={})
    await store.create_upload("p/dump/backup", metadata={})
    assert await sweep(store, "p/") == 0, "a check that runs at this moment keeps its objects"
    assert await sweep(store, "p/", now=time.time() + 2 * STALE) == 3
    assert store.keys() == ["other/.s3fsx/check-5", "p/.s3fsx/sums/3", "p/check-4"]
    assert [upload.key for upload in await store.list_uploads("p/")] == ["p/dump/backup"]


async def test_keys_that_may_not_list_uploads_may_check() -> None:
    store = FakeStore()
    store.poke("p/.s3fsx/check-1", b"x")
    store.fail_next("list_uploads", AccessDenied("no"), times=2)
    assert await sweep(store, "p/", now=time.time() + 2 * STALE) == 1
    assert store.keys() == []
