"""Which key a path has, and which path a key has.

Paths are relative to the mount, ``/``-separated, without leading or trailing slash; "" is the root.
Keys are what the bucket holds. The law of this module: ``key`` is injective and ``path_of`` is its inverse,
so no object is reachable under two names and no path reaches outside the prefix. A path whose key belongs to
another path (because a content directory was mapped there) or to s3fsx itself is *hidden*: it cannot be
named, listed or created.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .errors import ConfigError, FileSystemError

# The directories pve-storage looks for in every directory storage (PVE/Storage/Plugin.pm, $vtype_subdirs),
# and "template", which holds two of them. They exist without any object.
CONTENT_DIRS = ("dump", "images", "import", "private", "snippets", "template", "template/cache", "template/iso")

# The one name below the prefix that belongs to s3fsx (probe objects); never listed.
INTERNAL = ".s3fsx"

MAX_NAME = 255  # bytes of UTF-8, NAME_MAX of Linux
MAX_KEY = 1024  # bytes of UTF-8, Amazon S3 User Guide, "Naming Amazon S3 objects"


def check_name(name: str) -> None:
    """Raise FileSystemError unless ``name`` can be one component of a path.

    ENAMETOOLONG over 255 bytes of UTF-8; EILSEQ when it is not UTF-8 (lone surrogates, as
    ``os.fsdecode`` makes them); EINVAL for "", ".", "..", a NUL or a slash.
    """
    if fault := _name_fault(name):
        raise FileSystemError(fault, f"{name[:64]!r} cannot be a file name")


def check_key(key: str) -> None:
    """Raise FileSystemError ENAMETOOLONG for a key of more than 1024 bytes of UTF-8."""
    if len(key.encode()) > MAX_KEY:
        raise FileSystemError(errno.ENAMETOOLONG, f"the key {key[:64]!r}... is longer than {MAX_KEY} bytes")


def _name_fault(name: str) -> int:
    """0, or the errno that says what is wrong with the name."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        return errno.EINVAL
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return errno.EILSEQ
    return errno.ENAMETOOLONG if size > MAX_NAME else 0


def _within(path: str, directory: str) -> bool:
    """True when path is the directory itself or below it."""
    return path == directory or path.startswith(directory + "/")


