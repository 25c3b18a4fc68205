"""What replay decides about a change of names, over every mixture of what the bucket may hold by then."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from s3fsx.local.intents import directory_of, is_copy, is_version, piece_of, plan, undecided
from s3fsx.local.records import Intent, Piece
from s3fsx.store.objects import COPY_OF, WRITE_ID, ObjectInfo

SOURCE = ObjectInfo("a", 5, "e1", 1000.0, metadata={WRITE_ID: "w1", "mode": "33188"})
COPY = replace(SOURCE, key="b", modified=1001.0)
PIECE = piece_of(SOURCE, "b")


def test_a_version_is_known_by_etag_size_time_and_write_id() -> None:
    assert is_version(PIECE, SOURCE)
    assert is_version(PIECE, replace(SOURCE, modified=1001.2, metadata=None))
    assert is_version(PIECE, replace(SOURCE, modified=1003.0)), "a proxy's clock: the write id says enough"
    assert not is_version(PIECE, replace(SOURCE, modified=1003.0, metadata=None))
    assert not is_version(replace(PIECE, write_id=""), replace(SOURCE, modified=1003.0))
    assert not is_version(PIECE, replace(SOURCE, modified=2000.0)), "brought back by a server-side copy"
    assert not is_version(PIECE, replace(SOURCE, etag="e2"))
    assert not is_version(PIECE, replace(SOURCE, size=6))
    assert not is_version(PIECE, replace(SOURCE, metadata={WRITE_ID: "w2"}))
    assert is_version(replace(PIECE, write_id=""), replace(SOURCE, metadata={WRITE_ID: "w2"}))


def test_a_copy_is_known_by_what_only_a_copy_has() -> None:
    assert is_copy(PIECE, SOURCE, COPY)
    assert is_copy(PIECE, SOURCE, replace(COPY, etag="other")), "a multipart object's changes"
    assert not is_copy(PIECE, SOURCE, None)
    assert not is_copy(PIECE, SOURCE, replace(COPY, size=4))
    assert not is_copy(PIECE, SOURCE, replace(COPY, metadata={})), "the same bytes, written by somebody else"
    assert not is_copy(PIECE, SOURCE, replace(COPY, metadata=None)), "nobody asked for its metadata"
    parts = replace(COPY, etag="x-2", metadata={WRITE_ID: "w9", COPY_OF: "e1"})
    assert is_copy(PIECE, SOURCE, parts)
    assert not is_copy(PIECE, SOURCE, replace(parts, metadata={WRITE_ID: "w9", COPY_OF: "e0"}))
    recorded = replace(PIECE, copy_etag="x-2")
    assert is_copy(recorded, SOURCE, replace(parts, metadata=None))
    assert not is_copy(recorded, SOURCE, COPY), "recorded was another"
    foreign = replace(SOURCE, metadata={})
    assert is_copy(piece_of(foreign, "b"), foreign, replace(foreign, key="b"))
    assert not is_copy(piece_of(foreign, "b"), foreign, replace(foreign, key="b", etag="other"))


def test_metadata_is_asked_for_only_where_it_decides() -> None:
    listed = {"a": replace(SOURCE, metadata=None), "b": replace(COPY, metadata=None)}
    intent = Intent("i", "copying", "b", 0.0, (replace(PIECE, write_id=""),))
    assert undecided(intent, listed) == ["a", "b"]
    assert undecided(intent, {"a": listed["a"]}) == []
    assert undecided(intent, {"b": listed["b"]}) == []
    assert undecided(replace(intent, pieces=(replace(PIECE, write_id="", copy_etag="e1"),)), listed) == []
    assert undecided(replace(intent, pieces=(PIECE,)), {"a": listed["a"]}) == ["a"]


def test_directories_of_keys() -> None:
    assert directory_of(["p/d/a", "p/d/b", "p/d/"]) == "p/d/"
    assert directory_of(["p/d/aa", "p/d/ab"]) == "p/d/"
    assert directory_of(["a", "b"]) == ""
    assert directory_of(["p/da", "p/db/c"]) == "p/"


# Each piece: what is there under its old name, and under its new one.
ours, others = st.just("ours"), st.just("others")
state = st.tuples(st.none() | ours | others, st.none() | ours | others)


@given(st.lists(state, min_size=1, max_size=6), st.sampled_from(["copying", "deleting", "undoing"]), st.booleans())
def test_nothing_of_others_and_no_last_copy_is_ever_deleted(
    states: list[tuple[str | None, str | None]], phase: str, rename: bool
) -> None:
    there: dict[str, ObjectInfo] = {}
    pieces: list[Piece] = []
    for i, (source, target) in enumerate(states):
        old = replace(SOURCE, key=f"old/{i}")
        pieces.append(piece_of(old, f"new/{i}" if rename else ""))
        if source is not None:
            there[old.key] = old if source == "ours" else replace(old, etag="theirs", metadata={})
        if target is not None and rename:
            new = replace(COPY, key=f"new/{i}")
            there[new.key] = new if target == "ours" else replace(new, etag="theirs", metadata={})
    intent = Intent("i", phase if rename else "deleting", "x", 0.0, tuple(pieces))
    decided = plan(intent, there)
    after = {key: info for key, info in there.items() if key not in decided.delete}
    assert set(decided.delete) <= set(there)
    for i, (source, target) in enumerate(states):
        old_key, new_key = f"old/{i}", f"new/{i}"
        for key, who in ((old_key, source), (new_key, target if rename else None)):
            if who == "others":
                assert key in after
        if rename and source == "ours":
            assert old_key in after or new_key in after, "the bytes of a rename are there under one name at least"
        if rename and source is None and target == "ours":
            assert new_key in after, "the only one"
        if not rename and source == "ours":
            assert old_key not in after
    if rename and all(source == "ours" and target != "others" for source, target in states):
        # Undisturbed, it ends with all of it under one name (a phase is written only once every copy is there).
        if phase == "deleting" and all(target == "ours" for _, target in states):
            assert set(after) == {f"new/{i}" for i in range(len(states))}
        elif phase == "copying":
            names = {key.partition("/")[0] for key in after}
            assert len(names) == 1
        elif phase == "undoing":
            assert not decided.forward
            assert not [key for key in decided.delete if key.startswith("old/")]
    assert not set(decided.left) & set(decided.delete)
    # Deciding again after half of the deletions, and after all, never turns round.
    for done in (decided.delete[:1], decided.delete):
        rest = {key: info for key, info in there.items() if key not in done}
        again = plan(replace(intent, phase="deleting") if decided.forward else intent, rest)
        assert set(again.delete) == set(decided.delete) - set(done)
