"""One execution of a body in memory: it replays what its journal has, then goes on where that ends.

- A step that the journal has is answered from it at once, so a replay runs as fast as the body itself.
- A step that the journal does not have begins only when every step that it does have was asked for: should some be
  left when the body can get no further, then the code has changed, and nothing is executed (`NonDeterminismError`).
- A body that waits for nothing but the time or events rests: its instance may leave the memory. Where it cannot be
  seen what a body waits for (a TaskGroup, a call), it is given some seconds first.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from z0.actors.call import CURRENT, Activity
from z0.actors.clock import Timer
from z0.actors.errors import Aborted, LimitExceeded
from z0.actors.gates import pass_once
from z0.actors.segments import Segments

from .errors import NonDeterminismError, NonRetryableError, Suspended
from .failure import error_of
from .history import Record
from .keys import Kind, check_step_name, is_below, key_of
from .progress import is_stuck
from .values import loaded

if TYPE_CHECKING:
    from .workflow import Workflow

T = TypeVar("T")
_QUIET_PASSES = 8  # turns of the loop without a step asked for, after which the body can get no further
_PATIENCE = 10  # seconds that it is given when that cannot be seen

_LAST: ContextVar[int] = ContextVar("z0_workflow_position", default=0)
"""The position of the last step that this task of the body has begun."""
INSIDE: ContextVar[str] = ContextVar("z0_workflow_inside", default="")
"""The key of the step whose callback runs; "": the body itself."""
_GATED: ContextVar[asyncio.Task[Any] | None] = ContextVar("z0_workflow_gated", default=None)
"""The task of the body that passes the actor's gates already."""


