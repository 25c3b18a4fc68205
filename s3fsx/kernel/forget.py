"""Asks the kernel to forget names, so that the table of inodes stays bounded.

A listing tells the kernel every inode, and what the kernel knows we must keep. It forgets by itself only when the
machine runs short of memory, which is too late for ours.
"""

from __future__ import annotations

import os

import pyfuse3
import trio

from ..fs.tree import Node, Tree

EVERY = 1.0  # seconds
BATCH = 5_000
PATIENCE = 10.0  # seconds for a name the kernel cannot forget, because somebody has it as his directory or program


async def keep_forgetting(tree: Tree) -> None:
    """Background task: above half of the limit, names of listings that are out of date go.

    The notifications are sent by a thread of pyfuse3, which may wait for a directory that is locked by a request of
    ours: never more than one batch waits for it.
    """
    last: Node | None = None
    until = 0.0
    while True:
        await trio.sleep(EVERY)
        now = trio.current_time()
        waiting = last is not None and last.lookups and now < until
        if waiting or len(tree) <= tree.limit // 2:
            continue
        last, until = None, now + PATIENCE
        for node in tree.held_needlessly(now, BATCH):
            if node.parent is not None:
                pyfuse3.invalidate_entry_async(node.parent.ino, os.fsencode(node.name), ignore_enoent=True)
                last = node
