"""One execution of a body in memory: it replays what its journal has, then goes on where that ends.

- A step that the journal has is answered from it at once, so a replay runs as fast as the body itself.
- A step that the journal does not have begins only when every step that it does have was asked for: should some be
  left when the body can get no further, then the code has changed, and nothing is executed (`NonDeterminismError`).
- A body that waits for nothing but the time or events rests: its instance may leave the memory. Where it cannot be
  seen what a body waits for (a TaskGroup, a call), it is given some seconds first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from msgspec import UNSET

from z0.actors import alone
from z0.actors.clock import Timer
from z0.actors.errors import Aborted, InvalidValue
from z0.actors.gates import pass_once

from .answers import Answers
from .branch import is_lost
from .divergence import difference, reordered
from .errors import NonDeterminismError, NonRetryableError, Suspended
from .failure import failing_step, failure_of
from .gating import Gating
from .history import Record
from .keys import Kind, callback_of, check_step_name, key_of
from .occurrences import Occurrences
from .options import Options
from .place import GATED, INSIDE, LAST, end_all
from .progress import is_stuck
from .rollback import Undo
from .tracing import is_traced

if TYPE_CHECKING:
    from .workflow import Workflow

T = TypeVar("T")
_QUIET_PASSES = 8  # turns of the loop without a step asked for, after which the body can get no further
_PATIENCE = 10  # seconds that it is given when that cannot be seen


class Run(Answers):
    """The body of one instance, under way."""

    def __init__(self, workflow: Workflow, *, recalls: bool = False, undoes: bool = False, dry: bool = False) -> None:
        """Nothing was asked for yet.

        `recalls`: it goes through what the journal has, and begins nothing. `undoes`: it is no run of the body, but of
        what undoes its steps. `dry`: what the journal does not have is not begun.
        """
        self.dry = dry
        self.reached: list[str] = []
        """The steps that were not begun, because the run is a dry one."""
        self.workflow = workflow
        self.usual = Options.of(workflow, None, UNSET)  # for steps that do not say otherwise
        self.undoes = undoes
        self.execution_us = float("inf") if undoes else workflow.execution_us  # what is to be undone is, at any limit
        self.traced = is_traced(workflow._services.tracer)
        self.host = workflow._z0_host
        self.history = workflow.history
        self.closed = False
        self.cut_off = False
        """The runtime is closing, so that a step was not begun."""
        self.diverged: NonDeterminismError | None = None
        self.task: asyncio.Task[Any] | None = None
        self.body: asyncio.Task[Any] | None = None
        """The body's own task, where that is not the run's."""
        self.undos: dict[str, Undo] = {}
        """What undoes the steps that were begun, by their keys."""
        self.recalled: asyncio.Future[None] | None = asyncio.get_running_loop().create_future() if recalls else None
        """Done when a run that recalls can get no further."""
        self.owed = {
            key
            for key, record in self.history.records.items()
            if key.startswith("rollback:") is undoes and not record.past and record.kind != "patch"
        }
        """Steps that the journal has, and that the body has not asked for yet."""
        self.patches: dict[str, bool] = {}
        """What `patched` has answered."""
        self._gating = Gating(self.host)
        self._steps = self.history.steps
        self._occurrences = Occurrences()
        self._held: list[tuple[str, asyncio.Future[None]]] = []
        self._parked: dict[str, asyncio.Future[None]] = {}
        self._failed: dict[str, int] = {}  # steps whose error was raised, and how many had been asked for then
        self._executing = self._asked = 0
        self._looking = self._asleep = False
        self._patience: Timer | None = None

    # Asking

    def ask(self, kind: Kind, name: str, parent: str) -> Record:
        """The record of the next step of that name. Raises InvalidName, Suspended."""
        if self.closed or self.host.dead:
            raise Suspended
        if INSIDE.get() != callback_of(parent):
            raise NonRetryableError(
                f"step {name!r} is asked for in the wrong place: inside a callback use the context that it is given, "
                "and the body's own `step` outside"
            )
        if self.diverged is not None:  # whatever the body made of the error
            raise self.diverged
        if self._asleep:
            self._wake()
        place = parent, kind, name
        count = self._occurrences.next(place)
        if count == 1:
            check_step_name(name)
        key, last = key_of(parent, kind, name, count), LAST.get()
        self._asked += 1
        known = self.history.records.get(key)
        record = known or Record(key, 0)
        unordered = self._occurrences.ask(place, count, record, last)
        if known is None:
            if unordered and asyncio.current_task() is not self.task:
                self.workflow._services.unordered(self.workflow.address, name)
            return record
        if record.past or kind == "patch":
            return record
        if record.position < last:
            reordered(self, record, last)
        LAST.set(record.position)
        self.take(record)
        return record

    def take(self, record: Record) -> None:
        """The step was asked for, and what stands in it with it, when it has ended."""
        if not self.owed:
            return
        self.owed.discard(record.key)
        if record.done or self.recalled is not None:  # a callback that did not end is not recalled
            self.passed(record.key)
        self._release()
        if not self.owed and self.history.diverged is not None and not self.dry:
            self.workflow.note("workflow_running")

    def passed(self, key: str) -> None:
        """An attempt of the step has ended: what stands in it need not be asked for any more."""
        if self.owed and key in self.history.inside:
            self.owed.difference_update([each.key for each in self.history.below(key)])
            self._release()

    def again(self, record: Record) -> None:
        """Another attempt of the step begins: what stands in it is counted anew."""
        self._occurrences.forget_inside(record.key)
        LAST.set(record.position)

    async def reach(self, record: Record) -> None:
        """Return when the step may begin: all that the journal has is behind it. Gives it its position."""
        if is_lost():
            raise asyncio.CancelledError
        if record.position == 0 or self.recalled is not None:
            await self.catch_up(record.key)
        elif record.attempts and self.owed.isdisjoint(each.key for each in self.history.below(record.key)):
            await self.catch_up(record.key)  # the body may have cancelled it: it comes to that on its way
            for _ in range(_QUIET_PASSES):
                await pass_once()
        if self.closed:
            raise Suspended
        if self.dry:
            self.reached.append(record.key)
            self.passed(record.key)
            await self.park(Record(f"{record.key} is not begun", 0))
        if record.position == 0:
            if record.kind == "do" and not self.undoes:
                self.workflow.check_steps(self._steps)
                self._steps += 1
            self.place(record)

    async def catch_up(self, key: str) -> None:
        """Return when all that the journal has was asked for. Raises NonDeterminismError when it is not."""
        if self.owed or self.recalled is not None:
            await self._hold(key)

    async def _hold(self, key: str) -> None:
        if self.closed:
            raise Suspended
        held = asyncio.get_running_loop().create_future()
        self._held.append((key, held))
        self._look()
        try:
            await held
        finally:
            self._held = [each for each in self._held if each[1] is not held]

    def place(self, record: Record) -> None:
        """Give a step its position: it begins."""
        self.history.positions += 1
        record.position = self.history.positions
        LAST.set(record.position)

    def _release(self) -> None:
        if self.owed or self.recalled is not None:
            return
        for _, future in self._held:
            if not future.done():
                future.set_result(None)

    def diverge(self, found: str) -> NoReturn:
        """The code did something else than the journal has. Raises NonDeterminismError."""
        raise difference(self, found)

    async def check_end(self, end: str = "the end of run()") -> None:
        """Make sure that the body, which came to this end, did all that its journal has. Raises NonDeterminismError."""
        await self.left_behind()
        self.check_done(end)

    async def left_behind(self) -> None:
        """Give tasks that the body has left behind the time to ask for what the journal has."""
        quiet, asked = 0, self._asked
        while self.owed and quiet < _QUIET_PASSES:
            await pass_once()
            quiet, asked = 0 if asked != self._asked else quiet + 1, self._asked

    def is_cancelled(self, error: BaseException) -> bool:
        """Whether somebody outside has ended the body, as asyncio.run does when the program ends: it did not fail."""
        return isinstance(error, asyncio.CancelledError) and self.task is not None and self.task.cancelling() > 0

    async def check_raised(self, error: Exception) -> None:
        """Make sure that the body, whose own code has raised this, did all before that its journal has.

        Else it is the code of today that is wrong: nothing is to be undone for that. Raises NonDeterminismError.
        """
        theirs = failing_step(error) is None and not isinstance(error, InvalidValue)  # which says so itself
        if theirs and self.recalled is None and not self.closed and not self.host.dead:
            await self.check_end(failure_of(error).text)

    def check_done(self, end: str = "the end of run()") -> None:
        """As `check_end`, of what it did so far."""
        if self.diverged is not None:
            raise self.diverged
        if self.owed:
            new = (key for key, _ in self._held if key not in self.history.records)
            self.diverge(next(new, end))

    def failed_last(self) -> list[str]:
        """The steps of the body that failed without its having asked for another since."""
        last = [key for key, asked in self._failed.items() if asked == self._asked]
        return [key for key in last if not callback_of(key.rpartition("/")[0])]

    # Waiting

    def begin(self) -> None:
        """Something is done from here on that must not be cut off."""
        self._executing += 1

    def end(self) -> None:
        """It has ended, or waits for something itself."""
        self._executing -= 1
        if not self._executing and self.history.paused_at is not None and not self.closed and not self.host.dead:
            asyncio.get_running_loop().call_soon(self.workflow.pause_now)  # the segment that ends here is kept
        if (self._parked or self._held) and not self._executing:
            self._look()

    async def park(self, record: Record) -> None:
        """Return when the step's time has come, or its event. The instance may leave the memory meanwhile."""
        future = self._parked[record.key] = asyncio.get_running_loop().create_future()
        self._look()
        try:
            await future
        finally:
            self._parked.pop(record.key, None)

    def unpark(self, key: str) -> None:
        """The step's time has come, or its event."""
        future = self._parked.get(key)
        if future is not None and not future.done():
            future.set_result(None)
            self._wake()
            self._look()

    @property
    def executes(self) -> bool:
        """Whether something is done that must not be cut off."""
        return self._executing > 0

    @property
    def rests(self) -> bool:
        """Whether the body waits for nothing but the time and events."""
        waits, busy = list(self._parked.values()), self._executing or self._held
        return bool(waits) and not busy and not any(future.done() for future in waits)

    def _wake(self) -> None:
        self._asleep = False
        self.workflow.awake()

    def _look(self) -> None:
        """See soon whether the body can get any further."""
        if not self._looking:
            self._looking = True
            self._pass(self._asked, _QUIET_PASSES, _PATIENCE)

    def _pass(self, asked: int, passes: int, patience: int) -> None:
        self._patience = None
        if self.closed:
            return
        if asked != self._asked:
            asked, passes, patience = self._asked, _QUIET_PASSES, _PATIENCE
        if passes:
            asyncio.get_running_loop().call_soon(self._pass, asked, passes - 1, patience)
            return
        if self.recalled is not None and not (self._held and self.owed):
            self._looking = False
            if self._held:
                self._is_recalled()
            return
        if (self._held and self.owed and not self._executing) or self.rests:
            match self._is_stuck():
                case False:
                    asyncio.get_running_loop().call_soon(self._pass, asked, passes, patience)
                    return
                case None if patience > (_PATIENCE - 1 if self.dry else 0):
                    self.workflow.has_reacted()
                    self._patience = self.workflow.clock.call_later(1, partial(self._pass, asked, passes, patience - 1))
                    return
            self._come_to_rest()
        self._looking = False

    def _is_stuck(self) -> bool | None:
        ours = {*self._parked.values(), *(future for _, future in self._held)}
        task = self.body or self.task
        found = None if task is None else is_stuck(task, ours)
        if found and self._held and self.owed:  # what a branch is held for may be asked for by others
            others = {is_stuck(task, ours) for task in self._gating.others()}
            found = False if False in others else None if None in others else True
        if found is None and self.host.node.draining:  # the next process may see
            self.cut_off = found = True
        return found

    def _is_recalled(self) -> None:
        if self.recalled is not None and not self.recalled.done():
            self.recalled.set_result(None)

    def _come_to_rest(self) -> None:
        if self.recalled is not None:
            self._is_recalled()
        elif self._held and self.owed and not self.host.node.draining:
            self._refuse()
        else:
            self.cut_off = self.cut_off or bool(self._held)
            self._asleep = True
            self.workflow.asleep()

    def _refuse(self) -> None:
        error = difference(self, self._held[0][0])
        for _, future in self._held:
            if not future.done():
                future.set_exception(error)

    async def durable(self) -> None:
        """Return when all that was journaled so far is durable. Raises Suspended."""
        if self.host.turn is not None or self.host.gate.parked:  # mostly there is nothing to wait for
            await alone.durable(self.host)
        self.check_live()
        while self.history.paused_at is not None:  # until what is under way has ended, or the pause is taken back
            await self.park(Record(f"pause#{len(self._parked)}", 0))
            self.check_live()
        if self.host.node.draining:  # nothing new is begun; the next process goes on from here
            self.cut_off = True
            await self.park(Record(f"closing#{len(self._parked)}", 0))

    def check_live(self) -> None:
        """Make sure that what was done still counts. Raises Suspended, CancelledError."""
        if self.closed or self.host.dead:
            raise Suspended
        if is_lost():
            raise asyncio.CancelledError

    def unpause(self) -> None:
        """The pause was taken back before it began."""
        for key in [each for each in self._parked if each.startswith("pause#")]:
            self.unpark(key)

    async def over(self) -> None:
        """Cancel what else the body has begun, and return when that has ended."""
        self.close()
        await end_all(self._gating.others())

    def close(self) -> None:
        """The instance leaves the memory, or has ended: nothing more is begun."""
        self.closed = True
        if self._patience is not None:
            self._patience.cancel()
        for future in [*self._parked.values(), *(future for _, future in self._held)]:
            if not future.done():
                future.cancel()

    async def gated(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a part of the body through the actor's gates: as segments, each kept or taken back as a whole."""
        try:
            return await (work if GATED.get() is asyncio.current_task() else self._gating.drive(work, self.task))
        except (Exception, Aborted):
            if self.closed or self.host.dead:  # whatever it is, no code of the body is to make anything of it
                raise Suspended from None
            raise
