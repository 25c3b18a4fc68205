"""What Proxmox VE does besides vzdump: activation, listing, notes, deletion, uploads, downloads, restore.

The numbers R1-R14 are the rules of the directory storage contract; functions of PVE are named where they are imitated.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.mount import vzdump
from tests.mount.conftest import MakeMount
from tests.mount.harness import Mount, eventually

pytestmark = pytest.mark.mount

CONTENT = ("dump", "images", "template/iso", "template/cache", "snippets", "import", "private")
STEM = "vzdump-qemu-100-2026_11_20-13_15_26"


def run(*command: str, timeout: float = 120) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def perl(script: str, *arguments: object) -> str:
    """PVE is Perl: its modules make system calls in ways of their own, so they are imitated in Perl."""
    return run("perl", "-w", "-e", script, *map(str, arguments))


def activate(path: Path) -> None:
    """DirPlugin::activate_storage and Plugin::activate_storage: realpath, mkpath, -d, make_path, abs_path."""
    script = """
        use Cwd qw(realpath abs_path); use File::Path qw(mkpath make_path);
        my ($path, @subdirs) = @ARGV;
        die "not mounted" if !grep { (split)[1] eq realpath($path) } do { open(my $m, '<', '/proc/mounts'); <$m> };
        mkpath($path); die "no -d" if !-d $path;
        make_path("$path/$_") for @subdirs;
        my %seen; for (@subdirs) { my $abs = abs_path("$path/$_"); die "twice: $abs" if $seen{$abs}++ }
    """
    perl(script, path, *CONTENT)


def test_activation_needs_no_object(mount: Mount) -> None:
    """R1: the content directories are there in an empty bucket, and activation leaves nothing in it."""
    mark = mount.server.mark(mount.bucket)
    for _ in range(3):
        activate(mount.path)
    assert mount.server.requests_since(mark, mount.bucket).total() == 0
    assert mount.view.keys() == []
    for directory in CONTENT:
        assert os.listdir(mount.path / directory) == []


def test_status(mount: Mount) -> None:
    """R2: Filesys::Df asks statvfs; zero blocks would mean an inactive storage."""
    mark = mount.server.mark(mount.bucket)
    status = os.statvfs(mount.path)
    assert status.f_frsize > 0
    assert status.f_blocks > 0
    assert 0 < status.f_bavail <= status.f_bfree <= status.f_blocks
    run("df", "-P", "-T", "-B", "1", str(mount.path / "dump"))
    assert mount.server.requests_since(mark, mount.bucket).total() == 0


def test_the_storage_is_seen_as_a_mountpoint(mount: Mount) -> None:
    run("mountpoint", "-q", str(mount.path))


def test_protection(mount: Mount) -> None:
    """R7: created for reading, nothing written; there after the close, in the bucket, and after a remount."""
    archive = mount.path / f"dump/{STEM}.vma.zst"
    archive.write_bytes(b"\x28\xb5\x2f\xfd")
    vzdump.protect(archive)
    protected = archive.with_name(archive.name + ".protected")
    assert protected.exists()
    assert mount.view.body(f"dump/{protected.name}") == b""
    vzdump.protect(archive)  # again: it is there already
    mount.restart()
    assert protected.stat().st_size == 0
    protected.unlink()
    assert not protected.exists()
    assert mount.view.keys("dump/") == [f"dump/{archive.name}"]


def test_notes(mount: Mount) -> None:
    """file_set_contents (PVE/File.pm:49): exclusive temporary file, rename; twice, then removed."""
    script = """
        use Fcntl; my ($file, $text) = @ARGV; my $tmp = "$file.tmp.$$";
        sysopen(my $fh, $tmp, O_WRONLY|O_CREAT|O_EXCL, 0644) or die "open: $!";
        print {$fh} $text or die "write: $!"; close($fh) or die "close: $!"; rename($tmp, $file) or die "rename: $!";
    """
    notes = mount.path / f"dump/{STEM}.vma.zst.notes"
    for text in ("first", "second, a bit longer"):
        perl(script, notes, text)
        assert notes.read_text() == text
        assert mount.view.keys("dump/") == [f"dump/{notes.name}"]
        assert mount.view.body(f"dump/{notes.name}") == text.encode()
    perl('unlink($ARGV[0]) or die "unlink: $!"', notes)
    assert mount.view.keys("dump/") == []


def test_rmdir_of_what_only_the_store_knows(mount: Mount) -> None:
    """R8: free_image calls rmdir(dump) at each deletion. Another node's backup must keep it from succeeding."""
    assert os.listdir(mount.path / "dump") == []  # this mount believes it is empty
    mount.view.put("dump/vzdump-qemu-7-2026_11_20-00_00_00.vma.zst", b"other node's")
    with pytest.raises(OSError, match=rf"Errno {errno.ENOTEMPTY}"):
        (mount.path / "dump").rmdir()
    (mount.path / "images/7").mkdir(parents=True)
    assert os.listdir(mount.path / "images/7") == []
    mount.view.put("images/7/deep/below/vm-7-disk-0.raw", b"x")
    with pytest.raises(OSError, match=rf"Errno {errno.ENOTEMPTY}"):
        (mount.path / "images/7").rmdir()
    assert mount.view.keys("images/7/deep") == ["images/7/deep/below/vm-7-disk-0.raw"]


