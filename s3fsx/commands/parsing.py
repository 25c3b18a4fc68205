"""What the commands share in reading their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ..configuration import values

Run = Callable[[argparse.Namespace], int]


class Commands:
    """The parser's commands. Each has --debug; those that look at settings have -o."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._commands = parser.add_subparsers(metavar="COMMAND", required=True)
        self._common = argparse.ArgumentParser(add_help=False)
        self._common.add_argument("--debug", action="store_true", help="log everything, show tracebacks")
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
    value = float(text)
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError("0 to 1000 USD")
    return value


def seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError("0 to 86400 seconds")
    return value
