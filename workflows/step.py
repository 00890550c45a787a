"""What a body takes its steps with, and what it needs to do the same on every replay."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from z0.actors.clock import datetime_of

from .errors import Continued, Suspended
from .history import Record
from .steps import Steps
from .values import first_event, loaded, stored

if TYPE_CHECKING:
    from .run import Run
    from .workflow import Workflow


class Step(Steps):
    """What a body takes its steps with, and what it needs to do the same on every replay."""

    def __init__(self, run: Run) -> None:
        """Of this run."""
        super().__init__(run, "")

    def continue_as_new(self, payload: Any = None) -> NoReturn:
        """End this run, and begin the next with that payload and an empty history: for work without an end.

        The instance keeps its id, its facts, and the events that nobody took. Raises InvalidValue, LimitExceeded.
        """
        engine = self.run.engine
        self.run.check_done("continue_as_new()")
        raise Continued(stored(payload, f"the payload of {engine.id}", engine.workflow.result_bytes))

    def now(self) -> datetime:
        """The time when the body first came here; aware, UTC."""
        return datetime_of(self._value("now", lambda: self.run.engine.clock.now_us()))

    def random(self) -> float:
        """A number, at least 0 and less than 1; always the same on replay."""
        return float(self._value("random", lambda: self.run.host.node.clock.random()))

    def uuid(self) -> UUID:
        """A random UUID (version 4); always the same on replay."""
        random = self.run.host.node.clock.random
        return UUID(self._value("uuid", lambda: str(UUID(int=_bits(random), version=4))))

    def patched(self, change: str) -> bool:
        """Whether this instance runs the code after that change: those that had come past here before it do not.

        The answer is the same wherever an instance asks. The call may go, with the code before the change, when no
        instance is left that gets False.
        """
        run = self.run
        answer = run.patches.get(change)
        if answer is None:
            owed = bool(run.owed)
            record = run.ask("patch", change, "")
            if not record.done and not owed:
                if run.recalled is not None:
                    raise Suspended
                self._record(record, True)
            answer = run.patches[change] = record.done or not owed
        return answer

    def _value(self, name: str, make: Callable[[], Any]) -> Any:
        record = self.run.ask("value", name, self._around())
        if record.done:
            return loaded(record.value, Any, record.key)
        if self.run.recalled is not None:
            raise Suspended
        value = make()
        self._record(record, value)
        return value

    def _record(self, record: Record, value: Any) -> None:
        run = self.run
        if run.owed and asyncio.current_task() is run.task:  # other tasks may be ahead of the body
            run.diverge(record.key)
        run.place(record)
        if run.dry:
            return
        run.engine.note("value_recorded", record, stored(value, record.key, 1024))


def _bits(random: Callable[[], float]) -> int:
    bits = 0
    for _ in range(4):
        bits = bits << 32 | int(random() * 2**32)
    return bits


async def called(run: Run) -> Any:
    """What the code of a body returns. Raises what it raises, InvalidValue, NonDeterminismError."""
    workflow = run.engine.new_object()
    try:
        return await started(run, workflow, f"the payload of {run.engine.address}")
    except Exception as error:
        await run.check_raised(error)
        raise


def started(run: Run, workflow: Workflow, what: str) -> Awaitable[Any]:
    """The body of this object, to be awaited. Raises InvalidValue for a payload (`what`) that cannot be read."""
    created = run.history.created
    assert created is not None
    return workflow.run(first_event(type(workflow).run, created, run.engine.id, what), Step(run))
