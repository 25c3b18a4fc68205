"""What a mount left in its journal, and its directories on this node."""

from __future__ import annotations

import os
import shutil

import trio

from ..configuration.settings import Settings
from ..errors import S3fsxError
from ..local.journal import Journal
from ..service.state import identity, open_journal, state_directory

__all__ = ["identity", "left", "remove_directories"]


def left(settings: Settings) -> list[str]:
    """A line for each file and change of names that is not finished in the bucket. Raises ConfigError; S3fsxError while
    a mount has the journal, also one that is none of Proxmox'."""
    directory = state_directory(settings)
    return trio.run(_left, settings, directory) if os.path.isdir(directory) else []


async def _left(settings: Settings, directory: str) -> list[str]:
    journal = await open_journal(settings, directory)
    try:
        return await _lines(journal, directory)
    finally:
        journal.close()


async def _lines(journal: Journal, directory: str) -> list[str]:
    records, intents = await journal.records(), await journal.intents()
    files = [f"{record.path} is not finished in the bucket, the journal in {directory} knows it" for record in records]
    return files + [
        f"a change of {intent.path} is not finished, the journal in {directory} knows it" for intent in intents
    ]


def remove_directories(settings: Settings) -> list[str]:
    """The journal and the caches of this mount on this node; what was removed. Holds the journal's lock meanwhile: a
    mount may have begun since ``left`` was asked, and one that begins now is refused.

    Raises as ``left``, and S3fsxError when the journal has something, or a directory cannot be removed."""
    caches = os.path.join(settings.cache_dir, identity(settings))
    directory = state_directory(settings)
    return trio.run(_remove, settings, directory, caches) if os.path.isdir(directory) else _removed(caches)


async def _remove(settings: Settings, directory: str, caches: str) -> list[str]:
    journal = await open_journal(settings, directory)
    try:
        if lines := await _lines(journal, directory):
            raise S3fsxError(f"{lines[0]}: it stays")
        return _removed(directory, caches)
    finally:
        journal.close()


def _removed(*directories: str) -> list[str]:
    removed = []
    for directory in directories:
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise S3fsxError(f"{directory}: {error.strerror}") from None
        removed.append(directory)
    return removed
