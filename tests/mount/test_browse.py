"""The commands that look into a bucket beside a mount that fills it, as processes of their own. Most of what they do is
tried in ``tests/browse``."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.browse.archives import QEMU_CONF, compressed, vma
from tests.mount.conftest import MakeMount
from tests.mount.harness import COMMAND, Mount, environment, eventually, join_options

pytestmark = [pytest.mark.mount, pytest.mark.rgw]

VM = "vzdump-qemu-100-2026_11_20-13_15_26.vma.zst"


def command(mount: Mount, *arguments: str) -> list[str]:
    """With the options of the mount, which are those of its node; those that say where its daemon is do no harm."""
    return [*COMMAND, arguments[0], "-o", join_options(mount.options), *arguments[1:]]


def s3fsx(mount: Mount, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(mount, *arguments),
        capture_output=True,
        text=True,
        env=environment(mount.server, TZ="UTC"),
        cwd="/",
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr, done
    return done


def save(mount: Mount, name: str, data: bytes) -> None:
    """As vzdump does: written under a temporary name, renamed."""
    target = mount.path / "dump" / name
    temporary = target.with_suffix(".dat")
    temporary.write_bytes(data)
    temporary.rename(target)


def test_beside_a_mount(make_mount: MakeMount) -> None:
    """A path in the mount is enough to say which bucket; what the mount wrote is verified with its own checksums; what
    a command changes the mount sees."""
    mount = make_mount(list_ttl="1s")
    large = compressed(vma(24 << 20), "zst")
    save(mount, VM, large)
    (mount.path / "dump" / f"{VM}.notes").write_text("web")
    unpublished = mount.path / "dump" / "vzdump-qemu-102-2026_11_20-13_15_26.vma.dat"
    with unpublished.open("wb") as writing:
        writing.write(large)
        (found,) = json.loads(s3fsx(mount, "backups", str(mount.path), "--json").stdout)
        assert (found["name"], found["notes"], found["checksums"]) == (VM, "web", True)
        assert s3fsx(mount, "show", str(mount.path / "dump" / VM)).stdout.encode() == QEMU_CONF
        done = s3fsx(mount, "verify", str(mount.path / "dump" / VM))
        assert done.stdout.startswith(f"ok       {VM}  ")
        assert "every byte verified" in s3fsx(mount, "drill", str(mount.path)).stdout
    eventually(lambda: "s3fsx drill" in (mount.path / "dump" / f"{VM}.notes").read_text(), "the note is seen")
    unpublished.unlink()
    piped = subprocess.run(
        command(mount, "get", f"{mount.source}:dump/{VM}", "-"),
        stdout=subprocess.PIPE,
        env=environment(mount.server),
        timeout=60,
        check=True,
    )
    assert piped.stdout == large
    with subprocess.Popen(
        command(mount, "get", f"{mount.source}:dump/{VM}", "-"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(mount.server),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(10) == large[:10]
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b"", "the reader has seen enough"
    assert process.returncode == 1
    save(mount, VM.replace("11_20", "11_22"), large)
    s3fsx(mount, "prune", str(mount.path), "--keep-last", "1", "--yes")
    eventually(lambda: os.listdir(mount.path / "dump") == [VM.replace("11_20", "11_22")], "the deletion is seen")
    assert len(mount.view.internal_keys()) == 1, "the checksums of what is left, and no record of what is gone"


@pytest.mark.slow
def test_a_get_that_is_killed_goes_on(make_mount: MakeMount, tmp_path: Path) -> None:
    """kill -9 at any moment; another version in the bucket begins anew; Ctrl-C is quiet."""
    mount, target = make_mount(), tmp_path / VM
    data = random.Random(8).randbytes(96 << 20)
    save(mount, VM, data)
    part = tmp_path / f"{VM}.part"
    get = command(mount, "get", f"{mount.source}:{VM}", str(target))

    def interrupted(number: signal.Signals) -> str:
        # A shell's background jobs, and what they start, ignore SIGINT.
        begun = ["env", "--default-signal=INT", *get]
        with subprocess.Popen(begun, env=environment(mount.server), stderr=subprocess.PIPE, text=True) as process:
            size = part.stat().st_size if part.exists() else 0
            eventually(lambda: part.exists() and part.stat().st_size > size + (8 << 20), "it grows")
            process.send_signal(number)
            return process.communicate(timeout=60)[1]

    interrupted(signal.SIGKILL)
    assert interrupted(signal.SIGINT) == ""
    size = part.stat().st_size
    assert size < len(data)
    before = mount.server.mark(mount.bucket)
    done = s3fsx(mount, "get", f"{mount.source}:{VM}", str(target))
    assert "were there" in done.stderr
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(data).digest()
    moved = sum(r.bytes_sent for r in mount.server.requests(before, mount.bucket))
    assert moved < len(data) - size + (16 << 20), "only what was missing"

    target.unlink()
    interrupted(signal.SIGKILL)
    save(mount, VM, data[::-1])
    assert "were there" not in s3fsx(mount, "get", f"{mount.source}:{VM}", str(target)).stderr
    assert target.read_bytes() == data[::-1]
