"""What a mount left in its journal, and its directories on this node."""

from __future__ import annotations

import os
import shutil

import trio

from ..configuration.settings import Settings
from ..errors import S3fsxError
from ..service.state import identity, open_journal, state_directory

__all__ = ["identity", "left", "remove_directories"]


def left(settings: Settings) -> list[str]:
    """A line for each file and change of names that is not finished in the bucket. Raises ConfigError; S3fsxError while
    a mount has the journal, also one that is none of Proxmox'."""
    if not os.path.isdir(state_directory(settings)):
        return []
    return trio.run(_left, settings)


async def _left(settings: Settings) -> list[str]:
    directory = state_directory(settings)
    journal = await open_journal(settings, directory)
    try:
        records, intents = await journal.records(), await journal.intents()
    finally:
        journal.close()
    files = [f"{record.path} is not finished in the bucket, the journal in {directory} knows it" for record in records]
    return files + [
        f"a change of {intent.path} is not finished, the journal in {directory} knows it" for intent in intents
    ]


def remove_directories(settings: Settings) -> list[str]:
    """The journal, which must have nothing left, and the caches of this mount on this node. What was removed."""
    removed = []
    for directory in (state_directory(settings), os.path.join(settings.cache_dir, identity(settings))):
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise S3fsxError(f"{directory}: {error.strerror}") from None
        removed.append(directory)
    return removed
