from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from s3fsx import __version__, cli
from s3fsx.commands import checking, mounting
from s3fsx.commands import state as state_command
from s3fsx.configuration.settings import Settings
from s3fsx.errors import AccessDenied, S3fsxError
from s3fsx.kernel import mountpoint
from s3fsx.service import launch, log, report
from s3fsx.service.status import socket_path

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither this machine's nor the caller's; returns the directory that counts instead of /etc/s3fsx."""
    for name in list(os.environ):
        if name.startswith("S3FSX_"):
            monkeypatch.delenv(name)
    directory = tmp_path / "etc"
    directory.mkdir()
    monkeypatch.setenv("S3FSX_CONFIG_DIR", str(directory))
    for module in (mounting, checking):
        monkeypatch.setattr(module, "keep_private", lambda: None)  # cannot be undone, and pytest goes on
    monkeypatch.setattr(log, "setup", lambda *_, **__: None)  # the handlers are pytest's
    return directory


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str, command: Callable[..., int] = cli.main) -> tuple[int, str, str]:
        try:
            code = command(arguments)
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Settings, str]]:
    """Instead of mounting: what would have been mounted."""
    calls: list[tuple[str, Settings, str]] = []

    def note(how: str) -> Callable[..., int]:
        def start(run: object, settings: Settings, path: str, *, debug: bool = False) -> int:
            calls.append((how + (" debug" if debug else ""), settings, path))
            return 0

        return start

    monkeypatch.setattr(mounting, "_run_mount", lambda: None)
    monkeypatch.setattr(launch, "foreground", note("foreground"))
    monkeypatch.setattr(launch, "background", note("background"))
    monkeypatch.setattr(mountpoint, "DEVICE", os.devnull)
    return calls


def test_version_and_help(run: Run) -> None:
    assert run("--version") == (0, f"s3fsx {__version__}\n", "")
    for command in (
        (),
        ("mount",),
        ("umount",),
        ("status",),
        ("check",),
        ("config",),
        ("config", "show"),
        ("pve",),
        ("pve", "setup"),
    ):
        code, out, _ = run(*command, "--help")
        assert code == 0
        assert out.startswith(f"usage: s3fsx {' '.join(command)}".rstrip())
    assert "examples:" in run("--help")[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("mount", "s3fsx mount: the following arguments are required: SOURCE, MOUNTPOINT ('s3fsx mount --help' shows"),
        ("statsu", "s3fsx: no such command: statsu; did you mean status? ('s3fsx --help' shows"),
        ("xyzzy", "s3fsx: no such command: xyzzy ('s3fsx --help' shows"),
        ("mount a b c", "s3fsx mount: one argument too many: c ("),
        ("umount /x --timeout x", "s3fsx umount: argument --timeout: 'x': it takes 0 to 86400 seconds ("),
        ("recover x --price nan", "s3fsx recover: argument --price: 'nan': it takes 0 to 1000 USD ("),
        ("backups x --vmid 5", "s3fsx backups: argument --vmid: '5': it takes 100 to 999999999 ("),
        ("prune x --keep-dayly 3", "s3fsx prune: no such option: --keep-dayly; did you mean --keep-daily? ("),
        ("prune x --keep-dayly=3", "s3fsx prune: no such option: --keep-dayly; did you mean --keep-daily? ("),
        ("prune x --keep-last many", "s3fsx prune: argument --keep-last: 'many': it takes 0 to 1000000 ("),
        ("thaw x --days 0", "s3fsx thaw: argument --days: '0': it takes 1 to 3650 days ("),
        ("pve lifecycle x --glacier-days 0", "s3fsx pve lifecycle: argument --glacier-days: '0': it takes 1 to 36500"),
        ("pve stup", "s3fsx pve: no such command: stup; did you mean setup? ('s3fsx pve --help' shows"),
    ],
)
def test_arguments_that_are_wrong_are_one_line(run: Run, arguments: str, line: str) -> None:
    code, out, err = run(*arguments.split())
    assert (code, out) == (2, "")
    assert err.startswith(line)
    assert err.count("\n") == 1


@pytest.mark.parametrize("group", [(), ("pve",), ("config",)])
def test_without_a_command_there_is_help_and_what_is_missing(run: Run, group: tuple[str, ...]) -> None:
    code, out, err = run(*group)
    assert (code, out) == (2, "")
    name = " ".join(("s3fsx", *group))
    assert err.startswith(f"usage: {name} ")
    assert err.splitlines()[-1] == f"{name}: which COMMAND? ('{name} --help' shows what it takes)"


def test_mount(run: Run, launched: list[tuple[str, Settings, str]], tmp_path: Path) -> None:
    assert run("mount", "s3://bucket/p", str(tmp_path), "-o", "ro,uid=5", "-o", "_netdev") == (0, "", "")
    ((how, settings, path),) = launched
    assert (how, path) == ("background", str(tmp_path))
    assert (settings.bucket, settings.prefix, settings.read_only, settings.uid) == ("bucket", "p/", True, 5)


def test_what_a_mount_hides_is_said(run: Run, launched: list[tuple[str, Settings, str]], tmp_path: Path) -> None:
    directory = tmp_path / "mnt"
    (directory / "template/iso").mkdir(parents=True)
    assert run("mount", "s3://bucket/p", str(directory)) == (0, "", "")
    (directory / "template/iso/b.iso").touch()
    (directory / "template/iso/a\nx.iso").touch()
    said = (
        f"s3fsx: {directory}: not empty: {str(directory / 'template/iso/a')!r}".rstrip("'")
        + "\\nx.iso', and what else lies there, is hidden by the mount\n"
    )
    assert run("mount", "s3://bucket/p", str(directory)) == (0, "", said)
    assert run("s3://bucket/p", str(directory), "-f", command=cli.mount_helper) == (0, "", "")
    assert len(launched) == 2


def test_mount_in_the_foreground(
    run: Run, launched: list[tuple[str, Settings, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("mount", "s3://bucket", ".", "--foreground", "--debug", "--log-file", "log")[0] == 0
    ((how, settings, path),) = launched
    assert (how, path, settings.log_file) == ("foreground debug", str(tmp_path), str(tmp_path / "log"))


def test_a_name_as_source(
    run: Run, launched: list[tuple[str, Settings, str]], tmp_path: Path, no_configuration: Path
) -> None:
    (no_configuration / "pve1.toml").write_text('bucket = "from-file"\n')
    assert run("mount", "pve1", str(tmp_path))[0] == 0
    assert launched[0][1].bucket == "from-file"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("s3://bucket", "DIR/absent"), "s3fsx: DIR/absent: no such directory: mkdir -p DIR/absent\n"),
        (("s3://bucket", "/proc"), "s3fsx: /proc: already a mountpoint (proc)\n"),
        (
            ("s3://bucket", "DIR", "-o", "prt_size=1"),
            "s3fsx: -o: unknown setting 'prt_size'; did you mean 'part_size'?\n",
        ),
        (("nobody", "DIR"), "s3fsx: DIR/etc/nobody.toml: no such file; SOURCE is its NAME, or s3://BUCKET[/PREFIX]\n"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    run: Run, launched: object, tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    given = (argument.replace("DIR", str(tmp_path)) for argument in arguments)
    assert run("mount", *given) == (2, "", line.replace("DIR", str(tmp_path)))
    assert launched == []


def test_without_fuse_it_is_trouble_and_code_1(
    run: Run, launched: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mountpoint, "DEVICE", f"{tmp_path}/fuse")
    code, _, err = run("mount", "s3://bucket", str(tmp_path))
    assert (code, err) == (1, f"s3fsx: {tmp_path}/fuse is missing: modprobe fuse (in a container: allow fuse for it)\n")
    assert launched == []


def test_a_mount_that_was_killed_half_way_is_taken_down(
    run: Run, launched: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_down: list[tuple[str, bool]] = []

    def failed(*_: object, **__: object) -> int:
        monkeypatch.setattr(mountpoint, "mounted", lambda: {str(tmp_path): mountpoint.FSTYPE})
        return 1

    monkeypatch.setattr(launch, "background", failed)
    monkeypatch.setattr(mountpoint, "unmount", lambda path, *, lazy: taken_down.append((path, lazy)))
    assert run("mount", "s3://bucket", str(tmp_path))[0] == 1
    assert taken_down == [(str(tmp_path), True)]


@pytest.mark.parametrize(("timeout", "limit"), [((), 30.0), (("--timeout", "5"), 5.0), (("--timeout", "0"), 2.0)])
def test_umount_waits_no_longer_than_it_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, timeout: tuple[str, ...], limit: float
) -> None:
    """Neither for umount(8), which a hung daemon keeps, nor for the daemon; and then says where its log is."""
    given: list[float] = []
    monkeypatch.setattr(mountpoint, "daemon_of", lambda path: os.open(os.devnull, os.O_RDONLY))
    monkeypatch.setattr(mountpoint, "unmount", lambda path, *, lazy, limit: given.append(limit))
    monkeypatch.setattr(mountpoint, "wait_for_end", lambda pidfd, left: given.append(left))
    for document, log_place in (({"log": "/var/log/x"}, "/var/log/x"), ({}, "journalctl -t s3fsx")):
        monkeypatch.setattr(mounting, "read_status", lambda path, document=document: document)
        code, _, err = run("umount", "/mnt/x", *timeout)
        seconds = float(timeout[1]) if timeout else 900.0
        line = f"unmounted, but after {seconds:.0f} s its daemon is not done with the bucket, and goes on; its log: "
        assert (code, err) == (1, f"s3fsx: /mnt/x: {line}{log_place}\n")
        assert given[0] == limit
        assert seconds - 5 < given[1] <= seconds
        given.clear()


def test_the_helper_of_mount(run: Run, launched: list[tuple[str, Settings, str]], tmp_path: Path) -> None:
    arguments = ("s3://bucket", str(tmp_path), "-s", "-n", "-t", "s3fsx", "-o", "rw,_netdev,umask=027")
    assert run(*arguments, command=cli.mount_helper) == (0, "", "")
    assert (launched[0][0], launched[0][1].umask) == ("background", 0o027)
    assert run(*arguments, "-f", command=cli.mount_helper) == (0, "", "")
    assert len(launched) == 1
    code, _, err = run(*arguments, "-N", "1", command=cli.mount_helper)
    assert (code, err) == (2, "s3fsx: -N is not supported: enter the namespace first, with nsenter\n")


def test_mount_a_finds_what_is_mounted_and_served(
    run: Run, launched: list[tuple[str, Settings, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mount -a` calls the helper for a line whose mount is up; only a living mount of the same source is fine."""
    here = {str(tmp_path): mountpoint.Entry(mountpoint.FSTYPE, "s3://bucket/p/", 0)}
    monkeypatch.setattr(mountpoint, "table", lambda: here)
    monkeypatch.setattr(mountpoint, "daemon_of", lambda path: os.open(os.devnull, os.O_RDONLY))
    assert run("s3://bucket/p", str(tmp_path), command=cli.mount_helper) == (0, "", "")
    code, _, err = run("s3://bucket/q", str(tmp_path), command=cli.mount_helper)
    assert (code, "already a mountpoint" in err) == (2, True)
    code, _, err = run("mount", "s3://bucket/p", str(tmp_path))  # a person is told
    assert (code, "already a mountpoint" in err) == (2, True)
    monkeypatch.setattr(mountpoint, "daemon_of", lambda path: None)
    code, _, err = run("s3://bucket/p", str(tmp_path), command=cli.mount_helper)
    assert (code, "no daemon answers: s3fsx umount --lazy" in err) == (1, True)
    assert launched == []


