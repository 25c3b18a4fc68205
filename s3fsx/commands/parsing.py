"""What the commands share in reading their arguments."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from ..configuration import values

Run = Callable[[argparse.Namespace], int]
_COMMAND = "COMMAND"


class Parser(argparse.ArgumentParser):
    """What is wrong with the arguments is one line that says what to do, as all bad input, and not a page of usage."""

    def error(self, message: str) -> NoReturn:
        if message.endswith(f"required: {_COMMAND}"):
            self.print_help(sys.stderr)
            message = "which COMMAND?"
        self.exit(2, f"{self.prog}: {message} ('{self.prog} --help' shows what it takes)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Raises SystemExit for what is not known, here and not in ``parse_args``: that of all commands does not know
        the options of one."""
        known, extra = super().parse_known_args(args, namespace)
        if options := [text.partition("=")[0] for text in extra if text.startswith("-")]:
            self.error(f"no such option: {options[0][:60]}{_perhaps(options[0], self._option_string_actions)}")
        if extra:
            self.error(f"one argument too many: {extra[0][:60]}")
        return known, extra

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.metavar == _COMMAND and action.choices is not None and value not in action.choices:
            self.error(f"no such command: {str(value)[:60]}{_perhaps(str(value), action.choices)}")
        super()._check_value(action, value)


def _perhaps(text: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(text, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


class Commands:
    """The parser's commands. Each has --debug; those that look at settings have -o."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._commands = parser.add_subparsers(metavar=_COMMAND, required=True)
        self._common = argparse.ArgumentParser(add_help=False)
        self._common.add_argument("-v", "--debug", action="store_true", help="log everything, show tracebacks")
        self._options = argparse.ArgumentParser(add_help=False)
        self._options.add_argument(
            "-o",
            dest="options",
            action="append",
            default=[],
            metavar="KEY=VALUE,...",
            help=r"settings and mount options; a comma in a value is \, ('s3fsx config show' lists all keys)",
        )

    def add(self, name: str, run: Run, text: str, *, help: str = "", options: bool = True) -> argparse.ArgumentParser:
        """A command of its own, with --debug. text: what it does, in a line; help: shorter, for the list; options: it
        has -o."""
        parents = [self._options, self._common] if options else [self._common]
        made = self._commands.add_parser(name, help=help or text, description=text, parents=parents, allow_abbrev=False)
        made.set_defaults(run=run)
        return made

    def group(self, name: str, text: str) -> Commands:
        """A command that has commands, such as ``config show``."""
        made = self._commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        return Commands(made)


def age(text: str) -> float:
    try:
        return float(values.duration(0, 36500 * 86400).parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def price(text: str) -> float:
    return _between(text, 0, 1000, "USD")


def seconds(text: str) -> float:
    return _between(text, 0, 86400, "seconds")


def _between(text: str, least: float, most: float, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text[:60]!r}: it takes {least:g} to {most:g} {unit}")
    return value


def count(least: int, most: int, unit: str = "") -> Callable[[str], int]:
    """The type of an option that takes a whole number."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text[:20]) <= most:
            raise argparse.ArgumentTypeError(f"{text[:60]!r}: it takes {least} to {most}{unit and ' ' + unit}")
        return int(text)

    return parse
