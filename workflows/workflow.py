"""Workflows: the class that users derive theirs from. An instance is an actor whose file is its journal."""

from __future__ import annotations

import asyncio
import logging
import typing
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from z0.actors.alarm_runs import AlarmInfo
from z0.actors.clock import Span, datetime_of
from z0.actors.errors import presentable
from z0.actors.handlers import HOOKS
from z0.ledger.entity import Entity
from z0.ledger.schema import ENTITY_SCHEMA

from . import commands, journal, kin, saga
from .errors import Continued, EventTimeout, InstanceExists, InstanceNotFound, Suspended, WrongStatus
from .event import Event, check_type
from .facts import InstanceLedger
from .failure import failure_of
from .history import History, Record
from .journal import Entry
from .lifecycle import Origin
from .retries import Retries
from .run import Run, begin_body
from .status import InstanceStatus, status_of
from .step import Step
from .values import loaded, stored

if TYPE_CHECKING:
    from .instances import Workflows

log = logging.getLogger("z0.workflows")

# In z0_meta: the last entry, when nothing of the instance could go on by itself.
_SET_RESTS = "INSERT OR REPLACE INTO z0_meta VALUES('rests', ?)"
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
    rollback_continues: ClassVar[bool] = False
    """Whether the other steps are undone when one cannot be."""

    _z0_schema: ClassVar[tuple[str, ...]] = (*ENTITY_SCHEMA, *journal.JOURNAL_SCHEMA)
    _z0_hooks: ClassVar[frozenset[str]] = HOOKS | {"run"}
    _z0_ledger = InstanceLedger
    history: History

    async def run(self, event: Event[Any], step: Step) -> Any:
        """The body. What it returns is the instance's output."""
        raise NotImplementedError(f"{type(self).__name__} has no `async def run(self, event, step)`")

    @property
    def id(self) -> str:
        """The id of the instance."""
        return self.name

    @property
    def workflows(self) -> Workflows:
        """The instances of the same tenant; one that is created in a step is created once."""
        from .instances import Workflows  # which knows this class

        return Workflows(self._z0_host.node, self._z0_host.address.tenant)

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
        self._former: set[asyncio.Task[Any]] = set()
        self._alarm_us: int | None = self._z0_host.alarms.due
        self.telling = False
        self.tell_delay = 0.0
        self.tell_at: int | None = None
        self.history = History()
        for entry in journal.entries(self._z0_host.database.rows(journal.ENTRIES)):
            self.history.apply(entry)
        self.rested = meta.get("rests") == self.history.seq

    async def start(self) -> None:
        """Go on with what a crash or a closing has cut off."""
        commands.pause_now(self)
        if not self.rested:
            self.go_on()
        kin.see_to(self)

    async def alarm(self, info: AlarmInfo) -> None:
        """The time of a sleep, of a wait or of another attempt has come."""
        now = self.clock.now_us()
        self._alarm_us = None
        kin.see_to(self)
        if self.history.end is not None or self.history.paused_at is not None:
            return
        self.stir()
        for record in self.history.waits():
            if record.due is not None and record.due <= now:
                self._time_has_come(record)
        self.set_alarm()
        self.go_on()

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
        run = self._run
        if self.history.end is None and self.history.started:
            if run is None or (run.rests and not run.cut_off):
                self._z0_host.writes.write(_SET_RESTS, (self.history.seq,))
            else:  # the next process is to go on at once
                self.storage.set_alarm(self.clock.now())
        if self.telling:
            self.storage.set_alarm(self.clock.now())
        if run is not None:
            run.close()
        super()._z0_close()

    @property
    def _is_runnable(self) -> bool:
        return self.history.started and self.history.end is None and self.history.paused_at is None

    def go_on(self) -> None:
        """Have the body run, if it does not yet and may."""
        host = self._z0_host
        if self._run is None and self._is_runnable and not host.dead:
            self._run = Run(self)
            self._run.task = self.wait_until(self._perform(self._run))

    def leave_run(self) -> None:
        """Nothing goes on that is under way; who goes on next waits until it has ended."""
        run, self._run = self._run, None
        if run is None:
            return
        run.close()
        if run.task is not None and not run.task.done():
            run.task.cancel()
            self._former.add(run.task)
            run.task.add_done_callback(self._former.discard)

    def take_over(self, run: Run) -> None:
        """The run goes on in the place of the one before, in the same task."""
        if self._run is None or self._z0_host.dead:
            raise Suspended
        run.task, self._run = self._run.task, run

    pause_now = commands.pause_now

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
        task, number = run.task, self.history.run
        try:
            while former := self._former - {asyncio.current_task()}:
                await asyncio.wait(former)
            undos = None
            if not self.history.rolls_back:
                begin_body(self)
                await run.gated(self._body(run))
                await run.over()
                undos = run.undos
            if self.history.rolls_back:
                await saga.perform(self, undos)
            await self._z0_host.durable()
        except (Suspended, asyncio.CancelledError):
            return
        finally:
            await run.over()
            if self._run is not None and self._run.task is task:
                self._run.close()
                self._run = None
        if self.history.run != number:
            await commands.purge(self)
        self.go_on()
        kin.see_to(self)
        self._z0_host.node.followers.tell(self._z0_host.address)

    async def body(self, run: Run) -> Any:
        """What the code does."""
        created = self.history.created
        assert created is not None
        event = Event(
            payload=loaded(created.value, _payload_type(type(self)), f"the payload of {self.address}"),
            timestamp=datetime_of(created.at),
            id=self.name,
        )
        return await self.run(event, Step(run))

    async def _body(self, run: Run) -> None:
        host = self._z0_host
        try:
            output = await self.body(run)
            run.check_live()
            run.check_end()
            encoded = stored(output, f"the output of {self.address}", self.result_bytes)
        except Continued as caught:
            commands.continue_as_new(self, caught.payload)
        except BaseException as caught:
            if run.closed or host.dead or isinstance(caught, Suspended):
                raise Suspended from None
            host.writes.undo()
            self._fail(run.diverged or presentable(caught))
        else:
            self.note("workflow_completed", None, encoded)

    def _fail(self, error: Exception) -> None:
        if self._run is not None and saga.begin(self, self._run, error):
            return
        step = error.__dict__.get("_z0_step")
        log.error("%s failed: %s", self.address, error, exc_info=error)
        self.enter("workflow_errored", step=step, detail={"error": msgspec.to_builtins(failure_of(error))})

    # The journal

    def note(self, event: journal.Event, record: Record | None = None, value: bytes | None = None, /, *,
             attempt: int | None = None, started: int | None = None, **detail: Any) -> Entry:  # fmt: skip
        """Add an entry on a step, or on the instance, as part of the open segment."""
        step, position = (None, None) if record is None else (record.key, record.position)
        plain = msgspec.to_builtins(detail) if detail else {}
        return self.enter(event, step, attempt, position, started, value, plain)

    def enter(
        self,
        event: journal.Event,
        step: str | None = None,
        attempt: int | None = None,
        position: int | None = None,
        started: int | None = None,
        value: bytes | None = None,
        detail: dict[str, Any] | None = None,
    ) -> Entry:
        """Add an entry, as part of the open segment."""
        entry = Entry(
            self.history.seq + 1, self.clock.now_us(), event, step, attempt, position, started, value, detail or {}
        )
        journal.write(self._z0_host.writes, entry)
        self.history.apply(entry)
        if detail:  # only entries with details open or end a wait
            self.set_alarm()
            kin.see_to(self)
        return entry

    def note_end(self, event: journal.Event, step: str | None = None, detail: dict[str, Any] | None = None) -> None:
        """Add an entry that ends what is under way."""
        self.enter(event, step, detail=detail)
        self.set_alarm()
        kin.see_to(self)
        self._z0_host.node.followers.tell(self._z0_host.address)

    def look_back(self) -> None:
        """Be as the journal is, should entries have been taken back."""
        rows = self._z0_host.writes.rows
        if rows(journal.EXTENT)[0][1] != (self.history.seq or None):
            self.history.reload(journal.entries(rows(journal.ENTRIES)))
            self._alarm_us = -1  # whatever is set

    def set_alarm(self) -> None:
        """Have the alarm run when the first wait is due."""
        due = None if self.history.end is not None else self.history.due()
        if self.tell_at is not None:
            due = self.tell_at if due is None else min(due, self.tell_at)
        if due != self._alarm_us:
            self._alarm_us = due
            if due is None:
                self.storage.delete_alarm()
            else:
                self.storage.set_alarm(datetime_of(due))

    def stir(self) -> None:
        """Something has come that the body must see, also when a crash comes first."""
        if self.rested:
            self.rested = False
            self._z0_host.writes.write(_CLEAR_RESTS, ())
        self._z0_host.alarms.hold()

    # Messages of the engine

    async def z0_create(self, payload: bytes, origin: Origin | None = None) -> None:
        """Begin. Raises InstanceExists."""
        plain = {} if origin is None else {"origin": msgspec.to_builtins(origin)}
        if self.history.created is not None:
            key = self.history.created.detail.get("origin", {}).get("key")
            if origin is not None and key is not None and key == origin.key:
                return
            raise InstanceExists(self.address)
        self.note("workflow_queued", None, payload, version=self.version, **plain)
        self.note("workflow_started")
        self.rested = False
        self.go_on()

    async def z0_status(self) -> InstanceStatus:
        """How the instance is. Raises InstanceNotFound."""
        self.check_exists()
        return status_of(self.name, self.history, self._run is None or self._run.rests)

    async def z0_send_event(self, type: str, payload: bytes, fields: dict[str, Any], id: str) -> bool:
        """Take an event in; whether it is new. Raises InstanceNotFound, WrongStatus."""
        self.check_exists()
        if id in self.history.event_ids:
            return False
        self.check_unfinished("sending it an event", "create another instance")
        self.stir()
        event = self.note("event_received", None, payload, id=id, type=check_type(type), fields=fields)
        record = self.history.wait_for(event)
        if record is not None:
            self.note("wait_completed", record, event=event.seq)
            if self._run is not None:
                self._run.unpark(record.key)
            self.go_on()
        return True

    z0_pause = commands.pause
    z0_resume = commands.resume
    z0_terminate = commands.terminate
    z0_rollback = commands.rollback_again
    z0_retry = commands.retry
    z0_abandon = commands.abandon
    z0_restart = commands.restart
    z0_fork_from = commands.fork_from
    z0_fork = commands.fork
    z0_child_ended = commands.child_ended
    z0_retry_for_parent = commands.retry_for_parent

    async def z0_journal(self) -> list[Entry]:
        """All entries. Raises InstanceNotFound."""
        self.check_exists()
        return journal.entries(self._z0_host.writes.rows(journal.ENTRIES))

    @property
    def status(self) -> str:
        """How it is, in a word."""
        return self.history.status(self._run is None or self._run.rests)

    def check_exists(self) -> None:
        """Raises InstanceNotFound when it was never created."""
        if self.history.created is None:
            raise InstanceNotFound(self.address)

    def check_unfinished(self, asked: str, instead: str) -> None:
        """Raises WrongStatus when it has ended."""
        if self.history.end is not None:
            raise WrongStatus(self.address, self.status, asked, instead)


def _payload_type(cls: type[Workflow]) -> Any:
    """What the payload of the class's instances is: of `run(self, event: Event[X], step)`, X."""
    try:
        hints = typing.get_type_hints(cls.run)
    except Exception:  # an annotation that cannot be resolved outside its scope: plain data
        return Any
    event = next(iter(hints.values()), Any)
    args = typing.get_args(event) if typing.get_origin(event) is Event else ()
    return args[0] if args and not isinstance(args[0], typing.TypeVar) else Any
