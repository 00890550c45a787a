"""What a body waits for, and when it can get no further.

A body that waits for nothing but the time or events rests: its instance may leave the memory. Where it cannot be seen
what a body waits for (a TaskGroup, a call), it is given some seconds first.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from z0.actors.clock import Timer

from .divergence import difference
from .errors import Suspended
from .history import Record
from .progress import is_stuck

if TYPE_CHECKING:
    from .run import Run

QUIET_PASSES = 8  # turns of the loop without a step asked for, after which the body can get no further
_PATIENCE = 10  # seconds that it is given when that cannot be seen


class Waits:
    """Of one run."""

    def __init__(self, run: Run) -> None:
        """It waits for nothing."""
        self.asleep = False
        """It has come to rest, and its instance was told so."""
        self._run = run
        self._held: list[tuple[str, asyncio.Future[None]]] = []  # steps that may not begin yet, by their keys
        self._parked: dict[str, asyncio.Future[None]] = {}  # what waits for the time or an event
        self._executing = 0
        self._looking = False
        self._patience: Timer | None = None

    # What it does

    def begin(self) -> None:
        """Something is done from here on that must not be cut off."""
        self._executing += 1

    def end(self) -> None:
        """It has ended, or waits for something itself."""
        run = self._run
        self._executing -= 1
        if not self._executing and run.history.paused_at is not None and not run.closed and not run.host.dead:
            asyncio.get_running_loop().call_soon(run.engine.pause_now)  # the segment that ends here is kept
        if (self._parked or self._held) and not self._executing:
            self._look()

    @property
    def executes(self) -> bool:
        """Whether something is done that must not be cut off."""
        return self._executing > 0

    # Steps that the journal does not have

    async def hold(self, key: str) -> None:
        """Return when the step may begin: all that the journal has was asked for. Raises NonDeterminismError."""
        if self._run.closed:
            raise Suspended
        held = asyncio.get_running_loop().create_future()
        self._held.append((key, held))
        self._look()
        try:
            await held
        finally:
            self._held = [each for each in self._held if each[1] is not held]

    def release(self) -> None:
        """Those that were held may begin."""
        for _, future in self._held:
            if not future.done():
                future.set_result(None)

    @property
    def held(self) -> list[str]:
        """The steps that may not begin yet."""
        return [key for key, _ in self._held]

    # The time, and events

    async def park(self, record: Record) -> None:
        """Return when the step's time has come, or its event. The instance may leave the memory meanwhile."""
        future = self._parked[record.key] = asyncio.get_running_loop().create_future()
        self._look()
        try:
            await future
        finally:
            self._parked.pop(record.key, None)

    async def park_for(self, reason: str) -> None:
        """As `park`, for what is no step."""
        await self.park(Record(f"{reason}#{len(self._parked)}", 0))

    def unpark(self, key: str) -> None:
        """The step's time has come, or its event."""
        future = self._parked.get(key)
        if future is not None and not future.done():
            future.set_result(None)
            self.wake()
            self._look()

    def unpause(self) -> None:
        """The pause was taken back before it began."""
        for key in [each for each in self._parked if each.startswith("pause#")]:
            self.unpark(key)

    @property
    def rests(self) -> bool:
        """Whether the body waits for nothing but the time and events."""
        waits, busy = list(self._parked.values()), self._executing or self._held
        return bool(waits) and not busy and not any(future.done() for future in waits)

    def wake(self) -> None:
        """It goes on."""
        self.asleep = False
        self._run.engine.body.awake()

    def close(self) -> None:
        """Nothing is waited for any more."""
        if self._patience is not None:
            self._patience.cancel()
        for future in [*self._parked.values(), *(future for _, future in self._held)]:
            if not future.done():
                future.cancel()

    # Whether it can get any further

    def _look(self) -> None:
        """See soon."""
        if not self._looking:
            self._looking = True
            self._pass(self._run.asked, QUIET_PASSES, _PATIENCE)

    def _pass(self, asked: int, passes: int, patience: int) -> None:
        run = self._run
        self._patience = None
        if run.closed:
            return
        if asked != run.asked:
            asked, passes, patience = run.asked, QUIET_PASSES, _PATIENCE
        if passes:
            asyncio.get_running_loop().call_soon(self._pass, asked, passes - 1, patience)
            return
        if run.recalled is not None and not self._is_held:
            self._looking = False
            if self._held:
                self._is_recalled()
            return
        if (self._is_held and not self._executing) or self.rests:
            match self._is_stuck():
                case False:
                    asyncio.get_running_loop().call_soon(self._pass, asked, passes, patience)
                    return
                case None if patience > (_PATIENCE - 1 if run.dry else 0):
                    run.engine.body.has_reacted()
                    self._patience = run.engine.clock.call_later(1, partial(self._pass, asked, passes, patience - 1))
                    return
            self._come_to_rest()
        self._looking = False

    @property
    def _is_held(self) -> bool:
        """Whether a step is held for others, which the body has not asked for yet."""
        return bool(self._held and self._run.owed)

    def _is_stuck(self) -> bool | None:
        """Whether the body waits for nothing but what is here; None: that cannot be seen."""
        run = self._run
        ours = {*self._parked.values(), *(future for _, future in self._held)}
        task = run.body or run.task
        found = None if task is None else is_stuck(task, ours)
        if found and self._is_held:  # what a branch is held for may be asked for by others
            others = {is_stuck(task, ours) for task in run.others()}
            found = False if False in others else None if None in others else True
        if found is None and run.host.node.draining:  # the next process may see
            run.cut_off = found = True
        return found

    def _come_to_rest(self) -> None:
        run = self._run
        if run.recalled is not None:
            self._is_recalled()
        elif self._is_held and not run.host.node.draining:
            self._refuse()
        else:
            run.cut_off = run.cut_off or bool(self._held)
            self.asleep = True
            run.engine.body.asleep()

    def _is_recalled(self) -> None:
        recalled = self._run.recalled
        if recalled is not None and not recalled.done():
            recalled.set_result(None)

    def _refuse(self) -> None:
        error = difference(self._run, self._held[0][0])
        for _, future in self._held:
            if not future.done():
                future.set_exception(error)
