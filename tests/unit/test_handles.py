"""Which handles the kernel keeps pages for: never both kinds while a file is written."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from s3fsx.errors import FileSystemError
from s3fsx.fs.attributes import Attributes
from s3fsx.fs.files import Handle
from s3fsx.fs.tree import File, Tree
from s3fsx.kernel.handles import Handles

ATTRS = Attributes(0o644, 0, 0, 0)
CALLER: Any = SimpleNamespace(pid=7)


@pytest.fixture
def file() -> File:
    tree = Tree(Attributes(0o755, 0, 0, 0), 100)
    return tree.add_file(tree.root, "a", ATTRS)


def opened(handles: Handles, file: File, flags: int) -> tuple[int, bool]:
    file.handles += 1
    info = handles.add(Handle(file, flags), CALLER)
    return info.fh, info.direct_io


def close(handles: Handles, file: File, number: int) -> None:
    handles.remove(number)
    file.handles -= 1


def test_a_program_that_only_writes_needs_no_pages(file: File) -> None:
    handles = Handles()
    number, direct = opened(handles, file, os.O_WRONLY)
    assert direct
    assert handles.get(number).opener == 7
    assert len(handles) == 1


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_who_reads_has_pages(file: File, flags: int) -> None:
    assert not opened(Handles(), file, flags)[1]


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_WRONLY])
def test_whoever_comes_while_one_writes_directly_does_as_he_does(file: File, flags: int) -> None:
    handles = Handles()
    first, _ = opened(handles, file, os.O_WRONLY)
    second, direct = opened(handles, file, flags)
    assert direct
    close(handles, file, first)
    assert opened(handles, file, os.O_RDONLY)[1] == (flags != os.O_RDONLY), "as long as somebody writes directly"
    close(handles, file, second)
    assert not file.direct_writers


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_a_writer_of_a_file_that_is_open_uses_its_pages(file: File, flags: int) -> None:
    handles = Handles()
    opened(handles, file, flags)
    assert not opened(handles, file, os.O_WRONLY)[1]
    assert not opened(handles, file, os.O_RDONLY)[1]


def test_a_number_that_was_closed_is_none(file: File) -> None:
    handles = Handles()
    number, _ = opened(handles, file, os.O_RDONLY)
    close(handles, file, number)
    with pytest.raises(FileSystemError):
        handles.get(number)