class Run:
    """The body of one instance, under way."""

    def __init__(self, workflow: Workflow, *, dry: bool = False) -> None:
        """Nothing was asked for yet. `dry`: what the journal does not have is not begun."""
        self.dry = dry
        self.reached: list[str] = []
        """The steps that were not begun, because the run is a dry one."""
        self.workflow = workflow
        self.host = workflow._z0_host
        self.history = workflow.history
        self.closed = False
        self.cut_off = False
        """The runtime is closing, so that a step was not begun."""
        self.diverged: NonDeterminismError | None = None
        self.task: asyncio.Task[Any] | None = None
        self.owed = {key for key, record in self.history.records.items() if not record.past and record.kind != "patch"}
        """Steps that the journal has, and that the body has not asked for yet."""
        self.patches: dict[str, bool] = {}
        """What `patched` has answered."""
        self._steps = self.history.steps
        self._occurrences: Counter[tuple[str, str, str]] = Counter()
        self._held: list[tuple[str, asyncio.Future[None]]] = []
        self._parked: dict[str, asyncio.Future[None]] = {}
        self._executing = 0
        self._asked = 0
        self._looking = self._asleep = False
        self._patience: Timer | None = None

    # Asking

    def ask(self, kind: Kind, name: str, parent: str) -> Record:
        """The record of the next step of that name. Raises InvalidName, Suspended."""
        if self.closed or self.host.dead:
            raise Suspended
        if INSIDE.get() != parent:
            raise NonRetryableError(
                f"step {name!r} is asked for in the wrong place: inside a callback use the context that it is given, "
                "and the body's own `step` outside"
            )
        if self.diverged is not None:  # whatever the body made of the error
            raise self.diverged
        if self._asleep:
            self._wake()
        count = self._occurrences[parent, kind, name]
        if not count:
            check_step_name(name)
        self._occurrences[parent, kind, name] = count + 1
        key = key_of(parent, kind, name, count + 1)
        self._asked += 1
        record = self.history.records.get(key)
        if record is None:
            return Record(key, 0)
        if record.past or kind == "patch":
            return record
        if record.position < _LAST.get():
            self.diverge(f"{key}, which the journal has earlier")
        _LAST.set(record.position)
        if self.owed:
            self.owed.discard(key)
            if record.done:
                self.passed(key)
            self._release()
            if not self.owed and self.history.diverged is not None and not self.dry:
                self.workflow.note("workflow_running")
        return record

    def passed(self, key: str) -> None:
        """An attempt of the step has ended: what stands in it need not be asked for any more."""
        if self.owed and key in self.history.inside:
            self.owed.difference_update([each.key for each in self.history.below(key)])
            self._release()

    def again(self, record: Record) -> None:
        """Another attempt of the step begins: what stands in it is counted anew."""
        key = record.key
        for place in [place for place in self._occurrences if place[0] == key or is_below(place[0], key)]:
            del self._occurrences[place]
        _LAST.set(record.position)

    async def reach(self, record: Record) -> None:
        """Return when the step may begin: all that the journal has is behind it. Gives it its position."""
        if self.owed and record.position == 0:
            held = asyncio.get_running_loop().create_future()
            self._held.append((record.key, held))
            self._look()
            try:
                await held
            finally:
                self._held = [each for each in self._held if each[1] is not held]
        if self.closed:
            raise Suspended
        if self.dry:
            self.reached.append(record.key)
            self.passed(record.key)
            await self.park(Record(f"{record.key} is not begun", 0))
        if record.position == 0:
            if record.kind == "do":
                self._count_step()
            self.place(record)

    def _count_step(self) -> None:
        most = self.workflow.steps_max
        if most is not None and self._steps >= most:
            raise LimitExceeded(
                f"{self.workflow.address} has taken {self._steps:,} steps, and may take {most:,} (steps_max); have "
                "each step do more, hand parts of the work to child workflows, or allow more"
            )
        self._steps += 1
        self.workflow.used("steps_max", self._steps, most)

    def place(self, record: Record) -> None:
        """Give a step its position: it begins."""
        self.history.positions += 1
        record.position = self.history.positions
        _LAST.set(record.position)

    def _release(self) -> None:
        if self.owed:
            return
        for _, future in self._held:
            if not future.done():
                future.set_result(None)

    def diverge(self, found: str) -> NoReturn:
        """The code did something else than the journal has. Raises NonDeterminismError."""
        first = min((self.history.records[key] for key in self.owed), key=lambda record: record.position, default=None)
        expected = "nothing more" if first is None else first.key
        position = self.history.positions + 1 if first is None else first.position
        self.diverged = NonDeterminismError(self.workflow.address, position, expected, found)
        raise self.diverged

    async def check_end(self) -> None:
        """Make sure that the body did all that its journal has. Raises NonDeterminismError."""
        for _ in range(_QUIET_PASSES):  # tasks that it has left behind may be about to
            if not self.owed:
                break
            await pass_once()
        if self.diverged is not None:
            raise self.diverged
        if self.owed:
            self.diverge("the end of run()")

    # Waiting

    def begin(self) -> None:
        """Something is done from here on that must not be cut off."""
        self._executing += 1

    def end(self) -> None:
        """It has ended, or waits for something itself."""
        self._executing -= 1
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

    @property
    def rests(self) -> bool:
        """Whether the body waits for nothing but the time and events."""
        waits = self._parked and not any(future.done() for future in self._parked.values())
        return bool(waits) and not self._executing and not self._held

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
        if (self._held and self.owed and not self._executing) or self.rests:
            match self._is_stuck():
                case False:
                    asyncio.get_running_loop().call_soon(self._pass, asked, passes, patience)
                    return
                case None if patience > (_PATIENCE - 1 if self.dry else 0):
                    later = partial(self._pass, asked, passes, patience - 1)
                    self._patience = self.workflow.clock.call_later(1, later)
                    return
            self._come_to_rest()
        self._looking = False

    def _is_stuck(self) -> bool | None:
        ours = {*self._parked.values(), *(future for _, future in self._held)}
        found = None if self.task is None else is_stuck(self.task, ours)
        if found is None and self.host.node.draining:  # the next process may see
            self.cut_off = found = True
        return found

    def _come_to_rest(self) -> None:
        if self._held and self.owed and not self.host.node.draining:
            self._refuse()
        else:
            self.cut_off = self.cut_off or bool(self._held)
            self._asleep = True
            self.workflow.asleep()

    def _refuse(self) -> None:
        try:
            self.diverge(self._held[0][0])
        except NonDeterminismError as error:
            for _, future in self._held:
                if not future.done():
                    future.set_exception(error)

    async def durable(self) -> None:
        """Return when all that was journaled so far is durable. Raises Suspended."""
        if self.host.turn is not None:
            await self.host.durable()
        if self.closed or self.host.dead:
            raise Suspended
        if self.host.node.draining:  # nothing new is begun; the next process goes on from here
            self.cut_off = True
            await self.park(Record(f"closing#{len(self._parked)}", 0))

    def close(self) -> None:
        """The instance leaves the memory, or has ended: nothing more is begun."""
        self.closed = True
        if self._patience is not None:
            self._patience.cancel()
        for future in [*self._parked.values(), *(future for _, future in self._held)]:
            if not future.done():
                future.cancel()

    # Answers

    def outcome(self, record: Record, kind: Any = Any) -> Any:
        """What the journal says that came of the step. Raises the step's error."""
        if record.failure is not None:
            error = error_of(record.failure)
            error.__dict__["_z0_step"] = record.key
            raise error
        return loaded(record.value, kind, f"the result of {record.key}")

    async def gated(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a part of the body through the actor's gates: as segments, each kept or taken back as a whole."""
        try:
            return await self._gated(work)
        except (Exception, Aborted):
            if self.closed or self.host.dead:  # whatever it is, no code of the body is to make anything of it
                raise Suspended from None
            raise

    async def _gated(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        if _GATED.get() is task:
            return await work
        call = CURRENT.get()
        activity = Activity() if call is None or call.activity is None else call.activity
        token = _GATED.set(task)
        try:
            return await Segments(self.host, work, activity)  # type: ignore[no-any-return]
        finally:
            _GATED.reset(token)


def begin_body() -> None:
    """Make the context one in which a body begins."""
    _LAST.set(0)
    INSIDE.set("")
    _GATED.set(None)
