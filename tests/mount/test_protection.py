"""Proxmox's protection on a bucket with Object Lock: real versions, real holds, keys with the rights of the manual."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.mount import vzdump
from tests.mount.conftest import MakeMount
from tests.mount.harness import Mount
from tests.s3server import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.rgw]

NAME = "vzdump-qemu-100-2026_11_20-13_15_26.vma.zst"
BODY = b"\x28\xb5\x2f\xfd" + bytes(100_000)


@pytest.fixture
def locked(s3: S3Server, make_mount: MakeMount) -> Mount:
    """A mount of a bucket with Object Lock."""
    return make_mount(bucket=s3.make_bucket("locked", object_lock=True), list_ttl="0.1s", attr_ttl="0.1s")


def backup(mount: Mount) -> Path:
    """As vzdump: written under a temporary name, renamed."""
    archive = mount.path / "dump" / NAME
    temporary = archive.with_suffix(".dat")
    temporary.write_bytes(BODY)
    temporary.rename(archive)
    return archive


def hold(mount: Mount, key: str = f"dump/{NAME}") -> str:
    """As the store says, past the mount."""
    answer = mount.server.client.get_object_legal_hold(Bucket=mount.bucket, Key=mount.prefix + key)
    return str(answer["LegalHold"]["Status"])


def set_hold(mount: Mount, on: bool) -> None:
    status = {"Status": "ON" if on else "OFF"}
    key = f"{mount.prefix}dump/{NAME}"
    mount.server.client.put_object_legal_hold(Bucket=mount.bucket, Key=key, LegalHold=status)


def versions(mount: Mount) -> list[tuple[str, bool]]:
    """(version id, current) of the backup; delete markers are none."""
    answer = mount.server.client.list_object_versions(Bucket=mount.bucket, Prefix=f"{mount.prefix}dump/{NAME}")
    return [(v["VersionId"], v["IsLatest"]) for v in answer.get("Versions", ()) if v["Key"].endswith(NAME)]


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=rf"Errno {errno.EPERM}"):
        call()


def test_protect_delete_unprotect_delete(locked: Mount, make_mount: MakeMount) -> None:
    archive = backup(locked)
    mark = archive.with_name(f"{NAME}.protected")
    assert os.getxattr(archive, "user.s3fsx.legal_hold") == b"off"
    vzdump.protect(archive)
    assert hold(locked) == "ON"
    assert os.getxattr(archive, "user.s3fsx.legal_hold") == b"on"
    assert "user.s3fsx.legal_hold" in os.listxattr(archive)
    refused(archive.unlink)
    locked.restart()
    assert mark.exists()
    refused(archive.unlink)
    other = make_mount(bucket=locked.bucket, list_ttl="0.1s", attr_ttl="0.1s")
    refused((other.path / "dump" / NAME).unlink)
    [(version, _)] = versions(locked)
    with pytest.raises(ClientError, match="AccessDenied"):  # not even by the bucket's owner
        locked.server.client.delete_object(Bucket=locked.bucket, Key=f"{locked.prefix}dump/{NAME}", VersionId=version)
    (other.path / "dump" / mark.name).unlink()
    assert hold(locked) == "OFF"
    archive.unlink()
    assert locked.view.keys("dump/") == []


def test_nothing_hides_a_protected_backup(locked: Mount) -> None:
    archive = backup(locked)
    vzdump.protect(archive)
    before = versions(locked)
    other = locked.path / "dump/other"
    other.write_bytes(b"other")
    refused(lambda: archive.rename(archive.with_name("away")))
    refused(lambda: other.rename(archive))
    refused(lambda: backup(locked))
    refused(lambda: archive.write_bytes(b"x"))
    refused(lambda: archive.open("ab"))
    refused(lambda: os.truncate(archive, 1))
    refused(lambda: archive.chmod(0o600))
    refused(lambda: os.utime(archive, (1, 1)))
    moved = subprocess.run(["mv", str(archive), "/dev/null/x"], capture_output=True, check=False)
    assert moved.returncode != 0
    assert versions(locked) == before
    assert archive.read_bytes() == BODY
    assert locked.view.uploads() == []
    archive.with_name(f"{NAME}.dat").unlink(missing_ok=True)


def test_a_directory_with_a_protected_file_stays(locked: Mount) -> None:
    (locked.path / "old").mkdir()
    for name in "abc":
        (locked.path / "old" / name).write_text(name)
    vzdump.protect(locked.path / "old/b")
    refused(lambda: (locked.path / "old").rename(locked.path / "new"))
    assert locked.view.keys("new") == []
    (locked.path / "old/b.protected").unlink()
    (locked.path / "old").rename(locked.path / "new")
    assert sorted(os.listdir(locked.path / "new")) == ["a", "b", "c"]


def test_a_hold_of_another_tool(locked: Mount) -> None:
    """aws s3api put-object-legal-hold: no mark, and no deletion either; protecting and unprotecting takes it over."""
    archive = backup(locked)
    set_hold(locked, True)
    assert os.getxattr(archive, "user.s3fsx.legal_hold") == b"on"
    refused(archive.unlink)
    vzdump.protect(archive)
    archive.with_name(f"{NAME}.protected").unlink()
    archive.unlink()
    assert locked.view.keys("dump/") == []


def test_a_mark_deleted_by_another_tool(locked: Mount) -> None:
    archive = backup(locked)
    vzdump.protect(archive)
    locked.view.delete(f"dump/{NAME}.protected")
    refused(archive.unlink)
    set_hold(locked, False)
    locked.view.put(f"dump/{NAME}.protected")  # and the other way round: a mark whose hold is gone
    refused(archive.unlink)
    locked.view.delete(f"dump/{NAME}.protected")
    archive.unlink()


def test_nothing_to_protect(locked: Mount) -> None:
    with pytest.raises(FileNotFoundError):
        (locked.path / "dump/nothing.protected").touch()
    assert os.listdir(locked.path / "dump") == []


def test_killed_in_between(locked: Mount) -> None:
    """The hold is there before the mark, and the mark goes before the hold."""
    archive = backup(locked)
    fd = os.open(f"{archive}.protected", os.O_RDONLY | os.O_CREAT)
    assert hold(locked) == "ON"
    assert locked.view.keys("dump/") == [f"dump/{NAME}"]
    locked.kill9()
    with contextlib.suppress(OSError):
        os.close(fd)
    locked.start()
    refused(archive.unlink)
    vzdump.protect(archive)
    archive.with_name(f"{NAME}.protected").unlink()
    archive.unlink()


def test_a_retention_is_respected(locked: Mount) -> None:
    archive = backup(locked)
    until = datetime.now(UTC) + timedelta(hours=1)
    locked.server.client.put_object_retention(
        Bucket=locked.bucket,
        Key=f"{locked.prefix}dump/{NAME}",
        Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until},
    )
    refused(archive.unlink)
    vzdump.protect(archive)
    archive.with_name(f"{NAME}.protected").unlink()
    refused(archive.unlink)
    assert [current for _, current in versions(locked)] == [True]


def test_a_backup_job_under_a_default_retention(s3: S3Server, make_mount: MakeMount) -> None:
    """All that vzdump does besides, its temporary directory and the notes, works; the backup stays until its time."""
    bucket = s3.make_bucket("locked", object_lock=True)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    s3.client.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=configuration)
    mount = make_mount(bucket=bucket, list_ttl="0.1s", attr_ttl="0.1s")
    working = mount.path / "dump" / NAME.replace(".vma.zst", ".tmp")
    working.mkdir()
    (working / "qemu-server.conf").write_text("cores: 1\n")
    archive = backup(mount)
    notes = archive.with_name(f"{NAME}.notes")
    subprocess.run(f"echo nightly > {notes}.tmp.1 && mv {notes}.tmp.1 {notes}", shell=True, check=True, timeout=60)
    vzdump.protect(archive)
    (working / "qemu-server.conf").unlink()
    working.rmdir()
    archive.with_name(f"{NAME}.protected").unlink()
    subprocess.run(f"(echo a; date; echo b) > {mount.path}/dump/x.log", shell=True, check=True, timeout=60)
    assert mount.view.keys("dump/") == [f"dump/{NAME}", f"dump/{NAME}.notes", "dump/x.log"]
    source = mount.path.parent / "source"
    source.write_text("iso")
    subprocess.run(["cp", "-p", str(source), str(mount.path / "template/iso/a.iso")], check=True, timeout=60)
    assert mount.view.body("template/iso/a.iso") == b"iso"
    refused(archive.unlink)
    refused(notes.unlink)
    again = notes.with_name(f"{notes.name}.tmp.2")
    again.write_text("edited")
    refused(lambda: again.rename(notes))
    again.unlink()
    refused(lambda: (mount.path / "template/iso/a.iso").rename(mount.path / "template/iso/b.iso"))
    mount.restart()
    assert archive.read_bytes() == BODY


def test_no_requests_and_one_line_without_a_lock(mount: Mount) -> None:
    archive = backup(mount)
    mark = mount.server.mark(mount.bucket)
    vzdump.protect(archive)
    requests = mount.server.requests_since(mark, mount.bucket)
    assert requests["PUT"] == 1
    assert not [kind for kind in requests if re.search("legal_?hold|retention", kind, re.IGNORECASE)], requests
    assert mount.log().count("has no Object Lock") == 1
    assert "user.s3fsx.legal_hold" not in os.listxattr(archive)
    archive.with_name(f"{NAME}.protected").unlink()
    vzdump.protect(archive)
    assert mount.log().count("has no Object Lock") == 1
