"""The manual pages, the bash completion and an example of s3fsx.toml, made from the parsers and the schema:

    python3 contrib/manual.py DIRECTORY     s3fsx.1 mount.s3fsx.8 s3fsx.toml.5 s3fsx.bash s3fsx.toml

So they name every command, option and setting, and no other. SOURCE_DATE_EPOCH is their date (today without it).
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from s3fsx import __version__, cli  # run from a source tree
from s3fsx.commands.mounting import helper_parser
from s3fsx.configuration.aliases import ALIASES
from s3fsx.configuration.schema import SECTIONS, Setting
from s3fsx.configuration.settings import SCHEMA

Parser = argparse.ArgumentParser
# Settings whose default depends on who mounts: something to begin an edit with.
SAMPLES = {
    "uid": "0",
    "gid": "0",
    "allow_other": "true",
    "layout": '{ dump = "backup/", "template/iso" = "iso/" }',
    "prices": "{ put = 0.005, get = 0.0004 }",
}
FILES = (
    ("/etc/s3fsx/s3fsx.toml", "settings common to all mounts; see s3fsx.toml(5)"),
    ("/etc/s3fsx/NAME.toml", "settings and keys of the mount NAME"),
    ("/var/lib/s3fsx", "journals of unfinished uploads and renames; needed after a crash"),
    ("/var/cache/s3fsx", "metadata and block caches; may be deleted while nothing is mounted"),
    ("/run/s3fsx", "status sockets"),
)


def commands(parser: Parser) -> Iterator[tuple[str, Parser]]:
    """("config show", its parser), in the order they were added; a command that has commands is none itself."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield parser.prog.partition(" ")[2], parser
    for group in groups:
        for made in group.choices.values():
            yield from commands(made)


def options(parser: Parser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings and action.help != argparse.SUPPRESS]


def places(parser: Parser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]


def argument(action: argparse.Action) -> str:
    """What stands for its value; "" for a flag."""
    if action.nargs == 0:
        return ""
    name = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    return name if isinstance(name, str) else " ".join(name)


def explained(action: argparse.Action) -> str:
    return (action.help or "") % {"default": action.default, "prog": "s3fsx", "dest": action.dest}


# --- roff ------------------------------------------------------------------------------------------------------------


