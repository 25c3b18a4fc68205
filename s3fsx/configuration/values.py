"""How one setting is read from what a person typed, and how it is shown again. Pure.

A ``Kind`` parses the raw value of a TOML file (str, int, float, bool, table), of the environment or of ``-o`` (str, or
True for an option without a value), and raises ValueError whose text says what is allowed; ``config`` adds where the
value came from. ``show`` gives the shortest text that ``parse`` reads back to the same value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

KIB, MIB, GIB, TIB, PIB, EIB = (1 << 10 * i for i in range(1, 7))

# As dd and GNU coreutils read them: M and MiB are 1024 squared, MB is 1000 squared.
_SIZE_UNITS: dict[str, int] = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtpe", 1):
    _SIZE_UNITS[_letter] = _SIZE_UNITS[_letter + "ib"] = 1024**_power
    _SIZE_UNITS[_letter + "b"] = 1000**_power
_DURATION_UNITS = {"ms": 0.001, "s": 1, "": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True, slots=True)
class Kind:
    """name: type and unit for the documentation; allowed: the range in words; parse and show as described above."""

    name: str
    allowed: str
    parse: Callable[[object], Any]
    show: Callable[[Any], str] = str


def without_userinfo(url: str) -> str:
    """A URL without user and password, also one that no parser takes: up to its last @, as a password may have any
    character, and a name of a host has none."""
    return re.sub(r"(?s)^(\s*[A-Za-z]+://)?.*@", r"\1****@", url)


def show_size(size: int) -> str:
    """Bytes with the largest binary unit that divides them: 8388608 -> "8MiB"."""
    for unit, name in ((EIB, "EiB"), (PIB, "PiB"), (TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)


def show_duration(seconds: float) -> str:
    """Seconds with the largest unit that divides them: 120 -> "2m"."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds and seconds % unit == 0:
            return f"{int(seconds // unit)}{name}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def show_mode(mode: int) -> str:
    return f"{mode:04o}"


def show_flag(value: bool) -> str:
    return "true" if value else "false"


def size(low: int, high: int | None = None, *, plain_unit: int = 1) -> Kind:
    """Bytes. ``plain_unit``: what a number without a unit counts, in bytes."""
    allowed = f"a size of at least {show_size(low)}" if high is None else f"{show_size(low)} to {show_size(high)}"

    def parse(raw: object) -> int:
        if isinstance(raw, int) and not isinstance(raw, bool):
            value = raw * plain_unit
        else:
            match = re.fullmatch(r"([0-9]{1,19})\s*([a-zA-Z]{0,3})", _text(raw).strip())
            unit = match and _SIZE_UNITS.get(match[2].lower())
            if not match or not unit:
                raise ValueError(f"not a size; use {allowed}, e.g. 8MiB")
            value = int(match[1]) * (unit if match[2] else plain_unit)
        if value < low or (high is not None and value > high):
            raise ValueError(f"out of range; use {allowed}")
        return value

    return Kind("size (bytes)", allowed, parse, show_size)


def duration(low: float, high: float) -> Kind:
    """Seconds, as float."""
    allowed = f"{show_duration(low)} to {show_duration(high)}"

    def parse(raw: object) -> float:
        if isinstance(raw, int | float) and not isinstance(raw, bool):
            value = float(raw)
        else:
            match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([a-z]{0,3})", _text(raw).strip().lower())
            unit = match and _DURATION_UNITS.get(match[2])
            if not match or not unit:
                raise ValueError(f"not a duration; use {allowed}, e.g. 10s, 2m or 1h")
            value = float(match[1]) * unit
        if not low <= value <= high:
            raise ValueError(f"out of range; use {allowed}")
        return value

    return Kind("duration (seconds)", allowed, parse, show_duration)


def integer(low: int, high: int) -> Kind:
    allowed = f"{low} to {high}"

    def parse(raw: object) -> int:
        if isinstance(raw, int) and not isinstance(raw, bool):
            value = raw
        elif re.fullmatch(r"[0-9]{1,19}", _text(raw).strip()):
            value = int(_text(raw))
        else:
            raise ValueError(f"not a whole number; use {allowed}")
        if not low <= value <= high:
            raise ValueError(f"out of range; use {allowed}")
        return value

    return Kind("number", allowed, parse)


def flag() -> Kind:
    def parse(raw: object) -> bool:
        if isinstance(raw, bool):
            return raw
        word = str(raw).strip().lower()
        if word not in _TRUE + _FALSE:
            raise ValueError("not a switch; use true or false (also yes/no, on/off, 1/0)")
        return word in _TRUE

    return Kind("switch", "true, false", parse, show_flag)


def mode(high: int = 0o7777) -> Kind:
    """Permission bits. A bare TOML number is refused: 644 and 0o644 both arrive as integers but mean different bits."""
    allowed = f"an octal string from 0000 to {high:04o}"

    def parse(raw: object) -> int:
        if not isinstance(raw, str) or not (match := re.fullmatch(r"(?:0o)?([0-7]{1,5})", raw.strip())):
            raise ValueError(f'not a mode; use {allowed}, e.g. "0644"')
        value = int(match[1], 8)
        if value > high:
            raise ValueError(f"out of range; use {allowed}")
        return value

    return Kind("octal mode", allowed, parse, show_mode)


def choice(*names: str) -> Kind:
    """One of ``names``, in any case; the empty string where it is among them."""
    allowed = ", ".join(name or '""' for name in names)
    by_lower = {name.lower(): name for name in names}

    def parse(raw: object) -> str:
        word = _text(raw).strip().lower()
        if word not in by_lower:
            raise ValueError(f"use one of {allowed}")
        return by_lower[word]

    return Kind("choice", allowed, parse)


