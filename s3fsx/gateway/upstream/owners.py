"""Whose the upstream's buckets are: a file beside the users, as the upstream has one key and so one owner of all."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping

from ...errors import ConfigError
from ..directory import files
from ..keynames import INTERNAL

_NAME = b"buckets.json"


def is_state(path: str) -> bool:
    """Of a gateway in front of another S3, and so no directory of buckets."""
    return os.path.exists(os.path.join(os.fsencode(path), INTERNAL, _NAME))


class Owners:
    """Everything here blocks."""

    def __init__(self, state: str) -> None:
        self._directory = os.path.join(os.fsencode(os.path.abspath(state)), INTERNAL)
        self._path = os.path.join(self._directory, _NAME)
        self._lock = -1
        self._owners: dict[str, str] = {}

    def claim(self) -> None:
        """For this process alone, and read. Raises ConfigError, OSError; BlockingIOError while another one has it."""
        files.make_directory(self._directory)
        self._lock = os.open(os.path.join(self._directory, b"lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            with open(self._path, "rb") as file:
                document = json.load(file)
            self._owners = {str(name): str(owner) for name, owner in document["owners"].items()}
        except FileNotFoundError:
            self._save({})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{os.fsdecode(self._path)}: not a file of a gateway's buckets") from None

    def release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def of(self, bucket: str) -> str:
        """ "": nobody's here; it was made at the upstream."""
        return self._owners.get(bucket, "")

    def add(self, bucket: str, owner: str) -> None:
        """On disk when this returns."""
        self._save({**self._owners, bucket: owner})

    def remove(self, bucket: str) -> None:
        if bucket in self._owners:
            self._save({name: owner for name, owner in self._owners.items() if name != bucket})

    def _save(self, owners: Mapping[str, str]) -> None:
        files.replace(self._path, json.dumps({"owners": owners}, indent=1).encode())
        self._owners = dict(owners)
