from __future__ import annotations

from pathlib import Path

from s3fsx.service import lastwords
from s3fsx.service.lastwords import LeftFile


def test_what_was_left_is_told_once(tmp_path: Path) -> None:
    socket = str(tmp_path / "%2Fmnt.sock")
    left = [LeftFile(f"dump/{n}.vma.dat", n, kept=True) for n in range(1, 8)] + [LeftFile("dump/w", 9, kept=False)]
    lastwords.write(socket, left, "S3 is down", "/var/lib/s3fsx")
    kept, lost = lastwords.read(socket).left
    assert kept.startswith("S3 is down: 7 files (28 B) were closed but not yet under a name in the bucket, and kept:")
    assert "/var/lib/s3fsx" in kept
    assert kept.endswith("dump/5.vma.dat (5 B) and 2 more")
    assert lost == "1 file (9 B) was still being written, and not published: dump/w (9 B)"
    assert lastwords.read(socket) == lastwords.LastWords()
    assert list(tmp_path.iterdir()) == []


def test_nothing_and_nonsense_say_nothing(tmp_path: Path) -> None:
    socket = str(tmp_path / "x.sock")
    assert lastwords.read(socket) == lastwords.LastWords()
    for text in ("", "{}", "[1]", '{"why": "", "state_dir": "", "left": [{"path": 1}]}'):
        (tmp_path / "x.sock.left").write_text(text)
        assert lastwords.read(socket) == lastwords.LastWords()
    lastwords.forget(socket)
    lastwords.write(str(tmp_path / "absent/x.sock"), [], "", "")  # never fails: the log has it


def test_what_was_published_under_a_temporary_name_is_told_apart(tmp_path: Path) -> None:
    socket = str(tmp_path / "x.sock")
    lastwords.write(socket, [], "", "", published=[LeftFile("dump/a.vma.dat", 5, kept=True)])
    words = lastwords.read(socket)
    assert not words.left
    (line,) = words.published
    assert line.startswith("1 file (5 B) was never renamed, and published under the temporary name")
    assert line.endswith(": dump/a.vma.dat (5 B)")
