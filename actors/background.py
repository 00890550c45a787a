"""Background work of an actor: it keeps the actor in memory, and is neither gated nor rolled back.

As Durable Objects: an actor stays alive while it has pending work.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .call import CURRENT, Activity, Call
from .errors import Aborted, Z0Error
from .tasks import task_of

if TYPE_CHECKING:
    from .host import Host

log = logging.getLogger("z0.actors")

T = TypeVar("T")


def wait_until(host: Host, work: Awaitable[T]) -> asyncio.Task[T]:
    """Run the work beside the actor's messages. Raises TypeError, and ActorReset when the incarnation is over."""
    if not inspect.isawaitable(work):
        raise TypeError(f"wait_until() takes a coroutine or another awaitable, not {work!r}")
    if host.dead:
        if inspect.iscoroutine(work):
            work.close()
        raise host.reset_error()
    if host.background is None:
        host.background = Background(host)
    return host.background.start(work)


class Background:
    """What runs in the background of one actor."""

    __slots__ = ("_host", "_resting", "_tasks")

    def __init__(self, host: Host) -> None:
        """Nothing yet."""
        self._host = host
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in order: a run can be repeated exactly
        self._resting: dict[asyncio.Task[Any], None] = {}

    def __bool__(self) -> bool:
        """Whether something runs."""
        return bool(self._tasks)

    def start(self, work: Awaitable[T]) -> asyncio.Task[T]:
        """Run it as an activity of its own: nobody waits for it, and no deadline of a caller binds it."""
        activity = Activity()
        context = copy_context()
        context.run(CURRENT.set, Call(self._host, activity))
        task = task_of(self._host.node.loop, _work(self._host, work, activity), context)
        self._tasks[task] = None
        task.add_done_callback(partial(self._ended, work))
        return task

    async def over(self) -> None:
        """Return when nothing runs any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def rest(self, task: asyncio.Task[Any]) -> None:
        """The task waits for what can wait until the actor is in memory again: it does not keep it there."""
        if task in self._tasks:
            del self._tasks[task]
            self._resting[task] = None
            self._came_to_rest()

    def wake(self, task: asyncio.Task[Any]) -> None:
        """The task goes on."""
        if task in self._resting:
            del self._resting[task]
            self._tasks[task] = None

    def cancel(self) -> None:
        """The incarnation is over."""
        for task in [*self._tasks, *self._resting]:
            task.cancel()

    def _ended(self, work: Awaitable[Any], task: asyncio.Task[Any]) -> None:
        host = self._host
        if inspect.iscoroutine(work):
            work.close()  # it was cancelled before it began
        self._tasks.pop(task, None)
        self._resting.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and not (host.dead and isinstance(error, Z0Error)):
            log.error("background work of actor %s failed", host.address, exc_info=error)
        self._came_to_rest()

    def _came_to_rest(self) -> None:
        host = self._host
        if not host.dead:
            host.node.touch(host)
            host.node.rest.watch()
            host.node.rested(host)


async def _work(host: Host, work: Awaitable[T], activity: Activity) -> T:
    try:
        return await work
    except Aborted:
        raise host.reset_error() from None
    finally:
        activity.end()
