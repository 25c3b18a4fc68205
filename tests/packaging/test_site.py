"""The documents: a site without a warning, links that are right on the repository as well, a program that works."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from s3fsx.store.checksum import GRAIN, grain_crcs
from s3fsx.store.sums import PartSums, Sums
from tests.packaging.conftest import ROOT

DOCS = ROOT / "docs"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed: pip install '.[docs]'")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """mkdocs looks for the targets and anchors of all links, and for pages that the menu lacks."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", "contrib/site/mkdocs.yml"]
    done = subprocess.run(
        [*command, "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    pages = {page.stem for page in DOCS.glob("*.md")}
    assert {page.stem for page in (tmp_path / "site").glob("*.html")} - {"404", "search"} == pages


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text()):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.mark.parametrize("damage", ["none", "one byte", "cut short", "too long"])
def test_the_checker_that_needs_no_s3fsx(tmp_path: Path, damage: str) -> None:
    text = (DOCS / "WITHOUT_S3FSX.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "sums.py").write_text(program)
    parts = [bytes([number]) * (2 * GRAIN + number) for number in (1, 2, 3)]
    known = [PartSums(len(part), grain_crcs([part])) for part in parts]
    known[1] = PartSums(len(parts[1]), b"")  # not known: skipped, and only that
    (tmp_path / "sums").write_bytes(Sums("pve/dump/a", "0-3", known).encode())
    whole = bytearray(b"".join(parts))
    if damage == "one byte":
        whole[-1] ^= 1
    elif damage == "cut short":
        del whole[-1]
    elif damage == "too long":
        whole += b"x"
    (tmp_path / "file").write_bytes(whole)
    done = subprocess.run(
        [sys.executable, "sums.py", "file", "sums"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert (done.returncode == 0, done.stdout == "OK\n") == (damage == "none",) * 2
