r"""The text after ``-o``: ``name=value,flag,name="a,b",name=a\,b``. Pure.

A backslash takes the next comma, quote or backslash literally; double quotes hold commas together, as libmount does.
Options that mount(8), fstab and systemd add for themselves are accepted: some mean a setting, most mean nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..errors import ConfigError

# libmount puts rw into every helper's options, so that rw must not override read_only = true of a configuration file.
# suid and dev change nothing: a bucket is no place to take set-uid programs or device nodes from. Access times are not
# kept, and sync is always on: a close succeeds when the object is stored.
IGNORED = frozenset(
    """
    rw defaults _netdev nofail auto noauto user nouser users nousers owner group nogroup uhelper helper comment
    atime noatime relatime norelatime strictatime nostrictatime lazytime nolazytime diratime nodiratime
    dev nodev suid nosuid sync async dirsync silent loud
    default_permissions nonempty big_writes fsname subtype
    """.split()  # noqa: SIM905 (forty quoted words read worse)
)
MAPPED = {"ro": ("read_only", True), "exec": ("noexec", False)}
REFUSED = {
    "remount": "umount and mount again",
    "bind": "use mount --bind on the mounted directory, without -t s3fsx",
}


def split(text: str) -> list[str]:
    """The options between the commas, unescaped. Raises ConfigError for an open quote or a lone last backslash."""
    options: list[str] = []
    current: list[str] = []
    quoted = False
    characters = iter(text)
    for character in characters:
        if character == "\\":
            following = next(characters, "")
            if not following:
                raise ConfigError("-o: a backslash at the end")
            current.append(following if following in ',"\\' else character + following)
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            options.append("".join(current))
            current = []
        else:
            current.append(character)
    if quoted:
        raise ConfigError("-o: a double quote is not closed")
    return [*options, "".join(current)]


def parse(texts: Iterable[str]) -> list[tuple[str, str | bool]]:
    """Names and raw values that mean a setting; True where there was no ``=``. Raises ConfigError."""
    found: list[tuple[str, str | bool]] = []
    for option in (option for text in texts for option in split(text)):
        name, equals, value = option.partition("=")
        name = name.strip()
        if not name:
            if equals:
                raise ConfigError("-o: a value without a name")
            continue
        if name in REFUSED:
            raise ConfigError(f"-o: {name} is not supported: {REFUSED[name]}")
        if name in IGNORED or name.lower().startswith("x-"):
            continue
        if name in MAPPED and equals:
            raise ConfigError(f"-o: {name} takes no value: leave out what stands behind it")
        found.append(MAPPED.get(name, (name, value if equals else True)))
    return found


def join(pairs: Sequence[tuple[str, str | bool]]) -> str:
    """The text that ``parse`` reads back to the same pairs."""
    return ",".join(name if value is True else f"{name}={_escaped(str(value))}" for name, value in pairs)


def _escaped(value: str) -> str:
    return re.sub(r'([,"\\])', r"\\\1", value)
