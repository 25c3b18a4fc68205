"""What ``s3fsx config show`` and ``s3fsx status`` print. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from .config import Effective
from .settings import SCHEMA, SECTIONS, show

_TIMES = ("last_success", "down_since")  # Unix seconds


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


def status_lines(document: Mapping[str, object], indent: int = 0) -> Iterator[str]:
    """A JSON document as indented ``name  value`` lines, with times for people; what is empty is left out."""
    for name, value in document.items():
        if isinstance(value, Mapping | list) and not value:
            continue
        if name in _TIMES and isinstance(value, int | float):
            value = datetime.fromtimestamp(value).astimezone().isoformat(" ", "seconds")
        elif name.endswith("_s") and isinstance(value, int | float):
            name, value = name.removesuffix("_s"), elapsed(value)
        label = f"{' ' * indent}{name}"
        if isinstance(value, Mapping):
            yield label
            yield from status_lines(value, indent + 2)
        elif isinstance(value, list):
            yield f"{label:28} {', '.join(map(_scalar, value))}"
        else:
            yield f"{label:28} {_scalar(value)}"


def _scalar(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return str(value)
