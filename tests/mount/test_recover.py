"""`s3fsx recover` as an administrator types it: after a node that is gone for good, a lost journal, a crash."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mount.conftest import MakeMount
from tests.mount.harness import COMMAND, Mount, environment, eventually, join_options

pytestmark = [pytest.mark.mount, pytest.mark.rgw]

BODY = b"\x28\xb5\x2f\xfd" + random.Random(9).randbytes((20 << 20) + 77)  # two full parts and a bit


def name(number: int, extension: str = "dat") -> str:
    return f"dump/vzdump-qemu-{number}-2026_11_20-13_15_26.vma.{extension}"


def recover(mount: Mount, *arguments: str, code: int = 0) -> str:
    """With the options of a mount, which are those of its node. What it printed."""
    command = [*COMMAND, "recover", mount.source, "-o", join_options(mount.options), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(mount.server), cwd="/", timeout=90, check=False
    )
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr.strip()


def survey(mount: Mount, *arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(recover(mount, "--json", *arguments))
    return document


def owners(document: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    return {
        upload["key"].partition("vma")[0].rpartition("/")[2]: (upload["owner"], upload["state"], upload["action"])
        for upload in document["uploads"]
    }


@contextlib.contextmanager
def writing(path: Path) -> Iterator[int]:
    """A program in the middle of a backup: two parts have left. Whatever becomes of its mount meanwhile."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(fd, BODY)
    try:
        yield fd
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


def copied_states(mount: Mount) -> list[str]:
    """What all journal copies in the bucket say."""
    states: list[str] = []
    for key in mount.view.internal_keys():
        if "/journal/" in key:
            with contextlib.suppress(mount.server.client.exceptions.NoSuchKey):  # gone since it was listed
                states += [upload["state"] for upload in json.loads(mount.view.body(key))["uploads"]]
    return sorted(states)


@pytest.mark.slow
def test_a_node_that_is_gone_for_good(make_mount: MakeMount) -> None:
    """Killed after the close of one backup and in the middle of another. Its file comes into the bucket byte for byte,
    the rest of it is aborted; what others have under way is theirs."""
    a = make_mount()
    b = make_mount(bucket=a.bucket)
    client, foreign = a.server.client, a.prefix + "dump/foreign-vma"
    upload = client.create_multipart_upload(Bucket=a.bucket, Key=foreign)["UploadId"]
    client.upload_part(Bucket=a.bucket, Key=foreign, UploadId=upload, PartNumber=1, Body=b"x" * (5 << 20))
    with writing(b.path / name(3)) as fd:
        with writing(a.path / name(2)):
            (a.path / name(1)).write_bytes(BODY)
            eventually(lambda: copied_states(a) == ["open", "open", "settled"], "both nodes have left copies")
            a.kill9()
        before = survey(b)
        whose = owners(before)
        # Starting a command duplicates the descriptor for a moment, and closes it: that settles what is there.
        assert whose.pop("vzdump-qemu-3-2026_11_20-13_15_26.")[0] == "this node"
        assert whose == {
            "vzdump-qemu-1-2026_11_20-13_15_26.": ("node", "settled", "publish"),
            "vzdump-qemu-2-2026_11_20-13_15_26.": ("node", "open", "abort"),
            "foreign-": ("nobody", "", "keep"),
        }
        assert f"pid {b.pid} serves" in before["journal"]
        (node,) = {upload["node"] for upload in before["uploads"] if upload["owner"] == "node"}
        assert node != before["node"]
        text = recover(b, "--price", "1000")
        assert "5.0 MiB, 4.88 USD a month" in text
        assert f"becomes {name(1)}; if {os.uname().nodename} is gone for good: --node {node} --apply" in text
        assert len(b.view.uploads()) == 4, "showing changes nothing"

        recover(b, "--node", node, "--apply")
        assert b.view.body(name(1)) == BODY
        assert sorted(b.view.uploads()) == ["dump/foreign-vma", name(3, "zst")]
        assert owners(survey(b)).keys() == {"vzdump-qemu-3-2026_11_20-13_15_26.", "foreign-"}
        assert len(copied_states(b)) == 1, "the copy of the node that is gone is gone, too"
        assert "no journal copy of that node" in recover(b, "--node", node, "--apply", code=2)

        recover(b, "--older-than", "1h", "--apply")
        assert len(b.view.uploads()) == 2, "younger, or known"
        recover(b, "--older-than", "0s", "--apply")
        assert b.view.uploads() == [name(3, "zst")], "of any age, but known"
        os.write(fd, BODY)
    (b.path / name(3)).rename(b.path / name(3, "zst"))
    assert b.view.body(name(3, "zst")) == BODY + BODY
    eventually(lambda: copied_states(b) == [], "no copy of an empty journal")
    # Should it come back after all, it finds that all is done.
    a.start()
    assert (a.path / name(1)).read_bytes() == BODY
    assert not (a.path / name(2)).exists()
    assert "was published by another node" in a.log()


def test_this_machines_journal_by_hand(make_mount: MakeMount) -> None:
    mount = make_mount()
    (mount.path / name(1)).write_bytes(BODY)
    refused = recover(mount, "--apply", code=1)
    assert refused.startswith(f"s3fsx: pid {mount.pid} serves {mount.source} on {mount.path}: unmount that, or")
    with writing(mount.path / name(2)):
        mount.kill9()
    assert {finding[0] for finding in owners(survey(mount)).values()} == {"this node"}
    recover(mount, "--apply")
    assert mount.view.uploads() == [name(1, "zst")], "closed: it waits for its rename"
    recover(mount, "--apply")
    mount.start()
    (mount.path / name(1)).rename(mount.path / name(1, "zst"))
    assert mount.view.body(name(1, "zst")) == BODY
    assert recover(mount).splitlines()[-1].endswith("0 unfinished uploads, 0 parts, 0 B, 0.00 USD a month")


def test_checksums_of_what_another_tool_deleted(make_mount: MakeMount) -> None:
    mount = make_mount()
    for number in (1, 2):
        (mount.path / name(number, "zst")).write_bytes(BODY)
    assert "\nchecksums" not in recover(mount)
    mount.view.delete(name(1, "zst"))
    assert "1 small objects of files that are gone" in recover(mount)
    mount.umount()
    recover(mount, "--apply")
    assert sum("/sums/" in key for key in mount.view.internal_keys()) == 1
    mount.start()
    assert (mount.path / name(2, "zst")).read_bytes() == BODY


@pytest.mark.expect_log("the journal here is new, and the bucket has that of node")
def test_a_lost_journal_points_to_its_copy(make_mount: MakeMount) -> None:
    mount = make_mount()
    (mount.path / name(1)).write_bytes(BODY)
    eventually(lambda: copied_states(mount) == ["settled"], "a copy")
    mount.kill9()
    shutil.rmtree(str(mount.options["state_dir"]))
    mount.start()
    (node,) = {upload["node"] for upload in survey(mount)["uploads"]}
    assert f"s3fsx recover SOURCE --node {node} --apply" in mount.log()
    (mount.path / "dump/new").write_bytes(b"works")
    recover(mount, "--node", node, "--apply")
    assert mount.view.body(name(1)) == BODY
    assert mount.view.uploads() == []
    mount.umount()
    assert copied_states(mount) == []
    mount.start()