def text(allowed: str, pattern: str, *, upper: bool = False) -> Kind:
    """One line matching ``pattern``."""

    def parse(raw: object) -> str:
        value = _text(raw).strip()
        value = value.upper() if upper else value
        if not re.fullmatch(pattern, value):
            raise ValueError(f"use {allowed}")
        return value

    return Kind("text", allowed, parse)


def path(*, required: bool = False) -> Kind:
    """An absolute path, or "" for none: a daemon has no working directory to be relative to."""
    if required:
        return replace(text("an absolute path", r"/[^\x00-\x1f\x7f]*"), name="path")
    return replace(text('an absolute path, or ""', r"(?:/[^\x00-\x1f\x7f]*)?"), name="path")


def key_prefix() -> Kind:
    """The start of keys: no leading slash, one trailing slash unless empty."""
    allowed = "a key prefix such as pve/node1/ without empty, . or .. parts"

    def parse(raw: object) -> str:
        value = _text(raw).strip().strip("/")
        if not value:
            return ""
        if any(part in ("", ".", "..") for part in value.split("/")) or re.search(r"[\x00-\x1f\x7f]", value):
            raise ValueError(f"use {allowed}")
        if len(value.encode()) > 512:
            raise ValueError("too long; use at most 512 bytes of the 1024 that a key may have")
        return value + "/"

    return Kind("key prefix", allowed, parse)


def url(allowed: str, *, userinfo: bool = False, hint: str = "") -> Kind:
    """An http or https URL, or "" for none. ``userinfo``: may carry user:password@."""

    def parse(raw: object) -> str:
        value = _text(raw).strip()
        if not value:
            return ""
        try:
            parts = urlsplit(value)
            good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:
            good = None
        if not good or parts.query or parts.fragment or re.search(r"[\x00-\x20\x7f]", value):
            raise ValueError(f"use {allowed}{hint}")
        if parts.username is not None and not userinfo:
            raise ValueError(f"a URL with credentials in it; use {allowed}")
        return value.rstrip("/")

    return Kind("URL", allowed, parse)


def listen() -> Kind:
    """Where to listen: HOST:PORT (an address, or localhost), the port alone for 127.0.0.1, the path of a Unix socket,
    or "" for nowhere. IPv6 as [::1]:9469."""
    allowed = 'HOST:PORT such as 127.0.0.1:9469, a PORT, the absolute path of a socket, or ""'

    def parse(raw: object) -> str:
        value = _text(raw).strip()
        if not value or re.fullmatch(r"/[^\x00-\x1f\x7f]{1,100}", value):
            return value
        host, colon, port = value.rpartition(":")
        host = host if colon else "127.0.0.1"
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            raise ValueError(f"use {allowed}")
        try:
            address = ip_address("127.0.0.1" if bare == "localhost" else bare)
        except ValueError:
            raise ValueError(f"a name, where an address is needed; use {allowed}") from None
        return f"[{address}]:{int(port)}" if address.version == 6 else f"{address}:{int(port)}"

    return Kind("address", allowed, parse)


def is_local(listen: str) -> bool:
    """Whether only this machine gets there, of a value of ``listen``."""
    return listen.startswith("/") or ip_address(listen.rpartition(":")[0].strip("[]")).is_loopback


def price() -> Kind:
    """In whatever currency the bill is."""
    allowed = "0 to 1000000"

    def parse(raw: object) -> float:
        try:
            value = float(_text(raw))
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1_000_000:
            raise ValueError(f"not a price; use {allowed}")
        return value

    return Kind("price", allowed, parse)


def names(known: tuple[str, ...]) -> Kind:
    """Some of ``known``, each once, in the order given: a TOML array, or text with commas between. May be empty."""
    allowed = f"a list of {', '.join(known)}"

    def parse(raw: object) -> tuple[str, ...]:
        items = raw if isinstance(raw, list | tuple) else _text(raw).split(",")
        found = [_text(item).strip().strip("/") for item in items]
        for name in filter(None, found):
            if name not in known:
                raise ValueError(f"no such entry: {name[:60]!r}; use {allowed}")
        return tuple(dict.fromkeys(filter(None, found)))

    return Kind("list", allowed, parse, ",".join)


def table(names: tuple[str, ...], value: Kind) -> Kind:
    """A TOML table with keys out of ``names``; as text ``name=value,name=value``."""
    allowed = f"a table of {', '.join(names)}, each with {value.allowed}"

    def parse(raw: object) -> Mapping[str, Any]:
        if isinstance(raw, Mapping):
            pairs = [(str(key), item) for key, item in raw.items()]
        else:
            pairs = []
            for item in filter(None, (part.strip() for part in _text(raw).split(","))):
                key, equals, right = item.partition("=")
                if not equals:
                    raise ValueError(f"use name=value pairs with commas between; {allowed}")
                pairs.append((key, right))
        result: dict[str, Any] = {}
        for key, item in pairs:
            key = key.strip().strip("/")
            if key not in names:
                raise ValueError(f"no such entry: {key[:60]!r}; use {allowed}")
            result[key] = value.parse(item)
        return result

    return Kind("table", allowed, parse, lambda pairs: ",".join(f"{k}={value.show(v)}" for k, v in pairs.items()))


def _text(raw: object) -> str:
    if isinstance(raw, bool):
        raise ValueError("needs a value; it is not a switch")
    if isinstance(raw, str | int | float):
        return str(raw)
    raise ValueError("not a single value")
