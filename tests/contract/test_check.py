"""``s3fsx check`` against real stores, and through a proxy that takes one thing away."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from s3fsx.errors import S3fsxError
from s3fsx.s3.check import check
from s3fsx.s3.probe import probe
from s3fsx.s3.store import S3Store
from s3fsx.store.endpoint import Endpoint
from tests.faultkinds import Refuse
from tests.faultproxy import FaultProxy, Rule

from .conftest import Place, options


async def checked(place: Place, endpoint: str) -> str:
    """What it says; with its error as the last line."""
    out: list[str] = []
    chosen = replace(options(place.server, place.bucket), endpoint=endpoint)
    async with S3Store(chosen, Endpoint()) as store:
        try:
            await check(
                store,
                "p/",
                probe=partial(probe, store, "p/"),
                write=out.append,
                clock_skew=lambda: store.traffic.clock_skew,
            )
        except S3fsxError as error:
            out.append(f"REFUSED {error}")
    async with place.store() as direct:
        assert (await direct.list_page("", delimiter="")).objects == ()
        assert await direct.list_uploads("") == ()
    return "".join(out)


async def test_a_whole_store_passes_and_keeps_nothing(place: Place) -> None:
    said = await checked(place, place.server.endpoint)
    assert "REFUSED" not in said
    assert "pages of a list" in said
    assert "unequal parts" in said
    assert "the store's clock" in said


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        pytest.param(
            Rule(Refuse(501, "NotImplemented"), kinds=frozenset({"COPY PART"})),
            "copy by parts        no: ",
            id="no part copies",
        ),
        pytest.param(
            Rule(Refuse(400, "InvalidPart"), kinds=frozenset({"COMPLETE"}), key=r"\.parts$"),
            "REFUSED unequal parts: the store refuses parts of unequal size",
            id="equal parts only",
        ),
        pytest.param(
            Rule(Refuse(501, "NotImplemented"), kinds=frozenset({"COPY"})), "REFUSED rename: ", id="no copies"
        ),
    ],
)
async def test_what_a_proxy_takes_away_is_said(place: Place, rule: Rule, line: str) -> None:
    with FaultProxy(place.server.endpoint) as proxy, proxy.fault(rule):
        said = await checked(place, proxy.endpoint)
        assert line in said
        assert proxy.injected["Refuse"] >= 1
