"""The result of a drill for node_exporter's textfile collector: a file that is there whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Mapping

from ..errors import ConfigError
from .drill import Result

_PREFIX = "s3fsx_drill_"
_LAST_SUCCESS = f"{_PREFIX}last_success_timestamp_seconds"
_OURS = re.compile(rf"(?:# (?:HELP|TYPE) )?{_PREFIX}(?!done\b)[a-z_]+[ {{]")
_HELP = {
    "done": "1 when the last drill came to an end, good or not; 0 when it tells nothing of any backup.",
    "last_run_timestamp_seconds": "When a backup was last restored as a drill.",
    "success": "1 when that backup could be restored to its end, else 0.",
    "duration_seconds": "How long it took.",
    "read_bytes": "Bytes of the archive that were read.",
    "restored_bytes": "What they became, decompressed.",
    "verified": "1 when every byte was also compared with the checksums made at writing.",
    "backup_timestamp_seconds": "When that backup was made.",
    "backup_info": "Which backup it was; always 1.",
    "last_success_timestamp_seconds": "When a drill last succeeded; 0 for never.",
}


def render(source: str, result: Result | None, now: float, before: str) -> str:
    """Prometheus' text format. result: None for a drill that could not be done: what ``before``, the file as it was,
    says of the last one that was stays. Pure."""
    if result is None:
        kept = [line for line in before.splitlines() if _OURS.match(line)]
        return "\n".join([*kept, *_lines("done", {"source": source}, 0)]) + "\n"
    archive = result.backup.archive
    values: dict[str, float] = {
        "done": 1,
        "last_run_timestamp_seconds": now,
        "success": result.good,
        "duration_seconds": round(result.seconds, 3),
        "read_bytes": result.read,
        "restored_bytes": result.restored,
        "verified": result.verified,
        "backup_timestamp_seconds": result.backup.when,
        "backup_info": 1,
        "last_success_timestamp_seconds": now if result.good else last_success(before),
    }
    lines = []
    for name, value in values.items():
        labels = {"source": source}
        if name == "backup_info":
            labels |= {"backup": archive.name, "guest": archive.guest}
        lines += _lines(name, labels, value)
    return "\n".join(lines) + "\n"


def _lines(name: str, labels: Mapping[str, str], value: float) -> list[str]:
    text = ",".join(f'{label}="{_escaped(given)}"' for label, given in labels.items())
    return [
        f"# HELP {_PREFIX}{name} {_HELP[name]}",
        f"# TYPE {_PREFIX}{name} gauge",
        f"{_PREFIX}{name}{{{text}}} {_number(value)}",
    ]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def last_success(text: str) -> float:
    """Out of a file that ``render`` made; 0 where it does not say. Pure."""
    match = re.search(rf"^{_LAST_SUCCESS}(?:\{{.*\}})? ([0-9.]{{1,20}})$", text, re.MULTILINE)
    try:
        return float(match[1]) if match else 0.0
    except ValueError:
        return 0.0


def require_writable(path: str) -> None:
    """Raises ConfigError where a file can never be written there."""
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise ConfigError(f"--textfile {path}: a directory; it takes DIR/NAME.prom")
    if not os.path.isdir(directory):
        raise ConfigError(f"--textfile {path}: there is no directory {directory}")
    if not os.access(directory, os.W_OK):
        raise ConfigError(f"--textfile {path}: no right to write into {directory}")


def write(path: str, source: str, result: Result | None) -> None:
    """Blocks. Readable for node_exporter, which runs as a user of its own. Raises ConfigError."""
    try:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                before = file.read(1 << 16)
        except FileNotFoundError:
            before = ""
        text = render(source, result, time.time(), before)
        # The collector reads what ends in .prom.
        fd, temporary = tempfile.mkstemp(prefix=".s3fsx-", suffix=".tmp", dir=os.path.dirname(path) or ".")
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as e:
        raise ConfigError(f"--textfile {path}: {e.strerror}") from None