def roff(text: str) -> str:
    """For any place in a line; a dash is what a user types. Never at its beginning as a request."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("~", r"\(ti").replace("^", r"\(ha")
    text = text.replace("'", r"\(aq").replace("`", r"\(ga")
    text = "".join(c if ord(c) < 128 else f"\\[u{ord(c):04X}]" for c in text)
    return re.sub(r"^(?=[.'])", r"\\&", text)


def term(name: str, value: str, text: str) -> Iterator[str]:
    yield ".TP"
    yield f".B {roff(name)}" if not value else f'.BI "{roff(name)} " "{roff(value)}"'
    yield roff(text)


def head(name: str, section: int, summary: str) -> Iterator[str]:
    date = time.strftime("%Y-%m-%d", time.gmtime(float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())))
    yield f'.TH {roff(name.upper())} {section} {date} "s3fsx {__version__}"'
    yield ".SH NAME"
    yield f"{roff(name)} \\- {roff(summary)}"


def unwrapped(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, width=10_000)


def synopsis(parser: Parser) -> Iterator[str]:
    parser.formatter_class = unwrapped
    prog, _, rest = parser.format_usage().removeprefix("usage: ").strip().partition(" [-h]")
    yield f".B {roff(prog)}"
    if rest.strip():
        yield roff(rest.strip())


def verbatim(text: str) -> Iterator[str]:
    yield ".nf"
    yield from (roff(line) for line in text.strip("\n").splitlines())
    yield ".fi"


def arguments(parser: Parser) -> Iterator[str]:
    for action in places(parser):
        yield from term(argument(action), "", explained(action))
    for action in options(parser):
        if action.dest != "help":
            yield from term(", ".join(action.option_strings), argument(action), explained(action))


def files() -> Iterator[str]:
    yield ".SH FILES"
    for path, text in FILES:
        yield from term(path, "", text)


def exit_status() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, text in (
        ("0", "all is well."),
        ("1", "trouble that may pass: the store, the network, a full disk, an earlier mount that still publishes."),
        ("2", "bad input: it does not get better by trying again."),
    ):
        yield from term(code, "", text)


def main_page() -> Iterator[str]:
    parser = cli.build_parser()
    examples, _, notes = (parser.epilog or "").removeprefix("examples:").partition("\n\nSOURCE is ")
    yield from head("s3fsx", 1, "an S3 bucket as a directory, for Proxmox VE")
    yield ".SH SYNOPSIS"
    for number, (_, made) in enumerate(commands(cli.build_parser())):
        if number:
            yield ".br"
        yield from synopsis(made)
    yield ".SH DESCRIPTION"
    yield roff(parser.description or "")
    yield ".PP"
    yield roff(f"SOURCE is {notes.strip()}".replace("\n", " "))
    yield ".SH COMMANDS"
    for name, made in commands(parser):
        yield f".SS s3fsx {roff(name)}"
        yield roff(made.description or "")
        yield from arguments(made)
    yield from exit_status()
    yield ".SH ENVIRONMENT"
    yield from term("S3FSX_CONFIG_DIR", "", "the directory instead of /etc/s3fsx.")
    yield from term("S3FSX_", "SETTING", "a setting of s3fsx.toml(5), its name in capitals.")
    yield from term("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...", "", "keys, where no setting names any.")
    yield from files()
    yield ".SH EXAMPLES"
    yield from verbatim(examples)
    yield from see_also("mount.s3fsx(8)", "s3fsx.toml(5)", "mount(8)", "systemd.unit(5)")


def helper_page() -> Iterator[str]:
    parser = helper_parser()
    yield from head("mount.s3fsx", 8, "mount an S3 bucket, as mount(8) calls it")
    yield ".SH SYNOPSIS"
    yield from synopsis(parser)
    yield ".SH DESCRIPTION"
    yield roff(
        "What mount(8) runs for the type s3fsx, also for a line of fstab(5). It returns when the mount works, and "
    )
    yield roff("fails with one line when it does not. A directory on which SOURCE is mounted and served is left alone.")
    yield ".SH OPTIONS"
    yield from arguments(parser)
    yield from exit_status()
    yield ".SH EXAMPLES"
    yield "In /etc/fstab:"
    yield from verbatim("pve1  /mnt/pve/s3  s3fsx  _netdev,nofail  0 0")
    yield from files()
    yield from see_also("s3fsx(1)", "s3fsx.toml(5)", "mount(8)", "fstab(5)")


def settings_page() -> Iterator[str]:
    yield from head("s3fsx.toml", 5, "settings of s3fsx")
    yield ".SH SYNOPSIS"
    yield roff("/etc/s3fsx/s3fsx.toml, /etc/s3fsx/NAME.toml")
    yield ".SH DESCRIPTION"
    yield roff("TOML files of the settings below. Those of s3fsx.toml are for all mounts, those of NAME.toml for ")
    yield roff(
        "'s3fsx mount NAME'. Later ones win: defaults, s3fsx.toml, NAME.toml, S3FSX_* variables, s3://BUCKET/PREFIX"
    )
    yield roff("on the command line, -o. 's3fsx config show NAME' prints all of them and where each came from.")
    yield ".PP"
    yield roff(
        "A file with keys must belong to root or to the user, with mode 0600. Sizes are numbers of bytes or text "
    )
    yield roff('such as "8MiB", durations numbers of seconds or text such as "10s", modes octal text such as "0644".')
    for section, title in SECTIONS.items():
        yield f".SH {roff(title.upper())}"
        for row in SCHEMA.values():
            if row.section == section:
                yield from term(row.name, "", f"{row.help} Default: {row.default or 'empty'}.")
                yield roff(f"({row.kind.name}: {row.kind.allowed})")
    yield ".SH OTHER NAMES"
    yield roff("Known from other tools, and read as the setting named:")
    for name, alias in sorted(ALIASES.items()):
        note = f"; {alias.note}" if alias.note else ""
        yield from term(name, "", f"{alias.target} ({alias.known_from}{note})")
    yield from files()
    yield ".SH EXAMPLES"
    yield roff("A Ceph RGW, in /etc/s3fsx/pve1.toml:")
    yield from verbatim(
        'bucket = "backups"\nprefix = "pve1/"\nendpoint = "https://rgw.example.com:7480"\n'
        'ca_file = "/etc/ssl/certs/ceph-ca.pem"\ncredentials_file = "/etc/s3fsx/rgw.keys"'
    )
    yield from see_also("s3fsx(1)", "mount.s3fsx(8)")


def see_also(*pages: str) -> Iterator[str]:
    yield ".SH SEE ALSO"
    for page in pages:
        name, section = page.rstrip(")").split("(")
        yield f".BR {roff(name)} ({section}){',' if page != pages[-1] else ''}"


# --- bash ------------------------------------------------------------------------------------------------------------

BASH = r"""# bash completion for s3fsx; made by contrib/manual.py

_s3fsx_words() { # what an argument of that name may be: WORD NAME
    local cur=$1 name=$2 dir=${S3FSX_CONFIG_DIR:-/etc/s3fsx} file before=''
    case $name in
    SOURCE)
        for file in "$dir"/*.toml; do
            file=${file##*/}
            [[ $file == '*.toml' || $file == s3fsx.toml ]] || compgen -W "${file%.toml}" -- "$cur"
        done
        compgen -W s3:// -- "$cur"
        ;;
    MOUNTPOINT) compgen -W "$(awk '$3 == "fuse.s3fsx" { print $2 }' /proc/self/mounts)" -- "$cur" ;;
    DIR) compgen -d -- "$cur" ;;
    FILE) compgen -f -- "$cur" ;;
    KEY=VALUE,...)
        [[ $cur != *,* ]] || before=${cur%,*},
        compgen -P "$before" -S = -W '@SETTINGS@' -- "${cur##*,}"
        ;;
    *'|'*) compgen -W "${name//|/ }" -- "$cur" ;;
    esac
}

