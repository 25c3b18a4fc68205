from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.browse import tables
from s3fsx.browse.names import choose, parse
from s3fsx.errors import ConfigError

VM = "vzdump-qemu-100-2026_11_20-13_15_26.vma.zst"
CT = "vzdump-lxc-101-2026_11_20-13_15_26.tar.gz"


@pytest.fixture
def vienna(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Vienna")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_backup(vienna: None) -> None:
    archive = parse(VM)
    assert archive is not None
    assert (archive.kind, archive.vmid, archive.guest) == ("qemu", 100, "vm/100")
    assert (archive.format, archive.compression) == ("vma", "zst")
    assert archive.when == 1_763_640_926 + 365 * 86400  # 12:15:26 UTC
    assert archive.log == "vzdump-qemu-100-2026_11_20-13_15_26.log"
    assert archive.notes == f"{VM}.notes"
    assert archive.protected == f"{VM}.protected"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (CT, ("lxc", 101, True, "tar", "gz")),
        ("vzdump-openvz-777-2011_01_01-00_00_00.tgz", ("openvz", 777, True, "tar", "gz")),
        ("vzdump-qemu-100-2026_11_20-13_15_26.vma", ("qemu", 100, True, "vma", "")),
        ("vzdump-qemu-100-2026_11_20-13_15_26.tar.bz2", ("qemu", 100, True, "tar", "bz2")),
        ("vzdump-qemu-100-before-upgrade.vma.lzo", ("qemu", 100, False, "vma", "lzo")),
        ("vzdump-qemu-100-2026_02_30-13_15_26.vma", ("qemu", 100, False, "vma", "")),
        ("vzdump-qemu-99-2026_11_20-13_15_26.vma", ("qemu", None, False, "vma", "")),
        ("mine.vma.zst", ("", None, False, "vma", "zst")),
    ],
)
def test_other_names(name: str, expected: tuple[str, int | None, bool, str, str]) -> None:
    archive = parse(name)
    assert archive is not None
    assert expected == (
        archive.kind,
        archive.vmid,
        archive.when is not None,
        archive.format,
        archive.compression,
    )
    assert bool(archive.log) == (archive.when is not None)


@pytest.mark.parametrize("name", [f"{VM}.notes", f"{VM}.protected", "x.log", "x.dat", "a.iso", "", ".vma", "x.vma.dat"])
def test_what_is_no_backup(name: str) -> None:
    assert parse(name) is None


@given(st.text(max_size=80))
def test_any_name(name: str) -> None:
    archive = parse(name)
    assert archive is None or archive.name == name


@pytest.mark.parametrize("text", [VM, f"dump/{VM}", f"backup/{VM}", f"/dump/{VM}", "qemu-100", "100-2026_11_20"])
def test_choosing(text: str) -> None:
    assert choose(text, [VM, CT]) == VM


def test_a_whole_name_is_no_part_of_another() -> None:
    assert choose(VM[:-4], [VM[:-4], VM]) == VM[:-4]


def test_what_is_ambiguous_lists_the_candidates() -> None:
    names = [f"vzdump-qemu-100-2026_11_{day:02}-13_15_26.vma" for day in range(1, 10)]
    with pytest.raises(ConfigError, match=r"which one\? \S*11_01-\S+, .*_05-13_15_26.vma and 4 more$"):
        choose("qemu-100", names)
    for nothing in ("lxc-100", ""):
        with pytest.raises(ConfigError, match="no such backup"):
            choose(nothing, names)


def test_names_that_a_terminal_would_obey() -> None:
    assert tables.safe("a\nb\x1b[31m\u202e") == "a\\nb\\x1b[31m\\u202e"
    assert tables.safe("\udcff") == "\\udcff"
    assert tables.safe("x" * 50, 40) == "x" * 39 + "…"


@given(st.lists(st.lists(st.text(max_size=10), min_size=3, max_size=3), min_size=1, max_size=5))
def test_columns_are_lines(rows: list[list[str]]) -> None:
    rows = [[tables.safe(cell) for cell in row] for row in rows]
    lines = list(tables.columns(rows, right=(1,)))
    assert len(lines) == len(rows)
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 40, "1.0 TiB"), ((1 << 20) - 1, "1.0 MiB")],
)
def test_sizes(size: int, text: str) -> None:
    assert tables.human(size) == text
