"""The commands on a Ceph RGW, as an administrator without a mount types them; with one: ``tests/mount/test_browse``."""

from __future__ import annotations

import json
import os
import random
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from s3fsx.store.checksum import grain_crcs
from s3fsx.store.sums import PartSums, Sums
from s3fsx.store.sums import name as sums_name
from tests import policy
from tests.browse.archives import PCT_CONF, QEMU_CONF, VmaWriter, compressed, container, disk, vma
from tests.browse.conftest import Command
from tests.s3server import S3Server, S3View

pytestmark = pytest.mark.rgw

STEM = "vzdump-qemu-100-2026_11_20-13_15_26"
VM, CT = f"{STEM}.vma.zst", "vzdump-lxc-101-2026_11_21-13_15_26.tar.gz"
LARGE = compressed(vma(24 << 20), "zst")  # 12 MiB, which its ETag alone cannot verify
OTHER = random.Random(1).randbytes(9 << 20)


class Bucket:
    """With two backups of s3fsx, and what is beside them; one of another tool; names that a terminal would obey."""

    def __init__(self, server: S3Server) -> None:
        self.name = server.make_bucket("browse")
        self.server = server
        self.view: S3View = server.view(self.name, "pve/")
        self.source = f"s3://{self.name}/pve"
        policy.grant(server, self.name, "pve/")

    def put(self, name: str, data: bytes = b"", sums_of: bytes | None = None) -> None:
        """sums_of: what its checksums are of."""
        key = f"pve/dump/{name}"
        self.view.put(f"dump/{name}", data)
        if sums_of is not None:
            etag = self.server.client.head_object(Bucket=self.name, Key=key)["ETag"].strip('"')
            sums = Sums(key, etag, [PartSums(len(sums_of), grain_crcs((sums_of,)))])
            self.view.put(f".s3fsx/sums/{sums_name(key, etag)}", sums.encode())

    def checks(self) -> list[str]:
        return [key for key in self.view.internal_keys() if "/checked/" in key]


@pytest.fixture
def bucket(s3: S3Server, s3fsx: Command) -> Bucket:
    s3fsx.use(s3)
    made = Bucket(s3)
    made.put(VM, LARGE, sums_of=LARGE)
    made.put(CT, compressed(container(), "gz"))
    made.put(f"{VM}.notes", b"web, before the upgrade\nsecond line\n")
    made.put(f"{STEM}.log", b"INFO: done\n")
    made.put(f"{CT}.protected")
    made.put("mine.tar", OTHER)
    made.put("odd\nname\x1b[31m.vma", b"x" * 100)
    return made


def test_ls(bucket: Bucket, s3fsx: Command) -> None:
    names = s3fsx("ls", bucket.source).out.splitlines()
    assert names == ["dump/", "images/", "import/", "private/", "snippets/", "template/"]
    assert s3fsx("ls", f"{bucket.source}:template").out == "cache/\niso/\n"
    names = s3fsx("ls", f"{bucket.source}:dump").out.splitlines()
    everything = [CT, f"{CT}.protected", VM, f"{VM}.notes", f"{STEM}.log", "mine.tar", "odd\\nname\\x1b[31m.vma"]
    assert names == sorted(everything)
    assert " MiB" in s3fsx("ls", "-l", f"{bucket.source}:dump/{VM}").out
    assert s3fsx("ls", "-l", f"{bucket.source}:import").out == ""
    (entry,) = json.loads(s3fsx("ls", "--json", f"{bucket.source}:dump/{VM}").out)
    assert (entry["name"], entry["size"], entry["key"]) == (VM, len(LARGE), f"pve/dump/{VM}")
    assert "no such file or directory" in s3fsx.fails("ls", f"{bucket.source}:nothing", code=1)
    assert "reserved" in s3fsx.fails("ls", f"{bucket.source}:.s3fsx", code=1)


