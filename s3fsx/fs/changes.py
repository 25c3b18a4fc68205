"""Renames and deletions of published objects as one step: journaled before the first request, replayed after a crash.

A change that ends with an error which its program sees is forgotten there and then: nothing of it happens later. Only
copies that a failed rename could not take back stay journaled, so that the next mount removes them.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import trio

from ..errors import NotFound, S3fsxError
from ..local.intents import Plan, directory_of, piece_of, plan, undecided
from ..local.journal import Journal, JournalError
from ..local.records import Intent, Piece
from ..store.objects import ObjectInfo, Store
from ..transfer.several import each
from .protection import SUFFIX, Protection

log = logging.getLogger("s3fsx.changes")

_FORGET_AGAIN = 60.0  # seconds


class Change:
    """One that is under way. kept: it stays in the journal although it failed."""

    def __init__(self, journal: Journal, intent: Intent) -> None:
        self._journal = journal
        self.intent = intent
        self.kept = False

    async def copied(self, copies: Sequence[ObjectInfo]) -> None:
        """Every copy is verified, in the order of the pieces: from now on a crash finishes the change. Written only
        where replay could not tell by itself: with one piece, that its copy is there says the same."""
        pieces = tuple(
            replace(piece, copy_etag=copy.etag) for piece, copy in zip(self.intent.pieces, copies, strict=True)
        )
        if len(pieces) > 1 or any(piece.etag != piece.copy_etag and not piece.write_id for piece in pieces):
            self.intent = replace(self.intent, phase="deleting", pieces=pieces)
            await self._journal.intend(self.intent)

    async def undo(self, left: Container[str]) -> None:
        """It failed, and its program is told so: from now on its copies under these keys are only ever removed, and no
        others. Kept until the caller has removed them. Raises JournalError."""
        self.kept = True
        pieces = tuple(piece for piece in self.intent.pieces if piece.target in left)
        self.intent = replace(self.intent, phase="undoing", pieces=pieces)
        await self._journal.intend(self.intent)


class Changes:
    """``spawn`` starts a background task that outlives the caller."""

    def __init__(self, store: Store, journal: Journal, spawn: Callable[..., Any], protection: Protection) -> None:
        self._store = store
        self._journal = journal
        self._protection = protection
        self._spawn = spawn

    async def delete(self, info: ObjectInfo, path: str) -> None:
        """Delete the object that we know as this version, in the end also after a crash: for one whose content has
        another name by now. Raises what the store raises, JournalError."""
        async with self._begun("deleting", path, (piece_of(info),)):
            await self._store.delete(info.key, known=info)

    @asynccontextmanager
    async def renaming(self, path: str, pairs: Iterable[tuple[ObjectInfo, str]]) -> AsyncIterator[Change]:
        """Around the copies of objects to other keys and the deletion of the sources."""
        async with self._begun("copying", path, tuple(piece_of(info, target) for info, target in pairs)) as change:
            yield change

    @asynccontextmanager
    async def _begun(self, phase: str, path: str, pieces: tuple[Piece, ...]) -> AsyncIterator[Change]:
        change = Change(self._journal, Intent(uuid.uuid4().hex, phase, path, time.time(), pieces))
        if pieces:
            await self._journal.intend(change.intent)
        try:
            yield change
        except Exception:  # a cancelled one stays: nobody was told how it ended
            if pieces and not change.kept:
                await self._forget(change.intent)
            raise
        if pieces:
            await self._forget(change.intent)

    async def _forget(self, intent: Intent) -> None:
        """The change is over; a journal that cannot be written now does not make it undone."""
        try:
            await self._journal.fulfilled(intent.intent_id)
        except JournalError as e:
            log.warning("%s: %s; tried again", intent.path, e)
            self._spawn(self._forget_in_the_end, intent)

    async def _forget_in_the_end(self, intent: Intent) -> None:
        while True:
            await trio.sleep(_FORGET_AGAIN)
            try:
                return await self._journal.fulfilled(intent.intent_id)
            except JournalError:
                continue

    # -- after a crash

    async def replay(self) -> None:
        """Raises nothing: what cannot be dealt with now stays for the next mount, with a line in the log."""
        for intent in await self._journal.intents():
            try:
                await self._replay(intent)
            except S3fsxError as e:
                log.warning("%s: its change of names is left in the journal (%s)", intent.path, e)

    async def _replay(self, intent: Intent) -> None:
        there = await self._present(intent)
        await each(undecided(intent, there), self._learn(there))
        decided = plan(intent, there)
        if decided.forward and intent.phase == "copying":  # before the first deletion: there is no way back from there
            await Change(self._journal, intent).copied([there[piece.target] for piece in intent.pieces])
        await each(decided.delete, self._remover(intent, decided, there))
        for key in decided.left:
            log.info("%s: %s was changed by others since or is no copy of ours; left alone", intent.path, key)
        if decided.delete:
            what = "deletion" if not intent.pieces[0].target else "rename"
            log.info("%s: %s a %s cut short", intent.path, "finished" if decided.forward else "took back", what)
        await self._journal.fulfilled(intent.intent_id)

    def _remover(self, intent: Intent, decided: Plan, there: Mapping[str, ObjectInfo]) -> Callable[[str], Any]:
        """What somebody protected since stays. Not for a mark that this very change takes away."""
        copies = set() if decided.forward else {piece.target for piece in intent.pieces}

        async def remove(key: str) -> None:
            mark = key + SUFFIX
            marked = mark not in decided.delete and (len(intent.pieces) == 1 or mark in there)
            if not await self._protection.guards(key, ours=key in copies, marked=marked):
                await self._store.delete(key, known=there[key])

        return remove

    async def _present(self, intent: Intent) -> dict[str, ObjectInfo]:
        """The pieces' keys that exist. Of a directory from two listings, with the marks beside them: a HEAD for each
        would take minutes."""
        there: dict[str, ObjectInfo] = {}
        sources = [piece.source for piece in intent.pieces]
        targets = [piece.target for piece in intent.pieces if piece.target]
        if len(sources) == 1:
            await each(sources + targets, self._learn(there))
            return there
        for keys in (sources, targets):
            wanted = {*keys, *(key + SUFFIX for key in keys)}
            prefix = directory_of(keys)
            token: str | None = None
            while True:
                page = await self._store.list_page(prefix, delimiter="", token=token)
                there |= {info.key: info for info in page.objects if info.key in wanted}
                token = page.next_token
                if token is None:
                    break
        return there

    def _learn(self, there: dict[str, ObjectInfo]) -> Callable[[str], Any]:
        async def learn(key: str) -> None:
            try:
                there[key] = await self._store.head(key)
            except NotFound:
                there.pop(key, None)

        return learn