@dataclass(frozen=True)
class Layout:
    """The key prefix of the mount, and content directories that live elsewhere below it.

    prefix: "" or "a/b/"; a missing last slash is added.
    mapping: content directory -> key prefix below ``prefix``, such as ``{"dump": "backup", "template/iso": "iso"}``
        for buckets that other tools filled. What the bucket holds at a mapped directory's usual place is hidden.

    Raises ConfigError for anything ambiguous: two directories in one place or inside each other (except below
    their own parent), unknown directories, "..", ".s3fsx".
    """

    prefix: str = ""
    mapping: Mapping[str, str] = field(default_factory=dict, hash=False)
    _by_source: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)
    _by_target: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        prefix = self.prefix.removesuffix("/")
        if prefix or self.prefix:
            _check_config_path(prefix, "prefix")
        if len(prefix.encode()) > MAX_KEY - MAX_NAME - 1:
            raise ConfigError(f"prefix is longer than {MAX_KEY - MAX_NAME - 1} bytes: no room for file names")
        mapping: dict[str, str] = {}
        for source, target in self.mapping.items():
            if source not in CONTENT_DIRS:
                raise ConfigError(f"layout: {source!r} is not a content directory ({', '.join(CONTENT_DIRS)})")
            target = target.removesuffix("/")
            _check_config_path(target, f"layout: {source}")
            if target != source:
                mapping[source] = target
        set_once = object.__setattr__  # the dataclass is frozen; this is its constructor
        set_once(self, "prefix", prefix + "/" if prefix else "")
        set_once(self, "mapping", MappingProxyType(mapping))
        longest_first = sorted(mapping.items(), key=lambda item: len(item[0]), reverse=True)
        set_once(self, "_by_source", tuple(longest_first))
        longest_first.sort(key=lambda item: len(item[1]), reverse=True)
        set_once(self, "_by_target", tuple(longest_first))
        self._check_overlaps()

    def key(self, path: str) -> str:
        """The key of the file at ``path``.

        Raises FileSystemError: what ``check_name`` and ``check_key`` raise; EISDIR for a content directory;
        EPERM for a hidden path.
        """
        if self.is_content(path):
            raise FileSystemError(errno.EISDIR, f"{path or '/'} is a content directory")
        return self._checked(path, "")

    def directory(self, path: str) -> str:
        """The prefix of the keys in the directory ``path``; ends in "/" except for an empty root. Raises as ``key``."""
        return self._checked(path, "/") if path else self.prefix

    def is_content(self, path: str) -> bool:
        """True for directories that exist without any object: the content directories and the root."""
        return path == "" or path in CONTENT_DIRS

    def holds_content(self, path: str) -> bool:
        """True when the keys below the directory are, or include, those of a content directory mapped there or not."""
        prefix = self.directory(path)
        return self.is_content(path) or any(self.directory(content).startswith(prefix) for content in CONTENT_DIRS)

    def is_hidden(self, path: str) -> bool:
        """True when the path is reserved or its key belongs to another path; looking it up must find nothing."""
        return self._unroute(self._route(path)) != path

    def content_children(self, path: str) -> tuple[str, ...]:
        """Names of the content directories directly in the directory ``path``."""
        lead = path + "/" if path else ""
        return tuple(
            d[len(lead) :] for d in CONTENT_DIRS if d != path and d.startswith(lead) and "/" not in d[len(lead) :]
        )

    def path_of(self, key: str) -> str | None:
        """The path of the file whose key this is; None when the key is outside, hidden or cannot be a path."""
        if not key.startswith(self.prefix):
            return None
        path = self._unroute(key[len(self.prefix) :])
        if path is None or self.is_content(path) or any(_name_fault(name) for name in path.split("/")):
            return None
        return path if len(key.encode()) <= MAX_KEY else None

    def entry(self, directory_path: str, key: str) -> tuple[str, bool] | None:
        """The name, and whether it is a directory, of one key or common prefix (it ends in "/") in the listing
        of a directory. None: the directory's own marker, hidden, or impossible as a name.

        Content directories may show up here or not; list them from ``content_children``.
        """
        base = self._route(directory_path)
        base = self.prefix + base + "/" if base else self.prefix
        if not key.startswith(base):
            return None
        name = key[len(base) :]
        is_directory = name.endswith("/")
        name = name.removesuffix("/")
        if _name_fault(name):
            return None
        path = f"{directory_path}/{name}" if directory_path else name
        if self._unroute(key[len(self.prefix) :].removesuffix("/")) != path:
            return None
        if not is_directory and self.is_content(path):
            return None
        return (name, is_directory) if len(key.encode()) <= MAX_KEY else None

    @property
    def internal(self) -> str:
        """The prefix of s3fsx's own keys."""
        return f"{self.prefix}{INTERNAL}/"

    def _checked(self, path: str, tail: str) -> str:
        for name in path.split("/"):
            check_name(name)
        if self.is_hidden(path):
            raise FileSystemError(errno.EPERM, f"{path!r} is reserved: its key belongs to another path")
        key = self.prefix + self._route(path) + tail
        check_key(key)
        return key

    def _route(self, path: str) -> str:
        """Path -> key below the prefix, hidden or not."""
        for source, target in self._by_source:
            if _within(path, source):
                return target + path[len(source) :]
        return path

    def _unroute(self, key: str) -> str | None:
        """Key below the prefix -> the only path that may have it, None when there is none."""
        path = key
        for source, target in self._by_target:
            if _within(key, target):
                path = source + key[len(target) :]
                break
        if _within(path, INTERNAL) or self._route(path) != key:
            return None
        return path

    def _check_overlaps(self) -> None:
        for outer in CONTENT_DIRS:
            for inner in CONTENT_DIRS:
                if inner == outer:
                    continue
                above, below = self._route(outer), self._route(inner)
                if above == below or (_within(below, above) and not _within(inner, outer)):
                    raise ConfigError(f"layout: {outer} ({above}/) and {inner} ({below}/) overlap in the bucket")


def _check_config_path(path: str, what: str) -> None:
    names = path.split("/")
    if any(_name_fault(name) for name in names):
        raise ConfigError(f"{what}: {path!r} must be names joined by single slashes, without '.' and '..'")
    if INTERNAL in names:
        raise ConfigError(f"{what}: {path!r} contains {INTERNAL}, which s3fsx keeps for itself")
