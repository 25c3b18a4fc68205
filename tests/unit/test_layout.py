from __future__ import annotations

import errno

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from s3fsx.errors import ConfigError, FileSystemError
from s3fsx.layout import CONTENT_DIRS, INTERNAL, Layout, check_key, check_name

LAYOUTS = [
    Layout(),
    Layout("a/b/"),
    Layout("", {"dump": "backup", "template/iso": "iso"}),
    Layout("node1/", {"dump": "images", "images": "dump"}),
    Layout("", {"template": "tpl", "template/iso": "tpl/x", "snippets": "a/b/c"}),
    Layout("p/", {"template/cache": "template/lxc", "private": "template.d"}),
]
# Names that matter here: those of content directories, of mapping targets, and strange ones.
NAMES = st.one_of(
    st.sampled_from(
        [*{n for d in CONTENT_DIRS for n in d.split("/")}, "backup", "iso", "tpl", "x", "a", "b", "c", "lxc", INTERNAL]
    ),
    st.sampled_from(["a b", "a+b", "100%", "ü", "日本", "a\nb", "\\", "...", "-", "*", "template.d", "dump2"]),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60),
).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
HOSTILE = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            ["", ".", "..", "\0", "\ud800", INTERNAL, "a", "b", "dump", "iso", "tpl", "x", "é" * 128, "p", "node1"]
        ),
        max_size=6,
    ).map("/".join),
)
layouts = st.sampled_from(LAYOUTS)


def fits(path: str) -> bool:
    return all(len(name.encode()) <= 255 for name in path.split("/"))


@given(layouts, PATHS)
def test_every_path_has_its_own_key_or_is_refused(layout: Layout, path: str) -> None:
    assume(fits(path))
    if layout.is_hidden(path):
        with pytest.raises(FileSystemError) as caught:
            layout.directory(path)
        assert caught.value.errno == errno.EPERM
    elif layout.is_content(path):
        with pytest.raises(FileSystemError) as caught:
            layout.key(path)
        assert caught.value.errno == errno.EISDIR
    else:
        key = layout.key(path)
        assert key.startswith(layout.prefix)
        assert not key.startswith(layout.internal)
        assert layout.path_of(key) == path
        assert layout.directory(path) == key + "/"


@given(layouts, PATHS)
def test_a_listed_key_has_the_name_of_its_path(layout: Layout, path: str) -> None:
    assume(fits(path) and not layout.is_hidden(path) and not layout.is_content(path))
    parent, _, name = path.rpartition("/")
    assert layout.entry(parent, layout.key(path)) == (name, False)
    assert layout.entry(parent, layout.directory(path)) == (name, True)
    assert layout.entry(path, layout.directory(path)) is None  # its own marker


@given(layouts, HOSTILE)
def test_a_hostile_key_is_outside_or_maps_back_exactly(layout: Layout, key: str) -> None:
    path = layout.path_of(key)
    if path is not None:
        assert layout.key(path) == key
        assert not {"", ".", ".."} & set(path.split("/"))
        assert path.split("/")[0] != INTERNAL


@given(layouts, st.sampled_from(["", "dump", "template", "template/iso", "a", "a/b", "tpl"]), HOSTILE)
def test_a_hostile_entry_never_crashes_or_escapes(layout: Layout, directory: str, rest: str) -> None:
    found = layout.entry(directory, rest)
    assume(not layout.is_hidden(directory))
    found = layout.entry(directory, layout.directory(directory) + rest) or found
    if found is not None:
        name, is_directory = found
        check_name(name)
        path = f"{directory}/{name}" if directory else name
        assert layout.directory(path) if is_directory else layout.key(path)


@given(layouts, HOSTILE)
def test_a_hostile_path_gets_a_key_inside_or_an_errno(layout: Layout, path: str) -> None:
    key, code = None, 0
    try:
        key = layout.key(path)
    except FileSystemError as error:
        code = error.errno
    if key is None:
        assert code in (errno.EPERM, errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ, errno.EISDIR)
    else:
        assert layout.path_of(key) == path


@given(layouts, PATHS, PATHS)
def test_two_paths_never_share_a_key(layout: Layout, one: str, other: str) -> None:
    assume(one != other and fits(one) and fits(other))
    seen = {layout.key(p) for p in (one, other) if not layout.is_hidden(p) and not layout.is_content(p)}
    shown = [p for p in (one, other) if not layout.is_hidden(p) and not layout.is_content(p)]
    assert len(seen) == len(shown)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_content_directories_exist_in_every_layout_and_apart(layout: Layout) -> None:
    places = [layout.directory(d) for d in CONTENT_DIRS]
    assert len(set(places)) == len(CONTENT_DIRS)
    assert all(layout.is_content(d) and not layout.is_hidden(d) for d in CONTENT_DIRS)


def test_identity_keys() -> None:
    layout = Layout("pve/")
    assert layout.directory("") == "pve/"
    assert layout.key("dump/x.vma.zst") == "pve/dump/x.vma.zst"
    assert layout.directory("template/iso") == "pve/template/iso/"
    assert Layout().directory("") == ""
    assert Layout("pve").prefix == "pve/"
    assert layout.internal == "pve/.s3fsx/"


