"""Workflows: the class that users derive theirs from. An instance is an actor whose file is its journal."""

from __future__ import annotations

import asyncio
import logging
import typing
from typing import Any, ClassVar

import msgspec

from z0.actors.alarm_runs import AlarmInfo
from z0.actors.clock import datetime_of
from z0.actors.errors import presentable
from z0.actors.handlers import HOOKS
from z0.ledger.schema import ENTITY_SCHEMA

from . import journal
from .bounds import Bounded
from .errors import EventTimeout, InstanceExists, InstanceNotFound, NonDeterminismError, Suspended, WrongStatus
from .event import Event, check_type
from .failure import failing_step, failure_of
from .history import History, Record
from .journal import Entry, redacted
from .limits import warnings_of
from .run import Run, begin_body
from .status import InstanceStatus, status_of
from .step import Step
from .values import loaded, stored

log = logging.getLogger("z0.workflows")

# In z0_meta: the last entry, when nothing of the instance could go on by itself.
_SET_RESTS = "INSERT OR REPLACE INTO z0_meta VALUES('rests', ?)"
_CLEAR_RESTS = "DELETE FROM z0_meta WHERE key = 'rests'"
_LOOK_AGAIN_US, _LOOK_AGAIN_MAX_US = 300 * 1_000_000, 86_400 * 1_000_000


