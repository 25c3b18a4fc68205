"""What backups there are and what is known of each: a listing of ``dump``, one of the checksums, one of the checks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import S3fsxError
from ..fs.pages import Pages
from ..layout import Layout
from ..store.objects import ObjectInfo, Store
from ..store.sums import name as sums_name
from ..store.sums import needed
from ..store.sumstore import DIRECTORY as SUMS
from ..transfer.several import each
from .checked import Checks, read_checks
from .names import Archive, choose, parse

DUMP = "dump"
_NOTES_READ = 4096  # bytes: the first line is shown


@dataclass(frozen=True, slots=True)
class Backup:
    """notes, log: the objects beside it, None where there are none. protected: Proxmox's mark is there."""

    archive: Archive
    info: ObjectInfo
    notes: ObjectInfo | None
    log: ObjectInfo | None
    protected: bool

    @property
    def path(self) -> str:
        return f"{DUMP}/{self.archive.name}"

    @property
    def when(self) -> float:
        """Of the name; of a renamed one when it was written."""
        return self.info.modified if self.archive.when is None else self.archive.when


async def entries(store: Store, prefix: str, *, delimiter: str = "/") -> tuple[list[ObjectInfo], list[str]]:
    """Objects and common prefixes directly below ``prefix``. Raises what the store raises."""
    objects: list[ObjectInfo] = []
    prefixes: list[str] = []
    pages = Pages(store, prefix, delimiter=delimiter)
    while (page := await pages.next()) is not None:
        objects += page.objects
        prefixes += page.prefixes
    return objects, prefixes


async def backups(store: Store, layout: Layout, vmid: int | None = None) -> list[Backup]:
    """By guest, the newest first. Raises what the store raises."""
    found, _ = await entries(store, layout.directory(DUMP))
    named = {info.key.rpartition("/")[2]: info for info in found}
    listed = []
    for name, info in named.items():
        archive = parse(name)
        if archive is not None and (vmid is None or archive.vmid == vmid):
            beside = named.get(archive.notes), named.get(archive.log)
            listed.append(Backup(archive, info, *beside, archive.protected in named))
    return sorted(listed, key=lambda b: (b.archive.kind, b.archive.vmid or 0, -b.when, b.archive.name))


def chosen(text: str, listed: Iterable[Backup]) -> Backup:
    """Raises ConfigError: no such backup, or several."""
    by_name = {backup.archive.name: backup for backup in listed}
    return by_name[choose(text, list(by_name))]


async def first_notes(store: Store, listed: Iterable[Backup]) -> dict[str, str]:
    """The first line of each backup's notes, by the name of the archive; without those that are gone meanwhile."""
    found: dict[str, str] = {}

    async def ask(backup: Backup) -> None:
        if backup.notes is not None and backup.notes.size:
            found[backup.archive.name] = await _first_line(store, backup.notes)

    await each([backup for backup in listed if backup.notes is not None], ask)
    return found


async def _first_line(store: Store, notes: ObjectInfo) -> str:
    try:
        head = await store.get_range(notes.key, 0, min(notes.size, _NOTES_READ), etag=notes.etag, size=notes.size)
    except S3fsxError as e:
        return f"({e})"
    return head.decode(errors="replace").partition("\n")[0].rstrip("\r")


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What can be said of a backup's bytes without reading them. sums: what the objects with checksums are called."""

    sums: frozenset[str]
    checks: Checks

    def written_with_checksums(self, info: ObjectInfo) -> bool:
        """By s3fsx, which has compared every part on its way."""
        return sums_name(info.key, info.etag) in self.sums

    def has_checksums(self, info: ObjectInfo) -> bool:
        """Made when it was written: those of s3fsx, or an ETag that is an MD5."""
        return not needed(info) or self.written_with_checksums(info)


async def knowledge(store: Store, prefix: str) -> Knowledge:
    """Raises what the store raises."""
    there, _ = await entries(store, prefix + SUMS, delimiter="")
    return Knowledge(frozenset(info.key.rpartition("/")[2] for info in there), await read_checks(store, prefix))
