"""The tables of docs/CONFIGURATION.md, from the schema: ``python -m s3fsx.configuration.configdoc FILE``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from .aliases import ALIASES
from .schema import SECTIONS
from .settings import SCHEMA

BEGIN = "<!-- begin: made by s3fsx/configuration/configdoc.py, do not edit -->"
END = "<!-- end -->"


def tables() -> str:
    """All settings by section, then all aliases, as Markdown."""
    return "\n".join([*_settings(), *_aliases()]) + "\n"


def updated(document: str) -> str:
    """The document with new tables between its two markers. Raises ValueError without them."""
    if document.count(BEGIN) != 1 or document.count(END) != 1:
        raise ValueError(f"needs the lines {BEGIN} and {END}, once each")
    before, _, rest = document.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{rest.partition(END)[2]}"


def _settings() -> Iterator[str]:
    for section, title in SECTIONS.items():
        yield f"### {title}\n"
        yield "| setting | type | default | allowed | what it does |"
        yield "|---|---|---|---|---|"
        for row in SCHEMA.values():
            if row.section == section:
                secret = " **Secret.**" if row.secret else ""
                cells = (f"`{row.name}`", row.kind.name, row.default or "empty", row.kind.allowed, row.help + secret)
                yield _row(*cells)
        yield ""


def _aliases() -> Iterator[str]:
    yield "### Other names\n"
    yield "| name | known from | means | |"
    yield "|---|---|---|---|"
    for name, alias in sorted(ALIASES.items(), key=lambda item: (item[1].target, item[0])):
        yield _row(f"`{name}`", alias.known_from, f"`{alias.target}`", alias.note)


def _row(*cells: str) -> str:
    return "| " + " | ".join(re.sub(r"([|<>])", r"\\\1", cell) for cell in cells) + " |"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(updated(path.read_text()))
