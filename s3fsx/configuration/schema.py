"""What a setting is: a field that carries its kind (type, unit, range, parser), its help text and the section of
docs/CONFIGURATION.md it is described in. Pure.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from .values import Kind

SECTIONS = {
    "store": "Bucket and endpoint",
    "credentials": "Credentials",
    "objects": "How objects are stored",
    "transfer": "Transfers",
    "deadlines": "Deadlines",
    "limits": "Memory and disk",
    "files": "Names, times and permissions",
    "daemon": "The daemon",
    "metrics": "Metrics",
}


def setting(
    default: Any,
    kind: Kind,
    section: str,
    help: str,
    *,
    secret: bool = False,
    in_repr: bool = True,
    default_text: str | None = None,
) -> Any:
    """A field of Settings. A callable default is called for each object; ``default_text`` then says it in words."""
    metadata = {"kind": kind, "section": section, "help": help, "secret": secret, "default_text": default_text}
    in_repr = in_repr and not secret
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata, repr=in_repr)
    return dataclasses.field(default=default, metadata=metadata, repr=in_repr)


@dataclass(frozen=True)
class Setting:
    """One row of the schema."""

    name: str
    kind: Kind
    default: str
    section: str
    help: str
    secret: bool


def row(field: dataclasses.Field[Any]) -> Setting:
    meta = field.metadata
    kind: Kind = meta["kind"]
    default = meta["default_text"]
    if default is None:
        default = kind.show(field.default)
    return Setting(field.name, kind, default, meta["section"], meta["help"], meta["secret"])
