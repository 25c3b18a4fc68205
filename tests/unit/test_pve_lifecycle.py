"""Lifecycle rules: what is ours, what is dangerous, which backups may become cold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.errors import ConfigError
from s3fsx.pve.lifecycle import DAY, TAG, Policy, Stored, deleting, freezing, judge, merged, policy_of, weakened

POLICY = Policy("backup", "pve/dump/", transition_days=30, glacier_days=90, warm=2)
NOW = 1000 * DAY


def archive(vmid: int, day: int, kind: str = "qemu") -> str:
    return f"vzdump-{kind}-{vmid}-2026_01_{day:02}-01_00_00.vma.zst"


def expiring(prefix: str, **more: Any) -> dict[str, Any]:
    return {"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": prefix}, "Expiration": {"Days": 30}, **more}


def test_the_rules() -> None:
    ia, cold = POLICY.rules()
    assert ia["Filter"]["And"] == {"Prefix": "pve/dump/", "ObjectSizeGreaterThan": 131072}
    assert ia["Transitions"] == [{"Days": 30, "StorageClass": "STANDARD_IA"}]
    assert cold["Filter"]["And"] == {"Prefix": "pve/dump/", "Tags": [{"Key": TAG, "Value": "backup"}]}
    assert cold["Transitions"] == [{"Days": 90, "StorageClass": "GLACIER"}]
    assert policy_of([ia, cold], Policy("backup", "pve/dump/", warm=2)) == POLICY


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (Policy("b", "p"), "neither transition days nor glacier days"),
        (Policy("b", "p", 30, "GLACIER"), "GLACIER for every backup would freeze protected and newest ones, too"),
        (Policy("b", "p", 0, "", 30, "STANDARD_IA"), "STANDARD_IA: use one of GLACIER, DEEP_ARCHIVE"),
        (Policy("b", "p", 30, glacier_days=30), "glacier days .30. have to be more than transition days"),
        (Policy("b", "p", glacier_days=30, warm=0), "at least the newest backup of each guest"),
    ],
)
def test_what_is_refused(policy: Policy, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        policy.check()


def test_rules_of_others_stay_and_ours_are_replaced() -> None:
    theirs = [expiring("tmp/"), {"ID": "s3fsx-other-cold", "Status": "Enabled", "Filter": {"Prefix": "o/"}}]
    once = merged(theirs, "backup", POLICY.rules())
    assert once == [*theirs, *POLICY.rules()]
    assert merged(once, "backup", POLICY.rules()[:1]) == [*theirs, POLICY.rules()[0]]
    assert merged(once, "backup", ()) == theirs


def test_what_ceph_returns_is_written_back_with_its_tag() -> None:
    """Ceph RGW 16 lists conditions side by side; S3 has them below And."""
    returned = {
        "ID": "x",
        "Status": "Enabled",
        "Filter": {"Prefix": "a/", "Tag": {"Key": "k", "Value": "v"}},
        "Expiration": {"Days": 1},
    }
    (written,) = merged([returned], "backup", ())
    assert written["Filter"] == {"And": {"Prefix": "a/", "Tags": [{"Key": "k", "Value": "v"}]}}
    assert weakened([written], [returned]) == []


@pytest.mark.parametrize(
    "stored",
    [
        [],
        [{"ID": "s3fsx-backup-cold", "Status": "Enabled", "Filter": {"Prefix": "pve/dump/"}}],
        [{**POLICY.rules()[1], "Filter": {"Prefix": "pve/dump/"}}],
        [{**POLICY.rules()[1], "Filter": {"Tag": {"Key": TAG, "Value": "backup"}}}],
        [{**POLICY.rules()[1], "Transitions": [{"Days": 9, "StorageClass": "GLACIER"}]}],
    ],
)
def test_a_rule_that_came_back_weaker_is_found(stored: list[dict[str, Any]]) -> None:
    assert weakened([POLICY.rules()[1]], stored) == ["s3fsx-backup-cold"]
    assert weakened(POLICY.rules(), POLICY.rules()) == []


@pytest.mark.parametrize(
    ("rule", "dangerous"),
    [
        (expiring(""), True),
        (expiring("pve/"), True),
        (expiring("pve/dump/old/"), True),
        (expiring("iso/"), False),
        (expiring("", Status="Disabled"), False),
        ({"ID": "a", "Status": "Enabled", "Prefix": "pve/", "Expiration": {"Date": "2027-01-01"}}, True),
        ({"ID": "a", "Status": "Enabled", "Filter": {}, "Expiration": {"ExpiredObjectDeleteMarker": True}}, False),
        ({"ID": "a", "Status": "Enabled", "Filter": {}, "NoncurrentVersionExpiration": {"NoncurrentDays": 3}}, False),
        ({"ID": "a", "Status": "Enabled", "Filter": {}, "AbortIncompleteMultipartUpload": {}}, False),
    ],
)
def test_rules_that_delete_backups(rule: dict[str, Any], dangerous: bool) -> None:
    assert bool(list(deleting([rule], "pve/"))) is dangerous


def test_rules_that_freeze_backups() -> None:
    rule = {"ID": "a", "Status": "Enabled", "Filter": {}, "Transitions": [{"Days": 1, "StorageClass": "DEEP_ARCHIVE"}]}
    (line,) = freezing([rule], "pve/", "backup")
    assert "rule a moves objects to DEEP_ARCHIVE" in line
    assert list(freezing(POLICY.rules(), "pve/", "backup")) == []
    assert list(freezing(POLICY.rules(), "pve/", "another")) != []


def test_the_newest_and_the_protected_stay() -> None:
    old = NOW - 100 * DAY
    objects = [Stored(archive(100, day), old) for day in range(1, 6)]
    objects += [Stored(archive(100, 1, "lxc"), old), Stored(archive(101, 1), old), Stored(archive(102, 9), NOW - DAY)]
    objects += [Stored(archive(100, 2) + ".protected", old), Stored(archive(100, 1) + ".notes", old)]
    objects += [Stored("by-hand.vma.zst", old)]
    verdict = judge(objects, POLICY, NOW)
    assert verdict.cold == (archive(100, 1), archive(100, 3))
    kept = {archive(100, 2), archive(100, 4), archive(100, 5), archive(100, 1, "lxc"), archive(101, 1)}
    assert set(verdict.warm) == kept
    assert verdict.protected_frozen == ()


def test_what_is_frozen_already() -> None:
    objects = [Stored(archive(100, 1), 0.0, "GLACIER"), Stored(archive(100, 1) + ".protected", 0.0)]
    verdict = judge(objects, POLICY, NOW)
    assert (verdict.cold, verdict.protected_frozen) == ((), (archive(100, 1),))


backups = st.builds(
    Stored,
    st.builds(archive, st.integers(100, 102), st.integers(1, 28), st.sampled_from(["qemu", "lxc"])),
    st.floats(0, NOW),
    st.sampled_from(["", "STANDARD", "STANDARD_IA", "GLACIER"]),
)


@given(st.lists(backups, unique_by=lambda item: item.key), st.sets(st.integers(0, 30)), st.integers(1, 4))
def test_no_guest_loses_its_newest_and_no_mark_is_in_vain(items: list[Stored], marked: set[int], warm: int) -> None:
    marks = [Stored(items[i].key + ".protected", 0.0) for i in marked if i < len(items)]
    policy = Policy("b", "p", glacier_days=90, warm=warm)
    verdict = judge([*items, *marks], policy, NOW)
    assert not set(verdict.cold) & set(verdict.warm)
    assert not {key + ".protected" for key in verdict.cold} & {mark.key for mark in marks}
    for guest in {key.rsplit("-", 2)[0] for key in verdict.cold}:
        newest = sorted(item.key for item in items if item.key.rsplit("-", 2)[0] == guest)[-warm:]
        assert not set(newest) & set(verdict.cold)
    ages = {item.key: NOW - item.modified for item in items}
    assert all(ages[key] >= 90 * DAY for key in verdict.cold)
