"""Every operation of the store through every passing fault: it succeeds, once, and leaves nothing behind."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio

from s3fsx.errors import Corrupted, DeadlineExceeded, S3fsxError
from s3fsx.fs.protection import Protection
from s3fsx.fs.upload import Transfers, Upload
from s3fsx.local.journal import Journal
from s3fsx.s3.store import S3Store
from s3fsx.store.endpoint import Endpoint
from s3fsx.store.objects import WRITE_ID, Capabilities, ObjectInfo, Payload, UploadedPart
from tests.contract.conftest import options
from tests.faultkinds import (
    ERROR_DOCUMENT,
    ERROR_DOCUMENT_AFTER,
    SERVER_ERROR,
    SERVER_ERROR_AFTER,
    SLOW_DOWN,
    CutShort,
    Fault,
    Flip,
    Refuse,
    Reset,
    Stall,
)
from tests.faultproxy import FaultProxy, Rule
from tests.s3server import S3Server, S3View

pytestmark = [pytest.mark.rgw, pytest.mark.expect_log("it is down|is down:|sending it again", optional=True)]

BODY = bytes(range(256)) * 400
OTHER = BODY[::-1]
RGW = Capabilities("sha256", conditional_put=True)

PASSING: tuple[Fault, ...] = (
    SLOW_DOWN,
    SERVER_ERROR,
    SERVER_ERROR_AFTER,
    Reset("request"),
    Reset("request body"),
    Reset("answer"),
    Reset("answer body"),
    CutShort(honest=True),
    CutShort(honest=False),
)
SILENT: tuple[Fault, ...] = (Stall(), Stall("answer"), Stall(effect=True))
# Copying and completing may take the store minutes, in which it says nothing: that is given the whole deadline.
LATE = {"COPY", "COPY PART", "COMPLETE"}


class Impatient(random.Random):
    """No wait between two attempts."""

    def random(self) -> float:
        return 0.0


@dataclass
class Place:
    """What an operation finds: an object, and an upload with one part. view looks past the proxy."""

    store: S3Store
    transfers: Transfers
    proxy: FaultProxy
    view: S3View
    object: ObjectInfo
    upload: str
    part: UploadedPart


@pytest.fixture
async def place(s3: S3Server, proxy: FaultProxy, tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Place]:
    bucket = s3.make_bucket("faults")
    given = replace(
        options(s3, bucket), endpoint=proxy.endpoint, connect_timeout=0.5, read_timeout=0.3, write_deadline=2
    )
    async with S3Store(given, Endpoint(rng=Impatient()), RGW) as store:
        made = await store.put("there", Payload.of(BODY), metadata={"colour": "blue"})
        upload = await store.create_upload("parts", metadata={WRITE_ID: "1"})
        part = await store.upload_part("parts", upload, 1, Payload.of(BODY))
        with closing(Journal.open(str(tmp_path / "state"))) as journal:
            transfers = Transfers(store, journal, nursery.start_soon, Protection(store))
            yield Place(store, transfers, proxy, s3.view(bucket), made, upload, part)


async def put(place: Place) -> None:
    made = await place.store.put("new", Payload.of(OTHER), metadata={WRITE_ID: "2"})
    assert (made.size, place.view.body("new")) == (len(OTHER), OTHER)


async def put_if_absent(place: Place) -> None:
    await place.store.put("new", Payload.of(OTHER), metadata={WRITE_ID: "2"}, only_if_absent=True)
    assert place.view.body("new") == OTHER


async def head(place: Place) -> None:
    there = await place.store.head("there")
    assert (there.etag, there.size, there.metadata) == (place.object.etag, len(BODY), {"colour": "blue"})


async def get_range(place: Place) -> None:
    assert await place.store.get_range("there", 1000, 50_000, etag=place.object.etag) == BODY[1000:51_000]


async def list_page(place: Place) -> None:
    page = await place.store.list_page("t")
    assert [(o.key, o.size, o.etag) for o in page.objects] == [("there", len(BODY), place.object.etag)]


async def list_uploads(place: Place) -> None:
    assert [u.upload_id for u in await place.store.list_uploads("")] == [place.upload]


async def list_parts(place: Place) -> None:
    (part,) = await place.store.list_parts("parts", place.upload)
    assert (part.number, part.size, part.etag) == (1, len(BODY), place.part.etag)


async def copy(place: Place) -> None:
    made = await place.store.copy("there", "new", etag=place.object.etag)
    assert (made.size, place.view.body("new")) == (len(BODY), BODY)


async def copy_part(place: Place) -> None:
    part = await place.store.copy_part("parts", place.upload, 2, "there", 0, len(BODY), etag=place.object.etag)
    assert part.etag == place.part.etag


async def upload_part(place: Place) -> None:
    part = await place.store.upload_part("parts", place.upload, 1, Payload.of(BODY))
    assert (part.size, part.etag) == (len(BODY), place.part.etag)


async def begin_upload(place: Place) -> None:
    """Not the store's create_upload, which tries once: what a lost answer leaves behind is the journal's to know."""
    upload = await Upload.begin(place.transfers, "fresh", "fresh", {})
    assert place.view.uploads() == ["fresh", "parts"], "one upload, not one per attempt"
    await upload.abort()
    # What a lost answer may still make is looked for twice more, a minute apart.
    assert {record.state for record in await place.transfers.journal.records()} <= {"opening"}


async def complete(place: Place) -> None:
    await place.store.complete_upload("parts", place.upload, [place.part])
    assert place.view.body("parts") == BODY
    assert place.view.uploads() == []
    place.upload = await place.store.create_upload("parts", metadata={WRITE_ID: "1"})
    place.part = await place.store.upload_part("parts", place.upload, 1, Payload.of(BODY))


async def abort(place: Place) -> None:
    await place.store.abort_upload("parts", place.upload)
    assert place.view.uploads() == []
    place.upload = await place.store.create_upload("parts", metadata={WRITE_ID: "1"})


async def delete(place: Place) -> None:
    place.view.put("doomed", b"x")
    await place.store.delete("doomed")
    assert place.view.keys("doomed") == []


OPERATIONS: tuple[tuple[str, Callable[[Place], Awaitable[None]]], ...] = (
    ("PUT", put),
    ("PUT", put_if_absent),
    ("HEAD", head),
    ("GET", get_range),
    ("LIST", list_page),
    ("LIST UPLOADS", list_uploads),
    ("LIST PARTS", list_parts),
    ("COPY", copy),
    ("COPY PART", copy_part),
    ("PUT PART", upload_part),
    ("CREATE UPLOAD", begin_upload),
    ("COMPLETE", complete),
    ("ABORT", abort),
    ("DELETE", delete),
)


@pytest.mark.parametrize(("kind", "operation"), OPERATIONS, ids=lambda v: getattr(v, "__name__", ""))
async def test_a_passing_fault_is_ridden_out(place: Place, kind: str, operation: Any) -> None:
    wrong = []
    faults = PASSING if kind in LATE else PASSING + SILENT
    for count, fault in enumerate(faults, 1):
        with place.proxy.fault(Rule(fault, {kind}, times=1)):
            try:
                await operation(place)
            except (S3fsxError, AssertionError) as error:
                wrong.append(f"{fault}: {type(error).__name__}: {error}")
        place.view.delete("new")
        assert place.proxy.injected.total() == count, wrong
    assert not wrong


@pytest.mark.parametrize(("kind", "operation"), [("COPY", copy), ("COPY PART", copy_part), ("COMPLETE", complete)])
async def test_silence_in_what_may_take_long_ends_by_the_deadline(place: Place, kind: str, operation: Any) -> None:
    with place.proxy.fault(Rule(Stall(), {kind})), trio.fail_after(5), pytest.raises(DeadlineExceeded):
        await operation(place)
    await place.store.list_parts("parts", place.upload)  # goes on through an outage, and finds its end
    await operation(place)


@pytest.mark.parametrize("fault", [SERVER_ERROR_AFTER, Stall(effect=True)])
@pytest.mark.parametrize("write_id", [{WRITE_ID: "7"}, {}], ids=["ours", "another's"])
async def test_a_copy_is_known_by_its_target_where_no_answer_ever_comes(
    place: Place, fault: Fault, write_id: dict[str, str]
) -> None:
    source = await place.store.put("source", Payload.of(BODY), metadata=write_id)
    with place.proxy.fault(Rule(fault, {"COPY"})):
        made = await place.store.copy("source", "new", etag=source.etag)
    assert (made.key, made.size, place.view.body("new")) == ("new", len(BODY), BODY)


@pytest.mark.parametrize("write_id", [{WRITE_ID: "7"}, {}], ids=["ours", "another's"])
async def test_a_copy_that_failed_does_not_take_another_object_for_its_own(
    place: Place, write_id: dict[str, str]
) -> None:
    """What had the name before is as long as what was to replace it."""
    source = await place.store.put("source", Payload.of(BODY), metadata=write_id)
    await place.store.put("new", Payload.of(OTHER), metadata={WRITE_ID: "8"} if write_id else {})
    with place.proxy.fault(Rule(SERVER_ERROR, {"COPY"})), pytest.raises(S3fsxError):
        await place.store.copy("source", "new", etag=source.etag)


@pytest.mark.parametrize("fault", [ERROR_DOCUMENT, ERROR_DOCUMENT_AFTER])
@pytest.mark.parametrize(("kind", "operation"), [("COPY", copy), ("COPY PART", copy_part), ("COMPLETE", complete)])
async def test_an_error_document_with_status_200_is_no_success(
    place: Place, kind: str, operation: Any, fault: Refuse
) -> None:
    place.proxy.add(Rule(fault, {kind}, times=2))
    await operation(place)
    assert place.proxy.injected["Refuse"] == 2 - (fault.effect and kind == "COMPLETE")


@pytest.mark.parametrize(("kind", "operation"), [("PUT", put), ("PUT PART", upload_part), ("COMPLETE", complete)])
async def test_a_bit_flipped_on_the_way_there_is_noticed(place: Place, kind: str, operation: Any) -> None:
    with place.proxy.fault(Rule(Flip("request"), {kind}, times=1)):
        await operation(place)
    assert place.proxy.injected == {"Flip": 1}


@pytest.mark.parametrize(("kind", "operation"), [("PUT", put), ("PUT", put_if_absent), ("PUT PART", upload_part)])
async def test_bits_flipped_every_time_are_an_error(place: Place, kind: str, operation: Any) -> None:
    with place.proxy.fault(Rule(Flip("request"), {kind})), pytest.raises(Corrupted):
        await operation(place)
    assert place.view.keys() == ["there"]


async def test_without_a_checksum_for_ranges_a_bit_flipped_on_the_way_back_is_not_noticed(place: Place) -> None:
    """Why there is ``verified``: S3 has no checksum for a range, and plain HTTP none at all. (TLS has one.)"""
    with place.proxy.fault(Rule(Flip("answer", at=0.5), {"GET"}, times=1)):
        got = await place.store.get_range("there", 0, 1000, etag=place.object.etag)
    assert [i for i, (a, b) in enumerate(zip(got, BODY[:1000], strict=True)) if a != b] == [500]
