"""botocore 1.29, of Debian 12, beside the newer one: what its model of S3 lacks that we ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import botocore.loaders
import pytest

from s3fsx.errors import Exists
from s3fsx.s3.lean import LeanClient
from s3fsx.store.objects import Payload
from tests.contract.conftest import Place

# Of requests; as it was until botocore 1.34.
MISSING = {"PutObjectRequest": ("IfNoneMatch",), "CompleteMultipartUploadRequest": ("IfNoneMatch",)}


@pytest.fixture
def old_model(monkeypatch: pytest.MonkeyPatch) -> None:
    load = botocore.loaders.Loader.load_service_model

    def load_old(self: Any, service: str, kind: str, api_version: str | None = None) -> Any:
        model: Any = load(self, service, kind, api_version)
        if (service, kind) != ("s3", "service-2"):
            return model
        shapes = dict(model["shapes"])
        for name, members in MISSING.items():
            known = shapes[name]["members"]
            shapes[name] = shapes[name] | {"members": {k: v for k, v in known.items() if k not in members}}
        return {**model, "shapes": shapes}

    monkeypatch.setattr(botocore.loaders.Loader, "load_service_model", load_old)


@pytest.mark.usefixtures("old_model")
@pytest.mark.parametrize("by_boto3", [False, True], ids=["lean", "boto3"])
async def test_a_condition_is_sent_that_the_model_does_not_know(
    place: Place, monkeypatch: pytest.MonkeyPatch, by_boto3: bool
) -> None:
    """Before: ParamValidationError, so that no mount could finish an upload after a crash."""
    if by_boto3:
        monkeypatch.setattr(LeanClient, "_learnt", lambda _: None)
    async with place.store() as store:
        store.capabilities = replace(store.capabilities, conditional_put=True, conditional_complete=True)
        await store.put("here", Payload.of(b"first"), metadata={}, only_if_absent=True)
        with pytest.raises(Exists):
            await store.put("here", Payload.of(b"second"), metadata={}, only_if_absent=True)
        upload_id = await store.create_upload("new", metadata={})
        part = await store.upload_part("new", upload_id, 1, Payload.of(b"part"))
        await store.complete_upload("new", upload_id, [part], only_if_absent=True)
        assert store.capabilities.conditional_complete
        assert (await store.head("new")).size == 4
        upload_id = await store.create_upload("here", metadata={})
        part = await store.upload_part("here", upload_id, 1, Payload.of(b"third"))
        sent: list[str] = []
        client = store._requests.client("slow")
        client.meta.events.register("before-send.s3", lambda request, **_: sent.append(condition(request)))
        if place.server.name == "rgw":  # 16 ignores it with Complete
            await store.complete_upload("here", upload_id, [part], only_if_absent=True)
        else:
            with pytest.raises(Exists):
                await store.complete_upload("here", upload_id, [part], only_if_absent=True)
        assert sent == ["*"]


def condition(request: Any) -> str:
    value = request.headers.get("If-None-Match", "")
    return value.decode() if isinstance(value, bytes) else value
