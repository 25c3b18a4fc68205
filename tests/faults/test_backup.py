"""A backup through every fault: it is in the bucket, whole, or it failed and nothing of it is."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.faultkinds import (
    CLOCK_SKEW,
    DISK_FULL,
    ERROR_DOCUMENT,
    ERROR_DOCUMENT_AFTER,
    EXPIRED_TOKEN,
    NO_BUCKET,
    PRECONDITION,
    SERVER_ERROR,
    SERVER_ERROR_AFTER,
    SLOW_DOWN,
    SLOW_DOWN_1S,
    CutShort,
    Delay,
    Fault,
    Flip,
    Reset,
    Stall,
)
from tests.faultproxy import Rule
from tests.faults.place import BODY, DEADLINE, Place

pytestmark = [pytest.mark.mount, pytest.mark.rgw]

EVERY_STEP = ("CREATE UPLOAD", "PUT PART", "LIST PARTS", "COMPLETE", "HEAD")


def once(fault: Fault, *kinds: str) -> tuple[Rule, ...]:
    """At the first request of each kind."""
    return tuple(Rule(fault, {kind}, times=1) for kind in kinds or EVERY_STEP)


PASSING = {
    "SlowDown": (Rule(SLOW_DOWN, {"PUT PART"}, times=3), *once(SLOW_DOWN)),
    "SlowDown with Retry-After": (Rule(SLOW_DOWN_1S, {"PUT PART"}, times=2),),
    "500": once(SERVER_ERROR),
    "500 after the effect": once(SERVER_ERROR_AFTER),
    "reset": once(Reset("request")),
    "reset in the body": once(Reset("request body"), "PUT PART", "COMPLETE"),
    "reset instead of the answer": once(Reset("answer")),
    "reset in the answer": once(Reset("answer body"), "CREATE UPLOAD", "LIST PARTS", "COMPLETE"),
    "answer cut short": once(CutShort(honest=True), "CREATE UPLOAD", "LIST PARTS", "COMPLETE"),
    "answer cut short, wrong length": once(CutShort(honest=False), "CREATE UPLOAD", "LIST PARTS", "COMPLETE"),
    "bit flipped in a part": once(Flip("request"), "PUT PART"),
    "no answer": once(Stall(), "CREATE UPLOAD", "PUT PART"),
    "no answer after the effect": once(Stall(effect=True), "CREATE UPLOAD", "PUT PART", "LIST PARTS"),
    "30 ms": (Rule(Delay(0.03)),),
    "300 ms": (Rule(Delay(0.3)),),
    "200 with an error": once(ERROR_DOCUMENT, "COMPLETE"),
    "200 with an error after the effect": once(ERROR_DOCUMENT_AFTER, "COMPLETE"),
}


@pytest.mark.expect_log("arrived|SHA256Mismatch.*sending it again", optional=True)
@pytest.mark.parametrize("rules", PASSING.values(), ids=list(PASSING))
def test_a_passing_fault_is_not_noticed(place: Place, rules: tuple[Rule, ...]) -> None:
    with place.proxy.fault(*rules):
        name, outcome = place.backup()
    assert place.proxy.injected.total() >= max(1, sum(rule.times or 0 for rule in rules))
    assert outcome.error is None
    assert outcome.slowest < DEADLINE
    place.check_stored(name)


@pytest.mark.expect_log("is down", optional=True)
def test_one_request_in_eight_fails_somehow(place: Place) -> None:
    """Few enough that no request fails four times: 2 in 10 000."""
    faults: tuple[Fault, ...] = (
        SLOW_DOWN,
        SERVER_ERROR,
        SERVER_ERROR_AFTER,
        Reset("request"),
        Reset("request body"),
        Reset("answer"),
    )
    with place.proxy.fault(*(Rule(fault, probability=0.02) for fault in faults)):
        made = [place.backup() for _ in range(6)]
    assert place.proxy.injected.total() >= 3
    for name, outcome in made:
        assert outcome.error is None
        place.check_stored(name)


@dataclass(frozen=True)
class Lasting:
    """rule: while the backup runs. errno: what its programs see; "" where success is as right as an error, because the
    effect was there. blind: nothing can be cleaned up meanwhile, so that this is for the next mount to show."""

    rule: Rule
    errno: str = "EIO"
    blind: bool = False


LASTING = {
    "SlowDown": Lasting(Rule(SLOW_DOWN, {"PUT PART"})),
    "SlowDown of everything": Lasting(Rule(SLOW_DOWN), blind=True),
    "500": Lasting(Rule(SERVER_ERROR, {"PUT PART"})),
    "500 after the effect of CREATE": Lasting(Rule(SERVER_ERROR_AFTER, {"CREATE UPLOAD"}), blind=True),
    "500 after the effect of COMPLETE": Lasting(Rule(SERVER_ERROR_AFTER, {"COMPLETE"}), ""),
    "reset": Lasting(Rule(Reset("request")), blind=True),
    "answer cut short": Lasting(Rule(CutShort(honest=True), {"LIST PARTS"})),
    "bits flipped in parts": Lasting(Rule(Flip("request"), {"PUT PART"})),
    "parts not answered": Lasting(Rule(Stall(), {"PUT PART"})),
    "COMPLETE not answered": Lasting(Rule(Stall(), {"COMPLETE"})),
    "COMPLETE not answered after its effect": Lasting(Rule(Stall(effect=True), {"COMPLETE"}), ""),
    "200 with an error": Lasting(Rule(ERROR_DOCUMENT, {"COMPLETE"})),
    "expired token": Lasting(Rule(EXPIRED_TOKEN, skip=6), "EACCES", blind=True),
    "verification refused": Lasting(Rule(EXPIRED_TOKEN, {"HEAD", "ABORT", "DELETE"}), "EACCES", blind=True),
    "clock skew": Lasting(Rule(CLOCK_SKEW, {"PUT PART"}), "EACCES"),
    "bucket removed": Lasting(Rule(NO_BUCKET, {"PUT PART", "COMPLETE", "LIST PARTS"})),
    "disk full": Lasting(Rule(DISK_FULL, {"PUT PART"}), "ENOSPC"),
    "412": Lasting(Rule(PRECONDITION, {"COMPLETE"}), "EEXIST"),
}


@pytest.mark.expect_log("^WARNING", optional=True)  # how loud an outage is, is tested elsewhere; no ERROR may come
@pytest.mark.parametrize("case", LASTING.values(), ids=list(LASTING))
def test_a_lasting_fault_is_an_error_and_leaves_nothing(place: Place, case: Lasting) -> None:
    with place.proxy.fault(case.rule):
        name, outcome = place.backup()
        assert place.proxy.injected
    assert outcome.slowest < DEADLINE
    if outcome.error is None:
        assert case.errno == ""
        place.check_stored(name)
    else:
        assert case.errno in ("", outcome.errno)
        if case.blind:
            place.works_again()
            place.mount.restart()
        place.check_nothing_left(name)
    place.works_again()


@pytest.mark.expect_log("^WARNING", optional=True)
def test_a_black_hole(place: Place) -> None:
    with place.proxy.black_hole():
        name, outcome = place.backup()
    assert outcome.errno == "EIO"
    assert outcome.slowest < DEADLINE
    place.works_again()
    place.mount.restart()
    place.check_nothing_left(name)


@pytest.mark.expect_log("^WARNING", optional=True)
@pytest.mark.parametrize("fault", [SERVER_ERROR_AFTER, Reset("answer"), Stall(effect=True)])
def test_a_rename_that_failed_after_its_effect_loses_nothing_when_the_node_dies_then(
    place: Place, fault: Fault
) -> None:
    """Every byte was there when close returned: the next mount shows it whole, under one of the two names."""
    temporary = place.mount.path / "dump/lost.vma.dat"
    temporary.write_bytes(BODY)
    rest = {"LIST PARTS", "HEAD", "COMPLETE", "DELETE", "ABORT"}
    with place.proxy.fault(Rule(fault, {"COMPLETE"}, times=1), Rule(Reset("request"), rest, skip=2)):
        with pytest.raises(OSError, match="Errno 5"):
            temporary.rename(temporary.with_suffix(".zst"))
        place.mount.kill9()
    place.mount.start()
    (found,) = [p for p in (temporary, temporary.with_suffix(".zst")) if p.exists()]
    assert found.read_bytes() == BODY
    found.unlink()
    place.check_nothing_left("lost")
