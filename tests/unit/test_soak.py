"""The soak's own bookkeeping: what it calls lost must be lost, and what is damaged must not pass."""

from __future__ import annotations

from contrib.soak.content import BLOCK, ZSTD, Content
from contrib.soak.ledger import Ledger


def test_contents_differ_at_every_block_and_between_seeds() -> None:
    content = Content(1, 2 * BLOCK + 5)
    blocks = [content.block(n) for n in range(content.blocks)]
    assert [len(block) for block in blocks] == [BLOCK, BLOCK, 5]
    assert blocks[0].startswith(ZSTD)
    assert blocks[0][1000:2000] != blocks[1][1000:2000]
    assert blocks[0][1000:2000] != Content(2, 2 * BLOCK).block(0)[1000:2000]
    assert blocks[0] == Content(1, BLOCK).block(0)
    assert Content(1, 0).blocks == 0


def test_a_replacement_under_way_may_be_either_but_not_nothing() -> None:
    ledger, old, new = Ledger(1), Content(1, 10), Content(2, 20)
    ledger.acknowledge("a", old)
    ledger.attempt("a", new)
    assert "a" not in ledger.acknowledged
    assert (ledger.uncertain["a"].contents, ledger.uncertain["a"].absent) == ([old, new], False)
    ledger.acknowledge("a", new)
    assert ledger.uncertain == {}
    ledger.remove("a")
    assert ledger.uncertain["a"].absent
    ledger.gone("a")
    assert not ledger.uncertain
    assert not ledger.acknowledged


def test_what_is_read_is_not_free() -> None:
    ledger = Ledger(1)
    ledger.acknowledge("a", Content(1, 10))
    assert ledger.pin("a") == Content(1, 10)
    assert not ledger.free("a")
    ledger.unpin("a")
    assert ledger.free("a")
    assert ledger.pin("b") is None


def test_a_finding_makes_it_bad_and_is_counted() -> None:
    ledger = Ledger(1)
    assert ledger.good
    for n in range(30):
        ledger.found("lost", f"{n}")
    assert not ledger.good
    report = ledger.report()
    assert report["lost"] == 30
    assert len(report["findings"]) == 20
    assert report["damaged"] == 0
