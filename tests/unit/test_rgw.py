"""The RGW of the tests: contrib/rgw.py."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from pathlib import Path

pid_of = importlib.import_module("contrib.rgw").pid_of  # mypy would miss python3-rados, which is the distribution's


def test_a_daemon_is_known_by_its_program_and_not_by_its_name(tmp_path: Path) -> None:
    """Ceph 18's radosgw has a main thread called notif-worker0: it was taken for ended, and a second started."""
    shutil.copy("/bin/bash", tmp_path / "radosgw")
    script = "printf notif-worker0 >/proc/$$/comm; echo; read -r line"
    command = [str(tmp_path / "radosgw"), "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdin is not None
        daemon.stdout.readline()
        (tmp_path / "rgw.pid").write_text(str(daemon.pid))
        assert Path(f"/proc/{daemon.pid}/comm").read_text() == "notif-worker0\n"
        assert pid_of(tmp_path, "rgw") == daemon.pid
        daemon.stdin.close()
        os.waitid(os.P_PID, daemon.pid, os.WEXITED | os.WNOWAIT)  # a zombie
        assert pid_of(tmp_path, "rgw") is None
    (tmp_path / "rgw.pid").write_text(str(os.getpid()))  # as after a reboot
    assert pid_of(tmp_path, "rgw") is None