def test_config_show(run: Run, no_configuration: Path) -> None:
    secret = no_configuration / "pve1.toml"
    secret.write_text('bucket = "bbb"\naccess_key = "AK"\nsecret_key = "hunter2"\n')
    secret.chmod(0o600)
    code, out, err = run("config", "show", "pve1", "-o", "ro")
    assert (code, err) == (0, "")
    assert "hunter2" not in out
    assert f"# {secret}" in out
    assert run("config", "show")[0] == 0
    secret.chmod(0o644)
    code, out, err = run("config", "show", "pve1")
    assert (code, out) == (2, "")
    assert err == f"s3fsx: {secret}: holds keys but has mode 0644: chmod 600 {secret}\n"


def test_status_of_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mountpoint, "mounted", lambda: {"/": "ext4"})
    option = f"runtime_dir={tmp_path}/run"
    assert run("status", "-o", option) == (0, "no s3fsx mounts\n", "")
    assert run("status", "--json", "-o", option) == (0, "{}\n", "")
    assert run("status", "/nowhere", "-o", option) == (2, "", "s3fsx: /nowhere: no s3fsx mount\n")


def test_status_of_mounts(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = {"down": False, "url": "http://x", "outages": 2}
    state: dict[str, object] = {"source": "s3://b/", "endpoint": store, "uptime_s": 7500, "pid": 42}
    answers = {socket_path(str(tmp_path), "/mnt/a"): state}

    def read_status(path: str, limit: float) -> dict[str, object]:
        assert limit < 1
        if path not in answers:
            raise S3fsxError("no s3fsx runs there")
        return answers[path]

    Path(socket_path(str(tmp_path), "/mnt/a")).touch()
    monkeypatch.setattr(state_command, "read_status", read_status)
    monkeypatch.setattr(mountpoint, "mounted", lambda: dict.fromkeys(("/mnt/a", "/mnt/b"), mountpoint.FSTYPE))
    code, out, _ = run("status", "--json", "-o", f"runtime_dir={tmp_path}")
    assert code == 1  # one of them is dead
    assert json.loads(out) == {"/mnt/a": state, "/mnt/b": {"error": "no s3fsx runs there"}}
    code, out, _ = run("status", "/mnt/a", "-o", f"runtime_dir={tmp_path}")
    assert code == 0
    head, store_line = out.splitlines()
    assert head == "/mnt/a: s3://b/, mounted for 2h 5m, pid 42"
    assert store_line == "  store         http://x answers; 2 outages since the mount"
    state["endpoint"] = {"down": True, "down_for_s": 65, "last_error": "refused"}
    code, out, _ = run("status", "/mnt/a", "-o", f"runtime_dir={tmp_path}")
    assert (code, out.splitlines()[1]) == (1, "  OUTAGE for 1m 5s: the store does not answer; refused")
    state["endpoint"] = {"down": False, "refused_for_s": 65, "last_error": "403"}
    assert run("status", "/mnt/a", "-o", f"runtime_dir={tmp_path}")[0] == 0  # one question that may not be asked
    state["endpoint"] = {"down": False, "refused_for_s": 125, "last_error": "403"}
    code, out, _ = run("status", "/mnt/a", "-o", f"runtime_dir={tmp_path}")
    assert (code, out.splitlines()[1]) == (1, "  the store has refused everything for 2m 5s: 403")


def test_times_for_people() -> None:
    assert [report.elapsed(s) for s in (0, 59.6, 61, 3600, 7500, 90061)] == [
        "0s", "1m 0s", "1m 1s", "1h 0m", "2h 5m", "1d 1h",
    ]  # fmt: skip


def test_status_forgets_what_is_dead_and_not_mounted(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    paths = {name: socket_path(str(directory), f"/mnt/{name}") for name in ("gone", "dead", "publishing")}
    sockets = {name: socket.socket(socket.AF_UNIX) for name in paths}
    for name, path in paths.items():
        sockets[name].bind(path)
    sockets["publishing"].listen()
    sockets["gone"].close()
    sockets["dead"].close()
    monkeypatch.setattr(mountpoint, "mounted", lambda: {"/mnt/dead": mountpoint.FSTYPE})
    monkeypatch.setattr(state_command, "read_status", lambda path, limit: {"answered": path})
    code, out, _ = run("status", "--json", "-o", f"runtime_dir={directory}")
    assert (code, list(json.loads(out))) == (0, ["/mnt/dead", "/mnt/publishing"])
    assert sorted(os.listdir(directory)) == sorted(os.path.basename(paths[name]) for name in ("dead", "publishing"))
    monkeypatch.setattr(mountpoint, "mounted", dict)
    sockets["publishing"].close()
    assert run("status", "-o", f"runtime_dir={directory}") == (0, "no s3fsx mounts\n", "")
    assert os.listdir(directory) == []


def test_status_and_umount_need_no_configuration(
    run: Run, no_configuration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (no_configuration / "s3fsx.toml").write_text("bucket = [not TOML")
    monkeypatch.setenv("S3FSX_PART_SIZE", "junk")
    monkeypatch.setattr(mountpoint, "mounted", dict)
    assert run("status", "-o", f"runtime_dir={tmp_path}/run") == (0, "no s3fsx mounts\n", "")
    assert run("umount", str(tmp_path)) == (2, "", f"s3fsx: {tmp_path}: not a mountpoint\n")


def test_another_user_s_mounts_are_trouble_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", denied)
    monkeypatch.setattr(os, "stat", lambda path: os.stat_result((0o40700, 0, 0, 1, 0, 0, 0, 0, 0, 0)))
    line = "s3fsx: /run/s3fsx: only root can see the mounts there; -o runtime_dir=DIR shows your own\n"
    assert run("status", "-o", "runtime_dir=/run/s3fsx") == (1, "", line)


def test_umount(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()  # readable, as a pidfd is, when the process has ended
    done: list[object] = []
    monkeypatch.setattr(mountpoint, "daemon_of", lambda path: os.dup(read_end))
    monkeypatch.setattr(mountpoint, "unmount", lambda path, *, lazy, limit: done.append((path, lazy)))
    code, _, err = run("umount", str(tmp_path), "--timeout", "0.05")
    assert code == 1
    assert f"{tmp_path}: unmounted, but after 0 s its daemon is not done with the bucket" in err
    assert run("umount", str(tmp_path), "--lazy", "--timeout", "0.05") == (0, "", "")
    os.close(write_end)
    assert run("umount", str(tmp_path)) == (0, "", "")
    assert done == [(str(tmp_path), False), (str(tmp_path), True), (str(tmp_path), False)]
    os.close(read_end)


def test_umount_of_nothing(run: Run, tmp_path: Path) -> None:
    assert run("umount", str(tmp_path)) == (2, "", f"s3fsx: {tmp_path}: not a mountpoint\n")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (AccessDenied("no\nentry"), 1, "s3fsx: no entry\n"),
        (KeyError("x"), 1, "s3fsx: unexpected KeyError: 'x' (a bug; --debug shows where)\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_no_traceback_reaches_the_user(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    def broken(*_: object, **__: object) -> object:
        raise error

    monkeypatch.setattr("s3fsx.configuration.config.load", broken)
    assert run("config", "show") == (code, "", line)
    assert ("Traceback" in run("config", "show", "--debug")[2]) == (code == 1)


def test_a_reader_that_stops_reading_is_no_error() -> None:
    """`s3fsx config show | head -1`"""
    done = subprocess.run(
        ["sh", "-c", '"$0" -m s3fsx config show | head -c 1', sys.executable],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT), "S3FSX_CONFIG_DIR": "/nonexistent"},
        check=True,
    )
    assert (done.stdout, done.stderr) == ("#", "")


def test_nothing_heavy_is_imported_before_the_fork() -> None:
    program = "import sys, s3fsx.cli; print({'boto3', 'botocore', 'pyfuse3', 'diskcache'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("command", [("setup", "a1"), ("remove", "a1")])
def test_a_storage_of_proxmox_is_roots(run: Run, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run("pve", *command) == (2, "", "s3fsx: only root can do this\n")


@pytest.mark.parametrize(
    ("redirection", "code", "told"),
    [
        (">/dev/full", 1, "s3fsx: cannot write: No space left on device\n"),
        (">&-", 0, ""),
        ("| true", 0, ""),
        (">/dev/full 2>&-", 1, ""),
        ("<&- >&- 2>&-", 0, ""),
    ],
)
def test_output_that_cannot_be_written(redirection: str, code: int, told: str) -> None:
    """More than a pipe holds would be needed to see the broken one; see test_a_reader_that_goes."""
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m s3fsx config show {redirection}', sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (code, told)


def test_descriptors_that_were_closed_are_open_for_programs_too() -> None:
    """Else the first file that mount, umount or fusermount3 opens is where it writes its messages."""
    program = (
        "import os, subprocess; from s3fsx import cli; cli._open_standard_streams(); "
        "os._exit(subprocess.call(['sh', '-c', ': <&0 && : >&1 && : >&2']))"
    )
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, program], cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0
