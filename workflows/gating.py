"""The tasks of a body pass its actor's gates each by itself: as segments, each kept or taken back as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from z0.actors.call import CURRENT, Activity
from z0.actors.segments import Segments

from .place import GATED

if TYPE_CHECKING:
    from z0.actors.host import Host

T = TypeVar("T")


class BodySegments(Segments):
    """Parts of a body: what one returns stays in the body, and is no message."""

    __slots__ = ()

    def end(self, value: Any) -> Any:
        """End the last segment; the value, whatever it is."""
        self._host.end(None)
        return value


class Gating:
    """Drives the tasks of one run."""

    def __init__(self, host: Host) -> None:
        """None yet."""
        self._host = host
        self._tasks: dict[asyncio.Task[Any], None] = {}  # no set: in order, so that a run can be repeated exactly

    async def drive(self, work: Coroutine[Any, Any, T], body: asyncio.Task[Any] | None) -> T:
        """What it returns, run through the gates in this task. `body`: the task that the run itself is."""
        task = asyncio.current_task()
        call = CURRENT.get()
        activity = Activity() if call is None or call.activity is None else call.activity
        token = GATED.set(task)
        if task is not None and task is not body:
            self._tasks[task] = None
            task.add_done_callback(self._left)
        try:
            return await BodySegments(self._host, work, activity)  # type: ignore[no-any-return]
        finally:
            GATED.reset(token)

    def others(self) -> list[asyncio.Task[Any]]:
        """Those under way that are not the one that asks."""
        return [task for task in self._tasks if task is not asyncio.current_task()]

    def _left(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
