"""What a body takes its steps with. Each step is in the journal before the next one begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload

from msgspec import UNSET, UnsetType

from z0.actors.clock import Span, datetime_of, seconds, to_us, us_of
from z0.actors.errors import LimitExceeded

from .annotations import returned_by
from .attempts import Attempts, undo_of
from .branch import parent_in_branch
from .branches import Branches, tolerance
from .divergence import check_child, check_wait
from .event import EVENT_TIMEOUT, Event, check_match, check_type
from .history import Record
from .keys import check_step_name, shortened
from .kin import child_class, run_child
from .log import StepLog
from .options import Options, decorated, uncallable
from .retries import Retries, Settings
from .rollback import Rollback, check_rollback
from .values import loaded, stored

if TYPE_CHECKING:
    from .run import Run
    from .workflow import Workflow

T = TypeVar("T")
Callback = Callable[..., Any]
_NONE = nullcontext()


class Steps:
    """Takes steps: of a body itself (`Step`), or inside another step (`StepContext`)."""

    def __init__(self, run: Run, parent: str) -> None:
        """`parent`: the key of the step around these, or ""."""
        self.run = run
        self._parent = parent

    # Doing

    @overload
    def do(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        *,
        retries: Retries | None = None,
        timeout: Span | UnsetType | None = ...,
        at_most_once: bool = False,
        sensitive: bool = False,
        rollback: Callback | Rollback | None = None,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def do(
        self,
        name: str,
        fn: Callable[..., T],
        *,
        retries: Retries | None = None,
        timeout: Span | UnsetType | None = ...,
        at_most_once: bool = False,
        sensitive: bool = False,
        rollback: Callback | Rollback | None = None,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def do(
        self,
        name: str,
        *,
        retries: Retries | None = None,
        timeout: Span | UnsetType | None = ...,
        at_most_once: bool = False,
        sensitive: bool = False,
        rollback: Callback | Rollback | None = None,
    ) -> Callable[[Callable[..., Any]], Callable[[], Coroutine[Any, Any, Any]]]: ...
    def do(
        self,
        name: str,
        fn: Callback | UnsetType = UNSET,
        *,
        retries: Retries | None = None,
        timeout: Span | UnsetType | None = UNSET,
        at_most_once: bool = False,
        sensitive: bool = False,
        rollback: Callback | Rollback | None = None,
    ) -> Any:
        """Run `fn` once, whatever happens to the process, and give what it returned: `await step.do("charge", fn)`.

        `fn` takes nothing, or one StepContext; it may be a coroutine function. When it raises it is tried again
        (`retries`; default: the class's). `timeout`: of one attempt, which is cancelled then; None: none.
        `at_most_once`: an attempt that a crash cuts off counts as one that failed (StepInterrupted), instead of being
        made again. `sensitive`: readers of the journal are shown "[REDACTED]". `rollback`: what undoes it, should the
        instance fail or be terminated with a rollback; takes nothing, or one RollbackContext.

        Without `fn`, a decorator: `@step.do("charge")` makes a function whose awaited call takes the step. Raises the
        error of the last attempt, InvalidName, InvalidValue, LimitExceeded, NonDeterminismError, TypeError.
        """
        check_step_name(name)
        if retries is None and timeout is UNSET and at_most_once is False and sensitive is False:
            options = self.run.usual
        else:
            options = Options.of(self.run.engine, retries, timeout, at_most_once, sensitive)
        if rollback is not None:
            check_rollback(name, rollback)
            if self._parent:
                raise TypeError(f"step {name!r} stands in another, whose own rollback= is to undo it; give it there")
        if fn is not UNSET:
            if not callable(fn):
                raise uncallable(fn, f"step {name!r}: fn")
            return self._do(name, fn, options, rollback)

        def decorate(function: Callback) -> Callable[[], Coroutine[Any, Any, Any]]:
            if not callable(function):
                raise uncallable(function, f"step {name!r}: fn")
            return decorated(name, function, lambda: self._do(name, function, options, rollback))

        return decorate

    async def _do(self, name: str, fn: Callback, options: Options, rollback: Callback | Rollback | None) -> Any:
        run = self.run
        self.enter()
        record = run.ask("do", name, self._around())
        if rollback is not None:
            run.undos[record.key] = undo_of(run.engine, record, name, fn, rollback)
        if record.done:
            return await run.outcome_of(record, fn)
        with self.waiting():
            await run.reach(record)
        return await run.gated(Attempts(run, self, record, name, fn, options).make())

    # Several at once

    async def all(
        self,
        steps: Iterable[Awaitable[Any]],
        *,
        concurrency: int | None = None,
        tolerate: int | float = 0,
        name: str = "all",
    ) -> list[Any]:
        """The results of all, in their order: `await step.all([step.do(...), step.do(...)])`.

        Each may be any coroutine that takes steps.
        `concurrency`: so many at once. `tolerate`: so many may fail, or such a fraction below 1; their errors stand in
        place of their results. When one more fails its error is raised, and the others are given up.
        """
        if concurrency is not None and concurrency < 1:
            raise ValueError(f"all(concurrency={concurrency}): give 1 or more, or None for all at once")
        each = list(steps)
        branches = Branches(self.run, "all", name, (self._parent, self._around()), each)
        self.announce()
        return await branches.all(concurrency, tolerance(tolerate, len(each)))

    async def race(self, steps: Iterable[Awaitable[Any]], *, name: str = "race") -> Any:
        """What the first of them to end returns, or raises; the others are given up."""
        branches = Branches(self.run, "race", name, (self._parent, self._around()), steps)
        self.announce()
        return await branches.race()

    async def workflow(
        self,
        cls: type[Workflow] | str,
        payload: Any = None,
        *,
        id: str | None = None,
        name: str | None = None,
        outlives: bool = False,
    ) -> Any:
        """What an instance of another workflow returns, which is created here; meanwhile this one may leave the memory.

        Raises what failed it, InstanceFailed when it was terminated or abandoned, InstanceExists for an `id` that is
        taken, InvalidName. Without `id` it has one that follows from this instance and this step. `cls`: the class, or
        the namespace of one that is known. `name`: of the step; default: the class's. `outlives`: it goes on when this
        instance is terminated, or gives it up; else it is terminated too.
        """
        run = self.run
        known = child_class(run, cls)
        self.enter(rests=True)
        called = cls if isinstance(cls, str) else cls.namespace or cls.__name__
        record = run.ask("workflow", name or called, self._around())
        check_child(run, record, called, id)
        if not record.done:
            inside = Steps(run, record.key)
            await run.gated(run_child(self, inside, record, cls, payload, id, outlives))
            record = run.history.records[record.key]
        return run.outcome(record, Any if known is None else returned_by(known.run))

    # Waiting

    async def sleep(self, name: str | Span, span: Span | None = None) -> None:
        """Go on after the span. The time is fixed when the sleep begins, and survives every restart.

        The name may be left out, of one sleep or of several: `await step.sleep("24 hours")`.
        """
        if span is None:
            name, span = "sleep", name
        wait = self._checked(f"sleep({name!r})", span)
        await self._sleep(check_step_name(name), lambda: self.run.engine.clock.now_us() + to_us(wait))

    async def sleep_until(self, name: str, when: datetime) -> None:
        """Go on at that time; at once when it has passed. Raises TypeError, ValueError for a time without a zone."""
        if not isinstance(when, datetime):
            raise TypeError(f"sleep_until({name!r}): {when!r} is no time; give an aware datetime, or sleep for a span")
        if when.tzinfo is None:
            raise ValueError(f"sleep_until({name!r}): {when} has no time zone; give an aware datetime")
        until = us_of(when)
        self._checked(f"sleep_until({name!r})", max(0.0, (until - self.run.engine.clock.now_us()) / 1e6))
        await self._sleep(name, lambda: until)

    def _checked(self, what: str, span: Span) -> float:
        """The span in seconds. Raises LimitExceeded."""
        wait, most = seconds(span), seconds(self.run.engine.workflow.sleep_max)
        if wait > most:
            raise LimitExceeded(
                f"{what}: {wait / 86_400:,.1f} days are more than {most / 86_400:,.1f} (sleep_max); sleep several times"
            )
        return wait

    async def _sleep(self, name: str, until: Callable[[], int]) -> None:
        run = self.run
        self.enter(rests=True)
        record = run.ask("sleep", name, self._around())
        if record.done:
            return
        with self.waiting():
            await run.reach(record)
            if record.key not in run.history.records:
                await run.gated(self._begin_sleep(record, until()))
                if run.history.records[record.key].done:
                    return
            await run.waits.park(record)

    async def _begin_sleep(self, record: Record, until: int) -> None:
        engine = self.run.engine
        self.announce()
        engine.note("sleep_started" if until > engine.clock.now_us() else "sleep_completed", record, until=until)

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
        run = self.run
        self.enter(rests=True)
        check_type(type)
        check_match(match)
        span = None if timeout is None else self._checked(f"wait_for_event({name!r})", timeout)
        record = run.ask("wait", name, self._around())
        check_wait(run, record, type, match)
        if not record.done:
            with self.waiting():
                await run.reach(record)
                if record.key not in run.history.records:
                    await run.gated(self._begin_wait(record, type, span, match))
                record = run.history.records[record.key]
                if not record.done:
                    await run.waits.park(record)
        if record.failure is not None:
            run.outcome(record)
        got = run.history.events[record.event or 0]
        return Event(
            payload=loaded(got.value, payload, f"the payload of event {got.detail['id']}"),
            type=type,
            timestamp=datetime_of(got.at),
            id=got.detail["id"],
        )

    # Telling people

    async def alert(self, name: str, data: Any = None) -> None:
        """Have the runtime's alert sinks told, at least once: `await step.alert("manual_review", {"bill": 7})`.

        Returns when that is in the journal; telling them goes on beside the body, until they have been.
        """
        run = self.run
        record = run.ask("alert", name, self._parent)
        if not record.done:
            with self.waiting():
                await run.reach(record)
            await run.gated(self._raise_alert(record, name, data))

    async def _raise_alert(self, record: Record, name: str, data: Any) -> None:
        engine = self.run.engine
        self.announce()
        value = stored(data, f"the data of alert {name!r}", engine.workflow.result_bytes)
        engine.note("alert_raised", record, value, alert=name)
        if self._parent:  # what failed around it is taken back without it
            await self.run.host.durable()

    async def _begin_wait(self, record: Record, type: str, span: float | None, match: dict[str, Any] | None) -> None:
        engine = self.run.engine
        self.announce()
        got = self.run.history.event_for(type, match)
        if got is not None:
            engine.note("wait_completed", record, event=got.seq)
            return
        until = None if span is None else engine.clock.now_us() + to_us(span)
        engine.note("wait_started", record, until=until, type=type, match=match)

    def _around(self) -> str:
        """The key of what a step stands in that is taken here: the step around these, or a branch in it."""
        return parent_in_branch(self._parent)

    @property
    def log(self) -> StepLog:
        """A logger that says nothing while the body only does again what its journal has."""
        return StepLog(self.run)

    def enter(self, rests: bool = False) -> None:
        """A step is asked for; `rests`: one that may leave the memory meanwhile."""

    def waiting(self) -> AbstractContextManager[None]:
        """While what is around this waits for something that may take long."""
        return _NONE

    def inside(self, attempts: Attempts, record: Record, name: str, attempt: int, settings: Settings) -> StepContext:
        """What the callback of an attempt gets."""
        return StepContext(self.run, attempts, record, name, attempt, settings)

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
        return self.run.engine.id

    @property
    def idempotency_key(self) -> str:
        """Always the same for this step of this run of this instance, and for no other; at most 512 characters."""
        return shortened(self.run.engine.idempotency_key(self._parent))

    def enter(self, rests: bool = False) -> None:
        """Keep in mind what is to end with this attempt. Raises NonRetryableError for what it must not do."""
        self._attempts.enter(rests)

    def announce(self) -> None:
        """Have the journal know of this step, which has not ended."""
        if self._parent not in self.run.history.records:
            event = self._attempts.event("step_started")
            self.run.engine.note(event, self._record, settings=self.config, **self._attempts.noted)

    def waiting(self) -> AbstractContextManager[None]:
        """The attempt waits: that is no time that it takes."""
        return self._attempts.waiting()


class RollbackContext(StepContext):
    """What the handler that undoes a step may ask for; steps of its own as well."""

    output: Any = None
    """What the step returned; None when it failed, or did not end."""
    error: Exception | None = None
    """Why it is undone; None: somebody terminated the instance."""
