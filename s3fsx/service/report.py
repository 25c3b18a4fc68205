"""What ``s3fsx config show`` prints, and times for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..configuration.config import Effective
from ..configuration.schema import SECTIONS
from ..configuration.settings import SCHEMA, show


def elapsed(seconds: float) -> str:
    """The two largest units: 7500 -> "2h 5m"."""
    left = round(seconds)
    units: list[str] = []
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, left = divmod(left, length)
        if count or units or unit == "s":
            units.append(f"{count}{unit}")
    return " ".join(units[:2])


def config_lines(effective: Mapping[str, Effective]) -> Iterator[str]:
    """Every setting with value and origin, by section; secrets masked."""
    shown = {name: show(name, item.value) or '""' for name, item in effective.items()}
    width = min(48, max(len(value) for value in shown.values()))
    for section, title in SECTIONS.items():
        yield f"# {title}"
        for name, item in effective.items():
            if SCHEMA[name].section == section:
                yield f"{name:18} = {shown[name]:{width}}  # {item.origin}"
