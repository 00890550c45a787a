"""The time that one attempt of a step may take."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from z0.actors.clock import Timer

if TYPE_CHECKING:
    from .engine import Engine


class TimeLimit:
    """The time limit of one attempt, which stands still while the attempt sleeps or waits."""

    def __init__(self, engine: Engine, span: float | None) -> None:
        """Runs from now on; `span` None: for ever."""
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.expired = False
        self.took = 0.0
        """Seconds so far."""
        self._cancelled = task.cancelling()
        self._clock = engine.clock
        self._span = span
        self._timer: Timer | None = None
        self.go_on()

    def go_on(self) -> None:
        """Run."""
        self._since = self._clock.monotonic()
        if self._span is not None:
            self._timer = self._clock.call_later(max(0.0, self._span - self.took), self._expire)

    def stand_still(self) -> None:
        """Stop for a while, or for good."""
        self.took += self._clock.monotonic() - self._since
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self.expired = True
        self.task.cancel()

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody else wants the task to end, too."""
        return self.task.cancelling() > self._cancelled

    def forgive(self) -> None:
        """The task has ended what it did; it is not to end itself."""
        if self.expired:
            self.task.uncancel()
