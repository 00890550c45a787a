"""Where the code of a body is: what each of its tasks has begun last, and in which callback it runs."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from z0.actors.call import CURRENT, Call

from .branch import BRANCH
from .keys import SentKeys

if TYPE_CHECKING:
    from .engine import Engine

LAST: ContextVar[int] = ContextVar("z0_workflow_position", default=0)
"""The position of the last step that this task of the body has begun."""
INSIDE: ContextVar[str] = ContextVar("z0_workflow_inside", default="")
"""The key of the step whose callback runs; "": the body itself."""
GATED: ContextVar[asyncio.Task[Any] | None] = ContextVar("z0_workflow_gated", default=None)
"""The task of the body that passes the actor's gates already."""


def begin_body(engine: Engine | None = None) -> None:
    """Make the context one in which a body begins; what it sends has keys of the workflow's, if one is given."""
    LAST.set(0)
    INSIDE.set("")
    GATED.set(None)
    BRANCH.set(None)  # whoever created the instance may have been in one of theirs
    call = CURRENT.get()
    if call is not None and engine is not None:
        CURRENT.set(Call(call.host, call.activity, call.deadline, SentKeys(engine.idempotency_key, "run")))


def last_position() -> int:
    """The position of the last step that this task of the body has begun."""
    return LAST.get()


def seen(task: asyncio.Future[Any]) -> None:
    """Take the outcome of what nobody waits for any more, so that asyncio does not complain."""
    if not task.cancelled():
        task.exception()


async def end_all(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel them, and return when they have ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
        for task in tasks:
            seen(task)