def test_rmdir_of_a_directory_with_an_open_new_file(mount: Mount) -> None:
    """A file that is being written has no object yet and counts all the same."""
    (mount.path / "images/8").mkdir()
    with (mount.path / "images/8/new").open("wb") as file:
        file.write(b"x")
        with pytest.raises(OSError, match=rf"Errno {errno.ENOTEMPTY}"):
            (mount.path / "images/8").rmdir()
    assert mount.view.body("images/8/new") == b"x"


def test_deletion(mount: Mount) -> None:
    """Content.pm:510: protected?, -f, unlink, rmdir(dirname), then log and notes. The last one empties dump/."""
    for name in (f"{STEM}.vma.zst", f"{STEM}.log", f"{STEM}.vma.zst.notes"):
        (mount.path / "dump" / name).write_text("x")
    script = """
        my ($dir, $stem) = @ARGV; my $file = "$dir/$stem.vma.zst";
        die "protected" if -e "$file.protected"; die "no file" if !-f $file;
        unlink($file) or die "unlink: $!"; rmdir($dir) and die "not empty, but removed";
        for ("$dir/$stem.log", "$file.notes") { if (-e $_) { unlink($_) or die "unlink $_: $!" } }
    """
    perl(script, mount.path / "dump", STEM)
    assert mount.view.keys("dump/") == []
    perl("rmdir($ARGV[0])", mount.path / "dump")  # may or may not succeed; activation makes it again
    activate(mount.path)
    assert os.listdir(mount.path / "dump") == []


def test_image_directories_as_file_path_makes_and_removes_them(mount: Mount) -> None:
    script = """
        use File::Path qw(mkpath remove_tree); my $d = $ARGV[0];
        umask 0037; mkpath("$d/100"); die "mkpath" if !-d "$d/100";
        mkpath("$d/100/tmp_1_100"); open(my $f, '>', "$d/100/tmp_1_100/x") or die; print $f "x"; close($f) or die;
        remove_tree("$d/100", { error => \\my $errors }); die "errors" if @$errors; die "still there" if -e "$d/100";
    """
    perl(script, mount.path / "images")
    eventually(lambda: mount.view.keys("images/") == [], "nothing is left")


def test_gui_upload_is_cp(mount: Mount, tmp_path: Path) -> None:
    """Status.pm:668: cp to the final name, a new one and over an old one. R5: the last close is the barrier."""
    source = tmp_path / "debian.iso"
    for size in (20 << 20, 3 << 20):
        source.write_bytes(random.Random(size).randbytes(size))
        run("cp", "--", str(source), str(mount.path / "template/iso/debian.iso"))
        assert mount.view.sha256("template/iso/debian.iso") == hashlib.sha256(source.read_bytes()).hexdigest()
    assert mount.view.uploads() == []


def test_upload_from_another_node_is_scp(mount: Mount) -> None:
    """scp -p: write, fchmod and futimes on the open descriptor, close."""
    path = mount.path / "template/iso/scp.iso"
    body = random.Random(7).randbytes(10 << 20)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for start in range(0, len(body), 16 << 10):
        os.write(fd, body[start : start + (16 << 10)])
    os.ftruncate(fd, len(body))
    os.utime(fd, (1_500_000_000, 1_500_000_000))
    os.fchmod(fd, 0o640)
    os.close(fd)
    assert mount.view.body("template/iso/scp.iso") == body
    mount.restart()
    assert (path.stat().st_mode & 0o777, path.stat().st_mtime) == (0o640, 1_500_000_000)


