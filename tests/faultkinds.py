"""What can go wrong between s3fsx and the store: each fault is one way to treat one exchange.

``effect``: the request reaches the store and is carried out, and only its answer is lost or replaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from tests.exchange import Exchange, Head, Request


class Fault(Protocol):
    def run(self, exchange: Exchange) -> None: ...


@dataclass(frozen=True)
class Nothing:
    def run(self, exchange: Exchange) -> None:
        exchange.forward()
        exchange.pass_on()


@dataclass(frozen=True)
class Refuse:
    """An error document, of any status, 200 among them. retry_after: seconds."""

    status: int
    code: str
    effect: bool = False
    retry_after: int | None = None

    def run(self, exchange: Exchange) -> None:
        if self.effect:
            exchange.forward()
            exchange.swallow()
        else:
            exchange.drain()
        wait = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        exchange.reply(self.status, self.code, "from the fault proxy", **wait)


@dataclass(frozen=True)
class Reset:
    """RST: before the request is read, in the middle of its body, instead of the answer (after the effect), in the
    middle of the answer's body."""

    at: Literal["request", "request body", "answer", "answer body"]

    def run(self, exchange: Exchange) -> None:
        if self.at == "request body":
            exchange.forward(share=0.5)
        elif self.at == "answer":
            exchange.forward()
            exchange.swallow()
        elif self.at == "answer body":
            exchange.forward()
            exchange.pass_on(share=0.5)
        exchange.reset()


@dataclass(frozen=True)
class CutShort:
    """Half of the answer's body. honest: then the connection ends before the announced Content-Length; else the
    Content-Length is that of the half, and the connection goes on."""

    honest: bool

    def run(self, exchange: Exchange) -> None:
        exchange.forward()
        exchange.pass_on(share=0.5, adapt=not self.honest)
        if self.honest:
            exchange.hang_up()


@dataclass(frozen=True)
class Flip:
    """One bit of one byte, at a random place (or at ``at`` of the length), is inverted."""

    body: Literal["request", "answer"]
    at: float | None = None

    def run(self, exchange: Exchange) -> None:
        place = exchange.rng.random() if self.at is None else self.at
        length = exchange.request.head.length
        exchange.forward(flip=int(place * length) if self.body == "request" and length else None)
        exchange.pass_on(flip=place if self.body == "answer" else None)


@dataclass(frozen=True)
class Stall:
    """Silence while the connection stays open, until the rule is removed."""

    at: Literal["request", "answer"] = "request"
    effect: bool = False

    def run(self, exchange: Exchange) -> None:
        if self.effect:
            exchange.forward()
            exchange.swallow()
        elif self.at == "answer":
            exchange.drain()
        exchange.wait()
        exchange.hang_up()


@dataclass(frozen=True)
class Delay:
    """seconds before the request goes on its way."""

    seconds: float
    then: Fault = field(default_factory=Nothing)

    def run(self, exchange: Exchange) -> None:
        time.sleep(self.seconds)  # the latency itself
        self.then.run(exchange)


@dataclass(frozen=True)
class Meanwhile:
    """Something else happens just before the request arrives: another client changes the object."""

    action: Callable[[Request], None]
    then: Fault = field(default_factory=Nothing)

    def run(self, exchange: Exchange) -> None:
        self.action(exchange.request)
        self.then.run(exchange)


@dataclass(frozen=True)
class Without:
    """A store that ignores what some headers ask for. Before one that checks no signature (moto)."""

    names: tuple[str, ...]

    def run(self, exchange: Exchange) -> None:
        exchange.forward(without=self.names)
        exchange.pass_on()


@dataclass(frozen=True)
class Edited:
    """The answer, made into another one."""

    edit: Callable[[Head, bytes], tuple[Head, bytes]]

    def run(self, exchange: Exchange) -> None:
        exchange.forward()
        exchange.pass_edited(self.edit)


SLOW_DOWN = Refuse(503, "SlowDown")
SLOW_DOWN_1S = Refuse(503, "SlowDown", retry_after=1)
SERVER_ERROR = Refuse(500, "InternalError")
SERVER_ERROR_AFTER = Refuse(500, "InternalError", effect=True)
ERROR_DOCUMENT = Refuse(200, "InternalError")
ERROR_DOCUMENT_AFTER = Refuse(200, "InternalError", effect=True)
EXPIRED_TOKEN = Refuse(403, "ExpiredToken")
CLOCK_SKEW = Refuse(403, "RequestTimeTooSkewed")
NO_BUCKET = Refuse(404, "NoSuchBucket")
DISK_FULL = Refuse(507, "QuotaExceeded")
PRECONDITION = Refuse(412, "PreconditionFailed")
