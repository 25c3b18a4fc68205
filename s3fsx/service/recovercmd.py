"""``s3fsx recover``: what is unfinished in the bucket and in the journal, whose it is, and dealing with it by hand.

Without ``--apply`` nothing is written anywhere.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import trio

from ..configuration.config import to_s3_options
from ..configuration.settings import Settings
from ..errors import AccessDenied, S3fsxError, UploadGone
from ..fs import survey
from ..fs.changes import Changes
from ..fs.mirror import read_copies
from ..fs.protection import Protection
from ..fs.recover import Recovery
from ..fs.survey import Finding, Known, Unfinished
from ..fs.takeover import Takeover
from ..fs.upload import Transfers
from ..layout import Layout
from ..local.journal import Journal, JournalInUse
from ..local.nodecopy import NodeCopy
from ..local.records import Intent, UploadRecord
from ..s3.probe import probe
from ..s3.store import S3Store
from ..store.endpoint import Endpoint
from ..store.objects import Store, UploadInfo
from ..store.parts import compare_parts, sent_again, up_to
from ..store.sumstore import SumStore
from ..store.verified import VerifiedStore
from . import state

T = TypeVar("T")

log = logging.getLogger("s3fsx.recover")

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Wish:
    """The command's flags. older_than: seconds. price: USD per GiB and month."""

    apply: bool
    node: str
    older_than: float | None
    price: float
    as_json: bool


@dataclass(frozen=True, slots=True)
class Found:
    """journal: where it is and who has it. node: its id, "" where there is none. orphans: keys of the checksums of
    objects that are gone."""

    journal: str
    node: str
    intents: tuple[Intent, ...]
    findings: tuple[Finding, ...]
    copies: tuple[NodeCopy, ...]
    orphans: tuple[str, ...]


async def recover(settings: Settings, wish: Wish, write: Callable[[str], object]) -> int:
    """Shows, or with ``wish.apply`` does. How much could not be done; raises S3fsxError, ConfigError."""
    async with S3Store(to_s3_options(settings), Endpoint()) as store:
        found = await look(store, settings, wish)
        _tell(found, settings, wish, write)
        if not wish.apply:
            return 0
        await probe(store, settings.prefix, multipart=False)
        if wish.node:
            copy = survey.choose(found.copies, wish.node, found.node)
            layout = Layout(copy.prefix, settings.layout if copy.prefix == settings.prefix else {})
            verified = VerifiedStore(store, copy.prefix)
            return await _with_background(lambda spawn: Takeover(verified, layout, copy, spawn).run())
        if wish.older_than is not None:
            return await _abort(store, [f for f in found.findings if f.owner == "nobody" and f.action == survey.ABORT])
        left = await _drop(store, found.orphans)
        return left + await _apply_own(VerifiedStore(store, settings.prefix), settings)


async def look(store: Store, settings: Settings, wish: Wish) -> Found:
    """Reads the journal, the journal copies and the unfinished uploads."""
    directory = state.state_directory(settings)
    journal = await trio.to_thread.run_sync(Journal.look, directory)
    records: tuple[UploadRecord, ...] = ()
    intents: tuple[Intent, ...] = ()
    node, where = "", f"none in {directory}"
    # In this order: what another node finishes meanwhile is gone from the list, what it begins is in no list.
    uploads = await store.list_uploads(settings.prefix)
    if journal is not None:
        try:
            records, intents = tuple(await journal.records()), tuple(await journal.intents())
            node, where = journal.node, directory
        finally:
            journal.close()
        if (who := await trio.to_thread.run_sync(state.holder, settings)) is not None:
            where = f"{directory}; {who}"
    aborting = wish.apply and wish.older_than is not None
    copies = await _copies(store, settings.prefix, [upload.key for upload in uploads], all_of_them=aborting)
    unfinished = await _with_parts(store, uploads)
    known = Known(node, records, copies, time.time(), wish.older_than, wish.price)
    if wish.node:
        survey.choose(copies, wish.node, node)
    orphans = tuple(await SumStore(store, settings.prefix).orphans())
    return Found(where, node, intents, tuple(survey.judge(upload, known) for upload in unfinished), copies, orphans)


async def _copies(store: Store, prefix: str, keys: list[str], *, all_of_them: bool) -> tuple[NodeCopy, ...]:
    """Also of nodes that mount another prefix of this bucket, if it is above or below one of the keys. all_of_them:
    raises S3fsxError when one cannot be read: then nobody can say whose the uploads are that it names. (Keys that may
    list only a prefix cannot see above it. That is said, and left to who gave them and the age.)"""
    found: list[NodeCopy] = []
    for place in survey.prefixes_above(prefix, keys):
        try:
            copies, unreadable = await read_copies(store, place)
        except AccessDenied as e:
            if place.startswith(prefix):
                raise
            level = logging.WARNING if all_of_them else logging.DEBUG
            log.log(level, "uploads of nodes that mount %s look as if nobody had them: %s", place or "the bucket", e)
            continue
        found += copies
        for why in unreadable:
            if all_of_them:
                raise S3fsxError(f"{why}; without it an upload may look as if nobody had it: nothing aborted")
            log.warning("%s; uploads that it names look as if nobody had them", why)
    return tuple(found)


