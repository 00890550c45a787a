"""One execution of a body in memory: it replays what its journal has, then goes on where that ends.

- A step that the journal has is answered from it at once, so a replay runs as fast as the body itself.
- A step that the journal does not have begins only when every step that it does have was asked for: should some be
  left when the body can get no further, then the code has changed, and nothing is executed (`NonDeterminismError`).
- A body that waits for nothing but the time or events rests: its instance may leave the memory.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from z0.actors.call import CURRENT, Activity, Call
from z0.actors.segments import Segments

from .branch import BRANCH, is_lost
from .errors import NonDeterminismError, Suspended
from .failure import error_of
from .history import Record
from .keys import Kind, SentKeys, check_step_name, is_below, key_of
from .rollback import Undo
from .values import loaded

if TYPE_CHECKING:
    from .workflow import Workflow

T = TypeVar("T")
_QUIET_PASSES = 8  # turns of the loop without a step asked for, after which the body can get no further

_LAST: ContextVar[int] = ContextVar("z0_workflow_position", default=0)
"""The position of the last step that this task of the body has begun."""
_GATED: ContextVar[asyncio.Task[Any] | None] = ContextVar("z0_workflow_gated", default=None)
"""The task of the body that passes the actor's gates already."""


class Run:
    """The body of one instance, under way."""

    def __init__(self, workflow: Workflow, *, recalls: bool = False, undoes: bool = False) -> None:
        """Nothing was asked for yet.

        `recalls`: it goes through what the journal has, and begins nothing. `undoes`: it is no run of the body, but of
        what undoes its steps.
        """
        self.workflow = workflow
        self.host = workflow._z0_host
        self.history = workflow.history
        self.closed = False
        self.cut_off = False
        """The runtime is closing, so that a step was not begun."""
        self.diverged: NonDeterminismError | None = None
        self.task: asyncio.Task[Any] | None = None
        self.undos: dict[str, Undo] = {}
        """What undoes the steps that were begun, by their keys."""
        self.recalled: asyncio.Future[None] | None = asyncio.get_running_loop().create_future() if recalls else None
        """Done when a run that recalls can get no further."""
        mine = self.history.records
        self.owed = {key for key in mine if key.startswith("rollback:") is undoes}  # recorded, and not asked for yet
        self._tasks: set[asyncio.Task[Any]] = set()
        self._nested = any("/" in key for key in self.owed)
        self._occurrences: Counter[tuple[str, str, str]] = Counter()
        self._held: list[tuple[str, asyncio.Future[None]]] = []
        self._parked: dict[str, asyncio.Future[None]] = {}
        self._executing = 0
        self._asked = 0
        self._looking = False

    # Asking

    def ask(self, kind: Kind, name: str, parent: str) -> Record:
        """The record of the next step of that name. Raises InvalidName, Suspended."""
        if self.closed or self.host.dead:
            raise Suspended
        count = self._occurrences[parent, kind, name]
        if not count:
            check_step_name(name)
        self._occurrences[parent, kind, name] = count + 1
        key = key_of(parent, kind, name, count + 1)
        self._asked += 1
        record = self.history.records.get(key)
        if record is None:
            return Record(key, 0)
        if record.position < _LAST.get():
            self.diverge(f"{key}, which the journal has earlier")
        _LAST.set(record.position)
        self.take(record)
        return record

    def take(self, record: Record) -> None:
        """The step was asked for, and what stands in it with it, when it has ended."""
        owed = self.owed
        if not owed:
            return
        owed.discard(record.key)
        if record.done and self._nested:
            owed -= {key for key in owed if is_below(key, record.key)}
        if not owed:
            self._release()

    async def reach(self, record: Record) -> None:
        """Return when the step may begin: all that the journal has is behind it. Gives it its position."""
        if is_lost():
            raise asyncio.CancelledError
        if record.position == 0 or self.recalled is not None:
            await self.catch_up(record.key)
        if self.closed:
            raise Suspended
        if record.position == 0:
            self.place(record)

    async def catch_up(self, key: str) -> None:
        """Return when all that the journal has was asked for. Raises NonDeterminismError when it is not."""
        if self.owed or self.recalled is not None:
            await self._hold(key)

    async def _hold(self, key: str) -> None:
        if self.closed:
            raise Suspended
        held = key, asyncio.get_running_loop().create_future()
        self._held.append(held)
        self._look()
        try:
            await held[1]
        finally:
            if held in self._held:
                self._held.remove(held)

    def place(self, record: Record) -> None:
        """Give a step its position: it begins."""
        self.history.positions += 1
        record.position = self.history.positions
        _LAST.set(record.position)

    def _release(self) -> None:
        if self.recalled is not None:
            return
        held, self._held = self._held, []
        for _, future in held:
            if not future.done():
                future.set_result(None)

    def diverge(self, found: str) -> NoReturn:
        """The code did something else than the journal has. Raises NonDeterminismError."""
        first = min((self.history.records[key] for key in self.owed), key=lambda record: record.position, default=None)
        expected = "nothing more" if first is None else first.key
        position = self.history.positions + 1 if first is None else first.position
        self.diverged = NonDeterminismError(self.workflow.address, position, expected, found)
        raise self.diverged

    def check_end(self) -> None:
        """Make sure that the body did all that its journal has. Raises NonDeterminismError."""
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
        if not self._executing and self.history.paused_at is not None and not self.closed and not self.host.dead:
            asyncio.get_running_loop().call_soon(self.workflow.pause_now)  # the segment that ends here is kept
        if self._parked and not self._executing:
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
            self.workflow.awake()

    @property
    def executes(self) -> bool:
        """Whether something is done that must not be cut off."""
        return self._executing > 0

    @property
    def rests(self) -> bool:
        """Whether the body waits for nothing but the time and events."""
        waits = self._parked and not any(future.done() for future in self._parked.values())
        return bool(waits) and not self._executing and not self._held

    def _look(self) -> None:
        """See soon whether the body can get any further."""
        if not self._looking:
            self._looking = True
            self._pass(self._asked, _QUIET_PASSES)

    def _pass(self, asked: int, passes: int) -> None:
        if self.closed:
            return
        if asked != self._asked:
            asked, passes = self._asked, _QUIET_PASSES
        if passes:
            asyncio.get_running_loop().call_soon(self._pass, asked, passes - 1)
            return
        self._looking = False
        if self.recalled is not None:
            if self._held and not self.recalled.done():
                self.recalled.set_result(None)
        elif self._held and self.owed:
            self._refuse()
        elif self.rests:
            self.workflow.asleep()

    def _refuse(self) -> None:
        try:
            self.diverge(self._held[0][0])
        except NonDeterminismError as error:
            for _, future in self._held:
                if not future.done():
                    future.set_exception(error)
            self._held.clear()

    async def durable(self) -> None:
        """Return when all that was journaled so far is durable. Raises Suspended."""
        if self.host.turn is not None:
            await self.host.durable()
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
        for key in list(self._parked):
            if key.startswith("pause#"):
                self.unpark(key)

    async def over(self) -> None:
        """Cancel what else the body has begun, and return when that has ended."""
        self.close()
        strays = self._tasks - {asyncio.current_task()}
        for task in strays:
            task.cancel()
        if strays:
            await asyncio.wait(strays)
            for task in strays:
                seen(task)

    def close(self) -> None:
        """The instance leaves the memory, or has ended: nothing more is begun."""
        self.closed = True
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
        task = asyncio.current_task()
        if _GATED.get() is task:
            return await work
        call = CURRENT.get()
        activity = Activity() if call is None or call.activity is None else call.activity
        token = _GATED.set(task)
        if task is not None and task is not self.task:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            return await Segments(self.host, work, activity)  # type: ignore[no-any-return]
        finally:
            _GATED.reset(token)


def begin_body(workflow: Workflow | None = None) -> None:
    """Make the context one in which a body begins; what it sends has keys of the workflow's, if one is given."""
    _LAST.set(0)
    _GATED.set(None)
    BRANCH.set(None)  # whoever created the instance may have been in one of theirs
    call = CURRENT.get()
    if call is not None and workflow is not None:
        CURRENT.set(Call(call.host, call.activity, call.deadline, SentKeys(workflow.idempotency_key, "run")))


def last_position() -> int:
    """The position of the last step that this task of the body has begun."""
    return _LAST.get()


def seen(task: asyncio.Future[Any]) -> None:
    """Take the outcome of what nobody waits for any more, so that asyncio does not complain."""
    if not task.cancelled():
        task.exception()
