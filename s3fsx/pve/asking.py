"""What a person is asked for, on a terminal; without one, what is missing is bad input that names the flag."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping

from ..configuration import credentials
from ..configuration.configfile import read_file
from ..configuration.credentials import Credentials
from ..errors import ConfigError
from .plan import toml

_MOST = 1 << 16  # bytes of a file with keys


class Terminal:
    """interactive: somebody is there to answer."""

    def __init__(self, interactive: bool) -> None:
        self.interactive = interactive

    @classmethod
    def here(cls) -> Terminal:
        return cls(sys.stdin.isatty() and sys.stdout.isatty())

    def ask(self, what: str, flag: str, default: str = "") -> str:
        """Raises ConfigError where nobody can be asked, or nothing was answered."""
        if not self.interactive:
            raise ConfigError(f"{what} is missing: {flag}")
        answer = input(f"{what}{f' [{default}]' if default else ''}: ").strip() or default
        if not answer:
            raise ConfigError(f"{what} is missing: {flag}")
        return answer

    def ask_for_some(self, what: str) -> str:
        """Nothing is an answer, too; "" where nobody can be asked."""
        return input(f"{what}: ").strip() if self.interactive else ""

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
