"""Names, inodes and lookup counts: what the kernel and the last listings know. No await in this file.

Every change happens between two awaits of somebody else, so the tree needs no lock. A node is identified by its inode
number, never reused in the life of a mount. For files an inode stands for one *version* of an object: when a listing
shows another ETag under a name, that name gets a new inode, and whoever still has the old one open keeps the old
version (or gets ESTALE), never a mix.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from .attributes import Attributes
from .version import Version
from .writer import Writer

ROOT = 1


class Node:
    """attrs: permissions, owner and mtime as shown. lookups: what the kernel will forget. handles: open descriptors."""

    __slots__ = ("attrs", "handles", "ino", "lookups", "name", "parent")

    def __init__(self, ino: int, parent: Directory | None, name: str, attrs: Attributes) -> None:
        self.ino = ino
        self.parent = parent  # None: the root, or no longer reachable by a name
        self.name = name
        self.attrs = attrs
        self.lookups = 0
        self.handles = 0

    @property
    def reachable(self) -> bool:
        """The name leads here: it is the root, or its parent, which is reachable, has it under its name."""
        node: Node = self
        while node.parent is not None:
            if node.parent.children.get(node.name) is not node:
                return False
            node = node.parent
        return node.ino == ROOT

    @property
    def path(self) -> str:
        """Relative to the mount, "" for the root. Of an unlinked node: the last name it had."""
        names = []
        node: Node | None = self
        while node is not None and node.name:
            names.append(node.name)
            node = node.parent
        return "/".join(reversed(names))


class File(Node):
    """version: what is published (None: nothing yet). exact: attrs come from the object's metadata, not from a listing.
    writer: unpublished content. failed: why the last writer's bytes are lost; told at the next rename.
    cached_etag: the version whose pages the kernel may hold. created: made by us, not published yet, nothing was there.
    explicit: somebody set attributes that the published object may not have yet. writers: handles open for writing.
    deleted_size: what it had when it was deleted unpublished. direct_writers: those of ``writers`` for whom the kernel
    keeps no pages."""

    __slots__ = (
        "cached_etag",
        "created",
        "deleted_size",
        "direct_writers",
        "exact",
        "explicit",
        "failed",
        "unlinked",
        "version",
        "writer",
        "writers",
    )

    def __init__(self, ino: int, parent: Directory, name: str, attrs: Attributes) -> None:
        super().__init__(ino, parent, name, attrs)
        self.version: Version | None = None
        self.exact = False
        self.writer: Writer | None = None
        self.failed: Exception | None = None
        self.unlinked = False
        self.cached_etag = ""
        self.created = False
        self.deleted_size = 0
        self.direct_writers = 0
        self.explicit = False
        self.writers = 0

    @property
    def size(self) -> int:
        if self.writer is not None:
            return self.writer.size
        return self.version.size if self.version is not None else self.deleted_size


class Directory(Node):
    """sealed_until: monotonic time until which ``children`` is the whole truth about this directory, so that a missing
    name is answered without asking the store. probed: the same for single names. pages: of its last listing; of one
    that was not finished, as many as it may have. spent: on single names since then, in HEADs.
    marker: the object "dir/" is known to exist. permanent: exists without any object. just_read: and nobody has looked
    at one of its files since.
    changed: name -> monotonic time of our own change, which a listing begun before it must not undo."""

    __slots__ = ("changed", "children", "just_read", "marker", "pages", "permanent", "probed", "sealed_until", "spent")

    def __init__(self, ino: int, parent: Directory | None, name: str, attrs: Attributes) -> None:
        super().__init__(ino, parent, name, attrs)
        self.children: dict[str, Node] = {}
        self.sealed_until = -1.0
        self.probed: dict[str, float] = {}
        self.pages = 0
        self.spent = 0
        self.marker = False
        self.permanent = False
        self.just_read = False
        self.changed: dict[str, float] = {}

    def known_until(self, name: str) -> float:
        """Monotonic time until which ``children`` is the truth about this name."""
        return max(self.sealed_until, self.probed.get(name, -1.0))

    def distrust(self) -> None:
        """Nobody knows what is in it: the store is asked again."""
        self.sealed_until = -1.0
        self.probed.clear()


class Tree:
    """All nodes by inode. limit: how many there may be; who would add more looks to ``trim`` first."""

    def __init__(self, attrs: Attributes, limit: int) -> None:
        self._next = ROOT + 1
        self.limit = limit
        self.root = Directory(ROOT, None, "", attrs)
        self.nodes: dict[int, Node] = {ROOT: self.root}

    def __len__(self) -> int:
        return len(self.nodes)

    def get(self, ino: int) -> Node | None:
        return self.nodes.get(ino)

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def add_file(self, parent: Directory, name: str, attrs: Attributes) -> File:
        """A new file under a name, in place of what had that name."""
        node = File(self._number(), parent, name, attrs)
        self._put(parent, name, node)
        return node

    def add_directory(self, parent: Directory, name: str, attrs: Attributes) -> Directory:
        node = Directory(self._number(), parent, name, attrs)
        self._put(parent, name, node)
        return node

    def _put(self, parent: Directory, name: str, node: Node) -> None:
        old = parent.children.get(name)
        if old is not None and old is not node:
            self.detach(old)
        parent.children[name] = node
        self.nodes[node.ino] = node

    def detach(self, node: Node) -> None:
        """The node has no name any more; it lives on while the kernel or a handle has it."""
        parent = node.parent
        if parent is not None and parent.children.get(node.name) is node:
            del parent.children[node.name]
        if isinstance(node, File):
            node.unlinked = True
        elif isinstance(node, Directory):
            for child in list(node.children.values()):
                self.detach(child)
            node.parent = None
        self._drop_if_unused(node)

    def move(self, node: Node, parent: Directory, name: str) -> None:
        """Rename: the same inode under another name; what had that name is detached."""
        old_parent = node.parent
        if old_parent is not None and old_parent.children.get(node.name) is node:
            del old_parent.children[node.name]
        node.parent = parent
        node.name = name
        if isinstance(node, File):
            node.unlinked = False
        self._put(parent, name, node)

    def looked_up(self, node: Node) -> None:
        """The kernel was told this inode once more."""
        node.lookups += 1

    def forget(self, ino: int, count: int) -> None:
        node = self.nodes.get(ino)
        if node is None:
            return
        node.lookups = max(0, node.lookups - count)
        self._drop_if_unused(node)

    def _drop_if_unused(self, node: Node) -> None:
        """Only a node without a name goes at once; named ones are the listing cache and go with ``trim``."""
        reachable = node.ino == ROOT or (node.parent is not None and node.parent.children.get(node.name) is node)
        if not reachable and node.lookups == 0 and node.handles == 0:
            self.nodes.pop(node.ino, None)

    def released(self, node: Node) -> None:
        node.handles -= 1
        self._drop_if_unused(node)

    def files(self) -> Iterator[File]:
        return (node for node in list(self.nodes.values()) if isinstance(node, File))

    def trim(self, now: float) -> bool:
        """Above the limit: let go of names the kernel does not hold, first in directories whose listing is out of date,
        but in none that is being listed or read. False when that was not enough."""
        if len(self.nodes) <= self.limit:
            return True
        for directory in sorted(self._unused(), key=lambda each: each.sealed_until > now):
            if directory.sealed_until > now and len(self.nodes) <= self.limit:
                break
            for name, child in list(directory.children.items()):
                if not child.lookups and self._could_go(child):
                    del directory.children[name]
                    del self.nodes[child.ino]
                    directory.probed.pop(name, None)
                    directory.sealed_until = min(directory.sealed_until, now)
        return len(self.nodes) <= self.limit

    def held_needlessly(self, now: float, count: int) -> list[Node]:
        """Up to ``count`` files in directories out of date that only the kernel's memory of them keeps here."""
        found: list[Node] = []
        for directory in self._unused():
            if directory.sealed_until <= now:
                files = (child for child in directory.children.values() if isinstance(child, File))
                held = (child for child in files if child.lookups and self._could_go(child))
                found += itertools.islice(held, count - len(found))
        return found

    def _unused(self) -> list[Directory]:
        return [node for node in self.nodes.values() if isinstance(node, Directory) and not node.handles]

    @staticmethod
    def _could_go(node: Node) -> bool:
        if isinstance(node, Directory) and (node.children or node.permanent):
            return False
        if isinstance(node, File) and (node.writer is not None or node.failed is not None):
            return False
        return not node.handles
