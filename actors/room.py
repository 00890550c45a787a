"""Room for open files: a hard bound, held by evicting who was used least recently and by making the next one wait."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from .errors import Overloaded

if TYPE_CHECKING:
    from .host import Host
    from .node import Node


class Room:
    """How many actors may have their file open, and who waits for a place."""

    __slots__ = ("_most", "_node", "_waiting", "taken")

    def __init__(self, node: Node, most: int) -> None:
        """Of this node, for `most` open files."""
        self._node = node
        self._most = most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.taken = 0

    @property
    def wanted(self) -> int:
        """How many actors wait for a place."""
        return len(self._waiting)

    def take(self, host: Host) -> bool:
        """Give the host a place, if there is one now."""
        if self._waiting or self.taken >= self._most:
            return False
        self._give(host)
        return True

    async def wait(self, host: Host) -> None:
        """Give the host a place, after an eviction if need be. Raises Overloaded after `Limits.room_seconds`."""
        node = self._node
        while self.taken >= self._most:
            waiter = node.loop.create_future()
            self._waiting.append(waiter)
            node.attend()
            if len(node.closing) < len(self._waiting):
                node.evict_least_recently_used()
            timer = node.clock.call_later(node.limits.room_seconds, partial(self._refuse, waiter, host))
            try:
                await waiter
            finally:
                timer.cancel()
        self._give(host)

    def leave(self, host: Host) -> None:
        """Take the host's place back, if it has one, and wake who waits first."""
        if host.placed:
            host.placed = False
            self.taken -= 1
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break

    def _give(self, host: Host) -> None:
        self.taken += 1
        host.placed = True

    def _refuse(self, waiter: asyncio.Future[None], host: Host) -> None:
        if not waiter.done():
            self._waiting.remove(waiter)
            self._node.attend()
            self._node.metrics.overloaded["open_files"] += 1
            waiter.set_exception(Overloaded(str(host.address), f"{self.taken} actors are busy (open_files)"))