def test_backups(bucket: Bucket, s3fsx: Command) -> None:
    table = s3fsx("backups", bucket.source).out
    assert "\x1b" not in table
    rows = {row.split()[0]: row for row in table.splitlines()}
    assert "2026-11-20 13:15:26" in rows["vm/100"]
    assert "at writing" in rows["vm/100"]
    assert rows["vm/100"].endswith("web, before the upgrade")
    assert "yes" in rows["ct/101"]
    assert "never" in rows["ct/101"]
    assert "no checksums" in next(row for row in table.splitlines() if "mine.tar" in row)
    found = {b["name"]: b for b in json.loads(s3fsx("backups", bucket.source, "--json").out)}
    assert (found[VM]["vmid"], found[VM]["notes"]) == (100, "web, before the upgrade")
    assert (found[CT]["protected"], found[VM]["protected"]) == (True, False)
    assert found[VM]["verified"] is None
    only = json.loads(s3fsx("backups", bucket.source, "--vmid", "101", "--json").out)
    assert [b["name"] for b in only] == [CT]


def test_show(bucket: Bucket, s3fsx: Command) -> None:
    before = bucket.server.mark(bucket.name)
    assert s3fsx("show", f"{bucket.source}:{VM}").out.encode() == QEMU_CONF
    moved = sum(r.bytes_sent for r in bucket.server.requests(before, bucket.name))
    assert moved < 8 << 20, "not the whole archive"
    assert s3fsx("show", "lxc-101", "-s", bucket.source).out.encode() == PCT_CONF
    assert "which one? vzdump-lxc-101" in s3fsx.fails("show", "vzdump", "-s", bucket.source)
    assert "not a VMA archive" in s3fsx.fails("show", "odd", "-s", bucket.source, code=1)


def test_every_format(s3: S3Server, s3fsx: Command) -> None:
    s3fsx.use(s3)
    bucket = Bucket(s3)
    machine, guest = vma(), container(form=tarfile.GNU_FORMAT)
    for number, extension in enumerate(["", ".gz", ".lzo", ".zst"]):
        for kind, data, conf in ((f"qemu-10{number}", machine, QEMU_CONF), (f"lxc-20{number}", guest, PCT_CONF)):
            name = f"vzdump-{kind}-2026_11_20-13_15_26.{'tar' if 'lxc' in kind else 'vma'}{extension}"
            bucket.put(name, compressed(data, extension[1:]))
            assert s3fsx("show", f"{bucket.source}:backup/{name}").out.encode() == conf
            assert s3fsx("drill", bucket.source, "--vmid", kind[-3:], "--no-notes").out.startswith("ok ")


@pytest.mark.parametrize("what", ["zeros", "header", "noise", "empty"])
def test_archives_that_somebody_made_to_harm(s3: S3Server, s3fsx: Command, what: str) -> None:
    """Bounded in memory and time, and one line."""
    s3fsx.use(s3)
    bucket = Bucket(s3)
    content = {
        "zeros": bytes(200 << 20),
        "header": VmaWriter({}, told={"header size": 0xFFFFFFFF}).header(),
        "noise": OTHER[:100_000],
        "empty": b"",
    }[what]
    for name in (VM, CT.replace(".gz", ".zst")):
        bucket.put(name, compressed(content, "zst"))
    for guest in ("100", "101"):
        assert s3fsx.fails("show", guest, "-s", bucket.source, code=1)
        assert s3fsx("drill", bucket.source, "--vmid", guest, "--no-notes", code=1).out.startswith("FAILED")


