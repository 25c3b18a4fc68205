"""Making the tree agree with what the store told: one name, or a listing of a directory page by page.

Page by page, because a directory may have 100 000 entries: merged at once they would block the loop for a second, and
the answers kept until then would cost as much memory again as the nodes.
"""

from __future__ import annotations

from ..layout import Layout
from ..local.cache import MetadataCache
from ..store.objects import ListPage, ObjectInfo
from .attributes import Attributes, Defaults, from_metadata
from .tree import Directory, File, Node, Tree
from .version import Version


class Merger:
    """Single names. Never at the expense of content of ours that is not published yet."""

    def __init__(self, tree: Tree, layout: Layout, cache: MetadataCache | None, defaults: Defaults) -> None:
        self.layout = layout
        self.tree = tree
        self.directory_attrs = Attributes(defaults.dir_mode, defaults.uid, defaults.gid, 0)
        self._cache = cache
        self._defaults = defaults

    def only_here(self, node: Node) -> bool:
        """The store need not know this name: it is virtual, or not published yet."""
        if isinstance(node, Directory):
            virtual = self.layout.is_content(node.path)
            return virtual or any(self.only_here(child) for child in node.children.values())
        return isinstance(node, File) and node.writer is not None

    def _unpublished(self, node: Node | None) -> bool:
        """Has content of ours that would be lost if another entry took its name."""
        return self.only_here(node) if isinstance(node, Directory) else isinstance(node, File) and bool(node.writer)

    def directory(self, parent: Directory, name: str) -> None:
        child = parent.children.get(name)
        if not isinstance(child, Directory) and not self._unpublished(child):
            self.tree.add_directory(parent, name, self.directory_attrs)

    def file(self, parent: Directory, name: str, info: ObjectInfo) -> None:
        child = parent.children.get(name)
        if self._unpublished(child):
            return
        if isinstance(child, File) and child.version is not None and child.version.etag == info.etag:
            # HEAD tells whole seconds, LIST milliseconds; a metadata change elsewhere moves the time, not the ETag.
            if abs(child.version.modified - info.modified) >= 1.5 or info.metadata is not None:
                child.version.update(info)
                self.describe(child)
            return
        attrs = from_metadata(info.metadata, info.modified, self._defaults)
        child = self.tree.add_file(parent, name, attrs)
        child.version = Version(info)
        child.exact = info.metadata is not None
        if self._cache is not None:
            self._cache.put(info)  # a HEAD's; a listing tells no metadata

    def learned(self, file: File, info: ObjectInfo) -> None:
        """A HEAD (or our own publication) told everything about the published version."""
        if file.version is None or file.version.size != info.size:
            file.version = Version(info)
        else:
            file.version.update(info)
        self.describe(file)
        if self._cache is not None:
            self._cache.put(info)

    def describe(self, file: File) -> None:
        """Attributes from what is known of the published version."""
        version = file.version
        if version is None:
            return
        file.attrs = from_metadata(version.metadata, version.modified, self._defaults)
        file.exact = version.metadata is not None


class Merging:
    """One listing, begun at ``started``: what we changed ourselves since then it must not undo.

    hidden: keys that cannot be shown. marker: the object "dir/" is there.
    """

    def __init__(self, merger: Merger, directory: Directory, started: float) -> None:
        self.hidden = 0
        self.marker = False
        self._merger = merger
        self._directory = directory
        self._path = directory.path
        self._prefix = merger.layout.directory(self._path)
        self._started = started
        self._seen: set[str] = set()
        self._objects_beside: dict[str, ObjectInfo] = {}

    def _ours(self, name: str) -> bool:
        return self._directory.changed.get(name, -1.0) >= self._started

    def add(self, page: ListPage) -> None:
        """One page, in the order they come."""
        layout, children = self._merger.layout, self._directory.children
        for info in page.objects:
            entry = layout.entry(self._path, info.key)
            if info.key == self._prefix:
                self.marker = True
            elif entry is None or entry[1]:
                self.hidden += 1
            else:
                name = entry[0]
                self._seen.add(name)
                if isinstance(children.get(name), Directory):
                    self._objects_beside[name] = info  # "a/" may come after "a", on a later page: then it stays
                elif not self._ours(name):
                    self._merger.file(self._directory, name, info)
        for common in page.prefixes:
            entry = layout.entry(self._path, common)
            if entry is None:
                self.hidden += common != layout.internal
                continue
            name = entry[0]
            self.hidden += name in self._seen  # `a` beside `a/b`: only the directory can be shown
            self._objects_beside.pop(name, None)
            self._seen.add(name)
            if not self._ours(name):
                self._merger.directory(self._directory, name)

    def finish(self) -> None:
        """There are no more pages."""
        directory = self._directory
        for name, info in self._objects_beside.items():
            if not self._ours(name):
                self._merger.file(directory, name, info)
        for name, child in list(directory.children.items()):
            if name not in self._seen and not self._ours(name) and not self._merger.only_here(child):
                self._merger.tree.detach(child)
        directory.changed = {name: when for name, when in directory.changed.items() if when >= self._started}
