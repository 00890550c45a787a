"""What a body takes its steps with. Each step is in the journal before the next one begins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload
from uuid import UUID

from z0.actors.clock import Span, datetime_of, seconds, to_us, us_of
from z0.actors.errors import LimitExceeded

from .attempts import Attempts, Options
from .event import EVENT_TIMEOUT, Event, check_match, check_type
from .history import Record
from .keys import check_step_name
from .log import StepLog
from .retries import Retries, Settings
from .values import loaded, stored

if TYPE_CHECKING:
    from .run import Run

T = TypeVar("T")
Callback = Callable[..., Any]
_INHERIT: Any = object()


class Steps:
    """Takes steps: of a body itself (`Step`), or inside another step (`StepContext`)."""

    def __init__(self, run: Run, parent: str) -> None:
        """`parent`: the key of the step around these, or ""."""
        self._run = run
        self._parent = parent

    # Doing

    @overload
    def do(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        *,
        retries: Retries | None = None,
        timeout: Span | None = ...,
        at_most_once: bool = False,
        sensitive: bool = False,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def do(
        self,
        name: str,
        fn: Callable[..., T],
        *,
        retries: Retries | None = None,
        timeout: Span | None = ...,
        at_most_once: bool = False,
        sensitive: bool = False,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def do(
        self,
        name: str,
        fn: None = None,
        *,
        retries: Retries | None = None,
        timeout: Span | None = ...,
        at_most_once: bool = False,
        sensitive: bool = False,
    ) -> Callable[[Callable[..., Any]], Callable[[], Coroutine[Any, Any, Any]]]: ...
    def do(
        self,
        name: str,
        fn: Callback | None = None,
        *,
        retries: Retries | None = None,
        timeout: Span | None = _INHERIT,
        at_most_once: bool = False,
        sensitive: bool = False,
    ) -> Any:
        """Run `fn` once, whatever happens to the process, and give what it returned: `await step.do("charge", fn)`.

        `fn` takes nothing, or one StepContext; it may be a coroutine function. When it raises it is tried again
        (`retries`; default: the class's). `timeout`: of one attempt, which is cancelled then; None: none.
        `at_most_once`: an attempt that a crash cuts off counts as one that failed (StepInterrupted), instead of being
        made again. `sensitive`: readers of the journal are shown "[REDACTED]".

        Without `fn`, a decorator: `@step.do("charge")` makes a function whose awaited call takes the step. Raises the
        error of the last attempt, InvalidName, InvalidValue, LimitExceeded, NonDeterminismError.
        """
        check_step_name(name)
        options = Options.of(self._run.workflow, retries, timeout, at_most_once, sensitive, timeout is _INHERIT)
        if fn is not None:
            return self._do(name, fn, options)

        def decorate(function: Callback) -> Callable[[], Coroutine[Any, Any, Any]]:
            return lambda: self._do(name, function, options)

        return decorate

    async def _do(self, name: str, fn: Callback, options: Options) -> Any:
        run = self._run
        self.enter()
        record = run.ask("do", name, self._parent)
        attempts = Attempts(run, self, record, name, fn, options)
        if record.done:
            return await attempts.outcome()
        with self.waiting():
            await run.reach(record)
        return await run.gated(attempts.make())

    # Waiting

    async def sleep(self, name: str, span: Span) -> None:
        """Go on after the span. The time is fixed when the sleep begins, and survives every restart."""
        wait = self._checked(f"sleep({name!r})", span)
        await self._sleep(name, lambda: self._run.workflow.clock.now_us() + to_us(wait))

    async def sleep_until(self, name: str, when: datetime) -> None:
        """Go on at that time; at once when it has passed. Raises ValueError for a time without a zone."""
        if when.tzinfo is None:
            raise ValueError(f"sleep_until({name!r}): {when} has no time zone; give an aware datetime")
        until = us_of(when)
        self._checked(f"sleep_until({name!r})", max(0.0, (until - self._run.workflow.clock.now_us()) / 1e6))
        await self._sleep(name, lambda: until)

    def _checked(self, what: str, span: Span) -> float:
        """The span in seconds. Raises LimitExceeded."""
        wait, most = seconds(span), seconds(self._run.workflow.sleep_max)
        if wait > most:
            raise LimitExceeded(
                f"{what}: {wait / 86_400:,.1f} days are more than {most / 86_400:,.1f} (sleep_max); sleep several times"
            )
        return wait

    async def _sleep(self, name: str, until: Callable[[], int]) -> None:
        run = self._run
        self.enter(rests=True)
        record = run.ask("sleep", name, self._parent)
        if record.done:
            return
        with self.waiting():
            await run.reach(record)
            if record.key not in run.history.records:
                await run.gated(self._begin_sleep(record, until()))
                if run.history.records[record.key].done:
                    return
            await run.park(record)

    async def _begin_sleep(self, record: Record, until: int) -> None:
        workflow = self._run.workflow
        self.announce()
        workflow.note("sleep_started" if until > workflow.clock.now_us() else "sleep_completed", record, until=until)

    async def wait_for_event(
        self,
        name: str,
        *,
        type: str,
        timeout: Span | None = EVENT_TIMEOUT,
        match: dict[str, Any] | None = None,
        payload: Any = Any,
    ) -> Event[Any]:
        """The first event of the type that was or will be sent, and that nobody has taken. Raises EventTimeout.

        `match`: fields that the event's payload must have, with these values. `payload`: the type of the payload.
        `timeout`: None: wait for ever.
        """
        run = self._run
        self.enter(rests=True)
        check_type(type)
        check_match(match)
        span = None if timeout is None else self._checked(f"wait_for_event({name!r})", timeout)
        record = run.ask("wait", name, self._parent)
        if not record.done:
            with self.waiting():
                await run.reach(record)
                if record.key not in run.history.records:
                    await run.gated(self._begin_wait(record, type, span, match))
                record = run.history.records[record.key]
                if not record.done:
                    await run.park(record)
        if record.failure is not None:
            run.outcome(record)
        got = run.history.events[record.event or 0]
        return Event(
            payload=loaded(got.value, payload, f"the payload of event {got.detail['id']}"),
            type=type,
            timestamp=datetime_of(got.at),
            id=got.detail["id"],
        )

    async def _begin_wait(self, record: Record, type: str, span: float | None, match: dict[str, Any] | None) -> None:
        workflow = self._run.workflow
        self.announce()
        got = self._run.history.event_for(type, match)
        if got is not None:
            workflow.note("wait_completed", record, event=got.seq)
            return
        until = None if span is None else workflow.clock.now_us() + to_us(span)
        workflow.note("wait_started", record, until=until, type=type, match=match)

    @property
    def log(self) -> StepLog:
        """A logger that says nothing while the body only does again what its journal has."""
        return StepLog(self._run)

    def enter(self, rests: bool = False) -> None:
        """A step is asked for; `rests`: one that may leave the memory meanwhile."""

    def waiting(self) -> AbstractContextManager[None]:
        """While what is around this waits for something that may take long."""
        return nullcontext()

    def inside(self, attempts: Attempts, record: Record, name: str, attempt: int, settings: Settings) -> StepContext:
        """What the callback of an attempt gets."""
        return StepContext(self._run, attempts, record, name, attempt, settings)

    def announce(self) -> None:
        """Have the journal know of the step around these, before it knows of what stands in it."""


class StepContext(Steps):
    """What the callback of a step may ask for: which attempt it is, and steps of its own.

    After a sleep or a wait inside a step its callback runs again from its start, and passes what it has behind it.
    """

    def __init__(
        self, run: Run, attempts: Attempts, record: Record, name: str, attempt: int, settings: Settings
    ) -> None:
        """Of one attempt."""
        super().__init__(run, record.key)
        self._record = record
        self._attempts = attempts
        self.name = name
        self.attempt = attempt
        """From 1."""
        self.config = settings
        """Retries and timeout as they count for this step."""

    @property
    def count(self) -> int:
        """How many steps of this name the body has taken, this one included."""
        return int(self._parent.rpartition("#")[2])

    @property
    def instance_id(self) -> str:
        """The id of the instance."""
        return self._run.workflow.id

    @property
    def idempotency_key(self) -> str:
        """Always the same for this step of this instance, and for no other."""
        return self._run.workflow.idempotency_key(self._parent)

    def enter(self, rests: bool = False) -> None:
        """Keep in mind what is to end with this attempt. Raises NonRetryableError for what it must not do."""
        self._attempts.enter(rests)

    def announce(self) -> None:
        """Have the journal know of this step, which has not ended."""
        if self._parent not in self._run.history.records:
            self._run.workflow.note("step_started", self._record, settings=self.config)

    def waiting(self) -> AbstractContextManager[None]:
        """The attempt waits: that is no time that it takes."""
        return self._attempts.waiting()


class Step(Steps):
    """What a body takes its steps with, and what it needs to do the same on every replay."""

    def __init__(self, run: Run) -> None:
        """Of this run."""
        super().__init__(run, "")

    def now(self) -> datetime:
        """The time when the body first came here; aware, UTC."""
        return datetime_of(self._value("now", lambda: self._run.workflow.clock.now_us()))

    def random(self) -> float:
        """A number, at least 0 and less than 1; always the same on replay."""
        return float(self._value("random", lambda: self._run.host.node.clock.random()))

    def uuid(self) -> UUID:
        """A random UUID (version 4); always the same on replay."""
        random = self._run.host.node.clock.random
        return UUID(self._value("uuid", lambda: str(UUID(int=_bits(random), version=4))))

    def patched(self, change: str) -> bool:
        """Whether this instance runs the code after that change: those that had come past here before it do not.

        The answer is the same wherever an instance asks. The call may go, with the code before the change, when no
        instance is left that gets False.
        """
        run = self._run
        answer = run.patches.get(change)
        if answer is None:
            owed = bool(run.owed)
            record = run.ask("patch", change, "")
            if not record.done and not owed:
                self._record(record, True)
            answer = run.patches[change] = record.done or not owed
        return answer

    def _value(self, name: str, make: Callable[[], Any]) -> Any:
        record = self._run.ask("value", name, "")
        if record.done:
            return loaded(record.value, Any, record.key)
        value = make()
        self._record(record, value)
        return value

    def _record(self, record: Record, value: Any) -> None:
        run = self._run
        if run.owed and asyncio.current_task() is run.task:  # other tasks may be ahead of the body
            run.diverge(record.key)
        run.place(record)
        if run.dry:
            return
        run.workflow.note("value_recorded", record, stored(value, record.key, 1024))


def _bits(random: Callable[[], float]) -> int:
    bits = 0
    for _ in range(4):
        bits = bits << 32 | int(random() * 2**32)
    return bits