def test_download_from_url(mount: Mount, tmp_path: Path) -> None:
    """Tools.pm:1522: wget -O NAME.tmp_dwnl.PID (4 KiB writes), checksum, qemu-img info, rename. No copy."""
    image = tmp_path / "image.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=full", str(image), "20M")
    body = image.read_bytes()
    temporary = mount.path / f"template/iso/cloud.img.tmp_dwnl.{os.getpid()}"
    mark = mount.server.mark(mount.bucket)
    with temporary.open("wb", buffering=0) as file:
        for start in range(0, len(body), 4096):
            file.write(body[start : start + 4096])
    temporary.rename(mount.path / "template/iso/cloud.img")
    asked = mount.server.requests_since(mark, mount.bucket)
    assert (asked["COPY"], asked["COPY PART"], asked["COMPLETE"]) == (0, 0, 1), asked
    assert mount.view.keys("template/") == ["template/iso/cloud.img"]
    assert mount.view.body("template/iso/cloud.img") == body


def test_download_that_is_checked_first(mount: Mount, tmp_path: Path) -> None:
    """With a checksum the temporary file is read in full before the rename; a copy is the price, a loss is not."""
    image = tmp_path / "image.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=full", str(image), "20M")
    temporary = mount.path / f"template/iso/cloud.img.tmp_dwnl.{os.getpid()}"
    run("dd", f"if={image}", f"of={temporary}", "bs=4k", "status=none")
    expected = hashlib.sha256(image.read_bytes()).hexdigest()
    assert run("sha256sum", str(temporary)).split()[0] == expected
    assert "qcow2" in run("qemu-img", "info", str(temporary))
    temporary.rename(mount.path / "template/iso/cloud.img")
    eventually(lambda: mount.view.keys("template/") == ["template/iso/cloud.img"], "only the final name is there")
    assert mount.view.sha256("template/iso/cloud.img") == expected
    assert mount.view.uploads() == []


def test_aborted_download_leaves_nothing(mount: Mount) -> None:
    temporary = mount.path / "template/iso/x.iso.tmp_dwnl.4711"
    temporary.write_bytes(bytes(20 << 20))
    temporary.unlink()
    eventually(lambda: mount.view.uploads() == [], "the upload is aborted")
    assert mount.view.keys() == []


def test_hook_script_is_executable(mount: Mount) -> None:
    """R11, GuestHelpers.pm:105: -f and -x, then executed from the mount."""
    path = mount.path / "snippets/hook.pl"
    path.write_text('#!/usr/bin/perl\nprint "hook @ARGV\\n";\n')
    path.chmod(0o755)
    mount.restart()
    perl('die "not -f -x" if !(-f $ARGV[0] && -x $ARGV[0])', path)
    assert run(str(path), "100", "pre-start") == "hook 100 pre-start\n"
    assert path.stat().st_size == len(mount.view.body("snippets/hook.pl"))


def test_restore_of_a_vm(mount: Mount, tmp_path: Path) -> None:
    """zstd -q -d -c FILE | vma extract: sequential, from an object some other client may have written."""
    image = random.Random(8).randbytes(40 << 20)
    archive = tmp_path / "a.zst"
    subprocess.run(["zstd", "-q", "-o", str(archive)], input=image, check=True, timeout=60)
    mount.view.put(f"dump/{STEM}.vma.zst", archive.read_bytes())
    command = f"set -o pipefail; zstd -q -d -c '{mount.path}/dump/{STEM}.vma.zst' | sha256sum"
    assert run("bash", "-c", command).split()[0] == hashlib.sha256(image).hexdigest()


