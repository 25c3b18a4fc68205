"""What the kernel is told about a node and about the mount, in pyfuse3's structures."""

from __future__ import annotations

import stat

import pyfuse3

from ..fs.tree import File, Node

_BLOCK = 4096
# Proxmox and rsync read st_blocks * 512 as the space used: an object occupies its size.
_SECTOR = 512


def entry(node: Node, name_life: float, life: float) -> pyfuse3.EntryAttributes:
    """Seconds for which the kernel may keep the name, and the attributes."""
    reply = pyfuse3.EntryAttributes()
    reply.st_ino = node.ino
    reply.generation = 0
    attrs = node.attrs
    if isinstance(node, File):
        size = node.size
        reply.st_mode = stat.S_IFREG | attrs.mode
        reply.st_nlink = 0 if node.unlinked else 1
        reply.st_size = size
        reply.st_blocks = -(-size // _SECTOR)
    else:
        reply.st_mode = stat.S_IFDIR | attrs.mode
        reply.st_nlink = 2
        reply.st_size = 0
        reply.st_blocks = 0
    reply.entry_timeout = name_life
    reply.attr_timeout = life
    reply.st_uid = attrs.uid
    reply.st_gid = attrs.gid
    reply.st_rdev = 0
    reply.st_blksize = 1 << 20
    reply.st_atime_ns = reply.st_ctime_ns = reply.st_mtime_ns = attrs.mtime_ns
    return reply


def absence(life: float) -> pyfuse3.EntryAttributes:
    """There is no such name, and the kernel may remember that for ``life`` seconds."""
    reply = pyfuse3.EntryAttributes()
    reply.st_ino = 0
    reply.entry_timeout = life
    return reply


def statvfs(capacity: int, used: int) -> pyfuse3.StatvfsData:
    """capacity: bytes; 0 is what Proxmox reads as "storage inactive"."""
    reply = pyfuse3.StatvfsData()
    blocks = capacity // _BLOCK
    reply.f_bsize = reply.f_frsize = _BLOCK
    reply.f_blocks = blocks
    reply.f_bfree = reply.f_bavail = max(0, blocks - used // _BLOCK)
    reply.f_files = reply.f_ffree = reply.f_favail = 1 << 31
    reply.f_namemax = 255
    return reply
