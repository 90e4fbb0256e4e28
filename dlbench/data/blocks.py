"""Decoded blocks of files, kept in memory and shared by all threads.

Windows at random places decode a block again and again, and GDAL keeps blocks apart for every
handle, so for every thread.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

Block = tuple[np.ndarray, np.ndarray | None]
"""Values (height, width, bands), and where they hold data (height, width); None: everywhere."""


@dataclass
class _Entry:
    block: Future[Block] = field(default_factory=Future)
    size: int = 0


class BlockCache:
    """The blocks used last, in at most ``budget`` bytes; each is decoded by but one thread."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.size = 0
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, key: Hashable, decode: Callable[[], Block]) -> Block:
        """The block ``key``, decoded unless it is held; who asks meanwhile waits for it.

        What ``decode`` raises reaches all of them and is not kept.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            else:
                mine = self._entries[key] = _Entry()
        if entry is not None:
            return entry.block.result()
        try:
            block = decode()
        except BaseException as error:
            with self._lock:
                if self._entries.get(key) is mine:
                    del self._entries[key]
            mine.block.set_exception(error)
            raise
        mine.block.set_result(block)
        with self._lock:
            if self._entries.get(key) is mine:
                mine.size = sum(part.nbytes for part in block if part is not None)
                self.size += mine.size
            while self.size > self.budget:
                self.size -= self._entries.popitem(last=False)[1].size
        return block


def share_of_memory(share: float) -> int:
    """Bytes: a share of what the machine has."""
    return int(share * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
