"""Around every request of the kernel: the one place where errors become an errno.

pyfuse3 ends its main loop on any exception but FUSEError, so everything is caught here.
"""

from __future__ import annotations

import errno
import functools
import logging
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import pyfuse3

from ..errors import EndpointDown, FileSystemError, S3fsxError
from ..metrics.histogram import FUSE_BOUNDS, Histogram

log = logging.getLogger("s3fsx.fuse")

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])

_QUIET = frozenset({errno.ENOENT, errno.ENODATA, errno.EEXIST, errno.ENOTEMPTY, errno.EBUSY})
_SAME_AGAIN = 10.0  # seconds
_RECENT = 5


class Requests:
    """under_way: requests being handled. errors: failures told to programs that are the store's or ours. recent: the
    latest of them, with Unix seconds. seconds: how long requests took, by operation."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.under_way = 0
        self.errors = 0
        self.recent: deque[tuple[float, str]] = deque(maxlen=_RECENT)
        self.seconds: defaultdict[str, Histogram] = defaultdict(functools.partial(Histogram, FUSE_BOUNDS))
        self._now = now
        self._told: dict[str, tuple[float, int]] = {}  # kind -> when, and how many since

    def report(self, what: str, error: S3fsxError) -> None:
        """A line per kind of error and operation, at most one in ten seconds: an outage must not fill the disk."""
        self.errors += 1
        text = f"{what}: {error}"
        self.recent.append((time.time(), text))
        if isinstance(error, EndpointDown):  # that it is down was said once, by the endpoint
            log.debug("%s", text)
            return
        self._tell(logging.WARNING, f"{what} {type(error).__name__}", text)

    def refuse(self, what: str, error: FileSystemError) -> None:
        """What a program asked for and cannot have; in a loop it must not fill the disk, either."""
        name = errno.errorcode.get(error.errno, str(error.errno))
        self._tell(logging.INFO, f"{what} {name}", f"{what}: {error} ({name})")

    def _tell(self, level: int, kind: str, text: str) -> None:
        now = self._now()
        when, more = self._told.get(kind, (-_SAME_AGAIN, 0))
        if now - when < _SAME_AGAIN:
            self._told[kind] = (when, more + 1)
            return
        self._told[kind] = (now, 0)
        log.log(level, "%s%s", text, f" (and {more} more of the kind before it)" if more else "")


def operation(handler: F) -> F:
    """For the methods of an object with ``requests``: domain errors as errno; anything unexpected as EIO and a line
    in the log."""

    name = handler.__name__.strip("_")

    @functools.wraps(handler)
    async def wrapped(self: Any, *args: Any) -> Any:
        requests: Requests = self.requests
        requests.under_way += 1
        began = time.perf_counter()
        try:
            return await handler(self, *args)
        except pyfuse3.FUSEError:
            raise
        except FileSystemError as e:
            if e.errno == errno.ENOMEM:
                requests.report(handler.__name__, e)
            elif e.errno not in _QUIET:
                requests.refuse(handler.__name__, e)
            raise pyfuse3.FUSEError(e.errno) from None
        except S3fsxError as e:
            requests.report(handler.__name__, e)
            raise pyfuse3.FUSEError(e.errno) from None
        except Exception:
            log.exception("%s failed; this is a bug", handler.__name__)
            raise pyfuse3.FUSEError(errno.EIO) from None
        finally:
            requests.under_way -= 1
            requests.seconds[name].observe(time.perf_counter() - began)

    return cast(F, wrapped)
