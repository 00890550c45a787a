"""The attempts of one step: run, cancelled in time, journaled, and made again after a while when they fail."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from z0.actors.call import CURRENT, Call
from z0.actors.clock import Span, Timer, seconds, to_us
from z0.actors.errors import InvalidValue, LimitExceeded
from z0.actors.within import within

from .errors import NonDeterminismError, NonRetryableError, StepInterrupted, StepTimeout, Suspended
from .failure import failure_of
from .history import Record
from .journal import Event
from .keys import SentKeys
from .retries import Retries, Settings, delay_after, settings_of, worth_another
from .rollback import Rollback, Undo
from .tracing import span_of
from .values import SIMPLE, loaded, returned_by, stored

if TYPE_CHECKING:
    from .run import Run
    from .step import StepContext, Steps
    from .workflow import Workflow

_DELAY_SECONDS = 5.0  # that a delay function may take
_FINAL = (NonRetryableError, NonDeterminismError, InvalidValue, LimitExceeded)


class Options(msgspec.Struct, frozen=True):
    """How a step is to be taken."""

    retries: Retries
    timeout: float | None
    at_most_once: bool
    sensitive: bool

    @staticmethod
    def of(
        workflow: Workflow,
        retries: Retries | None,
        timeout: Span | None,
        at_most_once: bool,
        sensitive: bool,
        inherit: bool,
    ) -> Options:
        """With the class's defaults for what was not given. Raises ValueError."""
        limit = workflow.timeout if inherit else timeout
        span = None if limit is None else seconds(limit)
        if span == 0:
            raise ValueError("timeout=0 leaves no time; give a longer one, or None for none")
        return Options(workflow.retries if retries is None else retries, span, at_most_once, sensitive)


class Limit:
    """The time limit of one attempt, which stands still while the attempt sleeps or waits."""

    def __init__(self, workflow: Workflow, span: float) -> None:
        """Runs from now on."""
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.expired = False
        self._clock = workflow.clock
        self._left = span
        self._timer: Timer | None = None
        self.go_on()

    def go_on(self) -> None:
        """Run."""
        self._since = self._clock.monotonic()
        self._timer = self._clock.call_later(max(0.0, self._left), self._expire)

    def stand_still(self) -> None:
        """Stop for a while, or for good."""
        if self._timer is not None:
            self._timer.cancel()
            self._left -= self._clock.monotonic() - self._since

    def _expire(self) -> None:
        self.expired = True
        self.task.cancel()


