"""A time limit on the engine's clock for something that is awaited; past it, it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from .clock import Clock
from .errors import LimitExceeded

T = TypeVar("T")


async def within(clock: Clock, seconds: float, running: Awaitable[T], exceeded: str) -> T:
    """Await it. Raises LimitExceeded, saying what was `exceeded`, when it was cancelled because it took too long."""
    task = asyncio.current_task()
    assert task is not None
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = clock.call_later(seconds, expire)
    try:
        return await running
    except asyncio.CancelledError:
        if not expired:
            raise
        task.uncancel()
        raise LimitExceeded(exceeded) from None
    finally:
        timer.cancel()
