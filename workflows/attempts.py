"""The attempts of one step: run, cancelled in time, journaled, and made again after a while when they fail."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from z0.actors import codec
from z0.actors.call import CURRENT, Call
from z0.actors.clock import seconds, to_us
from z0.actors.errors import Aborted, InvalidValue, LimitExceeded, presentable
from z0.actors.extensions import PLAIN
from z0.actors.gates import pass_once
from z0.actors.within import within

from . import cut_offs, deadlines
from .annotations import returned_by
from .branch import is_lost
from .calling import argument_of
from .errors import (
    Continued,
    InstanceExists,
    NonDeterminismError,
    NonRetryableError,
    StepInterrupted,
    StepTimeout,
    Suspended,
)
from .failure import failure_of
from .history import Record
from .journal import UNDOABLE, Event
from .keys import SentKeys
from .limits import check_execution
from .options import Options
from .place import INSIDE
from .retries import Settings, asked_delay, delay_after, worth_another
from .rollback import Rollback, Undo
from .time_limit import TimeLimit
from .tracing import span_of
from .values import check_returns, returned

if TYPE_CHECKING:
    from .engine import Engine
    from .run import Run
    from .steps import StepContext, Steps

log = logging.getLogger("z0.workflows")
_ANSWER_SECONDS = 5.0  # that a function may take to say when to try again, or whether to
_PLAIN: dict[str, Any] = {}
_ENDINGS = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit, Continued, Aborted)  # of more than the attempt
_FINAL = (NonRetryableError, NonDeterminismError, InvalidValue, LimitExceeded, InstanceExists)


class Attempts:
    """Makes the attempts of one step."""

    __slots__ = (
        "_fn", "_limit", "_made", "_name", "_options", "_record", "_run", "_settings", "_slept", "_started", "_steps",
        "_took", "_waiting", "noted", "tasks",
    )  # fmt: skip

    def __init__(
        self, run: Run, steps: Steps, record: Record, name: str, fn: Callable[..., Any], options: Options
    ) -> None:
        """`record` may be one of attempts that were made before a restart."""
        self._run = run
        self._steps = steps
        self._record = record
        self._name = name
        self._fn = fn
        self._options = options
        self._settings = record.settings or options.settings
        self._limit: TimeLimit | None = None
        self._waiting = 0
        self._made = 0
        self._slept = False
        self._started: int | None = None
        self._took: float | None = None
        self.noted = UNDOABLE if record.key in run.undos else _PLAIN
        """What all entries on the step say of it."""
        self.tasks: set[asyncio.Task[Any]] = set()
        """Tasks of the callback that take steps."""

    def event(self, event: Event) -> Event:
        """What the entry is called that says this of the step."""
        return event

    def callback(self) -> Callable[..., Any]:
        """What is called: the step's callback, or what a test has put in its place."""
        engine, fn = self._run.engine, self._fn
        replace = engine.services.replace
        return fn if replace is None else replace(engine.workflow, self._record.key, self._name, fn)

    def context(self, attempt: int, settings: Settings) -> StepContext:
        """What the callback gets."""
        return self._steps.inside(self, self._record, self._name, attempt, settings)

    async def make(self) -> Any:
        """Make attempts until one succeeds, or enough have failed. Raises the error of the last one."""
        run, record, engine = self._run, self._record, self._run.engine
        while True:
            if record.due is not None:
                over = record.due <= engine.clock.now_us()
                if not over or (not self._made and not deadlines.is_next(engine, record.due)):
                    with self._steps.waiting():
                        await run.waits.park(record)
                run.history.shut(record)
            self._steps.announce()
            with self._steps.waiting():
                await run.durable()
            if record.begun:
                error: Exception = StepInterrupted(self._name, record.attempts + 1)
            else:
                check_execution(engine.address, run.history.executed, run.execution_us)
                run.waits.begin()
                try:
                    return await self._attempt(record.attempts + 1)
                except _ENDINGS:
                    raise
                except BaseException as caught:
                    self._stop()
                    run.host.writes.undo()  # what it wrote since it last waited, as of any message that fails
                    error = presentable(caught)
                finally:
                    run.waits.end()
            record = self._record = await self._failed(record.attempts + 1, error)
            if record.done:
                await run.host.durable()  # what fails around it is taken back without it
                return await run.outcome_of(record, self._fn)

    def enter(self, rests: bool) -> None:
        """The callback asks for a step; `rests`: one that may leave the memory. Raises NonRetryableError."""
        if rests and self._options.at_most_once:
            raise NonRetryableError(
                f"step {self._name!r} sleeps or waits, so that its callback runs again, although it is at_most_once; "
                "sleep between steps"
            )
        task = asyncio.current_task()
        if task is not None and self._limit is not None and task is not self._limit.task:
            self.tasks.add(task)

    def _stop(self) -> None:
        """Leave nothing of a failed attempt running. Raises Suspended when the whole run is over."""
        if self._run.closed or self._run.host.dead:
            raise Suspended from None
        tasks, self.tasks = self.tasks, set()
        for task in tasks:
            task.cancel()

    async def _attempt(self, attempt: int) -> Any:
        run, engine, record = self._run, self._run.engine, self._record
        kind = returned_by(self._fn)
        check_returns(kind, self._name)
        self._started = engine.clock.now_us()
        if self._made:
            run.again(record)
        self._made += 1
        if engine.cut_off:
            await cut_offs.count(engine, record.key, attempt)
        if self._options.at_most_once:
            engine.note(self.event("attempt_started"), record, attempt=attempt, settings=self._settings, **self.noted)
            await run.host.durable()
        self._took, self._slept = None, False
        # What it sends without an idempotency key gets one, which is the same in every attempt.
        call, inside = CURRENT.get(), INSIDE.set(record.key)
        assert call is not None
        keys = SentKeys(engine.idempotency_key, record.key)
        token = CURRENT.set(Call(call.host, call.activity, call.deadline, keys))
        try:
            with span_of(run, record.key, self._name, attempt):
                value = await self._call(attempt)
        finally:
            CURRENT.reset(token)
            INSIDE.reset(inside)
        run.check_live()
        encoded, value = returned(value, kind, self._name)
        detail = self._detail()
        if encoded is not None and len(encoded) > engine.workflow.result_bytes:
            detail["blob"] = await engine.spill(encoded, f"the result of step {self._name!r}")
            encoded = None
        engine.note(self.event("step_completed"), record, encoded, attempt=attempt, started=self._started, **detail)
        run.passed(record.key)
        if "/" in record.key:  # what failed around it is taken back without it
            await run.host.durable()
        return value

    def _detail(self) -> dict[str, Any]:
        """What the journal is to know of an attempt beside its result."""
        detail = dict(self.noted)
        if self._took is not None:
            detail["took"] = to_us(self._took)
        if self._options.sensitive:
            detail["sensitive"] = True
        return detail

    async def _call(self, attempt: int) -> Any:
        """Run the callback. Raises what it raises, and StepTimeout."""
        fn = self.callback()
        argument = argument_of(fn)
        if argument is None:
            result = fn()
        else:
            context = self.context(attempt, self._settings)
            result = fn(**{argument: context}) if argument else fn(context)
        if type(result) in PLAIN or not inspect.isawaitable(result):
            return result
        limit = self._limit = TimeLimit(self._run.engine, self._settings.timeout)
        try:
            value = await result
        except asyncio.CancelledError as cancelled:
            limit.forgive()
            if self._run.closed or is_lost() or limit.is_cancelled:
                raise
            if not limit.expired:  # nobody has asked for it: the callback has cancelled something itself
                raise presentable(cancelled) from cancelled
            raise self._timeout() from None
        except (Exception, SystemExit) as error:
            limit.forgive()
            if limit.expired:
                raise self._timeout() from error
            raise
        finally:
            self._limit = None
            limit.stand_still()
            if self._slept:
                self._took = limit.took
        if limit.expired:  # it would not be cancelled
            limit.forgive()
            self._ignore(attempt, value)
            raise self._timeout()
        return value

    def _timeout(self) -> StepTimeout:
        assert self._settings.timeout is not None
        return StepTimeout(self._name, self._settings.timeout)

    def _ignore(self, attempt: int, value: Any) -> None:
        """Journal a result that came too late."""
        engine = self._run.engine
        if self._run.closed or self._run.host.dead:
            raise Suspended
        try:
            encoded: bytes | None = codec.encode(value)
        except InvalidValue:
            encoded = None
        if encoded is not None and len(encoded) > engine.workflow.result_bytes:
            encoded = None
        self._run.host.writes.undo()
        engine.note(self.event("attempt_ignored"), self._record, encoded, attempt=attempt, started=self._started)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The attempt sleeps or waits: that is neither work of its own, nor time that it takes."""
        limit, run = self._limit, self._run
        self._waiting += 1
        if self._waiting == 1:
            self._slept = True
            run.waits.end()
            if limit is not None:
                limit.stand_still()
        try:
            with self._steps.waiting():
                yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                run.waits.begin()
                if limit is not None and self._limit is limit:
                    limit.go_on()

    async def _failed(self, attempt: int, error: Exception) -> Record:
        """Journal that an attempt failed, and when the next is made, if one is."""
        run, engine, record = self._run, self._run.engine, self._record
        detail: dict[str, Any] = {**self._detail(), "settings": self._settings}
        try:
            final = isinstance(error, _FINAL) or attempt > self._settings.limit
            delay = None if final or not await self._is_worth_another(error) else await self._delay(attempt, error)
        except Exception as caught:  # of the class's own functions: they would do no better for another attempt
            if caught is not error:
                caught.__cause__ = error
            error, delay = caught, None
        if delay is None:  # what begins beside it is begun before it has failed, and not because of that
            await pass_once()
        if run.closed or run.host.dead:
            raise Suspended
        detail["error"] = failure_of(error)
        if delay is None:
            engine.note(self.event("step_errored"), record, attempt=attempt, started=self._started, **detail)
        else:
            detail["retry_at"] = engine.clock.now_us() + to_us(delay)
            engine.note(self.event("attempt_errored"), record, attempt=attempt, started=self._started, **detail)
        run.passed(record.key)
        return run.history.records[record.key]

    async def _is_worth_another(self, error: Exception) -> bool:
        return bool(await self._told(worth_another(self._options.retries, error), "the function retry_on"))

    async def _told(self, answer: Any, whose: str) -> Any:
        """What a function of the user's says, who may take some seconds to."""
        if not inspect.isawaitable(answer):
            return answer
        return await within(self._run.engine.clock, _ANSWER_SECONDS, answer, f"{whose} took more than 5 s")

    async def _delay(self, attempt: int, error: Exception) -> float:
        """Seconds until the next attempt."""
        settings, retries = self._settings, self._options.retries
        after = getattr(error, "retry_after", None)
        if after is not None:
            engine = self._run.engine
            try:
                return asked_delay(after, engine.clock.now_us())
            except (ValueError, OverflowError) as caught:  # of another house, whose word means something else
                log.warning(
                    "%s: step %r failed with retry_after=%.200r, and waits as usual instead: %s",
                    engine.address, self._name, after, caught,
                )  # fmt: skip
        first = settings.delay
        if first is None:
            made = retries.delay(attempt, error) if callable(retries.delay) else retries.delay
            first = seconds(await self._told(made, "the delay function"))
        random = self._run.host.node.clock.random() if settings.jitter else 0.0
        return delay_after(settings, attempt, first, random)


def undo_of(engine: Engine, record: Record, name: str, fn: Callable[..., Any], rollback: Any) -> Undo:
    """What undoes a step. `rollback`: a handler, or one with settings."""
    given = rollback if isinstance(rollback, Rollback) else Rollback(rollback)
    options = Options.of(engine, given.retries, given.timeout)
    return Undo(record, name, given.fn, options, returned_by(fn))
