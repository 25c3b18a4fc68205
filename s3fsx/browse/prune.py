"""Deleting the backups that the rules do not keep, in Proxmox's order: archive, log, notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import NotFound, S3fsxError
from ..fs.protection import Protection
from ..store.objects import ObjectInfo
from . import checked, keep
from .catalog import Backup
from .keep import Keep
from .place import Place


@dataclass(frozen=True, slots=True)
class Marked:
    """mark: of ``keep``."""

    backup: Backup
    mark: str


def plan(listed: Sequence[Backup], rules: Keep) -> list[Marked]:
    """Pure."""
    marks = keep.mark([keep.Candidate(backup.archive, backup.protected) for backup in listed], rules)
    return [Marked(backup, found) for backup, found in zip(listed, marks, strict=True)]


class Pruner:
    """``place.learn_object_lock`` has been called."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._protection = Protection(place.store)

    async def remove(self, backup: Backup) -> list[str]:
        """What could not be removed beside it, in words. Raises S3fsxError where the backup stays: it was protected, or
        replaced, since it was listed, or the store says so."""
        await self._require_same(backup.info)
        if await self._protection.guards(backup.info.key):
            raise S3fsxError("is protected, by its mark, a legal hold or a retention")
        await self._place.store.delete(backup.info.key, known=backup.info)
        left = [await self._remove_beside(beside) for beside in (backup.log, backup.notes) if beside is not None]
        await checked.forget(self._place.s3, self._place.prefix, backup.info)
        return [why for why in left if why]

    async def _require_same(self, info: ObjectInfo) -> None:
        try:
            there = await self._place.store.head(info.key)
        except NotFound:
            return  # deleted by another node: its log and notes may still be there
        if there.etag != info.etag:
            raise S3fsxError("was replaced since it was listed")

    async def _remove_beside(self, info: ObjectInfo) -> str:
        try:
            if await self._protection.keeps(info.key):
                return f"{info.key} stays: it is held or retained"
            await self._place.store.delete(info.key, known=info)
        except S3fsxError as e:
            return f"{info.key} stays: {e}"
        return ""
