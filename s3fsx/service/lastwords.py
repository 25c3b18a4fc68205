"""What a daemon leaves for whoever unmounts it: a file beside its status socket, read once it has ended."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..browse.tables import human

log = logging.getLogger("s3fsx.lastwords")

_SUFFIX = ".left"
_MOST = 1 << 20  # bytes
_NAMED = 5  # files that a message names


@dataclass(frozen=True, slots=True)
class LeftFile:
    """size: bytes. kept: every byte is in the store, and the next mount has the file again; else nothing of it is."""

    path: str
    size: int
    kept: bool


@dataclass(frozen=True, slots=True)
class LastWords:
    """Lines for a person. published: what is in the bucket, but under a temporary name. left: what is not there."""

    published: Sequence[str] = ()
    left: Sequence[str] = ()


def describe_published(published: Sequence[LeftFile]) -> list[str]:
    """One line, or none."""
    if not published:
        return []
    return [
        f"{_sum(published)} never renamed, and published under the temporary name, which Proxmox does not list; to be "
        f"deleted, or renamed by hand where what wrote it had come to its end: {_names(published)}"
    ]


def describe(left: Sequence[LeftFile], why: str, state_dir: str) -> list[str]:
    """One line about those that are kept and one about the others. why: "S3 is down"."""
    lines = []
    if kept := [file for file in left if file.kept]:
        lines.append(
            f"{why}: {_sum(kept)} closed but not yet under a name in the bucket, and kept: the data is in the store, "
            f"the journal in {state_dir} knows it, and the next mount has the files again: {_names(kept)}"
        )
    if lost := [file for file in left if not file.kept]:
        lines.append(f"{_sum(lost)} still being written, and not published: {_names(lost)}")
    return lines


def _sum(files: Sequence[LeftFile]) -> str:
    size = sum(file.size for file in files)
    return f"{len(files)} file{'s' * (len(files) > 1)} ({human(size)}) {'were' if len(files) > 1 else 'was'}"


def _names(files: Sequence[LeftFile]) -> str:
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    return ", ".join(f"{file.path} ({human(file.size)})" for file in files[:_NAMED]) + more


def write(
    socket: str, left: Sequence[LeftFile], why: str, state_dir: str, *, published: Sequence[LeftFile] = ()
) -> None:
    """Never fails: the same is in the log."""
    document = {"why": why, "state_dir": state_dir, "left": _plain(left), "published": _plain(published)}
    try:
        descriptor = os.open(socket + _SUFFIX, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file)
    except OSError as error:
        log.debug("%s: %s", socket + _SUFFIX, error.strerror)


def _plain(files: Sequence[LeftFile]) -> list[dict[str, Any]]:
    return [asdict(file) for file in files]


def forget(socket: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(socket + _SUFFIX)


def read(socket: str) -> LastWords:
    """The file is gone then; without lines when everything is in the bucket, under its name."""
    try:
        with open(socket + _SUFFIX, encoding="utf-8") as file:
            document = json.loads(file.read(_MOST))
        left, published = ([LeftFile(**item) for item in document.get(kind, ())] for kind in ("left", "published"))
        words = LastWords(describe_published(published), describe(left, document["why"], document["state_dir"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return LastWords()
    forget(socket)
    return words
