"""Workflows: the class that users derive theirs from. An instance is an actor whose file is its journal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

import msgspec

from z0.actors.alarm_runs import AlarmInfo
from z0.actors.clock import Span, datetime_of
from z0.actors.errors import presentable
from z0.actors.handlers import HOOKS
from z0.ledger.entity import Entity
from z0.ledger.schema import ENTITY_SCHEMA

from . import errands, journal, retention
from .errands import Errands
from .errors import EventTimeout, InstanceExists, InstanceNotFound, Suspended, WrongStatus
from .event import Event, check_type
from .failure import failure_of
from .flow import Debounce, Rules, rules_of
from .history import History, Record
from .journal import Entry
from .retention import Retention
from .retries import Retries
from .run import Run, begin_body
from .schedules import Schedule
from .services import ENTRIES, services
from .status import InstanceStatus, status_of
from .step import Step
from .values import loaded, payload_of, stored

log = logging.getLogger("z0.workflows")

# In z0_meta: the last entry, when nothing of the instance could go on by itself.
_SET_RESTS = "INSERT OR REPLACE INTO z0_meta VALUES('rests', ?)"
_SET_STATUS = "INSERT OR REPLACE INTO z0_meta VALUES('status', ?)"
_CLEAR_RESTS = "DELETE FROM z0_meta WHERE key = 'rests'"


class Workflow(Entity):
    """Code that outlives its process: `async def run(self, event, step)`, every step of which is in a journal.

    The body must do the same again whenever it is run again: what depends on the time, on chance or on the world
    belongs into steps. Its instances are made by `runtime.workflows.create(Class, payload, id=...)`.
    """

    version: ClassVar[int] = 1
    """Of the code; each instance's journal says by which it was begun."""
    retries: ClassVar[Retries] = Retries()
    """Of steps that do not say otherwise."""
    timeout: ClassVar[Span | None] = "10 minutes"
    """Of one attempt of a step that does not say otherwise."""
    result_bytes: ClassVar[int] = 1024 * 1024
    """Of one step's result, of an event's payload and of the output, at most."""
    steps_max: ClassVar[int] = 1_000
    """That one instance may take."""
    retention: ClassVar[Span | Retention | None] = None
    """How long finished instances are kept; None: until they are deleted."""

    concurrency: ClassVar[Rules] = None
    """How many instances may run at once: a `Concurrency`, or several that must all be kept; None: all."""
    debounce: ClassVar[Debounce | None] = None
    schedules: ClassVar[Sequence[Schedule]] = ()
    """Of the default tenant; known when the runtime is opened with this class."""

    _z0_schema: ClassVar[tuple[str, ...]] = (*ENTITY_SCHEMA, *journal.JOURNAL_SCHEMA)
    _z0_hooks: ClassVar[frozenset[str]] = HOOKS | {"run", "on_failure"}
    history: History

    async def run(self, event: Event[Any], step: Step) -> Any:
        """The body. What it returns is the instance's output."""
        raise NotImplementedError(f"{type(self).__name__} has no `async def run(self, event, step)`")

    async def on_failure(self, status: InstanceStatus) -> None:
        """Called at least once when the instance has failed, beside whatever else happens; again until it returns."""

    @property
    def id(self) -> str:
        """The id of the instance."""
        return self.name

    @property
    def address(self) -> str:
        """Class and id, for messages to people."""
        return f"{self._z0_host.kind.namespace} {self.name!r}"

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
        self._left_as = meta.get("status")
        self._errands = Errands(self)
        self._services = services(self._z0_host.node)

    async def start(self) -> None:
        """Go on with what a crash or a closing has cut off."""
        if self.history.queued and not rules_of(self.concurrency):  # the class is not limited any more
            self._start_body()
        if self._is_runnable and not self._rested:
            self._go_on()
        self._errands.go_on()

    async def alarm(self, info: AlarmInfo) -> None:
        """The time of a sleep, of a wait or of another attempt has come."""
        if info.name is not None:
            self._be_reminded(info.name)
            return
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

    def _be_reminded(self, name: str) -> None:
        if name == errands.ALARM:
            self._errands.go_on()
        elif name == retention.ALARM:
            retention.due(self)

    def _time_has_come(self, record: Record) -> None:
        kind = record.key.rpartition("/")[2].partition(":")[0]
        if kind == "sleep":
            self.note("sleep_completed", record)
        elif kind == "wait":
            error = EventTimeout(record.key.rpartition(":")[2].rpartition("#")[0], record.type or "")
            self.note("wait_timed_out", record, error=failure_of(error))
        else:
            record.due = None
        if self._run is not None:
            self._run.unpark(record.key)

    def _z0_close(self) -> None:
        run, status = self._run, self._z0_status()
        if self.history.end is None and self.history.started:
            if run is None or (run.rests and not run.cut_off):
                self._z0_host.writes.write(_SET_RESTS, (self.history.seq,))
            else:  # the next process is to go on at once
                self.storage.set_alarm(self.clock.now())
        if run is not None:
            run.close()
        if status != self._left_as:  # for a catalogue that is made anew
            self._z0_host.writes.write(_SET_STATUS, (status,))
        super()._z0_close()

    def _z0_status(self) -> str | None:
        return None if self.history.created is None else self._status

    def _z0_removable(self) -> bool:
        return self.history.created is None or self.history.end is not None

    @property
    def _is_runnable(self) -> bool:
        return self.history.started and self.history.end is None

    def _go_on(self) -> None:
        """Have the body run, if it does not yet."""
        host = self._z0_host
        if self._run is None and self._is_runnable and not host.dead:
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
            self._z0_host.node.followers.tell(self._z0_host.address, ENTRIES)

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
                payload=loaded(created.value, payload_of(type(self).run), f"the payload of {self.address}"),
                timestamp=datetime_of(created.at),
                id=self.name,
                scheduled_time=_scheduled(created),
            )
            output = await self.run(event, Step(run))
            run.check_end()
            encoded = stored(output, f"the output of {self.address}", self.result_bytes)
        except BaseException as caught:
            if run.closed or host.dead or isinstance(caught, Suspended):
                raise Suspended from None
            host.writes.undo()
            self._fail(run.diverged or presentable(caught))
        else:
            self.note("workflow_completed", None, encoded)

    def _fail(self, error: Exception) -> None:
        step = error.__dict__.get("_z0_step")
        log.error("%s failed: %s", self.address, error, exc_info=error)
        self._entry("workflow_errored", step=step, detail={"error": msgspec.to_builtins(failure_of(error))})

    # The journal

    def note(self, event: journal.Event, record: Record | None = None, value: bytes | None = None, /, *,
             attempt: int | None = None, started: int | None = None, **detail: Any) -> Entry:  # fmt: skip
        """Add an entry on a step, or on the instance, as part of the open segment."""
        step, position = (None, None) if record is None else (record.key, record.position)
        plain = msgspec.to_builtins(detail) if detail else {}
        return self._entry(event, step, attempt, position, started, value, plain)

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
        owed = errands.owed_by(self, event, detail or {})
        if owed:
            detail = {**(detail or {}), "owes": owed}
        entry = Entry(
            self.history.seq + 1, self.clock.now_us(), event, step, attempt, position, started, value, detail or {}
        )
        journal.write(self._z0_host.writes, entry)
        self.history.apply(entry)
        if detail:  # only entries with details open or end a wait
            self._set_alarm()
        if self.history.end is entry:
            retention.ended(self)
        if owed:
            self._z0_host.alarms.hold()
            self._errands.go_on()
        self._services.noted(self._z0_host, entry)
        self._z0_host.divide()  # what fails later must not take back what the history has
        return entry

    def _set_alarm(self) -> None:
        """Have the alarm run when the first wait is due."""
        due = None if self.history.end is not None else self.history.due()
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

    async def z0_create(self, payload: bytes, detail: dict[str, Any]) -> None:
        """Begin; `detail`: what else the journal is to know of it. Raises InstanceExists."""
        if self.history.created is not None:
            raise InstanceExists(self.address)
        self.note("workflow_queued", None, payload, version=self.version, **detail)
        self._rested = False
        if "groups" not in detail:
            self._start_body()

    def _start_body(self) -> None:
        self.note("workflow_started")
        self._go_on()

    async def z0_start(self, ticket: int) -> bool:
        """There is a slot for it; whether it runs."""
        if self.history.queued:
            self._stir()
            self._start_body()
        return self._is_runnable

    async def z0_cancel(self, reason: str) -> None:
        """There is no slot for it, or not any more: end it."""
        if self.history.created is not None and self.history.end is None:
            self._end("workflow_terminated", reason=reason)

    async def z0_status(self) -> InstanceStatus:
        """How the instance is. Raises InstanceNotFound."""
        self._check_exists()
        return status_of(self.name, self.history, self._run is None or self._run.rests)

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

    async def z0_delete(self) -> None:
        """End it, if it has not ended: it is going to be removed. Raises InstanceNotFound."""
        self._check_exists()
        if self.history.end is None:
            self._end("workflow_terminated", reason="it was deleted")

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

    async def z0_journal(self, after: int = 0, limit: int = -1) -> list[Entry]:
        """Entries after a seq, at most so many. Raises InstanceNotFound."""
        self._check_exists()
        return journal.entries(self._z0_host.writes.rows(journal.ENTRIES_AFTER, after, limit))

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


def _scheduled(created: Entry) -> datetime | None:
    schedule = created.detail.get("schedule")
    return None if schedule is None else datetime_of(schedule["at"])
