"""What ``s3fsx config show`` and ``s3fsx status`` print. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .config import Effective
from .settings import SCHEMA, SECTIONS, show


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
    """A JSON document as indented ``name  value`` lines."""
    for name, value in document.items():
        label = f"{' ' * indent}{name}"
        if isinstance(value, Mapping):
            yield label
            yield from status_lines(value, indent + 2)
        elif isinstance(value, list):
            yield f"{label:28} {', '.join(map(_scalar, value)) or '-'}"
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