class Attempts:
    """Makes the attempts of one step."""

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
        self._settings = record.settings or settings_of(options.retries, options.timeout)
        self._limit: Limit | None = None
        self._waits = 0

    def outcome(self) -> Any:
        """What the journal says that came of it."""
        return self._run.outcome(self._record, returned_by(self._fn))

    def event(self, event: Event) -> Event:
        """What the entry is called that says this of the step."""
        return event

    def context(self, attempt: int, settings: Settings) -> StepContext:
        """What the callback gets."""
        return self._steps.inside(self, self._record, self._name, attempt, settings)

    async def make(self) -> Any:
        """Make attempts until one succeeds, or enough have failed. Raises the error of the last one."""
        run, record, workflow = self._run, self._record, self._run.workflow
        while True:
            if record.due is not None and record.due > workflow.clock.now_us():
                with self._steps.waiting():
                    await run.park(record)
                record.due = None
            self._steps.announce()
            with self._steps.waiting():
                await run.durable()
            if record.begun:
                error: Exception = StepInterrupted(self._name, record.attempts + 1)
            else:
                run.begin()
                try:
                    return await self._attempt(record.attempts + 1)
                except Exception as caught:
                    if run.closed or run.host.dead:
                        raise Suspended from None
                    run.host.writes.undo()  # what it wrote since it last waited, as of any message that fails
                    error = caught
                finally:
                    run.end()
            record = self._record = await self._failed(record.attempts + 1, error)
            if record.done:
                await run.host.durable()  # what fails around it is taken back without it
                return self.outcome()

    async def _attempt(self, attempt: int) -> Any:
        run, workflow, record = self._run, self._run.workflow, self._record
        started = workflow.clock.now_us()
        if self._options.at_most_once:
            workflow.note(self.event("attempt_started"), record, attempt=attempt)
            await run.host.durable()
        # What it sends without an idempotency key gets one, which is the same in every attempt.
        call = CURRENT.get()
        assert call is not None
        keys = SentKeys(workflow.idempotency_key, record.key)
        token = CURRENT.set(Call(call.host, call.activity, call.deadline, keys))
        try:
            with span_of(workflow, record.key, self._name, attempt):
                value = await self._call(attempt)
        finally:
            CURRENT.reset(token)
        run.check_live()
        what = f"the result of step {self._name!r}"
        encoded = None if value is None else stored(value, what, workflow.result_bytes)
        workflow.note(self.event("step_completed"), record, encoded, attempt=attempt, started=started)
        if record.key.find("/") >= 0:  # what failed around it is taken back without it
            await run.host.durable()
        return value if type(value) in SIMPLE else loaded(encoded, returned_by(self._fn), what)

    async def _call(self, attempt: int) -> Any:
        fn = self._fn
        result = fn(self.context(attempt, self._settings)) if _wants_context(fn) else fn()
        if not inspect.isawaitable(result):
            return result
        if self._settings.timeout is None:
            return await result
        limit = self._limit = Limit(self._run.workflow, self._settings.timeout)
        try:
            value = await result
        except asyncio.CancelledError:
            if not limit.expired:
                raise
            limit.task.uncancel()
            raise StepTimeout(self._name, self._settings.timeout) from None
        finally:
            limit.stand_still()
            self._limit = None
        return value

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The attempt sleeps or waits: that is neither work of its own, nor time that it takes."""
        limit, run = self._limit, self._run
        self._waits += 1
        if self._waits == 1:  # else something else that it does waits already
            if limit is not None:
                limit.stand_still()
            run.end()
        try:
            with self._steps.waiting():
                yield
        finally:
            self._waits -= 1
            if not self._waits:
                run.begin()
                if limit is not None and self._limit is limit:
                    limit.go_on()

    async def _failed(self, attempt: int, error: Exception) -> Record:
        """Journal that an attempt failed, and when the next is made, if one is."""
        run, workflow, record = self._run, self._run.workflow, self._record
        failure = failure_of(error)
        detail: dict[str, Any] = {"error": failure, "settings": self._settings}
        final = isinstance(error, _FINAL) or attempt > self._settings.limit
        if not final and worth_another(self._options.retries, error):
            try:
                delay = await self._delay(attempt, error)
            except Exception as caught:
                caught.__cause__ = error
                detail["error"] = failure_of(caught)
            else:
                retry_at = workflow.clock.now_us() + to_us(delay)
                workflow.note(self.event("attempt_errored"), record, attempt=attempt, retry_at=retry_at, **detail)
                return run.history.records[record.key]
        workflow.note(self.event("step_errored"), record, attempt=attempt, **detail)
        return run.history.records[record.key]

    async def _delay(self, attempt: int, error: Exception) -> float:
        """Seconds until the next attempt."""
        workflow, settings, retries = self._run.workflow, self._settings, self._options.retries
        after = getattr(error, "retry_after", None)
        if after is not None:
            return seconds(after)
        first = settings.delay
        if first is None:
            made = retries.delay(attempt, error) if callable(retries.delay) else retries.delay
            if inspect.isawaitable(made):
                made = await within(workflow.clock, _DELAY_SECONDS, made, "the delay function took more than 5 s")
            first = seconds(made)
        random = self._run.host.node.clock.random() if settings.jitter else 0.0
        return delay_after(settings, attempt, first, random)


def undo_of(workflow: Workflow, record: Record, name: str, fn: Callable[..., Any], rollback: Any) -> Undo:
    """What undoes a step. `rollback`: a handler, or one with settings."""
    given = rollback if isinstance(rollback, Rollback) else Rollback(rollback)
    inherit = given.timeout is msgspec.UNSET
    timeout = None if isinstance(given.timeout, msgspec.UnsetType) else given.timeout
    options = Options.of(workflow, given.retries, timeout, False, False, inherit)
    return Undo(record, name, given.fn, options, returned_by(fn))


def _wants_context(fn: Callable[..., Any]) -> bool:
    """Whether the callback has one required parameter."""
    code = getattr(fn, "__code__", None)
    if code is not None and not code.co_argcount and not code.co_flags & inspect.CO_VARARGS:
        return False
    parameters = inspect.signature(fn).parameters.values()
    return any(
        each.default is each.empty and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        for each in parameters
    )
