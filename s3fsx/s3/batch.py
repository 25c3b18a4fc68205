"""Many objects deleted with few requests (DeleteObjects), where the store does that; one by one where it does not."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial

from ..errors import BucketMissing, NotSupported, StoreError, Transient
from ..transfer.several import each
from . import answers
from .calls import call
from .lanes import Lane, Requests
from .params import ParamMaker

# A store deletes the keys of one request one after the other (Ceph RGW 16: 1000 keys take 1.2 s in one request, 0.5 s
# in 20 of which 8 are under way): so many that disks which need 0.2 s for each still answer within metadata_deadline.
BATCH = 50

# XML 1.0 cannot carry some of these, and a parser makes other characters of the rest.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")

log = logging.getLogger("s3fsx.s3batch")


class BatchDelete:
    """one(key): deletes a single object. Whether the store can do more at once is found out, and remembered."""

    def __init__(self, requests: Requests, lane: Lane, make: ParamMaker, one: Callable[[str], Awaitable[None]]) -> None:
        self._requests = requests
        self._lane = lane
        self._make = make
        self._one = one
        self._refused = False

    async def delete(self, keys: Collection[str]) -> dict[str, StoreError]:
        """See ``Store.delete_many``."""
        failed: dict[str, StoreError] = {}
        singly: list[str] = []
        fit: list[str] = []
        for key in keys:
            # A request on the same key that was given up may still have its effect: the single DELETE waits for it.
            odd = self._refused or _CONTROL.search(key) or self._requests.left_behind(key)
            (singly if odd else fit).append(key)
        batches = [fit[at : at + BATCH] for at in range(0, len(fit), BATCH)]

        async def together(batch: list[str]) -> None:
            singly.extend(await self._together(batch, failed))

        async def alone(key: str) -> None:
            try:
                await self._one(key)
            except StoreError as error:
                failed[key] = error

        await each(batches, together)
        await each(singly, alone)
        return failed

    async def _together(self, batch: list[str], failed: dict[str, StoreError]) -> Iterable[str]:
        """Those that have to be deleted singly."""
        if self._refused or len(batch) == 1:
            return batch
        what = f"DELETE of {len(batch)} objects from {batch[0]}"
        work = call("delete_objects", self._make.batch(batch), partial(answers.deleted, what=what, keys=batch))
        try:
            errors = await self._requests.run(self._lane, "DeleteObjects", what, work)
        except (Transient, BucketMissing):
            return batch
        except StoreError as error:
            if not self._refused:
                log.info("objects are deleted one by one: %s", error)
            self._refused = True
            return batch
        failed |= {key: error for key, error in errors.items() if not _once_more(error)}
        return [key for key, error in errors.items() if _once_more(error)]


def _once_more(error: StoreError) -> bool:
    """Alone it may succeed, or a single DELETE says better why it does not."""
    return isinstance(error, (Transient, NotSupported))