def test_restore_of_a_container(mount: Mount, tmp_path: Path) -> None:
    """Create.pm:161: the archive is tar's standard input; an external one is listed first, i.e. read twice."""
    body = random.Random(9).randbytes(12 << 20)
    (tmp_path / "blob").write_bytes(body)
    archive = tmp_path / "ct.tar.zst"
    run("tar", "--zstd", "-cf", str(archive), "-C", str(tmp_path), "blob")
    name = "dump/vzdump-lxc-101-2026_11_20-13_15_26.tar.zst"
    mount.view.put(name, archive.read_bytes())
    target = tmp_path / "restored"
    target.mkdir()
    assert run("tar", "--zstd", "-tf", str(mount.path / name)).split() == ["blob"]
    run("bash", "-c", f"tar -xpf - --zstd -C '{target}' < '{mount.path / name}'")
    assert (target / "blob").read_bytes() == body


def test_one_file_out_of_a_plain_tar(mount: Mount, tmp_path: Path) -> None:
    """OVA and plain .tar archives are seeked through: tar -xO --occurrence reads headers and skips bodies."""
    archive = tmp_path / "x.ova"
    (tmp_path / "disk.vmdk").write_bytes(random.Random(10).randbytes(48 << 20))
    (tmp_path / "vm.ovf").write_text("<Envelope/>\n")
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "disk.vmdk", "disk.vmdk")
        tar.add(tmp_path / "vm.ovf", "vm.ovf")
    mount.view.put("import/x.ova", archive.read_bytes())
    assert run("tar", "-xOf", str(mount.path / "import/x.ova"), "--wildcards", "*.ovf") == "<Envelope/>\n"


def test_the_head_of_a_large_backup_moves_only_the_head(mount: Mount) -> None:
    """Show Configuration: zstd -dc | vma config, which ends after the header. Bytes are counted by the server."""
    size = 256 << 20
    mount.view.put(f"dump/{STEM}.vma.zst", bytes(size))
    mark = mount.server.mark(mount.bucket)
    run("bash", "-c", f"head -c 100000 '{mount.path}/dump/{STEM}.vma.zst' | sha256sum")
    sent = sum(r.bytes_sent for r in mount.server.requests(mark, mount.bucket) if r.kind == "GET")
    assert 100_000 <= sent < 16 << 20


def test_qemu_img_reads_images(mount: Mount, tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(image), "64M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 5M 3M", str(image))
    mount.view.put("import/disk.qcow2", image.read_bytes())
    on_mount = str(mount.path / "import/disk.qcow2")
    assert '"virtual-size": 67108864' in run("qemu-img", "info", "--output=json", on_mount)
    assert '"format": "raw"' in run("qemu-img", "info", "-f", "raw", "--output=json", on_mount)
    run("qemu-img", "convert", "-O", "raw", on_mount, str(tmp_path / "out.raw"))
    run("qemu-img", "compare", "-q", str(image), str(tmp_path / "out.raw"))


def test_listing_needs_no_request_per_backup(mount: Mount) -> None:
    """R9 in small: 300 backups, two probes each, one page."""
    list_backups(mount, 300, lists=1)


@pytest.mark.slow
def test_listing_of_ten_thousand_backups(make_mount: MakeMount) -> None:
    """R9: 10 pages, with one request of grace, and no HEAD, for 10 000 stats and 20 000 misses. list_ttl: on a busy
    machine these take longer than the 5 s, and are then rightly listed again."""
    list_backups(make_mount(list_ttl="5m"), 10_000, lists=11)


def list_backups(mount: Mount, count: int, lists: int) -> None:
    """Plugin.pm:1699-1743: glob, stat each, -f X.notes, -e X.protected."""
    from concurrent.futures import ThreadPoolExecutor

    names = [f"vzdump-qemu-{100 + i}-2026_11_20-13_15_26.vma.zst" for i in range(count)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: mount.view.put(f"dump/{name}", b"x"), names))
    mark = mount.server.mark(mount.bucket)
    script = """
        my $n = 0; foreach my $f (glob("$ARGV[0]/*")) {
            my @st = stat($f) or die "stat $f: $!"; die "size" if $st[7] != 1;
            die "notes" if -f "$f.notes"; die "protected" if -e "$f.protected"; $n++;
        } print $n;
    """
    assert perl(script, mount.path / "dump") == str(count)
    asked = mount.server.requests_since(mark, mount.bucket)
    assert asked["LIST"] <= lists, asked
    assert asked["HEAD"] == 0, asked
    assert asked["GET"] == 0, asked