def test_content_children() -> None:
    layout = Layout("", {"dump": "backup"})
    assert layout.content_children("") == ("dump", "images", "import", "private", "snippets", "template")
    assert layout.content_children("template") == ("cache", "iso")
    assert layout.content_children("dump") == ()
    assert layout.is_content("")
    assert not layout.is_content("dump/x")


def test_mapped_directories_show_once_and_their_usual_place_not_at_all() -> None:
    layout = Layout("", {"dump": "backup", "template/iso": "iso"})
    assert layout.key("dump/a") == "backup/a"
    assert layout.path_of("iso/debian.iso") == "template/iso/debian.iso"
    assert layout.path_of("dump/a") is None
    assert layout.entry("", "backup/") is None
    assert layout.entry("", "backup") is None
    assert layout.entry("", "dump/") is None
    assert layout.entry("template", "template/iso/") is None
    assert layout.entry("", "images/") == ("images", True)
    assert layout.entry("", "backup2/") == ("backup2", True)
    with pytest.raises(FileSystemError):
        layout.key("iso/debian.iso")


def test_the_innermost_mapping_counts() -> None:
    for mapping in ({"template": "tpl", "template/iso": "tpl/x"}, {"template/iso": "tpl/x", "template": "tpl"}):
        layout = Layout("", mapping)
        assert layout.key("template/iso/a") == "tpl/x/a"
        assert layout.key("template/cache/a") == "tpl/cache/a"
        assert layout.path_of("tpl/x/a") == "template/iso/a"
        assert layout.path_of("tpl/iso/a") is None


def test_a_key_that_s3_cannot_hold_is_no_path() -> None:
    parent = "/".join(["x" * 200] * 5)
    assert Layout().path_of(f"{parent}/{'y' * 19}") == f"{parent}/{'y' * 19}"
    assert Layout().path_of(f"{parent}/{'y' * 20}") is None
    assert Layout().entry(parent, f"{parent}/{'y' * 19}") == ("y" * 19, False)
    assert Layout().entry(parent, f"{parent}/{'y' * 20}") is None


def test_what_cannot_be_a_name_is_not_listed() -> None:
    layout = Layout()
    for key in ("/", "./", "../", "..", "a\0", ".s3fsx/", ".s3fsx", "dump", "n" * 256):
        assert layout.entry("", key) is None
    assert layout.entry("dump", "dump/") is None
    assert layout.entry("dump", "dump//") is None
    assert layout.entry("dump", "images/x") is None
    assert layout.entry("dump", "dump/.s3fsx") == (".s3fsx", False)  # reserved at the root only
    assert layout.entry("", "n" * 255) == ("n" * 255, False)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", errno.EINVAL),
        (".", errno.EINVAL),
        ("..", errno.EINVAL),
        ("a/b", errno.EINVAL),
        ("a\0", errno.EINVAL),
        ("é" * 128, errno.ENAMETOOLONG),
        ("a\udcff", errno.EILSEQ),
    ],
)
def test_bad_names(name: str, code: int) -> None:
    with pytest.raises(FileSystemError) as caught:
        check_name(name)
    assert caught.value.errno == code


def test_lengths_are_counted_in_bytes() -> None:
    check_name("é" * 127)
    check_key("é" * 512)
    with pytest.raises(FileSystemError) as caught:
        check_key("é" * 512 + "a")
    assert caught.value.errno == errno.ENAMETOOLONG
    with pytest.raises(FileSystemError) as caught:
        Layout("p/").key("/".join(["x" * 200] * 6))
    assert caught.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize(
    ("prefix", "mapping"),
    [
        ("/", {}),
        ("/a", {}),
        ("a//b", {}),
        ("a/../b/", {}),
        ("a/.s3fsx/", {}),
        ("x" * 250 + "/" + "y" * 250 + "/" + "z" * 250 + "/" + "w" * 30, {}),
        ("", {"dumps": "x"}),
        ("", {"dump": ""}),
        ("", {"dump": "/"}),
        ("", {"dump": "/x"}),
        ("", {"dump": "../x"}),
        ("", {"dump": ".s3fsx/x"}),
        ("", {"dump": "images"}),
        ("", {"dump": "images/old"}),
        ("", {"dump": "template"}),
        ("", {"dump": "template/iso"}),
        ("", {"dump": "x", "images": "x/"}),
        ("", {"dump": "x", "images": "x/y"}),
        ("", {"template/iso": "template"}),
        ("", {"template/iso": "template/cache/iso"}),
        ("", {"template": "x", "dump": "x/iso"}),
    ],
)
def test_ambiguous_or_escaping_settings_are_refused(prefix: str, mapping: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        Layout(prefix, mapping)


def test_layout_is_not_changed_through_the_mapping_it_was_given() -> None:
    mapping = {"dump": "backup/"}
    layout = Layout("", mapping)
    mapping["dump"] = "other"
    assert layout.directory("dump") == "backup/"
    assert layout == Layout("", {"dump": "backup"})
