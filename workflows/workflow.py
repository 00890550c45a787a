"""Workflows: the class that users derive theirs from. An instance is an actor whose file is its journal."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from z0.actors.alarm_runs import AlarmInfo
from z0.actors.alone import writes_alone
from z0.actors.errors import message_of, presentable
from z0.actors.handlers import HOOKS
from z0.ledger.schema import ENTITY_SCHEMA

from . import commands, deadlines, divergence, errands, journal, kin, messages, put_off, retention, saga
from .bounds import Bounded
from .errands import Errands
from .errors import Continued, InstanceNotFound, Suspended, WrongStatus
from .event import Event
from .facts import InstanceLedger
from .failure import blame, failing_step, shown
from .flow import rules_of
from .history import History, Record
from .journal import Entry
from .place import begin_body
from .retrying import FAILURES
from .run import Run
from .services import ENTRIES, services
from .status import InstanceStatus
from .step import Step
from .values import first_event, stored

if TYPE_CHECKING:
    from .instances import Workflows

log = logging.getLogger("z0.workflows")

# In z0_meta: the last entry, when nothing of the instance could go on by itself.
_SET_RESTS = "INSERT OR REPLACE INTO z0_meta VALUES('rests', ?)"
_SET_STATUS = "INSERT OR REPLACE INTO z0_meta VALUES('status', ?)"
_CLEAR_RESTS = "DELETE FROM z0_meta WHERE key = 'rests'"


class Workflow(Bounded):
    """Code that outlives its process: `async def run(self, event, step)`, every step of which is in a journal.

    The body must do the same again whenever it is run again: what depends on the time, on chance or on the world
    belongs into steps. Its instances are made by `runtime.workflows.create(Class, payload, id=...)`.
    """

    _z0_schema: ClassVar[tuple[str, ...]] = (*ENTITY_SCHEMA, *journal.JOURNAL_SCHEMA)
    _z0_hooks: ClassVar[frozenset[str]] = HOOKS | {"run", "on_failure"}
    _z0_ledger = InstanceLedger
    history: History

    async def run(self, event: Event[Any], step: Step) -> Any:
        """The body. What it returns is the instance's output."""
        raise NotImplementedError(f"{type(self).__name__} has no `async def run(self, event, step)`")

    async def on_failure(self, status: InstanceStatus) -> None:
        """Called at least once when the instance has failed, beside whatever else happens; again until it returns."""

    @property
    def workflows(self) -> Workflows:
        """The instances of the same tenant; one that is created in a step is created once."""
        from .instances import Workflows  # which knows this class

        return Workflows(self._z0_host.node, self._z0_host.address.tenant)

    # Life

    def _z0_open(self, meta: dict[str, Any]) -> None:
        super()._z0_open(meta)
        self._run: Run | None = None
        self._former: set[asyncio.Task[Any]] = set()
        self.alarm_us: int | None = self._z0_host.alarms.due
        self.stirred_us: int | None = None
        """When the body was last given something to react to; None: it has come to rest since."""
        self.resumed = False
        """A deadline that had passed was given to it since."""
        self.reaction: asyncio.Future[None] | None = None
        """Done when the body has reacted."""
        self.telling = self.put_off = False
        self.tell_delay = 0.0
        self.tell_at: int | None = None
        self.history = History()
        for entry in journal.entries(self._z0_host.database.rows(journal.ENTRIES)):
            self.history.apply(entry)
        self.rested = meta.get("rests") == self.history.seq
        self.cut_off = self.history.started and not self.rested
        self._left_as = meta.get("status")
        self._errands = Errands(self)
        self._services = services(self._z0_host.node)

    async def start(self) -> None:
        """Go on with what a crash or a closing has cut off."""
        commands.pause_now(self)
        if self.history.queued and not rules_of(self.concurrency):  # the class is not limited any more
            self.begin()
        if not self.rested:
            self.go_on()
        kin.see_to(self)
        self.see_to_errands()

    async def alarm(self, info: AlarmInfo) -> None:
        """The time of a sleep, of a wait or of another attempt has come."""
        if info.name is not None:
            self._be_reminded(info.name)
            return
        self.alarm_us = None
        kin.see_to(self)
        if self.history.end is not None or self.history.paused_at is not None:
            return
        self.stir()
        await deadlines.pass_time(self)
        self.set_alarm()
        self.go_on()

    def _be_reminded(self, name: str) -> None:
        if name == errands.ALARM:
            self.see_to_errands()
        elif name == retention.ALARM:
            retention.due(self)

    def _z0_close(self) -> None:
        run, status = self._run, self._z0_status()
        if self.history.end is None and self.history.started:
            if not self.put_off and (run is None or (run.rests and not run.cut_off)):
                if self.history.diverged is not None and self._z0_host.node.draining:
                    self.storage.set_alarm(self.clock.now())  # the next process may have the code that fits
                self._z0_host.writes.write(_SET_RESTS, (self.history.seq,))
            else:  # the next process is to go on at once
                self.storage.set_alarm(self.clock.now())
        if self.telling or self.put_off:
            self.storage.set_alarm(self.clock.now())
        if run is not None:
            run.close()
        if status != self._left_as:  # for a catalogue that is made anew
            self._z0_host.writes.write(_SET_STATUS, (status,))
        super()._z0_close()

    def _z0_status(self) -> str | None:
        return None if self.history.created is None else self.status

    def _z0_removable(self) -> bool:
        return self.history.created is None or (self.history.end is not None and not kin.is_due(self))

    @property
    def _is_runnable(self) -> bool:
        history = self.history
        return (history.started or history.rolls_back) and history.end is None and history.paused_at is None

    def begin(self) -> None:
        """Nothing holds the body up any more."""
        self.note("workflow_started")
        self.go_on()

    def go_on(self) -> None:
        """Have the body run, if it does not yet and may."""
        host = self._z0_host
        if self._run is None and self._is_runnable and not host.dead and not put_off.body(self):
            self.stirred_us = self.clock.now_us()
            self.set_alarm()  # it may have run before a crash, by a clock that was ahead of today's
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
        self.stirred_us = self.clock.now_us()
        background = self._z0_host.background
        if background is not None and self._run is not None and self._run.task is not None:
            background.wake(self._run.task)

    def asleep(self) -> None:
        """The body waits for nothing but the time and events: the instance may leave the memory."""
        self.has_reacted()
        background = self._z0_host.background
        if background is not None and self._run is not None and self._run.task is not None:
            background.rest(self._run.task)
            self._z0_host.node.followers.tell(self._z0_host.address, ENTRIES)

    def has_reacted(self) -> None:
        """The body can get no further, is over, or has had its time."""
        self.stirred_us, self.resumed = None, False
        if self.reaction is not None and not self.reaction.done():
            self.reaction.set_result(None)

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
                undos = None if run.owed else run.undos
            if self.history.rolls_back:
                await saga.perform(self, undos)
            await self._z0_host.durable()
        except (Suspended, asyncio.CancelledError):
            if task is not None and task.cancelling() and self._run is not None and self._run.task is task:
                self.put_off = True  # by nobody here: the loop ends, and the next process is to go on
            return
        finally:
            await run.over()
            if self._run is not None and self._run.task is task:
                self._run.close()
                self._run = None
            self.has_reacted()
        if self.history.run != number:
            await commands.purge(self)
        if self.history.diverged is None:
            self.go_on()
        kin.see_to(self)
        self._z0_host.node.followers.tell(self._z0_host.address)

    async def body(self, run: Run) -> Any:
        """What the code does."""
        created = self.history.created
        assert created is not None
        event = first_event(type(self).run, created, self.name, f"the payload of {self.address}")
        try:
            return await self.run(event, Step(run))
        except Exception as error:
            await run.check_raised(error)
            raise

    async def _body(self, run: Run) -> None:
        host = self._z0_host
        try:
            output = await self.body(run)
            await run.check_end()
            run.check_live()
            encoded = stored(output, f"the output of {self.address}", self.result_bytes)
        except Continued as caught:
            commands.continue_as_new(self, caught.payload)
        except (KeyboardInterrupt, GeneratorExit):  # it is the process that ends
            raise
        except BaseException as caught:
            if run.closed or host.dead or isinstance(caught, Suspended) or run.is_cancelled(caught):
                raise Suspended from None
            host.writes.undo()
            if run.diverged is not None and self.on_divergence == "pause":
                divergence.pause(self, run.diverged)
            else:
                self._fail(run.diverged or presentable(caught))
        else:
            self.note("workflow_completed", None, encoded)

    def _fail(self, error: Exception) -> None:
        run = self._run
        if run is not None and saga.begin(self, run, error):
            return
        log.error("%s failed: %s", self.address, message_of(error), exc_info=shown(error))
        detail = blame(error, run.failed_last() if run else ())
        self.enter("workflow_errored", step=failing_step(error), detail=detail)

    # The journal

    def note(self, event: journal.Event, record: Record | None = None, value: bytes | None = None, /, *,
             attempt: int | None = None, started: int | None = None, **detail: Any) -> Entry:  # fmt: skip
        """Add an entry on a step, or on the instance, as part of the open segment."""
        plain: dict[str, Any] = msgspec.to_builtins(detail) if detail else {}
        if record is None:
            return self.enter(event, None, attempt, None, started, value, plain)
        if event in FAILURES:
            plain["begun"] = self.history.positions  # by which a retry knows what was begun since
        self._z0_host.divide()  # what led to it was in order, or it is not entered
        return self.enter(event, record.key, attempt, record.position, started, value, plain)

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
        """Add an entry, as part of the open segment; what fails later does not take it back."""
        owed = errands.owed_by(self, event, detail or {})
        if owed:
            detail = {**(detail or {}), "owes": owed}
        entry = Entry(
            self.history.seq + 1, self.clock.now_us(), event, step, attempt, position, started, value, detail or {}
        )
        host = self._z0_host
        plain = not detail or detail == journal.UNDOABLE
        alone = plain and event == "step_completed" and writes_alone(host)
        journal.write(host.writes, entry, alone=alone)
        self.history.apply(entry)
        if not plain:  # only entries with details open or end a wait
            self.set_alarm()
            kin.see_to(self)
        if self.history.end is entry:
            retention.ended(self)
        if owed:
            host.alarms.hold()
            self.see_to_errands()
        self._services.noted(host, entry)
        host.divide()
        if alone:
            host.ended_at_once(True)
        return entry

    def note_end(self, event: journal.Event, step: str | None = None, detail: dict[str, Any] | None = None) -> None:
        """Add an entry that ends what is under way."""
        self.enter(event, step, detail=detail)
        self.set_alarm()
        kin.see_to(self)
        self._z0_host.node.followers.tell(self._z0_host.address)

    def see_to_errands(self) -> None:
        """Do what must be done outside, and is not under way."""
        self._errands.go_on()

    def look_back(self) -> None:
        """Be as the journal is, should entries have been taken back."""
        rows = self._z0_host.writes.rows
        if rows(journal.EXTENT)[0][1] != (self.history.seq or None):
            self.history.reload(journal.entries(rows(journal.ENTRIES)))
            self.alarm_us = -1  # whatever is set

    set_alarm = deadlines.set_alarm

    def stir(self) -> None:
        """Something has come that the body must see, also when a crash comes first."""
        if self.rested:
            self.rested = False
            self._z0_host.writes.write(_CLEAR_RESTS, ())
        self._z0_host.alarms.hold()

    # Messages of the engine

    z0_create = messages.create
    z0_start = messages.start
    z0_cancel = commands.cancel
    z0_delete = commands.delete
    z0_status = messages.status
    z0_send_event = messages.send_event
    z0_journal = messages.entries
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

    @property
    def status(self) -> str:
        """How it is, in a word."""
        return self.history.status(messages.rests(self))

    def check_exists(self) -> None:
        """Raises InstanceNotFound when it was never created."""
        if self.history.created is None:
            raise InstanceNotFound(self.address)

    def check_unfinished(self, asked: str, instead: str) -> None:
        """Raises WrongStatus when it has ended."""
        if self.history.end is not None:
            raise WrongStatus(self.address, self.status, asked, instead)