_s3fsx_command() { # sets what the command $line takes; places: one name per argument, values: "-o NAME;" per option
    options='' values='' places='' known=''
    case $line in
@CASES@
    esac
}

_s3fsx() {
    local words cur word line='' options values places known wants='' place=0 found cut
    # Not COMP_WORDS, where bash cuts at each = and :
    read -ra words <<<"${COMP_LINE:0:COMP_POINT}"
    [[ ${COMP_LINE:COMP_POINT-1:1} != [[:blank:]] ]] || words+=('')
    cur=${words[-1]}
    _s3fsx_command
    for word in "${words[@]:1:${#words[@]}-2}"; do
        if [[ -n $wants ]]; then
            wants=''
        elif [[ $word == -* ]]; then
            [[ $values != *" $word "* ]] || { wants=${values#*" $word "} && wants=${wants%%;*}; }
        elif [[ -z $known ]]; then
            line+=${line:+ }$word
            _s3fsx_command
        else
            place=$((place + 1))
        fi
    done
    read -ra places <<<"$places"
    if [[ -n $wants ]]; then
        found=$(_s3fsx_words "$cur" "$wants")
        [[ $wants != KEY=VALUE* ]] || compopt -o nospace 2>/dev/null
    elif [[ $cur == -* || -z ${places[place]:-} ]]; then
        found=$(compgen -W "$options" -- "$cur")
    else
        found=$(_s3fsx_words "$cur" "${places[place]}")
    fi
    COMPREPLY=()
    [[ -z $found ]] || mapfile -t COMPREPLY <<<"$found"
    cut=${COMP_WORDS[COMP_CWORD]}
    [[ $cut != [=:] ]] || cut=''
    cut=${cur%"$cut"} # bash has it already
    COMPREPLY=("${COMPREPLY[@]#"$cut"}")
}
complete -F _s3fsx s3fsx
"""


def completion() -> str:
    parser = cli.build_parser()
    words: dict[str, list[str]] = {"": [flag for action in options(parser) for flag in action.option_strings]}
    leaves: dict[str, str] = {}
    for name, made in commands(parser):
        *above, last = name.split()
        for depth in range(len(above) + 1):
            members = words.setdefault(" ".join(above[:depth]), [])
            members += [word for word in [[*above, last][depth]] if word not in members]
        words[name] = [flag for action in options(made) for flag in action.option_strings]
        values = [f" {flag} {argument(a)};" for a in options(made) if argument(a) for flag in a.option_strings]
        # The directory that mount takes is any; the others take one that is mounted.
        taken = " ".join(
            argument(a).replace("MOUNTPOINT", "DIR" if name == "mount" else "MOUNTPOINT") for a in places(made)
        )
        leaves[name] = f" values='{''.join(values)}' places='{taken}' known=1"
    cases = [f"    '{name}') options='{' '.join(flags)}'{leaves.get(name, '')} ;;" for name, flags in words.items()]
    return BASH.replace("@SETTINGS@", " ".join(SCHEMA)).replace("@CASES@", "\n".join(cases))


# --- the example -----------------------------------------------------------------------------------------------------


def example() -> Iterator[str]:
    yield "# Settings common to all mounts: /etc/s3fsx/s3fsx.toml. Those of one mount: /etc/s3fsx/NAME.toml, mode 0600."
    yield "# Every setting is here with its default; s3fsx.toml(5) says more. Made by contrib/manual.py."
    for section, title in SECTIONS.items():
        yield f"\n# --- {title}"
        for row in SCHEMA.values():
            if row.section == section:
                yield ""
                yield from (f"# {line}" for line in _wrapped(row.help))
                if row.name in SAMPLES:
                    yield f"# Default: {row.default}."
                yield f"#{row.name} = {_value(row)}"


def _value(row: Setting) -> str:
    if row.name in SAMPLES:
        return SAMPLES[row.name]
    if row.kind.name in ("number", "switch"):
        return row.default
    return f'"{row.default}"'


def _wrapped(text: str, width: int = 110) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(line) + len(word) >= width:
            yield line
            line = ""
        line += f" {word}" if line else word
    yield line


def pages() -> dict[str, str]:
    made = {"s3fsx.1": main_page(), "mount.s3fsx.8": helper_page(), "s3fsx.toml.5": settings_page()}
    texts = {name: "\n".join(lines) + "\n" for name, lines in made.items()}
    return texts | {"s3fsx.bash": completion(), "s3fsx.toml": "\n".join(example()) + "\n"}


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text)
