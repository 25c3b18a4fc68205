"""Names, inodes and lookup counts."""

from __future__ import annotations

import pytest

from s3fsx.fs.attributes import Attributes
from s3fsx.fs.tree import ROOT, Directory, Tree

ATTRS = Attributes(0o644, 0, 0, 0)


@pytest.fixture
def tree() -> Tree:
    return Tree(ATTRS, limit=10)


def test_inodes_are_never_reused(tree: Tree) -> None:
    seen = {ROOT}
    for _ in range(5):
        node = tree.add_file(tree.root, "a", ATTRS)
        assert node.ino not in seen
        seen.add(node.ino)
    assert len(tree) == 2  # each took the place of the one before


def test_a_node_without_a_name_lives_while_the_kernel_or_a_handle_has_it(tree: Tree) -> None:
    node = tree.add_file(tree.root, "a", ATTRS)
    tree.looked_up(node)
    tree.looked_up(node)
    node.handles += 1
    tree.detach(node)
    assert node.unlinked
    assert not node.reachable
    assert "a" not in tree.root.children
    tree.forget(node.ino, 1)
    assert tree.get(node.ino) is node
    tree.forget(node.ino, 1)
    assert tree.get(node.ino) is node
    tree.released(node)
    assert tree.get(node.ino) is None
    tree.forget(node.ino, 1)  # of one that is gone: harmless


def test_a_named_node_survives_being_forgotten(tree: Tree) -> None:
    node = tree.add_file(tree.root, "a", ATTRS)
    tree.looked_up(node)
    tree.forget(node.ino, 5)  # more than it had
    assert node.lookups == 0
    assert tree.get(node.ino) is node
    tree.forget(ROOT, 1)
    assert tree.get(ROOT) is tree.root


def test_paths_and_moves(tree: Tree) -> None:
    d = tree.add_directory(tree.root, "d", ATTRS)
    e = tree.add_directory(d, "e", ATTRS)
    a = tree.add_file(e, "a", ATTRS)
    assert (tree.root.path, a.path) == ("", "d/e/a")
    assert a.reachable
    tree.move(e, tree.root, "f")
    assert a.path == "f/a"
    assert list(d.children) == []
    b = tree.add_file(tree.root, "b", ATTRS)
    tree.move(b, e, "a")
    assert b.path == "f/a"
    assert a.unlinked
    assert tree.get(a.ino) is None
    tree.move(b, e, "a")  # onto itself
    assert e.children == {"a": b}


def test_a_detached_node_that_gets_a_name_again_is_not_unlinked(tree: Tree) -> None:
    node = tree.add_file(tree.root, "a", ATTRS)
    tree.looked_up(node)
    tree.detach(node)
    tree.move(node, tree.root, "b")
    assert not node.unlinked
    assert node.reachable


def test_a_detached_directory_takes_everything_below_it_along(tree: Tree) -> None:
    d = tree.add_directory(tree.root, "d", ATTRS)
    e = tree.add_directory(d, "e", ATTRS)
    held = tree.add_file(e, "held", ATTRS)
    tree.add_file(e, "a", ATTRS)
    held.handles += 1
    tree.detach(d)
    assert set(tree.nodes) == {ROOT, held.ino}
    assert not held.reachable
    tree.released(held)
    assert set(tree.nodes) == {ROOT}


def test_trim_spares_what_is_held_or_permanent_and_what_is_sealed_where_that_is_enough(tree: Tree) -> None:
    old = tree.add_directory(tree.root, "old", ATTRS)
    fresh = tree.add_directory(tree.root, "fresh", ATTRS)
    content = tree.add_directory(tree.root, "content", ATTRS)
    content.permanent = True
    fresh.sealed_until = 100.0
    for directory in (fresh, old):
        for i in range(5):
            tree.add_file(directory, str(i), ATTRS)
    looked, opened, failed = (old.children[str(i)] for i in range(3))
    tree.looked_up(looked)
    opened.handles += 1
    failed.failed = ValueError()  # type: ignore[attr-defined]
    tree.limit = 12
    assert tree.trim(50.0)
    assert list(old.children) == ["0", "1", "2"]
    assert len(fresh.children) == 5
    assert "content" in tree.root.children
    assert set(tree.nodes) == {ROOT, *(n.ino for d in (tree.root, old, fresh) for n in d.children.values())}
    tree.limit = 11
    fresh.handles += 1
    assert not tree.trim(50.0)  # somebody reads it
    fresh.handles -= 1
    assert tree.trim(50.0)
    assert fresh.children == {}
    assert fresh.sealed_until == 50.0  # what is missing now is no proof any more


def test_what_only_the_kernel_remembers(tree: Tree) -> None:
    old = tree.add_directory(tree.root, "old", ATTRS)
    fresh = tree.add_directory(tree.root, "fresh", ATTRS)
    fresh.sealed_until = 100.0
    for directory in (fresh, old):
        for i in range(5):
            tree.looked_up(tree.add_file(directory, str(i), ATTRS))
    old.children["1"].handles += 1
    old.children["2"].lookups = 0
    assert [node.path for node in tree.held_needlessly(50.0, 100)] == ["old/0", "old/3", "old/4"]
    assert [node.path for node in tree.held_needlessly(50.0, 2)] == ["old/0", "old/3"]
    assert len(tree.held_needlessly(100.0, 100)) == 8


def test_below_the_limit_nothing_is_trimmed(tree: Tree) -> None:
    directory = tree.add_directory(tree.root, "d", ATTRS)
    tree.add_file(directory, "a", ATTRS)
    tree.trim(1e9)
    assert isinstance(tree.root.children["d"], Directory)
    assert list(directory.children) == ["a"]
