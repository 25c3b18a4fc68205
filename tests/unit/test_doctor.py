"""From facts to findings, and to text."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from s3fsx.doctor import bundle, report
from s3fsx.doctor.facts import FAULT, NOTE, WARNING, Disk, Facts, Finding, Machine, Storage, Store, Subject, Unit
from s3fsx.doctor.rules import OLDEST, fix_of, judge, numbers
from s3fsx.errors import ConfigError

MACHINE = Machine({"s3fsx": "0.1.0", **OLDEST}, root=True, fuse="")
WELL = Subject("a", address="s3://b/", path="/mnt/a", mounted=True, store=Store(0.1, skew=0.4))


def findings(*subjects: Subject, machine: Machine = MACHINE) -> list[tuple[str, str]]:
    return [(finding.severity, finding.what) for finding in judge(Facts(machine, subjects))]


def test_all_is_well() -> None:
    assert findings(WELL) == []
    assert list(report.lines(Facts(MACHINE, (WELL,)), []))[1:] == [
        "a: s3://b/, mounted on /mnt/a, the store answers in 100 ms",
        "nothing is wrong",
    ]
    assert list(report.lines(Facts(MACHINE, ()), []))[1] == "nothing is configured and nothing is mounted"


@pytest.mark.parametrize(
    ("machine", "severity", "what"),
    [
        (replace(MACHINE, fuse="No such file or directory"), FAULT, "/dev/fuse: No such file or directory"),
        (replace(MACHINE, root=False), NOTE, "not root"),
        (replace(MACHINE, versions={**MACHINE.versions, "trio": "0.21.0"}), FAULT, "trio 0.21.0 is older than 0.22"),
        (replace(MACHINE, versions={**MACHINE.versions, "boto3": ""}), FAULT, "boto3 is not installed"),
        (replace(MACHINE, versions={**MACHINE.versions, "Linux": "5.4.0-150-generic"}), FAULT, "Linux 5.4.0-150"),
    ],
)
def test_the_machine(machine: Machine, severity: str, what: str) -> None:
    ((told, why),) = findings(WELL, machine=machine)
    assert told == severity
    assert why.startswith(what)


def test_versions() -> None:
    assert numbers("6.1.0-18-amd64") == (6, 1, 0)
    assert numbers("0.30.0") > numbers("0.22")
    assert numbers("1.26") <= numbers("1.26.27")
    assert numbers("unknown") == ()


@pytest.mark.parametrize(
    ("subject", "severity", "what", "fix"),
    [
        (replace(WELL, unit=Unit("s3fsx@a.service", "failed", "enabled")), FAULT, "has failed", "systemctl start"),
        (
            replace(
                WELL,
                unit=Unit("s3fsx@a.service", "active", "disabled"),
                storage=Storage("a", "dir", {"is_mountpoint": "yes"}),
            ),
            WARNING,
            "not started at boot",
            "systemctl enable s3fsx@a.service",
        ),
        (
            replace(WELL, mounted=False, read_only=True, unit=Unit("s3fsx@a.service", "inactive", "enabled")),
            FAULT,
            "/mnt/a: not mounted",
            "systemctl start s3fsx@a.service",
        ),
        (
            replace(WELL, tuning={"max_background": (12, 64)}, unit=Unit("s3fsx@a.service", "active", "enabled")),
            WARNING,
            "max_background is 12",
            "systemctl restart s3fsx@a.service",
        ),
        (replace(WELL, disks=(Disk("/var/lib/s3fsx", 100 << 20, "ext4"),)), WARNING, "100 MiB free", "make room"),
        (replace(WELL, disks=(Disk("/x", 0, "ext4", "no right to write into /x"),)), FAULT, "no right", "state_dir"),
        (replace(WELL, store=Store(3.2)), WARNING, "took 3.2 s", ""),
        (replace(WELL, store=Store(0.1, skew=-3600.0)), WARNING, "differ by 1h", "set-ntp"),
        (replace(WELL, status={"error": "no daemon answers"}), FAULT, "no daemon answers", "status --watch"),
        (replace(WELL, status={"reads": {"fatal": 2}}), WARNING, "2 reads came damaged", ""),
        (
            replace(WELL, storage=Storage("a", "dir", {"is_mountpoint": "yes", "disable": "1"})),
            NOTE,
            "is disabled",
            "--delete disable",
        ),
        (replace(WELL, log=("ERROR x: one", "ERROR x: two")), NOTE, "last in its log: ERROR x: two (2 ", ""),
    ],
)
def test_a_mount(subject: Subject, severity: str, what: str, fix: str) -> None:
    (found,) = judge(Facts(MACHINE, (subject,)))
    assert (found.severity, found.where) == (severity, "a")
    assert what in found.what
    assert fix in found.fix


def test_the_worst_first() -> None:
    subject = replace(WELL, log=("ERROR x",), disks=(Disk("/x", 1 << 20, "tmpfs"),), dead=True)
    assert [severity for severity, _ in findings(subject)] == [FAULT, WARNING, WARNING, NOTE]


def test_what_is_not_tried() -> None:
    only_configured = replace(WELL, mounted=False, path="")
    not_mounted = (NOTE, "configured, and not mounted on this machine")
    assert findings(only_configured) == [
        not_mounted,
        (NOTE, "only a listing was tried: s3fsx check a writes, copies and deletes, too"),
    ]
    assert findings(replace(only_configured, read_only=True)) == [not_mounted]


def test_every_error_has_something_to_do() -> None:
    assert fix_of("no idea") == "s3fsx check shows which step fails"
    assert "policy" in fix_of("LIST: AccessDenied (403)")


def test_masked() -> None:
    text = "key=ab/c+d url=ab%2Fc%2Bd other"
    assert report.masked(text, {"ab/c+d", ""}) == "key=**** url=**** other"


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda secret: json.dumps({"log": secret}), id="JSON"),
        pytest.param(lambda secret: quote(secret), id="a path of a URL"),
        pytest.param(lambda secret: quote_plus(secret), id="a form"),
        pytest.param(lambda secret: quote(secret, safe="").lower(), id="lower case escapes"),
        pytest.param(lambda secret: repr(secret), id="repr"),
        pytest.param(lambda secret: base64.b64encode(secret.encode()).decode(), id="base64"),
    ],
)
def test_masked_however_it_is_written(form: Callable[[str], str]) -> None:
    secret = 'se/cr+et "q\\z'.lower()
    text = report.masked(f"before {form(secret)} after", {secret})
    assert "se" not in text.replace("before", "")
    assert report.MASK in text
    assert text.startswith("before ")
    assert text.endswith(" after")


def test_what_a_unit_sets_is_not_shown() -> None:
    text = """[Service]
