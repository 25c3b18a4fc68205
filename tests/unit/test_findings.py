from __future__ import annotations

from s3fsx.store.findings import SKEW_LIMIT, findings, weaker
from s3fsx.store.objects import Capabilities

WHOLE = Capabilities("crc32", True, True, True, True, True)


def test_a_store_that_has_everything_lacks_nothing() -> None:
    assert not any(finding.weaker or finding.consequence for finding in findings(WHOLE, clock_skew=0.4))
    assert weaker(WHOLE) == ""


def test_what_is_missing_is_one_line_with_its_consequence() -> None:
    found = Capabilities("etag", conditional_put=False, conditional_complete=True, part_copy=False, object_lock=True)
    missing = {finding.capability: finding for finding in findings(found) if finding.weaker}
    assert set(missing) == {"create only if new", "copy by parts"}
    assert all(finding.consequence for finding in missing.values())
    line = weaker(found)
    assert "\n" not in line
    for finding in missing.values():
        assert f"no {finding.capability} ({finding.consequence})" in line


def test_a_clock_that_is_wrong_is_told_in_both_directions() -> None:
    ahead = findings(WHOLE, clock_skew=SKEW_LIMIT + 1)[-1]
    assert ahead.weaker
    assert "61 s ahead of ours" in str(ahead)
    assert "NTP" in str(ahead)
    behind = findings(WHOLE, clock_skew=-SKEW_LIMIT - 1)[-1]
    assert behind.weaker
    assert "61 s behind ours" in str(behind)
    assert not findings(WHOLE, clock_skew=SKEW_LIMIT)[-1].weaker
