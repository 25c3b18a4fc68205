"""The commands that look into a bucket, as an administrator types them: beside a mount, and without one."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.browse.archives import PCT_CONF, QEMU_CONF, VmaWriter, compressed, container, disk, vma
from tests.mount.conftest import MakeMount
from tests.mount.harness import COMMAND, Mount, environment, eventually, join_options

pytestmark = [pytest.mark.mount, pytest.mark.rgw]

VM = "vzdump-qemu-100-2026_11_20-13_15_26.vma.zst"
CT = "vzdump-lxc-101-2026_11_21-13_15_26.tar.gz"


def s3fsx(mount: Mount, *arguments: str, code: int = 0, **more: Any) -> subprocess.CompletedProcess[str]:
    """With the options of the mount, which are those of its node; those that say where its daemon is do no harm."""
    command = [*COMMAND, arguments[0], "-o", join_options(mount.options), *arguments[1:]]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment(mount.server, TZ="UTC"),
        cwd=more.pop("cwd", "/"),
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
        **more,
    )
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr, done
    return done


def fails(mount: Mount, *arguments: str, code: int = 2) -> str:
    """The one line of a failure."""
    done = s3fsx(mount, *arguments, code=code)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done
    return lines[0]


def save(mount: Mount, name: str, data: bytes) -> None:
    """As vzdump does: written under a temporary name, renamed."""
    target = mount.path / "dump" / name
    temporary = target.with_suffix(".dat")
    temporary.write_bytes(data)
    temporary.rename(target)


LARGE = compressed(vma(24 << 20), "zst")  # two parts, so that it has checksums of s3fsx


@pytest.fixture
def filled(make_mount: MakeMount) -> Mount:
    """A mount with two backups, notes, a log and a mark."""
    mount = make_mount()
    save(mount, VM, LARGE)
    save(mount, CT, compressed(container(), "gz"))
    (mount.path / "dump" / f"{VM}.notes").write_text("web, before the upgrade\nsecond line\n")
    (mount.path / "dump" / "vzdump-qemu-100-2026_11_20-13_15_26.log").write_text("INFO: done\n")
    os.close(os.open(mount.path / "dump" / f"{CT}.protected", os.O_RDONLY | os.O_CREAT, 0o644))
    return mount


def test_looking_around(filled: Mount) -> None:
    mount = filled
    mount.view.put("dump/odd\nname\x1b[31m.vma", b"x" * 100)
    large = random.Random(1).randbytes(9 << 20)
    mount.view.put("dump/mine.tar", large)  # of another tool, and without s3fsx's checksums
    for where in (mount.source, str(mount.path)):
        names = s3fsx(mount, "ls", where).stdout.splitlines()
        assert names == ["dump/", "images/", "import/", "private/", "snippets/", "template/"]
    assert s3fsx(mount, "ls", f"{mount.source}:template").stdout == "cache/\niso/\n"
    names = s3fsx(mount, "ls", str(mount.path / "dump")).stdout.splitlines()
    assert names == sorted(
        [CT, f"{CT}.protected", VM, f"{VM}.notes", f"{VM[:-8]}.log", "mine.tar", "odd\\nname\\x1b[31m.vma"]
    )
    assert "MiB" in s3fsx(mount, "ls", "-l", f"{mount.source}:dump/{VM}").stdout
    assert json.loads(s3fsx(mount, "ls", "--json", f"{mount.source}:dump/{VM}").stdout)[0]["size"] == len(LARGE)
    assert "no such file or directory" in fails(mount, "ls", f"{mount.source}:nothing", code=1)

    table = s3fsx(mount, "backups", mount.source).stdout
    assert "\x1b" not in table
    rows = {row.split()[0]: row for row in table.splitlines()}
    assert "2026-11-20 13:15:26" in rows["vm/100"]
    assert "at writing" in rows["vm/100"]
    assert rows["vm/100"].endswith("web, before the upgrade")
    assert "yes" in rows["ct/101"]
    assert "no checksums" in next(row for row in table.splitlines() if "mine.tar" in row)
    found = {b["name"]: b for b in json.loads(s3fsx(mount, "backups", str(mount.path), "--json").stdout)}
    assert found[VM]["vmid"] == 100
    assert found[VM]["notes"] == "web, before the upgrade"
    assert (found[CT]["protected"], found[VM]["protected"]) == (True, False)
    assert found[VM]["verified"] is None
    only = json.loads(s3fsx(mount, "backups", mount.source, "--vmid", "101", "--json").stdout)
    assert [b["name"] for b in only] == [CT]

    before = mount.server.mark(mount.bucket)
    assert s3fsx(mount, "show", f"{mount.source}:{VM}").stdout.encode() == QEMU_CONF
    moved = sum(r.bytes_sent for r in mount.server.requests(before, mount.bucket))
    assert moved < 8 << 20, "not the whole archive"
    assert s3fsx(mount, "show", str(mount.path / "dump" / CT)).stdout.encode() == PCT_CONF
    assert s3fsx(mount, "show", "lxc-101", "-s", mount.source).stdout.encode() == PCT_CONF
    assert "which one? vzdump-lxc-101" in fails(mount, "show", "vzdump", "-s", mount.source)
    assert "not a VMA archive" in fails(mount, "show", "odd", "-s", mount.source, code=1)


@pytest.mark.parametrize("extension", ["", ".gz", ".lzo", ".zst"])
def test_every_format_without_a_mount(make_mount: MakeMount, extension: str) -> None:
    mount = make_mount()
    vm, ct = f"vzdump-qemu-100-2026_11_20-13_15_26.vma{extension}", f"vzdump-lxc-101-2026_11_20-13_15_26.tar{extension}"
    save(mount, vm, compressed(vma(), extension[1:]))
    save(mount, ct, compressed(container(form=tarfile.GNU_FORMAT), extension[1:]))
    mount.umount()
    assert s3fsx(mount, "show", f"{mount.source}:backup/{vm}").stdout.encode() == QEMU_CONF
    assert s3fsx(mount, "show", f"{mount.source}:backup/{ct}").stdout.encode() == PCT_CONF
    for guest in ("100", "101"):
        assert s3fsx(mount, "drill", mount.source, "--vmid", guest, "--no-notes").stdout.startswith("ok ")
    mount.start()


def test_getting(filled: Mount, tmp_path: Path) -> None:
    mount, target = filled, tmp_path / "out"
    target.mkdir()
    done = s3fsx(mount, "get", f"{mount.source}:{VM}", cwd=str(target))
    assert done.stdout == ""
    assert done.stderr.startswith(f"./{VM}: ")
    assert done.stderr.endswith(", verified\n")
    assert (target / VM).read_bytes() == LARGE
    assert os.listdir(target) == [VM]
    assert "exists; --force" in fails(mount, "get", f"{mount.source}:{VM}", str(target))
    piped = subprocess.run(
        [*COMMAND, "get", "-o", join_options(mount.options), f"{mount.source}:dump/{VM}", "-"],
        stdout=subprocess.PIPE,
        env=environment(mount.server),
        timeout=60,
        check=True,
    )
    assert piped.stdout == LARGE
    mount.view.put("template/iso/x.iso", b"iso")
    s3fsx(mount, "get", str(mount.path / "template/iso/x.iso"), str(target / "y"))
    assert (target / "y").read_bytes() == b"iso"
    other = random.Random(2).randbytes(9 << 20)
    mount.view.put("dump/mine.tar", other)
    assert "NOT verified" in s3fsx(mount, "get", f"{mount.source}:mine.tar", str(target)).stderr
    assert (target / "mine.tar").read_bytes() == other
    assert "not in the bucket" in fails(mount, "get", f"{mount.source}:template/iso/z.iso", str(target))


@pytest.mark.slow
def test_a_get_that_is_killed_goes_on(make_mount: MakeMount, tmp_path: Path) -> None:
    """kill -9 at any moment; another version in the bucket begins anew."""
    mount, target = make_mount(), tmp_path / VM
    data = random.Random(8).randbytes(160 << 20)
    save(mount, VM, data)
    command = [*COMMAND, "get", "-o", join_options(mount.options), f"{mount.source}:{VM}", str(target)]
    part = tmp_path / f"{VM}.part"
    for _ in range(2):
        with subprocess.Popen(command, env=environment(mount.server), stderr=subprocess.DEVNULL) as process:
            size = part.stat().st_size if part.exists() else 0
            eventually(lambda size=size: part.exists() and part.stat().st_size > size + (16 << 20), "it grows")  # type: ignore[misc]
            process.kill()
    size = part.stat().st_size
    assert size < len(data)
    before = mount.server.mark(mount.bucket)
    done = s3fsx(mount, "get", f"{mount.source}:{VM}", str(target))
    assert "were there" in done.stderr
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(data).digest()
    moved = sum(r.bytes_sent for r in mount.server.requests(before, mount.bucket))
    assert moved < len(data) - size + (16 << 20), "only what was missing"

    target.unlink()
    with subprocess.Popen(command, env=environment(mount.server), stderr=subprocess.DEVNULL) as process:
        eventually(lambda: part.exists() and part.stat().st_size > 16 << 20, "it grows")
        process.kill()
    other = data[::-1]
    save(mount, VM, other)
    assert "were there" not in s3fsx(mount, "get", f"{mount.source}:{VM}", str(target)).stderr
    assert target.read_bytes() == other


def damage(mount: Mount, name: str) -> None:
    """Other bytes under the ETag that they had: what a store that rots its disks gives out. Its checksums are those of
    other bytes, which is the same to whoever compares."""
    data = bytearray(mount.view.body(f"dump/{name}"))
    data[len(data) // 2] ^= 1
    client, key = mount.server.client, f"{mount.prefix}dump/{name}"
    upload = client.create_multipart_upload(Bucket=mount.bucket, Key=key)["UploadId"]
    parts = []
    for number, at in enumerate(range(0, len(data), 8 << 20), 1):
        part = client.upload_part(
            Bucket=mount.bucket, Key=key, UploadId=upload, PartNumber=number, Body=bytes(data[at : at + (8 << 20)])
        )
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    client.complete_multipart_upload(Bucket=mount.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    etag = client.head_object(Bucket=mount.bucket, Key=key)["ETag"].strip('"')
    from s3fsx.sums import decode
    from s3fsx.sums import name as sums_name

    (old,) = [k for k in mount.view.internal_keys() if "/sums/" in k]
    moved = decode(mount.view.body(old)).moved(key, etag)
    mount.view.put(f".s3fsx/sums/{sums_name(key, etag)}", moved.encode())
    mount.view.delete(old)


def test_verifying(filled: Mount) -> None:
    mount = filled
    mount.view.put("dump/mine.tar", random.Random(1).randbytes(9 << 20))
    text = s3fsx(mount, "verify", "--all", "-s", mount.source).stdout.splitlines()
    assert [line.split()[0] for line in text[:-1]] == ["unknown", "ok", "ok"]
    assert text[-1].startswith("3 backups, ")
    assert text[-1].endswith("2 ok, 0 bad, 0 failed, 1 unknown")
    today = time.strftime("%Y-%m-%d", time.gmtime())
    rows = s3fsx(mount, "backups", mount.source).stdout.splitlines()
    assert sum(today in row.split() for row in rows) == 2
    again = s3fsx(mount, "verify", "--all", "--since", "1d", "-s", mount.source).stdout.splitlines()
    assert [line.split()[0] for line in again[:-1]] == ["unknown"]

    mount.umount()
    damage(mount, VM)
    done = s3fsx(mount, "verify", "-s", mount.source, VM, code=1)
    assert done.stdout.startswith(f"bad      {VM}  ")
    assert "the CRC-32 is wrong" in done.stdout
    row = next(row for row in s3fsx(mount, "backups", mount.source).stdout.splitlines() if VM in row)
    assert f"BAD {today}" in row
    verdicts = json.loads(s3fsx(mount, "verify", "--json", "-s", mount.source, "101", VM, code=1).stdout)
    assert [v["result"] for v in verdicts] == ["ok", "bad"]
    assert s3fsx(mount, "drill", mount.source, "--vmid", "100", code=1).stdout.startswith("FAILED")
    mount.view.delete(f"dump/{VM}")
    before = len([k for k in mount.view.internal_keys() if "/checked/" in k])
    s3fsx(mount, "verify", "--all", "-s", mount.source)
    assert len([k for k in mount.view.internal_keys() if "/checked/" in k]) < before, "records of what is gone go, too"
    mount.start()


def test_pruning(make_mount: MakeMount) -> None:
    mount = make_mount()
    names = [f"vzdump-qemu-100-2026_11_{day:02}-22_00_00.vma.zst" for day in range(1, 6)]
    data = compressed(vma(), "zst")
    for name in names:
        mount.view.put(f"dump/{name}", data)
        mount.view.put(f"dump/{name}.notes", b"a note")
        mount.view.put(f"dump/{name[:-8]}.log", b"a log")
    mount.view.put(f"dump/{names[0]}.protected")
    mount.view.put("dump/vzdump-qemu-100-golden.vma.zst", data)
    keys = mount.view.keys()
    assert "say what to keep" in fails(mount, "prune", mount.source)
    assert "nobody can be asked" in fails(mount, "prune", mount.source, "--keep-last", "2")
    shown = s3fsx(mount, "prune", mount.source, "--keep-last", "2", "--dry-run").stdout
    marks = {row.split()[0]: row.split()[-1] for row in shown.splitlines()[1:-1]}
    assert marks == {
        names[4]: "keep",
        names[3]: "keep",
        names[2]: "remove",
        names[1]: "remove",
        names[0]: "protected",
        "vzdump-qemu-100-golden.vma.zst": "renamed",
    }
    assert shown.splitlines()[-1].startswith("to be deleted: 2 backups, ")
    assert mount.view.keys() == keys, "a dry run changes nothing"
    done = s3fsx(mount, "prune", str(mount.path), "--keep-last", "2", "--yes")
    assert done.stdout.splitlines()[-2:] == [f"deleted {names[2]}", f"deleted {names[1]}"]
    gone = {f"dump/{name}{end}" for name in names[1:3] for end in ("", ".notes")}
    gone |= {f"dump/{name[:-8]}.log" for name in names[1:3]}
    assert set(keys) - set(mount.view.keys()) == gone
    # A mount beside it sees that as it would another node's change.
    eventually(lambda: not (mount.path / "dump" / names[1]).exists(), "seen within list_ttl")


def test_pruning_what_object_lock_keeps(make_mount: MakeMount, rgw: Any) -> None:
    bucket = rgw.make_bucket("locked", object_lock=True)
    mount = make_mount(bucket=bucket)
    names = [f"vzdump-qemu-100-2026_11_{day:02}-22_00_00.vma.zst" for day in range(1, 4)]
    for name in names:
        save(mount, name, b"\x28\xb5\x2f\xfd" + name.encode())
    rgw.client.put_object_legal_hold(Bucket=bucket, Key=f"{mount.prefix}dump/{names[0]}", LegalHold={"Status": "ON"})
    done = s3fsx(mount, "prune", mount.source, "--keep-last", "1", "--yes", code=1)
    assert f"{names[0]}: not deleted: is protected" in done.stderr
    assert [k for k in mount.view.keys("dump/")] == [f"dump/{names[0]}", f"dump/{names[2]}"]


def test_a_drill(filled: Mount, tmp_path: Path) -> None:
    mount, metrics = filled, tmp_path / "s3fsx_drill.prom"
    done = s3fsx(mount, "drill", mount.source, "--vmid", "100", "--textfile", str(metrics))
    assert done.stdout.startswith(f"ok       {VM}  ")
    assert "disks: drive-scsi0, drive-efidisk0; every byte verified" in done.stdout
    assert f'backup="{VM}",guest="vm/100"' in metrics.read_text()
    assert "\ns3fsx_drill_success" in metrics.read_text()
    notes = mount.view.body(f"dump/{VM}.notes").decode().splitlines()
    assert notes[:2] == ["web, before the upgrade", "second line"]
    assert notes[2].startswith("s3fsx drill ")
    assert "restored to the end" in notes[2]
    document = json.loads(s3fsx(mount, "drill", mount.source, "--random", "--json", "--no-notes").stdout)
    assert document["good"] is True
    assert document["name"] in (VM, CT)
    assert len(mount.view.body(f"dump/{VM}.notes").decode().splitlines()) == 3
    # Whole in the bucket, and all the same no backup.
    broken = VmaWriter({"drive-scsi0": disk(1 << 20)})
    save(mount, VM.replace("11_20", "11_25"), compressed(broken.archive(broken.clusters()[1:]), "zst"))
    done = s3fsx(mount, "drill", mount.source, "--textfile", str(metrics), code=1)
    assert "1 clusters of drive-scsi0 are missing" in done.stdout
    assert 's3fsx_drill_success{source="' in metrics.read_text()
    assert metrics.read_text().count("} 0\n") >= 2
    assert "FAILED" in mount.view.body(f"dump/{VM.replace('11_20', '11_25')}.notes").decode()


def test_thawing_where_nothing_is_frozen(filled: Mount) -> None:
    assert s3fsx(filled, "thaw", "-s", filled.source, "100").stdout == f"{VM}  STANDARD: can be read\n"


def test_bad_input(filled: Mount, tmp_path: Path) -> None:
    mount = filled
    for arguments, why in [
        (("ls", str(tmp_path)), "not in a mount of s3fsx"),
        (("show", "x", "-s", "nowhere"), "nowhere.toml: no such file"),
        (("verify", "-s", mount.source), "name backups, or give --all"),
        (("get", f"{mount.source}:{VM}", str(tmp_path / "no" / "x")), "No such file or directory"),
        (("drill", mount.source, "--textfile", "/nowhere/x.prom", "--no-notes"), "--textfile /nowhere/x.prom"),
    ]:
        assert why in fails(mount, *arguments)
    assert "no backup that could be restored" in fails(mount, "drill", mount.source, "--vmid", "999", code=1)
    missing = fails(mount, "backups", "s3://no-such-bucket-here", code=1)
    assert "no-such-bucket-here" in missing
