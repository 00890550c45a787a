"""Undoing what an instance has done: the handlers of its steps run, the last begun first, as durable steps themselves.

Handlers live in memory. After a crash the body is run again over its journal, which gives them anew; it begins nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from z0.actors.errors import message_of
from z0.actors.tasks import task_of

from .attempts import Attempts
from .errors import NonDeterminismError, Suspended
from .failure import error_of, failing_step, failure_of, shown
from .history import Record
from .journal import Event
from .lifecycle import undo_key
from .place import begin_body, seen
from .retries import Settings
from .rollback import Undo, plan_of
from .run import Run
from .step import called
from .steps import RollbackContext, StepContext, Steps
from .values import loaded

if TYPE_CHECKING:
    from .engine import Engine

log = logging.getLogger("z0.workflows")


class UndoAttempts(Attempts):
    """The attempts to undo one step."""

    def __init__(self, run: Run, steps: Steps, record: Record, undo: Undo, result: bytes | None) -> None:
        """`record`: of the undoing; `result`: of the step."""
        super().__init__(run, steps, record, undo.name, undo.fn, undo.options)
        self._undo = undo
        self._result = result

    def event(self, event: Event) -> Event:
        """What the entry is called that says this of the undoing."""
        return f"rollback_{event}"  # type: ignore[return-value]

    def callback(self) -> Callable[..., Any]:
        """The handler, whose place no test takes."""
        return self._fn

    def context(self, attempt: int, settings: Settings) -> StepContext:
        """What the handler gets."""
        run, undo = self._run, self._undo
        context = RollbackContext(run, self, self._record, undo.name, attempt, settings)
        done = run.history.records.get(undo.record.key)
        ended = done is not None and done.done and done.failure is None
        context.output = loaded(self._result, undo.returns, f"the result of {done.key}") if ended and done else None
        under_way = run.history.rollback
        failure = None if under_way is None else under_way.error
        context.error = None if failure is None else error_of(failure, type(run.engine).__module__)
        return context


class Undoer(Steps):
    """Undoes the steps of one instance."""

    def __init__(self, run: Run) -> None:
        """`run`: one that undoes."""
        super().__init__(run, "")

    async def undo(self, undos: dict[str, Undo], diverged: NonDeterminismError | None) -> None:
        """Run the handlers, and end the instance. `diverged`: why they may not be all of them."""
        history, engine, rollback = self.run.history, self.run.engine, self.run.history.rollback
        assert rollback is not None
        plan, error = rollback.plan, None
        if plan is None:
            plan, error = plan_of(undos, history, rollback.step), diverged
        missing = next((key for key in plan if key not in undos), None)
        if error is None and missing is not None:
            position = history.records[missing].position if missing in history.records else history.positions
            error = NonDeterminismError(engine.address, position, missing, f"no rollback handler of {missing}")
        if error is None:
            self._end(await self._undo_all(plan, undos))
        else:
            log.error("%s: nothing is undone: %s", engine.address, error)
            self._end(error)

    async def _undo_all(self, plan: list[str], undos: dict[str, Undo]) -> Exception | None:
        first: Exception | None = None
        for key in plan:
            try:
                await self._undo_one(undos[key])
            except Exception as error:
                first = first or error
                address, why = self.run.engine.address, message_of(error)
                log.error("%s: %s could not be undone: %s", address, key, why, exc_info=shown(error))
                if not self.run.engine.workflow.rollback_continues:
                    break
        return first

    async def _undo_one(self, undo: Undo) -> None:
        run, key = self.run, undo_key(undo.record.key)
        record = run.history.records.get(key)
        if record is None:
            record = Record(key, 0)
            run.place(record)
        else:
            run.take(record)
        done = run.history.records.get(undo.record.key)
        result = None if done is None else await run.value_of(done)
        attempts = UndoAttempts(run, self, record, undo, result)
        if record.done:
            await run.outcome_of(record, undo.fn)
        else:
            await attempts.make()

    def _end(self, error: Exception | None) -> None:
        engine, rollback = self.run.engine, self.run.history.rollback
        assert rollback is not None
        if error is None:
            engine.note("rollback_completed")
        else:
            engine.note("rollback_errored", error=failure_of(error))
        detail: dict[str, Any] = {} if rollback.error is None else {"error": msgspec.to_builtins(rollback.error)}
        engine.note_end(rollback.ends, rollback.step, detail)


def begin(engine: Engine, run: Run, error: Exception) -> bool:
    """The body has failed: whether there is something to undo, which is journaled then."""
    step = failing_step(error)
    plan: list[str] | None = plan_of(run.undos, run.history, step)
    if not plan or isinstance(error, NonDeterminismError):
        return False
    if run.owed:  # it has not come by all that it did
        plan = None
    log.error("%s failed, and is rolled back: %s", engine.address, message_of(error), exc_info=shown(error))
    detail = {"ends": "workflow_errored", "plan": plan, "error": msgspec.to_builtins(failure_of(error))}
    engine.note_end("rollback_started", step, detail)
    return True


async def perform(engine: Engine, undos: dict[str, Undo] | None) -> None:
    """Undo what is to be undone; `undos`: the handlers, when the body's run is still in memory."""
    diverged = None
    if undos is None:
        undos, diverged = await _recall(engine)
    run = Run(engine, undoes=True)
    engine.body.take_over(run)
    begin_body(engine)
    try:
        await run.gated(Undoer(run).undo(undos, diverged))
    finally:
        run.close()


async def _recall(engine: Engine) -> tuple[dict[str, Undo], NonDeterminismError | None]:
    """Run the body over its journal, up to where that ends, for the handlers of its steps; and where it went astray."""
    run = Run(engine, recalls=True)
    assert run.recalled is not None
    engine.body.take_over(run)
    run.body = body = task_of(asyncio.get_running_loop(), _run_body(engine, run))
    body.add_done_callback(seen)
    try:
        await asyncio.wait([body, run.recalled], return_when=asyncio.FIRST_COMPLETED)
        await run.left_behind()
        diverged, cut_off = _diverged(run), run.closed
    finally:
        run.close()
        body.cancel()
    await asyncio.wait([body])
    if engine.host.dead or cut_off or (diverged is not None and run.cut_off):
        raise Suspended
    await run.over()
    return run.undos, diverged


def _diverged(run: Run) -> NonDeterminismError | None:
    """Why the body has not come by all that its journal has."""
    try:
        run.check_done()
    except NonDeterminismError as error:
        return error
    return None


async def _run_body(engine: Engine, run: Run) -> None:
    """The body; what comes of it is known already."""
    begin_body(engine)
    await run.gated(called(run))