class Workflow(Bounded):
    """Code that outlives its process: `async def run(self, event, step)`, every step of which is in a journal.

    The body must do the same again whenever it is run again: what depends on the time, on chance or on the world
    belongs into steps. Its instances are made by `runtime.workflows.create(Class, payload, id=...)`.
    """

    _z0_schema: ClassVar[tuple[str, ...]] = (*ENTITY_SCHEMA, *journal.JOURNAL_SCHEMA)
    _z0_hooks: ClassVar[frozenset[str]] = HOOKS | {"run"}
    history: History

    async def run(self, event: Event[Any], step: Step) -> Any:
        """The body. What it returns is the instance's output."""
        raise NotImplementedError(f"{type(self).__name__} has no `async def run(self, event, step)`")

    @property
    def id(self) -> str:
        """The id of the instance."""
        return self.name

    def idempotency_key(self, step: str) -> str:
        """What tells this step of this run of this instance from every other."""
        return f"{self._z0_host.kind.namespace}/{self.name}/{self.history.run}/{step}"

    # Life

    def _z0_open(self, meta: dict[str, Any]) -> None:
        super()._z0_open(meta)
        self._run: Run | None = None
        self._alarm_us: int | None = self._z0_host.alarms.due
        self.history = History()
        for entry in journal.entries(self._z0_host.database.rows(journal.ENTRIES)):
            self.history.apply(entry)
        self._rested = meta.get("rests") == self.history.seq

    async def start(self) -> None:
        """Go on with what a crash or a closing has cut off."""
        if self._is_runnable and not self._rested:
            self._go_on()

    async def alarm(self, info: AlarmInfo) -> None:
        """The time of a sleep, of a wait or of another attempt has come."""
        now = self.clock.now_us()
        if self.history.end is not None:
            return
        self._stir()
        for record in self.history.waits():
            if record.due is not None and record.due <= now:
                self._time_has_come(record)
        self._alarm_us = None
        self._set_alarm()
        self._go_on()

    def _time_has_come(self, record: Record) -> None:
        if record.kind == "sleep":
            self.note("sleep_completed", record)
        elif record.kind == "wait":
            error = EventTimeout(record.key.rpartition(":")[2].rpartition("#")[0], record.type or "")
            self.note("wait_timed_out", record, error=failure_of(error))
        else:
            self.history.came(record)
        if self._run is not None:
            self._run.unpark(record.key)

    def _z0_close(self) -> None:
        run = self._run
        if self.history.end is None and self.history.started:
            if run is None or (run.rests and not run.cut_off):
                if self.history.diverged is not None and self._z0_host.node.draining:
                    self.storage.set_alarm(self.clock.now())  # the next process may have the code that fits
                self._z0_host.writes.write(_SET_RESTS, (self.history.seq,))
            else:  # the next process is to go on at once
                self.storage.set_alarm(self.clock.now())
        if run is not None:
            run.close()
        super()._z0_close()

    @property
    def _is_runnable(self) -> bool:
        return self.history.started and self.history.end is None

    def _go_on(self) -> None:
        """Have the body run, if it does not yet."""
        host = self._z0_host
        if self._run is None and self._is_runnable and not host.dead:
            self._set_alarm()  # it may have run before a crash, by a clock that was ahead of today's
            self._run = Run(self)
            self._run.task = self.wait_until(self._perform(self._run))

    def awake(self) -> None:
        """The body goes on: the instance stays in memory."""
        background = self._z0_host.background
        if background is not None and self._run is not None and self._run.task is not None:
            background.wake(self._run.task)

    def asleep(self) -> None:
        """The body waits for nothing but the time and events: the instance may leave the memory."""
        background = self._z0_host.background
        if background is not None and self._run is not None and self._run.task is not None:
            background.rest(self._run.task)

    # The body

    async def _perform(self, run: Run) -> None:
        begin_body()
        try:
            await run.gated(self._body(run))
            await self._z0_host.durable()
        except (Suspended, asyncio.CancelledError):
            return
        finally:
            run.close()
            if self._run is run:
                self._run = None
        self._z0_host.node.followers.tell(self._z0_host.address)

    async def _body(self, run: Run) -> None:
        host = self._z0_host
        created = self.history.created
        assert created is not None
        try:
            event = Event(
                payload=loaded(created.value, payload_type(type(self)), f"the payload of {self.address}"),
                timestamp=datetime_of(created.at),
                id=self.name,
            )
            output = await self.run(event, Step(run))
            await run.check_end()
            if run.closed or host.dead:
                raise Suspended
            encoded = stored(output, f"the output of {self.address}", self.result_bytes)
        except (KeyboardInterrupt, GeneratorExit):  # it is the process that ends
            raise
        except BaseException as caught:
            if run.closed or host.dead or isinstance(caught, Suspended):
                raise Suspended from None
            host.writes.undo()
            if run.diverged is not None and self.on_divergence == "pause":
                self._pause(run.diverged)
            else:
                self._fail(run.diverged or presentable(caught))
        else:
            self.note("workflow_completed", None, encoded)

    def _pause(self, error: NonDeterminismError) -> None:
        """The code does not fit; look again, ever more rarely, whether it does."""
        log.error("%s is paused: %s", self.address, error)
        now, first = self.clock.now_us(), self.history.diverged
        since = now if first is None else first.detail["since"]
        again_at = now + max(_LOOK_AGAIN_US, min(now - since, _LOOK_AGAIN_MAX_US))
        self.note("workflow_paused", reason=str(error), error=failure_of(error), since=since, again_at=again_at)

    def _fail(self, error: Exception) -> None:
        step = failing_step(error)
        log.error("%s failed: %s", self.address, error, exc_info=error)
        self._entry("workflow_errored", step=step, detail={"error": msgspec.to_builtins(failure_of(error))})

    # The journal

    def note(self, event: journal.Event, record: Record | None = None, value: bytes | None = None, /, *,
             attempt: int | None = None, started: int | None = None, **detail: Any) -> Entry:  # fmt: skip
        """Add an entry on a step, or on the instance, as part of the open segment."""
        plain = msgspec.to_builtins(detail) if detail else {}
        if record is None:
            return self._entry(event, None, attempt, None, started, value, plain)
        host = self._z0_host
        host.split()  # what fails later takes back neither this, nor what led to it
        entry = self._entry(event, record.key, attempt, record.position, started, value, plain)
        host.split()
        return entry

    def _entry(
        self,
        event: journal.Event,
        step: str | None = None,
        attempt: int | None = None,
        position: int | None = None,
        started: int | None = None,
        value: bytes | None = None,
        detail: dict[str, Any] | None = None,
    ) -> Entry:
        entry = Entry(
            self.history.seq + 1, self.clock.now_us(), event, step, attempt, position, started, value, detail or {}
        )
        journal.write(self._z0_host.writes, entry)
        self.history.apply(entry)
        if detail:  # only entries with details open or end a wait
            self._set_alarm()
        return entry

    def _set_alarm(self) -> None:
        """Have the alarm run when the first wait is due."""
        due = None if self.history.end is not None else self.history.due()
        if due is not None and self.history.diverged is not None:
            due = max(due, self.clock.now_us() + _LOOK_AGAIN_US)
        if due != self._alarm_us:
            self._alarm_us = due
            if due is None:
                self.storage.delete_alarm()
            else:
                self.storage.set_alarm(datetime_of(due))

    def _stir(self) -> None:
        """Something has come that the body must see, also when a crash comes first."""
        if self._rested:
            self._rested = False
            self._z0_host.writes.write(_CLEAR_RESTS, ())
        self._z0_host.alarms.hold()

    # Messages of the engine

    async def z0_create(self, payload: bytes) -> None:
        """Begin. Raises InstanceExists."""
        if self.history.created is not None:
            raise InstanceExists(self.address)
        self.note("workflow_queued", None, payload, version=self.version)
        self.note("workflow_started")
        self._rested = False
        self._go_on()

    async def z0_status(self) -> InstanceStatus:
        """How the instance is. Raises InstanceNotFound."""
        self._check_exists()
        status = status_of(self.name, self.history, self._run is None or self._run.rests)
        return msgspec.structs.replace(status, warnings=warnings_of(self.history, self.steps_max, self.execution_max))

    async def z0_send_event(self, type: str, payload: bytes, fields: dict[str, Any], id: str) -> bool:
        """Take an event in; whether it is new. Raises InstanceNotFound, WrongStatus."""
        self._check_exists()
        if id in self.history.event_ids:
            return False
        self._check_unfinished("sending it an event", "create another instance")
        self._stir()
        event = self.note("event_received", None, payload, id=id, type=check_type(type), fields=fields)
        record = self.history.wait_for(event)
        if record is not None:
            self.note("wait_completed", record, event=event.seq)
            if self._run is not None:
                self._run.unpark(record.key)
            self._go_on()
        return True

    async def z0_terminate(self) -> None:
        """End it. Raises InstanceNotFound, WrongStatus."""
        self._check_exists()
        self._check_unfinished("terminating it", "there is nothing left to end")
        self._end("workflow_terminated")

    async def z0_abandon(self, reason: str) -> None:
        """Close a failed instance. Raises InstanceNotFound, WrongStatus."""
        self._check_exists()
        if self._status != "errored":
            raise WrongStatus(self.address, self._status, "abandoning it", "only a failed instance is abandoned")
        self._end("workflow_abandoned", reason=reason)

    async def z0_retry(self) -> None:
        """Go on with a failed instance at the step that failed. Raises InstanceNotFound, WrongStatus."""
        self._check_exists()
        end = self.history.end
        if end is None or self._status != "errored":
            raise WrongStatus(self.address, self._status, "retrying it", "only a failed instance is retried")
        self._z0_host.alarms.hold()
        self._entry("workflow_retried", step=end.step)
        self._rested = False
        self._go_on()

    async def z0_journal(self) -> list[Entry]:
        """All entries. Raises InstanceNotFound."""
        self._check_exists()
        return [redacted(each) for each in journal.entries(self._z0_host.writes.rows(journal.ENTRIES))]

    def _end(self, event: journal.Event, **detail: Any) -> None:
        self.note(event, **detail)
        run, self._run = self._run, None
        if run is not None:
            run.close()
            if run.task is not None:
                run.task.cancel()
        self._z0_host.node.followers.tell(self._z0_host.address)

    @property
    def _status(self) -> str:
        return self.history.status(self._run is None or self._run.rests)

    def _check_exists(self) -> None:
        if self.history.created is None:
            raise InstanceNotFound(self.address)

    def _check_unfinished(self, asked: str, instead: str) -> None:
        if self.history.end is not None:
            raise WrongStatus(self.address, self._status, asked, instead)


def payload_type(cls: type[Workflow]) -> Any:
    """What the payload of the class's instances is: of `run(self, event: Event[X], step)`, X."""
    try:
        hints = typing.get_type_hints(cls.run)
    except Exception:  # an annotation that cannot be resolved outside its scope: plain data
        return Any
    event = next(iter(hints.values()), Any)
    args = typing.get_args(event) if typing.get_origin(event) is Event else ()
    return args[0] if args and not isinstance(args[0], typing.TypeVar) else Any
