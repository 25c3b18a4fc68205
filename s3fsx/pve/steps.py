"""Steps of which all happen or none: what was done is undone, last first, when a later one fails."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from ..errors import S3fsxError
from .files import Undo


class Steps:
    """A context manager. say: takes the line about each step. dry: nothing is done, the lines say what would be."""

    def __init__(self, say: Callable[[str], object], *, dry: bool = False) -> None:
        self._say = say
        self.dry = dry
        self._done: list[tuple[str, Undo]] = []

    def do(self, text: str, action: Callable[[], Undo | None]) -> None:
        """text: such as "write /etc/s3fsx/a.toml". action returns how to undo it, or None where nothing needs it.
        Raises S3fsxError for its OSError."""
        self._say(f"{'would ' if self.dry else ''}{text}")
        if self.dry:
            return
        try:
            undo = action()
        except OSError as error:
            raise S3fsxError(f"{text}: {error.strerror or error}") from None
        if undo is not None:
            self._done.append((text, undo))

    def afterwards(self, text: str, undo: Undo) -> None:
        """To be undone after everything that is done from here on: such as a restart, once its files are as before."""
        if not self.dry:
            self._done.append((text, undo))

    def already(self, text: str) -> None:
        self._say(f"{text}: as it should be")

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        while self._done:
            text, undo = self._done.pop()
            try:
                undo()
                self._say(f"undone: {text}")
            except Exception as failed:  # the error that led here is the one to raise
                self._say(f"NOT undone: {text} ({' '.join(str(failed).split())})")