ExecStart=/usr/bin/s3fsx mount %i
Environment=MOUNTPOINT=/mnt/pve/a
Environment="S3FSX_SECRET_KEY=hunter2" AWS_SECRET_ACCESS_KEY=hunter3 \\
  HTTPS_PROXY=http://u:hunter4@proxy:1
Restart=on-failure
"""
    told = report.unit_file(text)
    assert "hunter" not in told
    assert "Environment=MOUNTPOINT=/mnt/pve/a\n" in told
    assert "ExecStart=/usr/bin/s3fsx mount %i\n" in told
    assert told.endswith("Restart=on-failure\n")


def test_a_finding_names_its_place_once() -> None:
    told = list(report.lines(Facts(MACHINE, (WELL,)), [Finding(FAULT, "/mnt/a", "/mnt/a: dead", "do")]))
    assert told[-2:] == ["FAULT    /mnt/a: dead", "           -> do"]


def test_a_bundle_replaces_nothing(tmp_path: Path) -> None:
    file = tmp_path / "x.tar.gz"
    bundle.write(str(file), {"a.txt": "text\udcff"})
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="exists; choose another name"):
        bundle.write(str(file), {})
    with pytest.raises(ConfigError, match="No such file or directory"):
        bundle.write(str(tmp_path / "no" / "x"), {})
