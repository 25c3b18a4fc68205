from __future__ import annotations

from pathlib import Path

import pytest

from s3fsx.configuration import configdoc
from s3fsx.configuration.aliases import ALIASES
from s3fsx.configuration.settings import SCHEMA

MANUAL = Path(__file__).parents[2] / "docs/CONFIGURATION.md"


def test_the_manual_is_current() -> None:
    text = MANUAL.read_text()
    assert configdoc.updated(text) == text, "run: python -m s3fsx.configuration.configdoc docs/CONFIGURATION.md"


def test_the_manual_has_every_name() -> None:
    text = MANUAL.read_text()
    assert [name for name in (*SCHEMA, *ALIASES) if f"| `{name}` |" not in text] == []


def test_markers_are_needed() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        configdoc.updated("# nothing\n")
