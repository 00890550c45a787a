"""The engine's own tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def task_of(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], context: Context | None = None
) -> asyncio.Task[T]:
    """A task that begins in a later turn of the loop, so that who makes it can take note of it first.

    One that the program's own task factory makes may begin at once (`asyncio.eager_task_factory`).
    """
    return asyncio.Task(work, loop=loop, context=context)
