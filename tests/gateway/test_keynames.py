"""Keys as paths: one path for each key, no way out of the bucket, and the order of keys from the tree."""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3fsx.gateway.directory.names import Names
from s3fsx.gateway.directory.walk import Listings, Walk
from s3fsx.gateway.keynames import INTERNAL, to_path

SEGMENTS = st.one_of(
    st.sampled_from(
        ["", ".", "..", ".s3fsx-gateway", "%", "%_", "%~", "%+", "%2E", "a", "b", "a%", "ä" * 130, "x" * 240]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), max_size=8),
    st.text("ax%.", min_size=235, max_size=300),
)
KEYS = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join).filter(lambda k: 0 < len(k.encode()) <= 1024)


@given(KEYS)
def test_no_component_leads_elsewhere(key: str) -> None:
    for component in to_path(key.encode()):
        assert component not in (b"", b".", b"..", INTERNAL)
        assert b"/" not in component
        assert b"\0" not in component
        assert len(component) + 2 <= 255


@given(KEYS, KEYS)
def test_two_keys_have_two_paths(one: str, other: str) -> None:
    same = to_path(one.encode()) == to_path(other.encode())
    assert same == (one == other)


@settings(max_examples=60)
@given(st.sets(KEYS, max_size=12), st.data())
def test_a_tree_lists_as_a_sorted_set(keys: set[str], data: st.DataObject) -> None:
    """In any order of writing and deleting; from any place on; with any prefix."""
    with tempfile.TemporaryDirectory() as top:
        root = os.path.join(top, "b").encode()
        os.mkdir(root)
        names = Names(root)
        there: set[bytes] = set()
        for step, key in enumerate(data.draw(st.permutations(sorted(keys)))):
            _write(names, key.encode(), top, step)
            there.add(key.encode())
            if data.draw(st.booleans()):
                gone = data.draw(st.sampled_from(sorted(there)))
                names.remove(gone)
                there.remove(gone)
        for key_bytes in there:
            path = names.find(key_bytes)
            assert path is not None
            with open(path, "rb") as file:
                assert file.read() == key_bytes
        prefix = data.draw(st.sampled_from([b"", b"a", b"a/", b"/", b".", b"x" * 239, *there]))
        wanted = sorted(key for key in there if key.startswith(prefix))
        assert list(Walk(root, Listings(), prefix)) == wanted
        start = data.draw(st.one_of(st.sampled_from(sorted(there) or [b""]), KEYS.map(str.encode)))
        walk = Walk(root, Listings(), prefix)
        first = [next(walk, None)] if data.draw(st.booleans()) else []
        walk.seek(start)
        assert [*first, *walk] == [*wanted[: len(first)], *first[len(wanted) :]] + [
            key for key in wanted[len(first) :] if key >= start
        ]


def _write(names: Names, key: bytes, top: str, step: int) -> None:
    new = os.path.join(top, f"new{step}").encode()
    with open(new, "wb") as file:
        file.write(key)
    names.place(new, key)


@pytest.mark.parametrize("name", ["100%.txt", "%zz", "a%+", "%5F"])
def test_what_is_no_path_of_a_key_is_not_listed(name: str) -> None:
    with tempfile.TemporaryDirectory() as top:
        path = os.path.join(top, name)
        if name.endswith("+"):
            os.mkdir(path)
            path = os.path.join(path, "x")
        with open(path, "w"):
            pass
        assert list(Walk(top.encode(), Listings())) == []


def test_a_directory_that_was_listed_is_not_read_again_until_it_changes() -> None:
    with tempfile.TemporaryDirectory() as top:
        root = top.encode()
        with open(os.path.join(top, "a"), "w"):
            pass
        os.utime(top, ns=(10**18, 10**18))  # long ago
        listings = Listings()
        assert listings.level(root, root, b"") is listings.level(root, root, b"")
        with open(os.path.join(top, "b"), "w"):
            pass
        assert listings.level(root, root, b"") == [b"a", b"b"]
        assert listings.level(root, root, b"") is not listings.level(root, root, b"")  # it changed just now
