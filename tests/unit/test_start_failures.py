"""What a mount says that cannot begin, before it has a kernel mount: its state directory, and keys that only read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from s3fsx.configuration.settings import Settings
from s3fsx.errors import AccessDenied, ConfigError, S3fsxError
from s3fsx.kernel import mountpoint
from s3fsx.local.journal import Journal
from s3fsx.s3.probe import probe
from s3fsx.service import state
from s3fsx.service.status import serve_status, socket_path
from s3fsx.store.objects import Capabilities


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        bucket="b", prefix="p/", endpoint="http://e", state_dir=str(tmp_path / "s"), runtime_dir=str(tmp_path / "r")
    )


def shows(settings: Settings, pid: int, path: str) -> Callable[[], dict[str, object]]:
    endpoint = {"url": settings.endpoint}
    return lambda: {"pid": pid, "mountpoint": path, "source": f"s3://b/{settings.prefix}", "endpoint": endpoint}


async def refusal(settings: Settings) -> str:
    """What a second mount is told while the first holds the lock: trouble that may pass, so no ConfigError."""
    with pytest.raises(S3fsxError) as caught:
        await state.open_journal(settings, settings.state_dir)
    assert not isinstance(caught.value, ConfigError)
    return str(caught.value)


async def test_a_held_journal_names_who_holds_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "_LOCK_TRIES", 1)
    monkeypatch.setattr(state, "_LOCK_PAUSE", 0.0)
    held = Journal.open(settings.state_dir)
    other = Settings(bucket="b", prefix="p/", endpoint="http://elsewhere")
    try:
        assert (
            await refusal(settings)
            == f"{settings.state_dir} is in use by an s3fsx that shows no status; wait for its end"
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_status, socket_path(settings.runtime_dir, "/mnt/a"), shows(other, 41, "/mnt/a"))
            await nursery.start(
                serve_status, socket_path(settings.runtime_dir, "/mnt/b"), shows(settings, 42, "/mnt/b")
            )
            line = await refusal(settings)
            assert line.startswith("pid 42 is still publishing what was written to /mnt/b, or a program still uses it")
            assert "mount again when it has ended" in line
            here = {"/mnt/b": mountpoint.Entry(mountpoint.FSTYPE, "s3://b/p/", 0)}
            monkeypatch.setattr(mountpoint, "table", lambda: here)
            monkeypatch.setattr(state, "_LOCK_PAUSE", 3600.0)  # nobody waits for a mount that is served
            with trio.fail_after(60):
                assert (await refusal(settings)).startswith("pid 42 serves s3://b/p/ on /mnt/b: unmount that, or give")
            nursery.cancel_scope.cancel()
    finally:
        held.close()
    (await state.open_journal(settings, settings.state_dir)).close()


@pytest.mark.parametrize(("number", "kind"), [(28, S3fsxError), (122, S3fsxError), (13, ConfigError)])
async def test_a_full_disk_is_no_bad_input(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[S3fsxError]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "mkdir", fails)
    with pytest.raises(S3fsxError, match="state_dir") as caught, state.full_disk_is_trouble():
        await state.open_journal(settings, settings.state_dir)
    assert type(caught.value) is kind


class ReadOnlyStore:
    """Keys that may list and read."""

    capabilities = Capabilities()

    async def refuses_wrong(self, mode: str, key: str) -> bool:
        await trio.lowlevel.checkpoint()
        raise AccessDenied(f"PUT {key}: 403 AccessDenied")

    async def delete(self, key: str) -> None:
        await trio.lowlevel.checkpoint()
        raise AccessDenied(f"DELETE {key}: 403 AccessDenied")


@pytest.mark.parametrize(("prefix", "where"), [("pve/", "pve/"), ("", "the top of the bucket")])
async def test_keys_that_only_read_are_told_about_ro(prefix: str, where: str) -> None:
    line = rf"^these keys may not write below {where}: use -o ro \(read_only = true\) to mount it read-only \(PUT "
    with pytest.raises(AccessDenied, match=line):
        await probe(ReadOnlyStore(), prefix, multipart=False)  # type: ignore[arg-type]
