"""Which names are temporary, and the name they will be renamed to.

A file with a temporary name is not published when it is closed but when it is renamed; its upload is made
under the predicted key, so that the rename is one CompleteMultipartUpload and copies nothing. A wrong guess
only costs: the file is then published under its own name and copied at the rename.

Two families:

* vzdump writes next to its target, with the target's *last* extension replaced by ``.dat``
  (PVE/VZDump.pm, ``$task->{tmptar}``). The lost extension is read off the first bytes; where these say nothing
  the likeliest is guessed (zstd is the default compression), because guessing nothing would cost the same copy.
* PVE's downloads (``N.tmp_dwnl.PID``, ``N.tmp_dcom.PID``, ``N.tmp.PID``; PVE/Tools.pm, PVE/File.pm) and
  everybody else's ``N.tmp`` say their final name themselves.
"""

from __future__ import annotations

import re

HEAD_BYTES = 512
"""How many first bytes ``predict`` can make use of: one tar header."""

# After a dot only a PID or a mktemp suffix (6 characters and more) counts, so that a user's "disk.tmp.qcow2"
# or "notes.tmp.md" is an ordinary file.
_DOWNLOAD = re.compile(
    r"(?P<final>.+)\.tmp(?:[_-][A-Za-z0-9]{1,16})?(?:[._-](?:[0-9]{1,10}|[A-Za-z0-9]{6,16}))?", re.DOTALL
)

_COMPRESSED = ((b"\x28\xb5\x2f\xfd", ".zst"), (b"\x1f\x8b", ".gz"), (b"\x89LZO", ".lzo"), (b"BZh", ".bz2"))


def is_temporary(name: str) -> bool:
    """True when a file of this name waits for its rename before it is published."""
    return needs_head(name) or _download(name) is not None


def needs_head(name: str) -> bool:
    """True when ``predict`` has to see the file's first bytes (HEAD_BYTES of them, or all if it is shorter)."""
    return name.endswith((".vma.dat", ".tar.dat")) or (name.startswith("vzdump-") and name.endswith(".dat"))


def predict(name: str, head: bytes) -> str | None:
    """The final name of the temporary ``name``, in the same directory.

    None when it is not a temporary name, or neither ``head`` nor the name tells.
    """
    if not needs_head(name):
        return _download(name)
    stem = name.removesuffix(".dat")
    if stem.endswith((".vma", ".tar")):
        extension = _compression(head) or ".zst"
    elif head.startswith(b"VMA\0"):
        extension = ".vma"
    elif head[257:262] == b"ustar":  # POSIX and GNU tar alike; a pax or long-name header first has it too
        extension = ".tar"
    elif name.startswith("vzdump-qemu-"):
        extension = ".vma"
    elif name.startswith(("vzdump-lxc-", "vzdump-openvz-")):
        extension = ".tar"
    else:
        return None
    return stem + extension


def _compression(head: bytes) -> str | None:
    for magic, extension in _COMPRESSED:
        if head.startswith(magic):
            return extension
    # pzstd and "zstd --adapt" may begin with a skippable frame: 0x184D2A50 to 0x184D2A5F, little-endian
    # (RFC 8878, section 3.1.2).
    if len(head) >= 4 and head[0] & 0xF0 == 0x50 and head[1:4] == b"\x2a\x4d\x18":
        return ".zst"
    return None


def _download(name: str) -> str | None:
    match = _DOWNLOAD.fullmatch(name)
    if match is None or match["final"] in (".", ".."):
        return None
    return match["final"]
