"""``s3fsx check`` against real stores, and through a proxy that takes one thing away."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import partial
from typing import Any

import pytest

from s3fsx import cli
from s3fsx.commands import checking
from s3fsx.errors import S3fsxError
from s3fsx.s3 import questions
from s3fsx.s3.probe import probe
from s3fsx.s3.store import S3Store
from s3fsx.service import log
from s3fsx.service.check import ask_store, check
from s3fsx.store.endpoint import Endpoint
from s3fsx.store.findings import Asked
from s3fsx.store.objects import Payload
from tests.exchange import Exchange, Head
from tests.faultkinds import Edited, Fault, Nothing, Refuse, Without
from tests.faultproxy import FaultProxy, Rule
from tests.s3server import S3Server

from .conftest import Place, options

CHECKSUMS = ("content-md5", "x-amz-checksum-crc32", "x-amz-content-sha256")


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
                tell=lambda event: out.append(f"{event}\n"),
                ask=partial(ask_store, store),
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
    assert "\nversions             no\n" in said
    assert "\ntags                 yes\n" in said


@pytest.mark.parametrize("place", [pytest.param("rgw", marks=pytest.mark.rgw)], indirect=True)
def test_as_json(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("S3FSX_CONFIG_DIR", "/absent")
    monkeypatch.setenv("S3FSX_ACCESS_KEY", place.server.access_key)
    monkeypatch.setenv("S3FSX_SECRET_KEY", place.server.secret_key)
    monkeypatch.setattr(checking, "keep_private", lambda: None)  # cannot be undone, and pytest goes on
    monkeypatch.setattr(log, "setup", lambda *_, **__: None)  # the handlers are pytest's
    where = f"endpoint={place.server.endpoint},region={place.server.region}"
    assert cli.main(["check", f"s3://{place.bucket}/p", "-o", where, "--json"]) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (said["source"], said["ok"], said["error"]) == (f"s3://{place.bucket}/p/", True, None)
    assert [step["name"] for step in said["steps"]][:2] == ["connect and list", "clean up"]
    assert {finding["capability"]: finding["value"] for finding in said["findings"]}["tags"] == "yes"
    assert cli.main(["check", "s3://no-such-bucket/p", "-o", where, "--json"]) == 1
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert (said["ok"], said["steps"], said["findings"]) == (False, [], [])
    assert said["error"] in err
    assert len(err.splitlines()) == 1


async def test_a_bucket_with_versions(moto: S3Server) -> None:
    bucket = moto.make_bucket("versions")
    moto.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    async with S3Store(options(moto, bucket), Endpoint()) as store:
        assert await questions.versions(store) == Asked("yes")
        moto.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
        assert await questions.versions(store) == Asked("suspended")


@dataclass(frozen=True)
class OfQuestions:
    """A fault of requests about versions and tags only."""

    fault: Fault

    def run(self, exchange: Exchange) -> None:
        asked = re.search(r"\?(versioning|tagging)\b", exchange.request.head.start)
        (self.fault if asked else Nothing()).run(exchange)


@pytest.mark.parametrize("place", ["moto"], indirect=True)
@pytest.mark.parametrize(
    ("answer", "versions", "tags"),
    [
        (
            Refuse(403, "AccessDenied"),
            "not known: these keys may not ask (s3:GetBucketVersioning)",
            "not known: these keys may not ask (s3:PutObjectTagging, s3:GetObjectTagging)",
        ),
        (Refuse(501, "NotImplemented"), "no", "no: s3fsx pve lifecycle --glacier-days"),
    ],
)
async def test_versions_and_tags_that_cannot_be_asked_for(
    place: Place, answer: Refuse, versions: str, tags: str
) -> None:
    """Keys with the rights of a mount may ask neither: that is no failure, and nothing weaker."""
    with FaultProxy(place.server.endpoint) as proxy, proxy.fault(Rule(OfQuestions(answer))):
        said = await checked(place, proxy.endpoint)
    assert "REFUSED" not in said
    assert f"\nversions             {versions}" in said
    assert f"\ntags                 {tags}" in said


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
        pytest.param(
            Rule(Refuse(400, "InvalidArgument"), kinds=frozenset({"PUT PART"}), key=r"\.number$"),
            "REFUSED many parts: the store refuses part number 10000",
            id="fewer parts",
        ),
        pytest.param(
            Rule(Refuse(501, "NotImplemented"), kinds=frozenset({"PUT PART"}), key=r"\.number$"),
            "set max_parts",
            id="fewer parts, said otherwise",
        ),
        pytest.param(
            Rule(
                Edited(lambda head, body: (head, re.sub(rb"<Contents>.*?</Contents>", b"", body, count=1, flags=re.S)))
            ),
            "REFUSED pages of a list: 5 objects, 0 to 4, were listed as 1, ",
            id="a listing that loses names",
        ),
    ],
)
async def test_what_a_proxy_takes_away_is_said(place: Place, rule: Rule, line: str) -> None:
    with FaultProxy(place.server.endpoint) as proxy, proxy.fault(rule):
        said = await checked(place, proxy.endpoint)
        assert line in said
        assert proxy.injected.total() >= 1


def late(head: Head, body: bytes) -> tuple[Head, bytes]:
    bare = head.without("date")
    return replace(bare, fields=(*bare.fields, ("Date", formatdate(time.time() + 600, usegmt=True)))), body


async def test_a_clock_that_is_ahead(place: Place) -> None:
    with FaultProxy(place.server.endpoint) as proxy, proxy.fault(Rule(Edited(late))):
        said = await checked(place, proxy.endpoint)
    assert re.search(r"the store's clock +(599|600|601) s ahead of ours: beyond 15 minutes it refuses", said)


@pytest.mark.parametrize("place", ["moto"], indirect=True)
@pytest.mark.parametrize(
    "ignored", [("if-none-match",), ("content-md5", "x-amz-checksum-crc32", "x-amz-content-sha256")]
)
async def test_headers_that_are_ignored(place: Place, ignored: tuple[str, ...]) -> None:
    """moto looks at no signature, so that a header can be taken away before it."""
    with FaultProxy(place.server.endpoint) as proxy, proxy.fault(Rule(Without(ignored))):
        said = await checked(place, proxy.endpoint)
    assert "REFUSED" not in said
    if ignored == ("if-none-match",):
        assert "create only if new   no: of two nodes" in said
    else:
        assert "the MD5 of each part is compared with its ETag" in said


def odd_etag(head: Head, body: bytes) -> tuple[Head, bytes]:
    """As Cloudflare R2's: nothing says that it comes from S3."""
    bare = head.without("etag", "x-amz-request-id", "x-amz-id-2", "x-amzn-requestid", "server")
    more = (("ETag", '"ABwcsNIEIx/3TXD+37wkhu1YIh8AgUg"'), ("cf-ray", "73c832d5dd7e15cb-EWR"))
    return replace(bare, fields=(*bare.fields, *more)), b""


@pytest.mark.expect_log("arrived with MD5 .* sending it again")
@pytest.mark.parametrize("place", ["moto"], indirect=True)
async def test_parts_whose_etag_is_no_md5(place: Place) -> None:
    """Where nothing else tells whether a part came right: it is said, and backups work all the same."""
    ignored = Rule(Without(CHECKSUMS), kinds=frozenset({"PUT"}))
    odd = Rule(Edited(odd_etag), kinds=frozenset({"PUT PART"}))
    with FaultProxy(place.server.endpoint) as proxy, proxy.fault(ignored, odd):
        chosen = replace(options(place.server, place.bucket), endpoint=proxy.endpoint)
        async with S3Store(chosen, Endpoint()) as store:
            found = await probe(store, "p/", multipart=False)
            assert found.integrity != "etag"
            assert any("parts are not verified" in note for note in found.notes)
            upload = await store.create_upload("p/x", metadata={})
            assert (await store.upload_part("p/x", upload, 1, Payload.of(b"data"))).size == 4
            await store.abort_upload("p/x", upload)
