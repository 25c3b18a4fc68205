"""Requests that wait for the store never take the last task: what is answered from memory always finds one."""

from __future__ import annotations

import errno
from typing import Any

import pyfuse3
import pytest
import trio

from s3fsx.kernel.callers import Callers
from s3fsx.kernel.fuse import FileSystem, KernelPolicy
from tests.domain.harness import Domain

NOBODY: Any = None  # a RequestContext cannot be made outside of a request; these handlers do not look at it


async def test_above_the_limit_only_what_memory_answers(mount: Domain, nursery: trio.Nursery) -> None:
    policy = KernelPolicy(attr_ttl=1.0, capacity=1 << 40, xattrs=True, requests=3)
    kernel = FileSystem(mount.listings, mount.namespace, mount.files, Callers("/mnt"), policy, trio.current_time)
    root, dump = mount.tree.root, await mount.directory("dump")
    mount.store.hang("list_page")
    for _ in range(3):
        nursery.start_soon(kernel.lookup, dump.ino, b"x", NOBODY)
    await trio.sleep(1)
    with pytest.raises(pyfuse3.FUSEError) as refused:
        await kernel.lookup(dump.ino, b"y", NOBODY)
    assert refused.value.errno == errno.EIO
    assert (await kernel.statfs(NOBODY)).f_blocks > 0
    assert (await kernel.getattr(root.ino, NOBODY)).st_ino == root.ino
    assert (await kernel.lookup(root.ino, b"dump", NOBODY)).st_ino == dump.ino
    mount.store.release("list_page")
