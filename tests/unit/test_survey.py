"""Whose an unfinished upload is, and what may be done with it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.errors import ConfigError
from s3fsx.fs.survey import (
    ABORT,
    KEEP,
    PUBLISH,
    Finding,
    Known,
    Unfinished,
    choose,
    human,
    judge,
    lines,
    prefixes_above,
)
from s3fsx.local.nodecopy import CopiedUpload, NodeCopy, copied, difference, from_json, record_of, to_json
from s3fsx.local.records import UploadRecord
from s3fsx.store.objects import UploadedPart

MINE, OTHER, THIRD = "a" * 32, "b" * 32, "bbbbbb" + "c" * 26
PARTS = (UploadedPart(1, 8 << 20, "0" * 32), UploadedPart(2, 5, "1" * 32))
RECORD = UploadRecord("w1", "u1", "settled", "pve/dump/x.zst", "dump/x.dat", 1000.0, (8 << 20) + 5, PARTS)
UPLOAD = Unfinished("pve/dump/x.zst", "u1", 1000.0, PARTS)
NOBODY = Known(MINE, (), (), 5000.0, None, 0.023)


def of(node: str, *records: UploadRecord, host: str = "pve2") -> NodeCopy:
    return NodeCopy(node, host, 900.0, "pve/", tuple(copied(r) for r in records))


@pytest.mark.parametrize(
    ("state", "action"), [("open", ABORT), ("aborting", ABORT), ("settled", KEEP), ("publishing", PUBLISH)]
)
def test_this_nodes_own(state: str, action: str) -> None:
    found = judge(UPLOAD, replace(NOBODY, records=(replace(RECORD, state=state),), older_than=1.0))
    assert (found.owner, found.node, found.action) == ("this node", MINE, action)


@pytest.mark.parametrize(
    ("state", "action"),
    [("open", ABORT), ("aborting", ABORT), ("removing", ABORT), ("settled", PUBLISH), ("publishing", PUBLISH)],
)
def test_another_nodes(state: str, action: str) -> None:
    found = judge(UPLOAD, replace(NOBODY, copies=(of(OTHER, replace(RECORD, state=state)),), older_than=1.0))
    assert (found.owner, found.node, found.host, found.action) == ("node", OTHER, "pve2", action)
    assert f"--node {OTHER} --apply" in found.why


def test_another_nodes_whose_parts_are_not_all_there_is_left() -> None:
    known = replace(NOBODY, copies=(of(OTHER, RECORD),))
    found = judge(replace(UPLOAD, parts=PARTS[:1]), known)
    assert (found.action, found.size) == (KEEP, 8 << 20)
    assert "not what the node wrote" in found.why


def test_nobodys_by_its_age_only() -> None:
    assert judge(UPLOAD, NOBODY).action == KEEP
    assert judge(UPLOAD, replace(NOBODY, older_than=4000.0)).action == KEEP
    assert judge(UPLOAD, replace(NOBODY, older_than=3999.0)).action == ABORT


def test_one_whose_id_was_never_learnt_may_be_ours() -> None:
    opening = replace(RECORD, upload_id="", state="opening")
    found = judge(UPLOAD, replace(NOBODY, records=(opening,), older_than=1.0))
    assert (found.owner, found.action) == ("this node", KEEP)


def test_an_own_copy_that_is_older_than_the_journal() -> None:
    found = judge(UPLOAD, replace(NOBODY, copies=(of(MINE, RECORD),), older_than=1.0))
    assert (found.owner, found.action) == ("this node", KEEP)


@given(st.floats(0, 1e9), st.sampled_from(["open", "settled", "publishing", "aborting", "removing"]), st.booleans())
def test_an_age_never_reaches_what_somebody_has(older_than: float, state: str, mine: bool) -> None:
    record = replace(RECORD, state=state)
    known = replace(NOBODY, older_than=older_than, now=1e9)
    known = replace(known, records=(record,)) if mine else replace(known, copies=(of(OTHER, record),))
    assert judge(UPLOAD, known).owner != "nobody"


def test_what_it_costs() -> None:
    gigabyte = replace(UPLOAD, parts=(UploadedPart(1, 100 << 30, "0" * 32),))
    assert judge(gigabyte, NOBODY).monthly == pytest.approx(2.3)
    assert judge(gigabyte, replace(NOBODY, price=0.01)).monthly == pytest.approx(1.0)


def test_which_node_is_meant() -> None:
    copies = [of(OTHER, host="pve2"), of(THIRD, host="pve3"), of(MINE, host="pve1")]
    assert choose(copies, OTHER, MINE).node == OTHER
    assert choose(copies, "pve3", MINE).node == THIRD
    assert choose(copies, "bbbbbbc", MINE).node == THIRD
    for node, why in (("bbbbbb", "2 nodes match"), ("bbb", "no journal copy"), (MINE, "that is this machine")):
        with pytest.raises(ConfigError, match=why):
            choose(copies, node, MINE)


def test_where_the_copies_of_others_may_be() -> None:
    assert prefixes_above("pve/", []) == ["pve/"]
    assert prefixes_above("pve/", ["pve/dump/x", "pve/y"]) == ["", "pve/", "pve/dump/"]


def test_what_a_person_reads() -> None:
    findings: list[Finding] = [judge(UPLOAD, replace(NOBODY, copies=(of(OTHER, RECORD),)))]
    text = "\n".join(lines({"journal": "none"}, findings, [of(OTHER, RECORD)]))
    assert f"node {OTHER} (pve2), 1 unfinished upload" in text
    assert "1 unfinished upload, 2 parts, 8.0 MiB, 0.00 USD a month" in text
    assert "settled, file dump/x.dat; 67 min old" in text
    assert [human(n) for n in (0, 1023, 1024, 5 << 30, 3 << 40, 5000 << 40)] == [
        "0 B", "1023 B", "1.0 KiB", "5.0 GiB", "3.0 TiB", "5000.0 TiB",
    ]  # fmt: skip


# -- the copy


def test_a_copy_says_what_the_journal_said() -> None:
    copy = of(OTHER, RECORD, replace(RECORD, write_id="w2", upload_id="u2", state="open", size=0, parts=()))
    assert from_json(copy.key, "pve/", to_json(copy)) == copy
    assert copy.key == f"pve/.s3fsx/journal/{OTHER}.json"
    assert record_of(copy.uploads[0], PARTS) == RECORD


def test_parts_are_compared_by_number_size_and_etag() -> None:
    upload = copied(RECORD)
    assert difference(upload, PARTS) == ""
    assert difference(upload, (*PARTS, UploadedPart(3, 9, "2" * 32))) == "", "a tail that was cut off again"
    assert difference(upload, PARTS[:1])
    assert difference(upload, (PARTS[0], replace(PARTS[1], size=6)))
    assert difference(upload, (PARTS[0], replace(PARTS[1], etag="3" * 32)))


def test_parts_whose_etags_are_no_md5_are_compared_too() -> None:
    """KMS."""
    parts = tuple(replace(part, etag=f"opaque {part.number}") for part in PARTS)
    upload = copied(replace(RECORD, parts=parts))
    assert difference(upload, parts) == ""
    assert difference(upload, (parts[0], replace(parts[1], etag="other")))


GOOD = asdict(of(OTHER, RECORD)) | {"format": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"node": "../../x"},
        {"node": MINE},
        {"time": -1},
        {"time": True},
        {"host": 5},
        {"uploads": 5},
        {"uploads": [{}]},
        {"uploads": [asdict(copied(RECORD)) | {"state": "anything"}]},
        {"uploads": [asdict(copied(RECORD)) | {"key": "elsewhere/x"}]},
        {"uploads": [asdict(copied(RECORD)) | {"upload_id": ""}]},
        {"uploads": [asdict(copied(RECORD)) | {"size": "5"}]},
        {"uploads": [asdict(copied(RECORD)) | {"more": 1}]},
    ],
)
def test_what_is_no_copy_is_refused(change: dict[str, object]) -> None:
    key = f"pve/.s3fsx/journal/{OTHER}.json"
    assert from_json(
        key, "pve/", json.dumps({k: v for k, v in GOOD.items() if k != "prefix"} | {"prefix": "pve/"}).encode()
    )
    with pytest.raises(ValueError, match="is no copy of a journal"):
        from_json(key, "pve/", json.dumps(GOOD | change).encode())


@given(st.binary(max_size=200) | st.text(max_size=99).map(lambda t: json.dumps(t).encode()) | st.just(b"[" * 100_000))
def test_any_bytes_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ValueError, match="is no copy of a journal") as error:
        from_json(f"pve/.s3fsx/journal/{OTHER}.json", "pve/", data)
    assert "\n" not in str(error.value)[:200]


def test_a_copied_upload_is_complete() -> None:
    # resent: a takeover leaves an upload whose last part is not the closed one.
    assert set(asdict(RECORD)) - {"resent"} <= set(asdict(copied(RECORD)))
    assert isinstance(copied(RECORD), CopiedUpload)
