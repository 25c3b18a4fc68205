"""An upgrade replaces the files of a daemon that runs on: what it needs it has loaded before it mounts."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "s3fsx"
# The commands import theirs late, before they begin; none of them runs beside a mount.
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "commands" not in path.parts)


def late(source: str) -> list[int]:
    """Lines of imports in functions."""
    functions = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    ]
    found = {
        node.lineno
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    return sorted(found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_is_imported_late(path: Path) -> None:
    assert late(path.read_text()) == []


def test_a_late_import_is_seen() -> None:
    assert late("import a\ndef f():\n    from . import b\n    async def g():\n        import c\n") == [3, 5]
