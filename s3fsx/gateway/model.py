"""What a backend tells and is told: buckets, objects, uploads, pages of listings. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

NULL = "null"  # the version of what was written without versioning
GOVERNANCE, COMPLIANCE = "GOVERNANCE", "COMPLIANCE"


@dataclass(frozen=True, slots=True)
class Bucket:
    """created: ns since the epoch. settings: documents by their name ("versioning", "lifecycle", ...)."""

    name: str
    created: int
    owner: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def versioning(self) -> str:
        """ "", Enabled or Suspended."""
        return str(self.settings.get("versioning", ""))


@dataclass(frozen=True, slots=True)
class Part:
    """Of an upload, or of the object it became. etag: without quotes; checksum: in base64; modified: ns."""

    number: int
    size: int
    etag: str
    modified: int = 0
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Object:
    """A version of an object, or a marker of its deletion.

    modified: ns since the epoch; etag: without quotes; headers: Content-Type and its like, lower-case names;
    metadata: names without ``x-amz-meta-``; until: seconds since the epoch, of the retention; upload: of which it was
    completed; acl: (grantee, permission), None: the owner may do all.
    """

    key: str
    size: int
    etag: str
    modified: int
    version: str = NULL
    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[tuple[str, str], ...] = ()
    algorithm: str = ""
    checksum: str = ""
    checksum_type: str = ""
    parts: tuple[Part, ...] = ()
    owner: str = ""
    upload: str = ""
    marker: bool = False
    latest: bool = True
    mode: str = ""
    until: int = 0
    hold: bool = False
    acl: tuple[tuple[str, str], ...] | None = None

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            name: getattr(self, name)
            for name in Object.__dataclass_fields__
            if name not in ("size", "latest", "parts", "acl") and getattr(self, name)
        }
        if self.acl is not None:
            document["acl"] = [list(grant) for grant in self.acl]
        if self.parts:
            document["parts"] = [[part.number, part.size, part.etag, part.checksum] for part in self.parts]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any], size: int) -> Object:
        """Raises KeyError, TypeError, ValueError for what ``to_json`` has not made."""
        fields = dict(document)
        parts = tuple(Part(n, length, etag, 0, checksum) for n, length, etag, checksum in fields.pop("parts", ()))
        tags = tuple((str(name), str(value)) for name, value in fields.pop("tags", ()))
        if (acl := fields.pop("acl", None)) is not None:
            fields["acl"] = tuple((str(who), str(permission)) for who, permission in acl)
        return cls(size=size, parts=parts, tags=tags, **{"etag": "", **fields})

    def with_latest(self, latest: bool) -> Object:
        return replace(self, latest=latest)


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload. attributes: what the object shall have; its etag and size are of no meaning."""

    id: str
    attributes: Object
    initiated: int

    @property
    def key(self) -> str:
        return self.attributes.key


@dataclass(frozen=True, slots=True)
class Query:
    """Of a listing. after: a key; versions of it after ``after_version``, too, where that is given."""

    prefix: str = ""
    delimiter: str = ""
    after: str = ""
    after_mark: str = ""  # of versions and uploads: the last one told of the key ``after``
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """entries and prefixes in key order. next_key: "" at the end; else the last key or prefix told."""

    entries: tuple[Object, ...] = ()
    prefixes: tuple[str, ...] = ()
    next_key: str = ""
    next_mark: str = ""


@dataclass(frozen=True, slots=True)
class UploadPage:
    uploads: tuple[Upload, ...] = ()
    prefixes: tuple[str, ...] = ()
    next_key: str = ""
    next_mark: str = ""


@dataclass(frozen=True, slots=True)
class Deleted:
    """version: that was deleted, or of the marker that was made; "" without versioning."""

    version: str = ""
    marker: bool = False
