"""What the documents quote is what s3fsx says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def texts() -> list[str]:
    """Every piece of text in the package."""
    return [
        node.value
        for path in (ROOT / "s3fsx").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_what_troubleshooting_quotes_is_said() -> None:
    said = texts()
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / "TROUBLESHOOTING.md").read_text(), re.MULTILINE)
    quoted = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    pieces = {piece.strip() for text in quoted for piece in text.split("…") if len(piece.strip()) > 2}
    programs = {"/mnt/pve/NAME", "/var/tmp", "qemu-img", "rename_limit", "ls"}
    missing = {piece for piece in pieces - programs if not any(piece in text for text in said)}
    assert missing == set()
    assert len(pieces) > 25