def test_get(bucket: Bucket, s3fsx: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    target.mkdir()
    monkeypatch.chdir(target)
    done = s3fsx("get", f"{bucket.source}:{VM}")
    assert done.out == ""
    assert done.err.startswith(f"./{VM}: ")
    assert done.err.endswith(", verified\n")
    assert (target / VM).read_bytes() == LARGE
    assert os.listdir(target) == [VM]
    assert "exists; --force" in s3fsx.fails("get", f"{bucket.source}:{VM}", str(target))
    (target / VM).write_bytes(b"mine")
    s3fsx("get", f"{bucket.source}:dump/{VM}", str(target), "--force")
    assert (target / VM).read_bytes() == LARGE
    bucket.view.put("template/iso/x.iso", b"iso")
    s3fsx("get", f"{bucket.source}:template/iso/x.iso", str(target / "y"))
    assert (target / "y").read_bytes() == b"iso"
    piped = s3fsx("get", f"{bucket.source}:template/iso/x.iso", "-")
    assert (piped.out, piped.err.startswith("x.iso: 3 B in ")) == ("iso", True)
    assert "NOT verified" in s3fsx("get", f"{bucket.source}:mine.tar", str(target)).err
    assert (target / "mine.tar").read_bytes() == OTHER
    assert "not in the bucket" in s3fsx.fails("get", f"{bucket.source}:template/iso/z.iso", str(target))
    assert "No such file" in s3fsx.fails("get", f"{bucket.source}:{VM}", str(target / "no" / "x"))


@pytest.mark.expect_log("the CRC-32 is wrong")
def test_verify(bucket: Bucket, s3fsx: Command, tmp_path: Path) -> None:
    text = s3fsx("verify", "--all", "-s", bucket.source).out.splitlines()
    assert sorted(line.split()[0] for line in text[:-1]) == ["ok", "ok", "ok", "unknown"]
    assert text[-1].startswith("4 backups, ")
    assert text[-1].endswith("3 ok, 0 bad, 0 failed, 1 unknown")
    today = time.strftime("%Y-%m-%d", time.gmtime())
    rows = s3fsx("backups", bucket.source).out.splitlines()
    assert [today in row.split()[5:] for row in rows if VM in row or CT in row] == [True, True]
    again = s3fsx("verify", bucket.source, "--all", "--since", "1d").out.splitlines()
    assert [line.split()[0] for line in again[:-1]] == ["unknown"]
    assert again[-1].startswith("1 backup, ")
    assert again[-1].endswith("; 3 backups left out, found right within --since")
    assert s3fsx("verify", "-s", bucket.source, "--since", "1d", VM).out == (
        "1 backup left out, found right within --since\n"
    )

    wrong = bytearray(LARGE)
    wrong[len(wrong) // 2] ^= 1
    bucket.put(VM, bytes(wrong), sums_of=LARGE)
    done = s3fsx("verify", "-s", bucket.source, VM, code=1)
    assert done.out.startswith(f"bad      {VM}  ")
    assert "the CRC-32 is wrong" in done.out
    row = next(row for row in s3fsx("backups", bucket.source).out.splitlines() if VM in row)
    assert f"BAD {today}" in row
    verdicts = json.loads(s3fsx("verify", "--json", "-s", bucket.source, "101", VM, code=1).out)
    assert [v["result"] for v in verdicts] == ["ok", "bad"]
    assert s3fsx("drill", bucket.source, "--vmid", "100", code=1).out.startswith("FAILED")
    s3fsx("get", f"{bucket.source}:{VM}", str(tmp_path), code=1)
    assert not (tmp_path / VM).exists(), "no wrong byte under the name"

    bucket.view.delete(f"dump/{VM}")
    before = len(bucket.checks())
    s3fsx("verify", "--all", "--since", "1d", "-s", bucket.source)
    assert len(bucket.checks()) < before, "records of what is gone go, too"


def test_prune(s3: S3Server, s3fsx: Command) -> None:
    s3fsx.use(s3)
    bucket = Bucket(s3)
    names = [f"vzdump-qemu-100-2026_11_{day:02}-22_00_00.vma.zst" for day in range(1, 6)]
    for name in names:
        for beside in (name, f"{name}.notes", f"{name[:-8]}.log"):
            bucket.put(beside, b"data")
    bucket.put(f"{names[0]}.protected")
    bucket.put("vzdump-qemu-100-golden.vma.zst", b"data")
    keys = bucket.view.keys()
    assert "say what to keep" in s3fsx.fails("prune", bucket.source)
    assert "nobody can be asked" in s3fsx.fails("prune", bucket.source, "--keep-last", "2")
    assert "only --dry-run" in s3fsx.fails("prune", bucket.source, "--keep-last", "2", "--yes", "-o", "ro")
    shown = s3fsx("prune", bucket.source, "--keep-last", "2", "--dry-run").out
    marks = {row.split()[0]: row.split()[-1] for row in shown.splitlines()[1:-1]}
    assert marks == {
        names[4]: "keep",
        names[3]: "keep",
        names[2]: "remove",
        names[1]: "remove",
        names[0]: "protected",
        "vzdump-qemu-100-golden.vma.zst": "renamed",
    }
    assert shown.splitlines()[-1] == "to be deleted: 2 backups, 8 B"
    document = json.loads(s3fsx("prune", bucket.source, "--keep-last", "2", "--dry-run", "--json").out)
    assert {item["name"]: item["mark"] for item in document} == marks
    assert bucket.view.keys() == keys, "a dry run changes nothing"
    done = s3fsx("prune", bucket.source, "--keep-last", "2", "--yes")
    assert done.out.splitlines()[-2:] == [f"deleted {names[2]}", f"deleted {names[1]}"]
    gone = {f"dump/{beside}" for n in names[1:3] for beside in (n, f"{n}.notes", f"{n[:-8]}.log")}
    assert set(keys) - set(bucket.view.keys()) == gone
    assert s3fsx("prune", bucket.source, "--keep-last", "2", "--yes").out.endswith("to be deleted: 0 backups, 0 B\n")


def test_prune_asks(s3: S3Server, s3fsx: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fsx.use(s3)
    bucket = Bucket(s3)
    for day in (1, 2):
        bucket.put(f"vzdump-qemu-100-2026_11_0{day}-22_00_00.vma.zst", b"data")

    class Terminal:
        def __init__(self, answer: str) -> None:
            self.answer = answer

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return self.answer

    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for answer, left in (("\n", 2), ("no\n", 2), ("", 2), ("y\n", 1)):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        out = s3fsx("prune", bucket.source, "--keep-last", "1").out
        assert "Delete 1 backup, 4 B? [y/N] " in out
        assert len(bucket.view.keys("dump/")) == left


def test_prune_what_object_lock_keeps(s3: S3Server, s3fsx: Command) -> None:
    s3fsx.use(s3)
    name = s3.make_bucket("locked", object_lock=True)
    policy.grant(s3, name, "pve/", object_lock=True)
    view = s3.view(name, "pve/")
    names = [f"vzdump-qemu-100-2026_11_{day:02}-22_00_00.vma.zst" for day in range(1, 4)]
    for each in names:
        view.put(f"dump/{each}", b"data")
    s3.client.put_object_legal_hold(Bucket=name, Key=f"pve/dump/{names[0]}", LegalHold={"Status": "ON"})
    done = s3fsx("prune", f"s3://{name}/pve", "--keep-last", "1", "--yes", code=1)
    assert f"{names[0]}: not deleted: is protected" in done.err
    assert view.keys("dump/") == [f"dump/{names[0]}", f"dump/{names[2]}"]


def test_drill(bucket: Bucket, s3fsx: Command, tmp_path: Path) -> None:
    metrics = tmp_path / "s3fsx_drill.prom"
    done = s3fsx("drill", bucket.source, "--vmid", "100", "--textfile", str(metrics))
    assert done.out.startswith(f"ok       {VM}  ")
    assert "disks: drive-scsi0, drive-efidisk0; every byte verified" in done.out
    assert f'backup="{VM}",guest="vm/100"' in metrics.read_text()
    assert "\ns3fsx_drill_success" in metrics.read_text()
    notes = bucket.view.body(f"dump/{VM}.notes").decode().splitlines()
    assert notes[:2] == ["web, before the upgrade", "second line"]
    assert notes[2].startswith("s3fsx drill ")
    assert "restored to the end" in notes[2]
    assert len(bucket.checks()) == 1, "a drill verifies, too"
    assert s3fsx("drill", f"{bucket.source}:{CT}", "--no-notes").out.startswith(f"ok       {CT}  ")
    document: dict[str, Any] = json.loads(s3fsx("drill", bucket.source, "--random", "--json", "--no-notes").out)
    assert document["good"] is True
    assert document["name"] in (VM, CT)
    assert len(bucket.view.body(f"dump/{VM}.notes").decode().splitlines()) == 3
    # Whole in the bucket, and all the same no backup.
    broken = VmaWriter({"drive-scsi0": disk(1 << 20)})
    name = VM.replace("11_20", "11_25")
    bucket.put(name, compressed(broken.archive(broken.clusters()[1:]), "zst"))
    done = s3fsx("drill", bucket.source, "--textfile", str(metrics), code=1)
    assert "1 clusters of drive-scsi0 are missing" in done.out
    assert "\ns3fsx_drill_success{" in metrics.read_text()
    assert "FAILED" in bucket.view.body(f"dump/{name}.notes").decode()

    def shown() -> str:
        return next(row for row in s3fsx("backups", "-s", bucket.source).out.splitlines() if name in row)

    assert " BAD " in shown()
    assert s3fsx("verify", "-s", bucket.source, name).out.startswith("ok ")
    assert " BAD " in shown(), "its bytes are right, and it is no backup"


def test_bad_input(bucket: Bucket, s3fsx: Command, tmp_path: Path) -> None:
    for arguments, why in [
        (("ls", str(tmp_path)), "not in a mount of s3fsx"),
        (("show", "x", "-s", "nowhere"), "nowhere.toml: no such file"),
        (("verify", "-s", bucket.source), "name backups, or give --all"),
        (("verify", "--vmid", "100", "-s", bucket.source, VM), "--vmid goes with --all"),
        (("verify", f"{bucket.source}:a", "s3://other:b"), "of one bucket at a time"),
        (
            ("drill", bucket.source, "--textfile", "/nowhere/x.prom"),
            "--textfile /nowhere/x.prom: there is no directory",
        ),
        (("drill", bucket.source, "--textfile", str(tmp_path)), "a directory; it takes DIR/NAME.prom"),
        (("drill", f"{bucket.source}:nonsense", "--no-notes"), "nonsense"),
        (
            ("drill", f"{bucket.source}:100", "--vmid", "100"),
            "names a backup: --newest, --random",
        ),
        (("prune", f"{bucket.source}:nonsense", "--keep-last", "1", "-n"), "leave nonsense out"),
        (("backups", f"{bucket.source}:nonsense"), "leave nonsense out"),
        (("ls", bucket.source, "-s", "s3://other"), "and --source s3://other: only one of them"),
        (("verify", "--all", "a", "b"), "beside it only SOURCE"),
        (("ls", f"{bucket.source}:../.."), "no .. in PATH"),
        (("verify", "--all", f"{bucket.source}:dump"), "leave dump out, or --all"),
        (("ls", "s3://-x"), "bucket = '-x': use a name of 3 to 63 lower-case letters"),
    ]:
        assert why in s3fsx.fails(*arguments)
    assert "no backups of guest 999 in " in s3fsx("backups", bucket.source, "--vmid", "999").err
    assert s3fsx("backups", bucket.source, "--vmid", "999").out == ""
    assert "no backup that could be restored" in s3fsx.fails("drill", bucket.source, "--vmid", "999", code=1)
    assert "no-such-bucket-here" in s3fsx.fails("backups", "s3://no-such-bucket-here", code=1)
    assert "lower-case letters" in s3fsx.fails("backups", "s3://No_Such_Bucket", code=1)
    assert s3fsx("thaw", "-s", bucket.source, "100").out == f"{VM}  STANDARD: can be read\n"
