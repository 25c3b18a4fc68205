"""From facts to findings. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..service import health
from ..service.report import elapsed
from .facts import FAULT, NOTE, WARNING, Disk, Facts, Finding, Machine, Storage, Subject

# Below these nothing was ever tried; Debian 12 has just these, but for a kernel of 6.1.
OLDEST = {"Python": "3.11", "pyfuse3": "3.2", "trio": "0.22", "boto3": "1.26", "diskcache": "5.4", "Linux": "5.10"}
_ORDER = {FAULT: 0, WARNING: 1, NOTE: 2}
_LITTLE = 256 << 20  # bytes free; a journal takes some MiB, the caches end by themselves
_SKEW = 60.0  # S3 refuses at 15 minutes
_GONE = ("tmpfs", "ramfs")
_DISKS = {"images", "rootdir"}


def judge(facts: Facts) -> list[Finding]:
    """The worst first."""
    found = list(_machine(facts.machine))
    for subject in facts.subjects:
        found += _subject(subject, facts.machine)
    found += [Finding(NOTE, "", note) for note in facts.notes]
    return sorted(found, key=lambda finding: _ORDER[finding.severity])


def numbers(version: str) -> tuple[int, ...]:
    """ "6.1.0-18-amd64" -> (6, 1, 0)."""
    head = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(part) for part in head[0].split(".")) if head else ()


def _machine(machine: Machine) -> Iterator[Finding]:
    if machine.fuse:
        yield Finding(
            FAULT,
            "",
            f"/dev/fuse: {machine.fuse}",
            "modprobe fuse; in a container: allow FUSE for it (features: fuse=1)",
        )
    for name, oldest in OLDEST.items():
        version = machine.versions.get(name, "")
        if not version:
            yield Finding(FAULT, "", f"{name} is not installed", "apt install ./s3fsx_*.deb, or pip install s3fsx")
        elif numbers(version) < numbers(oldest):
            yield Finding(FAULT, "", f"{name} {version} is older than {oldest}, which s3fsx needs", f"upgrade {name}")
    if not machine.root:
        yield Finding(NOTE, "", "not root: units, kernel tuning, and what belongs to root were not looked at")


def _subject(subject: Subject, machine: Machine) -> Iterator[Finding]:
    here = subject.label
    if subject.config_error:
        missing = "no such file; " in subject.config_error
        fix = "correct the name, or make the file" if missing else "correct that; every setting: s3fsx config show"
        yield Finding(FAULT, here, subject.config_error, fix)
    if subject.storage is not None:
        yield from _storage(subject, subject.storage)
    yield from _mount(subject)
    if subject.store is not None:
        yield from _store(subject)
    for disk in subject.disks:
        yield from _disk(here, disk)
    for name, (value, least) in subject.tuning.items():
        if value < least:
            yield Finding(
                WARNING,
                here,
                f"{name} is {value}, not {least}: reads are slow over a link with latency",
                _again(subject),
            )
    if subject.log:
        more = f" ({len(subject.log)} warnings and errors in the end of its log)" if len(subject.log) > 1 else ""
        yield Finding(NOTE, here, f"last in its log: {subject.log[-1]}{more}")


def _again(subject: Subject) -> str:
    if subject.unit is not None and subject.unit.state == "active":
        return f"systemctl restart {subject.unit.name}"
    return f"s3fsx umount {subject.path} && s3fsx mount {subject.name or 'SOURCE'} {subject.path}"


def _start(subject: Subject) -> str:
    if subject.unit is not None:
        return f"systemctl start {subject.unit.name}; journalctl -u {subject.unit.name} -n 20 says why it does not"
    return f"s3fsx mount {subject.name} {subject.path}" if subject.path else f"s3fsx mount {subject.name} MOUNTPOINT"


def _mount(subject: Subject) -> Iterator[Finding]:
    here = subject.label
    if subject.dead:
        clear = f"s3fsx umount {subject.path}; then {_start(subject)}"
        yield Finding(FAULT, here, f"{subject.path}: its daemon has ended, every access fails", clear)
    elif subject.mounted:
        for trouble in health.troubles(subject.status):
            yield Finding(FAULT, here, trouble, "see docs/TROUBLESHOOTING.md; s3fsx status --watch shows it live")
        for caution in health.cautions(subject.status):
            yield Finding(WARNING, here, caution)
    else:
        wanted = subject.storage is not None or (subject.unit is not None and subject.unit.enabled == "enabled")
        if wanted and not subject.config_error:
            yield Finding(FAULT, here, f"{subject.path}: not mounted", _start(subject))
        elif subject.name and not subject.config_error:
            yield Finding(NOTE, here, "configured, and not mounted on this machine", _start(subject))
        if subject.beneath:
            yield Finding(
                WARNING,
                here,
                f"{subject.path}: nothing is mounted there, and {subject.beneath} entries lie in it on the local disk",
                f"mount it elsewhere, move them there (ls -la {subject.path}), and mount it here again",
            )
        if subject.unfinished:
            more = f", and {len(subject.unfinished) - 1} more" if len(subject.unfinished) > 1 else ""
            yield Finding(
                WARNING,
                here,
                f"{subject.unfinished[0]}{more}: not finished in the bucket",
                f"mount it once more, which finishes it; s3fsx recover {subject.name or subject.address} shows all",
            )
    if subject.unit is not None:
        if subject.unit.state == "failed":
            yield Finding(FAULT, here, f"{subject.unit.name} has failed", _start(subject))
        if subject.storage is not None and subject.unit.enabled != "enabled":
            yield Finding(
                WARNING, here, f"{subject.unit.name} is not started at boot", f"systemctl enable {subject.unit.name}"
            )


def _storage(subject: Subject, storage: Storage) -> Iterator[Finding]:
    here, given = subject.label, storage.properties
    if storage.kind == "dir":
        if given.get("is_mountpoint", "no").lower() in ("no", "0", "off", "false"):
            yield Finding(
                FAULT,
                here,
                f"storage {storage.name}: without is_mountpoint Proxmox fills the root disk when nothing is mounted",
                f"pvesm set {storage.name} --is_mountpoint yes",
            )
        if disks := sorted(_DISKS & set(given.get("content", "").split(","))):
            yield Finding(
                FAULT,
                here,
                f"storage {storage.name}: content {','.join(disks)}: disks of guests do not work on s3fsx",
                f"pvesm set {storage.name} --content backup,iso,vztmpl,snippets",
            )
    if "disable" in given and given["disable"].lower() not in ("0", "no", "off", "false"):
        yield Finding(NOTE, here, f"storage {storage.name} is disabled", f"pvesm set {storage.name} --delete disable")


# In the text of an error: what it means for an admin. The first that fits.
_FIXES: tuple[tuple[str, str], ...] = (
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|not trusted",
        "set ca_file to the certificate of the authority that signed the store's",
    ),
    (r"should the endpoint be https", "endpoint = https://..."),
    (
        r"does not speak TLS|WRONG_VERSION_NUMBER|record layer failure|TLS.*(plain|unknown protocol)",
        "the port speaks plain http: endpoint = http://..., or the port of https",
    ),
    (
        r"InvalidAccessKeyId|does not know this access key",
        "correct access_key; a new key may take minutes at some providers",
    ),
    (r"SignatureDoesNotMatch|secret key does not fit", "correct secret_key; mind characters lost in copying"),
    (r"RequestTimeTooSkewed|clock differs", "set the clock: timedatectl set-ntp true (or chronyc makestep)"),
    (r"no credentials found|incomplete credentials", "set access_key and secret_key in its configuration, mode 0600"),
    (r"does not exist at|NoSuchBucket", "create the bucket, or correct bucket and endpoint"),
    (r"region|lives at another endpoint", "correct region and endpoint"),
    (
        r"Name or service not known|name resolution|nodename|No address",
        "correct endpoint; getent hosts NAME shows whether the name is known",
    ),
    (r"refused", "nothing listens there: correct the port of endpoint, or start the store"),
    (r"AccessDenied|403", "the keys lack rights: docs/SECURITY.md has the policy; s3fsx check tries each"),
    (
        r"not done within|timed out|Timeout|No route|unreachable",
        "the store, a firewall or the way to it: curl -v ENDPOINT",
    ),
)


def fix_of(error: str) -> str:
    return next((fix for pattern, fix in _FIXES if re.search(pattern, error)), "s3fsx check shows which step fails")


def _store(subject: Subject) -> Iterator[Finding]:
    here, store = subject.label, subject.store
    if store is None:
        return
    if store.error:
        yield Finding(FAULT, here, store.error, fix_of(store.error))
    elif store.seconds > 2:
        yield Finding(WARNING, here, f"the store took {store.seconds:.1f} s for one listing")
    if store.skew is not None and abs(store.skew) >= _SKEW:
        yield Finding(
            WARNING,
            here,
            f"the store's clock and this machine's differ by {elapsed(abs(store.skew))}; at 15 minutes it refuses",
            "timedatectl set-ntp true",
        )
    if not store.error and not subject.mounted and not subject.read_only and subject.name:
        yield Finding(
            NOTE, here, f"only a listing was tried: s3fsx check {subject.name} writes, copies and deletes, too"
        )


def _disk(here: str, disk: Disk) -> Iterator[Finding]:
    if disk.trouble:
        yield Finding(FAULT, here, f"{disk.path}: {disk.trouble}", "put it on a disk that can be written (state_dir)")
    elif disk.free < _LITTLE:
        severity = FAULT if disk.free < 1 << 20 else WARNING
        yield Finding(severity, here, f"{disk.path}: {disk.free >> 20} MiB free on its disk", "make room there")
    if disk.kind in _GONE:
        yield Finding(
            WARNING,
            here,
            f"{disk.path} is on {disk.kind}: what a crash left unfinished is forgotten at a reboot",
            "set state_dir to a directory on a disk",
        )
