"""One execution of a body in memory: it replays what its journal has, then goes on where that ends.

- A step that the journal has is answered from it at once, so a replay runs as fast as the body itself.
- A step that the journal does not have begins only when every step that it does have was asked for: should some be
  left when the body can get no further, then the code has changed, and nothing is executed (`NonDeterminismError`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from msgspec import UNSET

from z0.actors import alone
from z0.actors.errors import Aborted, InvalidValue
from z0.actors.gates import pass_once

from .annotations import returned_by
from .branch import is_lost
from .divergence import difference, reordered
from .errors import NonDeterminismError, NonRetryableError, Suspended
from .failure import error_of, failing_step, failure_of
from .gating import Gating
from .history import Record
from .keys import Kind, callback_of, check_step_name, key_of
from .limits import check_steps, execution_us
from .occurrences import Occurrences
from .options import Options
from .place import GATED, INSIDE, LAST, end_all
from .rollback import Undo
from .tracing import is_traced
from .values import loaded
from .waits import QUIET_PASSES, Waits

if TYPE_CHECKING:
    from .engine import Engine

T = TypeVar("T")


class Run:
    """The body of one instance, under way."""

    def __init__(self, engine: Engine, *, recalls: bool = False, undoes: bool = False, dry: bool = False) -> None:
        """Nothing was asked for yet.

        `recalls`: it goes through what the journal has, and begins nothing. `undoes`: it is no run of the body, but of
        what undoes its steps. `dry`: what the journal does not have is not begun.
        """
        self.dry = dry
        self.reached: list[str] = []
        """The steps that were not begun, because the run is a dry one."""
        self.engine = engine
        self.usual = Options.of(engine, None, UNSET)  # for steps that do not say otherwise
        self.undoes = undoes
        most = None if undoes else engine.workflow.execution_max  # what is to be undone is, at any limit
        self.execution_us = execution_us(most)
        self.traced = is_traced(engine.services.tracer)
        self.host = engine.host
        self.history = engine.history
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
        self._failed: dict[str, int] = {}  # steps whose error was raised, and how many had been asked for then
        self.asked = 0
        """How many steps were asked for so far."""
        self.waits = Waits(self)

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
        if self.waits.asleep:
            self.waits.wake()
        place = parent, kind, name
        count = self._occurrences.next(place)
        if count == 1:
            check_step_name(name)
        key, last = key_of(parent, kind, name, count), LAST.get()
        self.asked += 1
        known = self.history.records.get(key)
        record = known or Record(key, 0)
        unordered = self._occurrences.ask(place, count, record, last)
        if known is None:
            if unordered and asyncio.current_task() is not self.task:
                self.engine.services.unordered(self.engine.address, name)
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
            self.engine.note("workflow_running")

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
            for _ in range(QUIET_PASSES):
                await pass_once()
        if self.closed:
            raise Suspended
        if self.dry:
            self.reached.append(record.key)
            self.passed(record.key)
            await self.waits.park_for(f"{record.key} is not begun")
        if record.position == 0:
            if record.kind == "do" and not self.undoes:
                check_steps(self.engine.address, self._steps, self.engine.workflow.steps_max)
                self._steps += 1
            self.place(record)

    async def catch_up(self, key: str) -> None:
        """Return when all that the journal has was asked for. Raises NonDeterminismError when it is not."""
        if self.owed or self.recalled is not None:
            await self.waits.hold(key)

    def place(self, record: Record) -> None:
        """Give a step its position: it begins."""
        self.history.positions += 1
        record.position = self.history.positions
        LAST.set(record.position)

    def _release(self) -> None:
        if not self.owed and self.recalled is None:
            self.waits.release()

    def diverge(self, found: str) -> NoReturn:
        """The code did something else than the journal has. Raises NonDeterminismError."""
        raise difference(self, found)

    async def check_end(self, end: str = "the end of run()") -> None:
        """Make sure that the body, which came to this end, did all that its journal has. Raises NonDeterminismError."""
        await self.left_behind()
        self.check_done(end)

    async def left_behind(self) -> None:
        """Give tasks that the body has left behind the time to ask for what the journal has."""
        quiet, asked = 0, self.asked
        while self.owed and quiet < QUIET_PASSES:
            await pass_once()
            quiet, asked = 0 if asked != self.asked else quiet + 1, self.asked

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
            new = (key for key in self.waits.held if key not in self.history.records)
            self.diverge(next(new, end))

    def failed_last(self) -> list[str]:
        """The steps of the body that failed without its having asked for another since."""
        last = [key for key, asked in self._failed.items() if asked == self.asked]
        return [key for key in last if not callback_of(key.rpartition("/")[0])]

    # What the journal says that came of a step, as the body gets it

    async def outcome_of(self, record: Record, fn: Callable[..., Any]) -> Any:
        """What the journal says that came of the step whose callback is `fn`. Raises the step's error, InvalidValue."""
        if record.blob is None:
            return self.outcome(record, returned_by(fn))
        return loaded(await self.value_of(record), returned_by(fn), f"the result of {record.key}")

    async def value_of(self, record: Record) -> bytes | None:
        """The step's result, from where it is kept. Raises InvalidValue."""
        return record.value if record.blob is None else await self.engine.kept(record.blob)

    def outcome(self, record: Record, kind: Any = Any) -> Any:
        """What the journal says that came of the step. Raises the step's error."""
        if record.failure is not None:
            error = error_of(record.failure, type(self.engine.workflow).__module__)
            error.__dict__["_z0_step"] = record.key
            self._failed[record.key] = self.asked
            raise error
        return loaded(record.value, kind, f"the result of {record.key}")

    # Going on

    async def durable(self) -> None:
        """Return when all that was journaled so far is durable. Raises Suspended."""
        if self.host.turn is not None or self.host.gate.parked:  # mostly there is nothing to wait for
            await alone.durable(self.host)
        self.check_live()
        while self.history.paused_at is not None:  # until what is under way has ended, or the pause is taken back
            await self.waits.park_for("pause")
            self.check_live()
        if self.host.node.draining:  # nothing new is begun; the next process goes on from here
            self.cut_off = True
            await self.waits.park_for("closing")

    def check_live(self) -> None:
        """Make sure that what was done still counts. Raises Suspended, CancelledError."""
        if self.closed or self.host.dead:
            raise Suspended
        if is_lost():
            raise asyncio.CancelledError

    def others(self) -> list[asyncio.Task[Any]]:
        """The tasks of the body besides the one that asks."""
        return self._gating.others()

    async def over(self) -> None:
        """Cancel what else the body has begun, and return when that has ended."""
        self.close()
        await end_all(self.others())

    def close(self) -> None:
        """The instance leaves the memory, or has ended: nothing more is begun."""
        self.closed = True
        self.waits.close()

    async def gated(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a part of the body through the actor's gates: as segments, each kept or taken back as a whole."""
        try:
            return await (work if GATED.get() is asyncio.current_task() else self._gating.drive(work, self.task))
        except (Exception, Aborted):
            if self.closed or self.host.dead:  # whatever it is, no code of the body is to make anything of it
                raise Suspended from None
            raise
