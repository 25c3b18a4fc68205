"""What a person is asked for, on a terminal; without one, what is missing is bad input that names the flag."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Mapping

from ..configuration import credentials
from ..configuration.configfile import read_file
from ..configuration.credentials import Credentials
from ..errors import ConfigError
from .plan import toml

_MOST = 1 << 16  # bytes of a file with keys
Check = Callable[[str], object]


def _input(prompt: str, flag: str) -> str:
    try:
        return input(prompt).strip()
    except EOFError:
        raise ConfigError(f"no answer: {flag}") from None


def _fits(answer: str, check: Check | None) -> bool:
    """What is wrong is said, and who mistyped is asked again instead of having to begin anew."""
    try:
        if check is not None:
            check(answer)
    except ConfigError as error:
        sys.stdout.write(f"{error}\n")
        return False
    return True


class Terminal:
    """interactive: somebody is there to answer."""

    def __init__(self, interactive: bool) -> None:
        self.interactive = interactive

    @classmethod
    def here(cls) -> Terminal:
        return cls(sys.stdin.isatty() and sys.stdout.isatty())

    def ask(self, what: str, flag: str, default: str = "", *, check: Check | None = None) -> str:
        """Asks until there is an answer for which check raises no ConfigError. Raises ConfigError where nobody can be
        asked, or who was asked has ended the input."""
        if not self.interactive:
            raise ConfigError(f"{what} is missing: {flag}")
        while True:
            answer = _input(f"{what}{f' [{default}]' if default else ''}: ", flag) or default
            if answer and _fits(answer, check):
                return answer

    def ask_for_some(self, what: str, flag: str, *, check: Check) -> str:
        """Nothing is an answer, too; "" where nobody can be asked."""
        while self.interactive:
            answer = _input(f"{what}: ", flag)
            if not answer or _fits(answer, check):
                return answer
        return ""

    def secret(self, what: str) -> str:
        """Without echo."""
        return getpass.getpass(f"{what}: ").strip()


def keys(file: str, env: Mapping[str, str], terminal: Terminal, *, bucket: str) -> Credentials | None:
    """The keys: from ``file`` ("-": standard input), else from the environment, else asked for; None when nobody can be
    asked. Raises ConfigError; never with a key in it."""
    if file == "-":
        return credentials.parse(sys.stdin.read(_MOST), "standard input", bucket=bucket)
    if file:
        try:
            content = read_file(os.path.abspath(file))
        except FileNotFoundError:
            raise ConfigError(f"--keys-file {file}: no such file") from None
        content.require_private()
        return credentials.parse(content.text, file, bucket=bucket)
    for prefix, names in (
        ("S3FSX_", ("ACCESS_KEY", "SECRET_KEY", "SESSION_TOKEN")),
        ("AWS_", ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")),
    ):
        access, secret, token = (env.get(prefix + name, "") for name in names)
        if access and secret:
            return Credentials(access, secret, token)
    if not terminal.interactive:
        return None
    access = terminal.ask("access key", "--keys-file FILE")
    return Credentials(access, terminal.secret("secret key (not shown)"))


def as_text(found: Credentials) -> str:
    """A credentials file."""
    pairs = {"access_key": found.access_key, "secret_key": found.secret_key}
    return toml(pairs | ({"session_token": found.session_token} if found.session_token else {}))