async def _with_parts(store: Store, uploads: tuple[UploadInfo, ...]) -> list[Unfinished]:
    """Without those that ended meanwhile; in the order of their keys."""
    found: list[Unfinished] = []
    failed: list[S3fsxError] = []
    queue = iter(uploads)

    async def worker() -> None:
        for upload in queue:
            try:
                parts = await store.list_parts(upload.key, upload.upload_id)
            except UploadGone:
                continue
            except S3fsxError as e:
                failed.append(e)
                return
            found.append(Unfinished(upload.key, upload.upload_id, upload.initiated, parts))

    async with trio.open_nursery() as nursery:
        for _ in range(_AT_ONCE):
            nursery.start_soon(worker)
    if failed:
        raise failed[0]
    return sorted(found, key=lambda upload: (upload.key, upload.initiated))


def _tell(found: Found, settings: Settings, wish: Wish, write: Callable[[str], object]) -> None:
    if wish.as_json:
        document = {
            "source": state.source(settings),
            "endpoint": state.url(settings),
            "journal": found.journal,
            "node": found.node,
            "changes": [asdict(intent) for intent in found.intents],
            "copies": [{"key": copy.key, **asdict(copy)} for copy in found.copies],
            "uploads": [asdict(finding) for finding in found.findings],
            "checksums": found.orphans,
        }
        write(json.dumps(document, indent=2) + "\n")
        return
    above: dict[str, object] = {"source": f"{state.source(settings)} at {state.url(settings)}"}
    above["journal"] = found.journal
    if found.node:
        above["this node"] = found.node
    for intent in found.intents:
        what = "deletion" if not intent.pieces[0].target else "rename"
        above["unfinished"] = (
            f"{what}: {intent.path} ({len(intent.pieces)} objects); the next mount, or --apply, ends it"
        )
    if found.orphans:
        above["checksums"] = f"{len(found.orphans)} small objects of files that are gone; --apply removes them"
    for line in survey.lines(above, found.findings, found.copies):
        write(line + "\n")


async def _with_background(action: Callable[[Callable[..., Any]], Awaitable[T]]) -> T:
    """action(spawn), where what it spawns may be given up when it is done. Errors come out as they are."""
    done: list[T] = []
    failed: list[S3fsxError] = []
    async with trio.open_nursery() as nursery:
        try:
            done.append(await action(nursery.start_soon))
        except S3fsxError as e:
            failed.append(e)
        nursery.cancel_scope.cancel()
    if failed:
        raise failed[0]
    return done[0]


async def _drop(store: Store, keys: Sequence[str]) -> int:
    """Delete what belongs to nothing any more. How many are left."""
    try:
        failed: Mapping[str, S3fsxError] = await store.delete_many(dict.fromkeys(keys))
    except S3fsxError as e:
        failed = dict.fromkeys(keys, e)
    for key, error in failed.items():
        log.warning("%s: left (%s)", key, error)
    return len(failed)


async def _abort(store: Store, findings: list[Finding]) -> int:
    left = 0
    for finding in findings:
        try:
            await store.abort_upload(finding.key, finding.upload_id)
            log.info("%s: aborted, %s", finding.key, survey.human(finding.size))
        except S3fsxError as e:
            log.warning("%s: left (%s)", finding.key, e)
            left += 1
    return left


async def _apply_own(store: Store, settings: Settings) -> int:
    """What the next mount would do, but for files that wait for their rename: those stay until there is one."""
    directory = state.state_directory(settings)
    try:
        journal = await trio.to_thread.run_sync(Journal.open, directory)
    except JournalInUse:
        raise await trio.to_thread.run_sync(state.in_use, settings, directory) from None
    try:
        waiting: list[str] = []

        async def settled(record: UploadRecord) -> None:
            theirs = await store.list_parts(record.key, record.upload_id)
            theirs = tuple(up_to(record.parts, theirs))
            difference = compare_parts(record.parts, theirs)
            if difference and sent_again(record.parts, theirs, record.resent) is None:
                log.warning("%s: its parts are not what was written (%s)", record.path, difference)
                return
            waiting.append(record.write_id)
            log.info("%s: complete, waits for its rename; there again at the next mount", record.path)

        async def replay(spawn: Callable[..., Any]) -> None:
            protection = Protection(store)
            transfers = Transfers(store, journal, spawn, protection)
            layout = Layout(settings.prefix, settings.layout)
            await Recovery(journal, layout, transfers, settled, Changes(store, journal, spawn, protection)).run()

        await _with_background(replay)
        left = [record for record in await journal.records() if record.write_id not in waiting]
        if not left and not waiting and await journal.copied():
            await store.delete(NodeCopy(journal.node, "", 0.0, settings.prefix, ()).key)
            await journal.set_copied(False)
        return len(left) + len(await journal.intents())
    finally:
        journal.close()
