"""Whether a task can get any further by itself, as far as can be seen from what it waits for. Reads asyncio only."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any


def is_stuck(task: asyncio.Task[Any], ours: Collection[asyncio.Future[Any]]) -> bool | None:
    """Whether the task waits for nothing but these futures, through tasks and gather() too; None: who knows."""
    return False if task.done() else _awaits(getattr(task, "_fut_waiter", None), ours)


class OneOf(asyncio.Future[None]):
    """Done when one of these tasks is; whoever looks can see what it waits for."""

    def __init__(self, tasks: Collection[asyncio.Task[Any]]) -> None:
        """They go on by themselves."""
        super().__init__(loop=asyncio.get_running_loop())
        self._children = list(tasks)
        for task in tasks:
            task.add_done_callback(self.ended)

    def ended(self, _task: asyncio.Task[Any]) -> None:
        """One has."""
        if not self.done():
            self.set_result(None)


async def one_of(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Return when one of these tasks has ended; they are not cancelled with whoever waits."""
    if not any(task.done() for task in tasks):
        waiter = OneOf(tasks)
        try:
            await waiter
        finally:
            for task in tasks:
                task.remove_done_callback(waiter.ended)


def _awaits(waiter: Any, ours: Collection[asyncio.Future[Any]]) -> bool | None:
    if waiter is None:  # it is about to run
        return False
    if waiter in ours:
        return not waiter.done()
    if isinstance(waiter, asyncio.Task):
        return is_stuck(waiter, ours)
    children = getattr(waiter, "_children", None)
    if not children:
        return False if waiter.done() else None
    if isinstance(waiter, OneOf) and any(child.done() for child in children):  # it is about to hear of that
        return False
    found = {_awaits(child, ours) for child in children if not child.done()}
    return False if False in found or not found else None if None in found else True
