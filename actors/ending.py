"""The end of a node: closed, when its actors have come to rest, or crashed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .gates import pass_once
from .tasks import task_of

if TYPE_CHECKING:
    from .node import Node

_CRASHED = "the runtime crashed"
_AT_ONCE = 64  # evictions that are begun in one pass of the loop


class Ending:
    """How one node ends; it does so once."""

    __slots__ = ("_node", "_rested", "_task")

    def __init__(self, node: Node) -> None:
        """It has not begun."""
        self._node = node
        self._task: asyncio.Task[None] | None = None
        self._rested = asyncio.Event()

    def look(self) -> None:
        """An actor came to rest, or is closed."""
        self._rested.set()

    async def close(self) -> None:
        """Drain within `Limits.close_seconds`, reset what does not, and give the directory back."""
        node = self._node
        if node.is_open and not node.draining:
            node.admit_loop()
            self._drain()
            self._task = task_of(node.loop, self._close())
        await self._over()

    async def crash(self) -> None:
        """Drop the memory as a kill would, keep what was committed, and give the directory back."""
        self.kill()
        await self._over()

    def kill(self) -> None:
        """The part of a crash that happens at once: nothing more is run or committed."""
        node = self._node
        if node.is_open and not node.draining:
            self._drain()
            self._task = task_of(node.loop, self._bury())
        node.draining = True
        if self._task is None or self._task.done():  # never opened, or another process's
            return
        for task in list(node.tasks):
            task.cancel()
        for host in list(node.hosts.values()):
            host.reset(_CRASHED)

    async def _over(self) -> None:
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _close(self) -> None:
        node = self._node
        drained = task_of(node.loop, self._drained())
        patience = task_of(node.loop, node.clock.patience(node.limits.close_seconds))
        await asyncio.wait([drained, patience], return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        patience.cancel()
        await asyncio.wait([drained, patience])
        try:
            await self._end("the runtime closed before it came to rest (close_seconds)")
            await node.catalog.close()
        finally:
            self._give_back()

    def _drain(self) -> None:
        node = self._node
        node.draining = True
        node.attend()
        node.rest.stop()
        node.wakeups.stop()
        node.followers.tell_all()
        for host in node.hosts.values():
            host.refresh()

    async def _drained(self) -> None:
        node = self._node
        while node.hosts or node.closing:
            self._rested.clear()
            idle = [host for host in node.hosts.values() if host.idle]
            for host in idle[:_AT_ONCE]:
                node.evict(host, "closing")
            if len(idle) <= _AT_ONCE:
                await self._rested.wait()
            else:  # others have the loop between
                await pass_once()

    async def _bury(self) -> None:
        try:
            await self._end(_CRASHED)
            self._node.catalog.abandon()
        finally:
            self._give_back()

    async def _end(self, reason: str) -> None:
        node = self._node
        for host in list(node.hosts.values()):
            host.reset(reason)
        for task in [*node.stopping, *node.opening]:
            task.cancel()
        while running := [task for task in node.tasks if not task.done()]:
            await asyncio.wait(running)
        for host in list(node.closing.values()):
            host.reset(reason)  # its closing never began
            await host.closed

    def _give_back(self) -> None:
        node = self._node
        node.watchdog.close()
        node.threads.close()
        node.lock.release()
