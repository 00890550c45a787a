"""Whether a task can get any further by itself, as far as can be seen from what it waits for. Reads asyncio only."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any


def is_stuck(task: asyncio.Task[Any], ours: Collection[asyncio.Future[Any]]) -> bool | None:
    """Whether the task waits for nothing but these futures, through tasks and gather() too; None: who knows."""
    return False if task.done() else _awaits(getattr(task, "_fut_waiter", None), ours)


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
    found = {_awaits(child, ours) for child in children if not child.done()}
    return False if False in found or not found else None if None in found else True
