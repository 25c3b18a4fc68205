"""``s3fsx check``: does the store do what a mount needs, and how fast. Leaves nothing in the bucket."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import trio

from ..configuration.config import to_s3_options
from ..configuration.settings import Settings
from ..errors import Corrupted, S3fsxError
from ..layout import INTERNAL
from ..s3 import questions
from ..s3.probe import probe as probe_store
from ..s3.store import S3Store
from ..s3.trials import last_number, pages, sweep, unequal_parts
from ..store.endpoint import Endpoint
from ..store.findings import Asked, Finding, findings
from ..store.objects import MAX_PARTS, Capabilities, Payload, Store
from .launch import explain

SIZE = 64 << 10
CLEANUP_LIMIT = 15.0

Probe = Callable[[], Awaitable[Capabilities]]
Ask = Callable[[str], Awaitable[tuple[Asked | None, Asked | None]]]


@dataclass(frozen=True, slots=True)
class Step:
    """One that went well."""

    name: str
    seconds: float

    def __str__(self) -> str:
        return f"  {self.name:18} {self.seconds * 1000:7.1f} ms"


@dataclass(frozen=True, slots=True)
class Remark:
    """On the step before."""

    text: str

    def __str__(self) -> str:
        return f"  {'':18}           {self.text}"


Event = Step | Remark | Finding
Tell = Callable[[Event], object]


async def check_store(settings: Settings, tell: Tell) -> Capabilities | None:
    """``check`` of the store that the settings name. Raises S3fsxError that names it, too."""
    try:
        async with S3Store(to_s3_options(settings), Endpoint(patience=settings.outage_patience)) as store:
            return await check(
                store,
                settings.prefix,
                probe=partial(probe_store, store, settings.prefix),
                tell=tell,
                ask=partial(ask_store, store),
                read_only=settings.read_only,
                equal_parts=settings.part_profile == "uniform",
                max_parts=settings.max_parts,
                clock_skew=lambda: store.traffic.clock_skew,
            )
    except S3fsxError as error:
        raise S3fsxError(explain(error, settings)) from error


async def ask_store(store: S3Store, key: str) -> tuple[Asked | None, Asked | None]:
    """Versions and tags; key: of an object that may be tagged."""
    return await questions.versions(store), await questions.tags(store, key)


async def _nothing(_: str) -> tuple[Asked | None, Asked | None]:
    return None, None


async def check(
    store: Store,
    prefix: str,
    *,
    probe: Probe,
    tell: Tell,
    ask: Ask = _nothing,
    read_only: bool = False,
    equal_parts: bool = False,
    max_parts: int = MAX_PARTS,
    clock_skew: Callable[[], float | None] = lambda: None,
) -> Capabilities | None:
    """Tries every step on objects below ``prefix`` + ".s3fsx/" and tells each that went well, then what was found.

    ask(key of an object that is there): about versions and tags.
    equal_parts: the mount's parts have one size, so that it need not be tried whether others are accepted. max_parts:
    how many of them the settings allow. clock_skew:
    seconds the store's clock is ahead, as far as its answers told.

    What it found out; None when read_only. Raises S3fsxError, with the name of the step that failed before the store's
    message.
    """
    step = partial(_step, tell)
    with step("connect and list"):
        page = await store.list_page(prefix, limit=10)
    tell(Remark(_found(page.objects, page.prefixes, page.next_token)))
    if read_only:
        tell(Remark("read_only is set: nothing written"))
        return None
    with step("clean up"):
        left_behind = await sweep(store, prefix)
    if left_behind:
        tell(Remark(f"{left_behind} leftovers of earlier checks removed"))
    with step("probe"):
        capabilities = await probe()
    key = f"{prefix}{INTERNAL}/check-{secrets.token_hex(8)}"
    target = f"{key}.renamed"
    data = secrets.token_bytes(SIZE)
    try:
        with step("write 64 KiB"):
            info = await store.put(key, Payload.of(data), metadata={})
        with step("rename"):
            moved = await store.copy(key, target, etag=info.etag)
            await store.delete(key)
        with step("stat"):
            if (await store.head(target)).size != SIZE:
                raise Corrupted("the object has another size than what was written")
        with step("read"):
            if await store.get_range(target, 0, SIZE, etag=moved.etag) != data:
                raise Corrupted("the object has other bytes than what was written")
        with step("versions and tags"):
            versions, tags = await ask(target)
        with step("delete"):
            await store.delete(target)
            left = await store.list_page(key, delimiter="")
            if left.objects:
                raise S3fsxError("the object is still listed after its deletion")
    except BaseException:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLEANUP_LIMIT):
            await _clean(store, key, target)
        raise
    with step("pages of a list"):
        await pages(store, f"{key}.pages")
    if not equal_parts:
        with step("unequal parts"):
            await unequal_parts(store, f"{key}.parts")
    with step("many parts"):
        await last_number(store, f"{key}.number", max_parts)
    for finding in findings(capabilities, clock_skew=clock_skew(), versions=versions, tags=tags):
        tell(finding)
    return capabilities


@contextmanager
def _step(tell: Tell, name: str) -> Iterator[None]:
    start = trio.current_time()
    try:
        yield
    except S3fsxError as error:
        raise S3fsxError(f"{name}: {str(error) or type(error).__name__}") from error
    tell(Step(name, trio.current_time() - start))


async def _clean(store: Store, *keys: str) -> None:
    for key in keys:
        try:
            await store.delete(key)
        except S3fsxError:
            continue  # the failure that led here is the one to tell


def _found(objects: tuple[object, ...], prefixes: tuple[object, ...], more: str | None) -> str:
    if not objects and not prefixes:
        return "nothing there yet"
    return f"{'more than ' if more else ''}{len(objects)} files and {len(prefixes)} directories at the top"
