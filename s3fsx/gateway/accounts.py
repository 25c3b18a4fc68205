"""Who may do what. Pure.

A user has keys and rights. The right to a bucket is ``rw`` or ``ro``, by a pattern of names; a user without ``admin``
also has all rights to the buckets it has made. An admin has all rights to all.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from .acl import ANONYMOUS

READ, WRITE = "ro", "rw"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_ACCESS = re.compile(r"[A-Za-z0-9_.+=@-]{3,128}")
_PATTERN = re.compile(r"[a-z0-9.*?-]{1,63}")
_SECRET = re.compile(r"[!-~]{8,128}")


@dataclass(frozen=True, slots=True)
class User:
    """buckets: pattern -> ro or rw; read_only: nothing can be changed, whatever the rest says."""

    name: str
    buckets: Mapping[str, str] = field(default_factory=dict)
    admin: bool = False
    read_only: bool = False

    def may_read(self, bucket: str, owner: str) -> bool:
        return self.admin or owner == self.name or any(fnmatch.fnmatchcase(bucket, name) for name in self.buckets)

    def may_write(self, bucket: str, owner: str) -> bool:
        if self.read_only:
            return False
        granted = (right for name, right in self.buckets.items() if fnmatch.fnmatchcase(bucket, name))
        return self.admin or owner == self.name or WRITE in granted

    def may_create(self, bucket: str) -> bool:
        """Without patterns a user makes buckets of any name, else those that it may write to."""
        return not self.read_only and (self.admin or not self.buckets or self.may_write(bucket, ""))


NOT_SIGNED = User(ANONYMOUS, read_only=True)  # may do what a list grants to all


@dataclass(frozen=True, slots=True)
class Accounts:
    """keys: access key -> (user's name, secret)."""

    users: Mapping[str, User] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)

    def find(self, access: str) -> tuple[User, str] | None:
        found = self.keys.get(access)
        return None if found is None else (self.users[found[0]], found[1])

    def merged(self, other: Accounts) -> Accounts:
        """Raises ConfigError for one name with two rights: its keys here would have those that it has there."""
        for name in self.users.keys() & other.users.keys():
            if self.users[name] != other.users[name]:
                raise ConfigError(f"the keys of the access key file are those of an admin {name!r}; rm that user")
        return Accounts({**self.users, **other.users}, {**self.keys, **other.keys})


def parse(text: str, origin: str) -> Accounts:
    """Of ``dump``. Raises ConfigError; no message quotes a secret."""
    try:
        document = json.loads(text)
        users, keys = {}, {}
        for name, fields in document["users"].items():
            users[name] = checked(
                User(name, dict(fields.get("buckets", {})), fields["admin"] is True, fields["read_only"] is True)
            )
            for access, secret in fields["keys"].items():
                keys[access] = (name, str(secret))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{origin}: not a file of gateway users") from None
    return Accounts(users, keys)


def dump(accounts: Accounts) -> str:
    users: dict[str, Any] = {
        user.name: {
            "admin": user.admin,
            "read_only": user.read_only,
            "buckets": dict(user.buckets),
            "keys": {access: secret for access, (name, secret) in accounts.keys.items() if name == user.name},
        }
        for user in accounts.users.values()
    }
    return json.dumps({"users": users}, indent=2) + "\n"


def checked(user: User) -> User:
    """Raises ConfigError."""
    if user.name == ANONYMOUS:
        raise ConfigError(f"user {user.name}: this is the id of requests without a key")
    if not _NAME.fullmatch(user.name):
        raise ConfigError(f"user {user.name[:70]!r}: letters, digits and . _ @ -, at most 64")
    for pattern, right in user.buckets.items():
        if not _PATTERN.fullmatch(pattern) or right not in (READ, WRITE):
            given = f"{pattern[:70]}:{right[:10]}" if right else pattern[:70]
            raise ConfigError(f"right {given!r}: a bucket's name, with * and ?, then :ro or :rw")
    return user


def check_key(access: str, secret: str) -> None:
    """Raises ConfigError."""
    if not _ACCESS.fullmatch(access):
        raise ConfigError("access key: 3 to 128 letters, digits and _ . + = @ -")
    if not _SECRET.fullmatch(secret):
        raise ConfigError("secret key: 8 to 128 printable ASCII characters without spaces")


def of_lines(text: str, origin: str, name: str = "admin") -> Accounts:
    """ACCESS:SECRET on each line, as s3fs has it; all keys of one user with all rights. Raises ConfigError."""
    keys = {}
    for line in text.splitlines():
        line = line.strip()
        if line and line[0] not in "#;":
            access, _, secret = line.partition(":")
            try:
                check_key(access.strip(), secret.strip())
            except ConfigError as error:
                raise ConfigError(f"{origin}: lines ACCESS:SECRET are needed; {error}") from None
            keys[access.strip()] = (name, secret.strip())
    if not keys:
        raise ConfigError(f"{origin}: no keys in it; write a line ACCESS:SECRET")
    return Accounts({name: User(name, admin=True)}, keys)
