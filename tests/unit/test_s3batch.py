"""DeleteObjects against answers that no store at hand gives."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import trio
from botocore.exceptions import ClientError

from s3fsx.errors import AccessDenied, ObjectLocked, S3fsxError, ServerFault, StoreError
from s3fsx.s3.batch import BATCH, BatchDelete
from s3fsx.s3.client import ClientMaker, failure
from s3fsx.s3.lanes import Lane, Lanes
from s3fsx.s3.options import S3Options
from s3fsx.s3.params import ParamMaker

OPTIONS = S3Options(bucket="b", region="us-east-1", access_key="a", secret_key="s", endpoint="http://127.0.0.1:9")
Answer = Callable[[list[str]], dict[str, Any]]


def all_gone(keys: list[str]) -> dict[str, Any]:
    return {"Deleted": [{"Key": key} for key in keys]}


def refused(code: str, status: int) -> Answer:
    def answer(_: list[str]) -> dict[str, Any]:
        said: dict[str, Any] = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(said, "DeleteObjects")

    return answer


def some_left(code: str, message: str = "") -> Answer:
    """All but the second."""

    def answer(keys: list[str]) -> dict[str, Any]:
        gone = [{"Key": key} for key in keys if key != keys[1]]
        return {"Deleted": gone, "Errors": [{"Key": keys[1], "Code": code, "Message": message}]}

    return answer


class Requests:
    """Answers as told. batches: the keys of each request."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.batches: list[list[str]] = []
        self.left: set[str] = set()

    def left_behind(self, key: str) -> bool:
        return key in self.left

    async def run(self, lane: Lane, operation: str, what: str, work: Callable[[Any], Any]) -> Any:
        assert (lane.client, operation) == ("metadata", "DeleteObjects")
        await trio.lowlevel.checkpoint()
        try:
            return work(self)
        except S3fsxError:
            raise
        except Exception as error:
            raise failure(what, error) from None

    def delete_objects(self, **params: Any) -> dict[str, Any]:
        assert params["Bucket"] == "b"
        assert params["Delete"]["Quiet"] is False
        self.batches.append([entry["Key"] for entry in params["Delete"]["Objects"]])
        return self.answer(self.batches[-1])


class Rig:
    """singly: keys that were deleted one by one."""

    def __init__(self, answer: Answer, error: S3fsxError | None = None) -> None:
        self.requests = Requests(answer)
        self.singly: list[str] = []
        self._error = error
        lane = Lanes(OPTIONS).change
        self.many = BatchDelete(self.requests, lane, ParamMaker(OPTIONS), self._one)  # type: ignore[arg-type]

    async def _one(self, key: str) -> None:
        await trio.lowlevel.checkpoint()
        self.singly.append(key)
        if self._error is not None:
            raise self._error


def keys(count: int) -> list[str]:
    return [f"d/{n:04}" for n in range(count)]


async def test_so_many_in_one_request_and_the_last_one_alone() -> None:
    rig = Rig(all_gone)
    assert await rig.many.delete(keys(2 * BATCH + 1)) == {}
    assert sorted(map(len, rig.requests.batches)) == [BATCH, BATCH]
    assert sorted(sum(rig.requests.batches, rig.singly)) == keys(2 * BATCH + 1)
    assert await rig.many.delete([]) == {}


async def test_what_xml_does_not_carry_and_what_has_a_change_under_way_goes_singly() -> None:
    rig = Rig(all_gone)
    rig.requests.left.add("busy")
    odd = ["bell\x07", "cr\rlf\n", "del\x7f", "line\u2028", "\uffff", "busy"]
    assert await rig.many.delete([*odd, *keys(2)]) == {}
    assert rig.requests.batches == [keys(2)]
    assert sorted(rig.singly) == sorted(odd)


@pytest.mark.parametrize(
    "answer",
    [
        refused("NotImplemented", 501),
        refused("MethodNotAllowed", 405),
        refused("MalformedXML", 400),
        refused("InvalidDigest", 400),
        refused("AccessDenied", 403),
        lambda _: {},
        lambda found: all_gone(found[1:]),
        lambda found: all_gone([*found, "another"]),
        lambda found: {**all_gone(found), "Errors": [{"Key": found[0], "Code": "AccessDenied"}]},
        lambda found: {**all_gone(found), "Errors": [{"Code": "AccessDenied"}]},
    ],
)
async def test_a_store_that_cannot_is_asked_once(answer: Answer) -> None:
    rig = Rig(answer)
    assert await rig.many.delete(keys(4)) == {}
    assert sorted(rig.singly) == keys(4)
    assert await rig.many.delete(keys(4)) == {}
    assert len(rig.requests.batches) == 1
    assert sorted(rig.singly) == sorted(2 * keys(4))


@pytest.mark.parametrize("answer", [refused("InternalError", 500), refused("SlowDown", 503)])
async def test_a_passing_failure_is_no_reason_never_to_try_again(answer: Answer) -> None:
    rig = Rig(answer)
    assert await rig.many.delete(keys(4)) == {}
    assert sorted(rig.singly) == keys(4)
    rig.requests.answer = all_gone
    assert await rig.many.delete(keys(4)) == {}
    assert len(rig.requests.batches) == 2
    assert len(rig.singly) == 4


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [("AccessDenied", "", AccessDenied), ("AccessDenied", "object lock: legal hold", ObjectLocked)],
)
async def test_each_refused_key_has_its_own_error(code: str, message: str, kind: type[StoreError]) -> None:
    rig = Rig(some_left(code, message))
    failed = await rig.many.delete(keys(3))
    assert failed.keys() == {"d/0001"}
    assert type(failed["d/0001"]) is kind
    assert "d/0001" in str(failed["d/0001"])
    assert rig.singly == []


async def test_a_key_that_is_gone_is_gone() -> None:
    rig = Rig(some_left("NoSuchKey"))
    assert await rig.many.delete(keys(3)) == {}
    assert rig.singly == []


@pytest.mark.parametrize("code", ["InternalError", "SlowDown", "SomethingNew", "NotImplemented"])
async def test_what_may_succeed_alone_is_tried_alone(code: str) -> None:
    rig = Rig(some_left(code))
    assert await rig.many.delete(keys(3)) == {}
    assert rig.singly == ["d/0001"]
    failing = Rig(some_left(code), ServerFault("500"))
    assert list(await failing.many.delete(keys(3))) == ["d/0001"]


def test_the_request_has_the_md5_that_older_stores_want() -> None:
    sent: list[Any] = []

    class Stop(Exception):
        pass

    def stop(request: Any, **_: Any) -> None:
        sent.append(request)
        raise Stop

    client = ClientMaker(OPTIONS)("metadata")
    client.meta.events.register_first("before-send.s3", stop)
    with pytest.raises(Stop):
        client.delete_objects(**ParamMaker(OPTIONS).batch(["a&b", "ü"]))
    digest = hashlib.md5(sent[0].body, usedforsecurity=False).digest()
    assert base64.b64decode(sent[0].headers["Content-MD5"]) == digest
    assert "content-md5" in sent[0].headers["Authorization"].decode()
    client.close()
