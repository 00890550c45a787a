"""The engine of one instance: it keeps the journal, and all that goes on because of what the journal says.

It stands beside the object of the user's class, and not in it, so that a class may name what it likes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from z0.actors.alarm_runs import AlarmInfo
from z0.actors.alone import writes_alone

from . import blobs, commands, deadlines, errands, journal, kin, retention
from .body import Body
from .errands import Errands
from .errors import InstanceNotFound, WrongStatus
from .flow import rules_of
from .history import History, Record
from .journal import Entry
from .lifecycle import first_created
from .limits import check_blob, warn_if_near
from .retrying import FAILURES
from .services import services

if TYPE_CHECKING:
    from .workflow import Workflow

# In z0_meta: the last entry, when nothing of the instance could go on by itself.
_SET_RESTS = "INSERT OR REPLACE INTO z0_meta VALUES('rests', ?)"
_SET_STATUS = "INSERT OR REPLACE INTO z0_meta VALUES('status', ?)"
_CLEAR_RESTS = "DELETE FROM z0_meta WHERE key = 'rests'"


class Engine:
    """Of one instance, while it is in memory."""

    def __init__(self, workflow: Workflow, meta: dict[str, Any]) -> None:
        """Read the journal. `workflow`: the object of the user's class; `meta`: the file's z0_meta."""
        self.workflow = workflow
        self.given: dict[str, Any] = {}
        """What z0 gives to an object of the user's class before its constructor runs."""
        self._has_run = False
        self.host = host = workflow._z0_host
        self.clock = host.node.clock
        self.storage = host.storage
        self.services = services(host.node)
        self.id = host.address.name
        self.address = f"{host.kind.namespace} {self.id!r}"
        """Class and id, for messages to people."""
        self.alarm_us: int | None = host.alarms.due
        self.telling = self.put_off = False
        self.tell_delay = 0.0
        self.tell_at: int | None = None
        self.history = History()
        for entry in journal.entries(host.database.rows(journal.ENTRIES)):
            self.history.apply(entry)
        self.rested = meta.get("rests") == self.history.seq
        self.cut_off = self.history.started and not self.rested
        self._left_as = meta.get("status")
        self.body = Body(self)
        self.errands = Errands(self)

    # Life

    def start(self) -> None:
        """Go on with what a crash or a closing has cut off."""
        self.pause_now()
        if self.history.queued and not rules_of(self.workflow.concurrency):  # the class is not limited any more
            self.begin()
        if not self.rested:
            self.body.go_on()
        kin.see_to(self)
        self.errands.go_on()

    async def alarm(self, info: AlarmInfo) -> None:
        """The time of a sleep, of a wait or of another attempt has come."""
        if info.name == errands.ALARM:
            self.errands.go_on()
        elif info.name == retention.ALARM:
            retention.due(self)
        if info.name is not None:
            return
        self.alarm_us = None
        kin.see_to(self)
        if self.history.end is not None or self.history.paused_at is not None:
            return
        self.stir()
        await deadlines.pass_time(self)
        self.set_alarm()
        self.body.go_on()

    def close(self) -> None:
        """Leave the memory, and have the next process go on with what is under way."""
        run, status = self.body.run, self.kept_status
        if self.history.end is None and self.history.started:
            if not self.put_off and (run is None or (run.waits.rests and not run.cut_off)):
                if self.history.diverged is not None and self.host.node.draining:
                    self.storage.set_alarm(self.clock.now())  # the next process may have the code that fits
                self.host.writes.write(_SET_RESTS, (self.history.seq,))
            else:  # the next process is to go on at once
                self.storage.set_alarm(self.clock.now())
        if self.telling or self.put_off:
            self.storage.set_alarm(self.clock.now())
        if run is not None:
            run.close()
        if status != self._left_as:  # for a catalogue that is made anew
            self.host.writes.write(_SET_STATUS, (status,))

    def begin(self) -> None:
        """Nothing holds the body up any more."""
        self.note("workflow_started")
        self.body.go_on()

    def pause_now(self) -> None:
        """The pause begins, if it is wanted and nothing is under way."""
        commands.pause_now(self)

    def new_object(self) -> Workflow:
        """The object for a run of the body, which finds nothing that another run has kept in its own."""
        if self._has_run:
            cls = type(self.workflow)
            self.workflow = self.host.actor = cls.__new__(cls)
            vars(self.workflow).update(self.given)
            self.workflow.__init__()  # type: ignore[misc]
        self._has_run = True
        return self.workflow

    # The journal

    def note(self, event: journal.Event, record: Record | None = None, value: bytes | None = None, /, *,
             attempt: int | None = None, started: int | None = None, **detail: Any) -> Entry:  # fmt: skip
        """Add an entry on a step, or on the instance, as part of the open segment."""
        plain: dict[str, Any] = msgspec.to_builtins(detail) if detail else {}
        if record is None:
            return self.enter(event, None, attempt, None, started, value, plain)
        if event in FAILURES:
            plain["begun"] = self.history.positions  # by which a retry knows what was begun since
        self.host.divide()  # what led to it was in order, or it is not entered
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
        host = self.host
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
            self.errands.go_on()
        self.services.noted(host, entry)
        host.divide()
        if alone:
            host.ended_at_once(True)
        return entry

    def note_end(self, event: journal.Event, step: str | None = None, detail: dict[str, Any] | None = None) -> None:
        """Add an entry that ends what is under way."""
        self.enter(event, step, detail=detail)
        self.set_alarm()
        kin.see_to(self)
        self.host.node.followers.tell(self.host.address)

    def look_back(self) -> None:
        """Be as the journal is, should entries have been taken back."""
        rows = self.host.writes.rows
        if rows(journal.EXTENT)[0][1] != (self.history.seq or None):
            self.history.reload(journal.entries(rows(journal.ENTRIES)))
            self.alarm_us = -1  # whatever is set

    def stir(self) -> None:
        """Something has come that the body must see, also when a crash comes first."""
        if self.rested:
            self.rested = False
            self.host.writes.write(_CLEAR_RESTS, ())
        self.host.alarms.hold()

    def set_alarm(self) -> None:
        """Have the alarm run when the first wait is due."""
        deadlines.set_alarm(self)

    # Results too big for the journal

    @property
    def blobs(self) -> Path:
        """Where they are kept."""
        return blobs.folder_of(self.host.database.path)

    async def spill(self, encoded: bytes, what: str) -> str:
        """Keep a result in a file; its name. Raises LimitExceeded."""
        workflow, node = self.workflow, self.host.node
        check_blob(len(encoded), max(workflow.blob_bytes, workflow.result_bytes), what)
        warn_if_near(self.address, "blob_bytes", len(encoded), workflow.blob_bytes)
        name: str = await node.threads.call(partial(blobs.write, node.file_ops, self.blobs, encoded))
        return name

    async def kept(self, name: str) -> bytes:
        """A result that is kept in the file of this name. Raises InvalidValue."""
        content: bytes = await self.host.node.threads.call(partial(blobs.read, self.blobs, name))
        return content

    # What it is

    @property
    def status(self) -> str:
        """How it is, in a word."""
        return self.history.status(self.rests)

    @property
    def kept_status(self) -> str | None:
        """What the catalogue keeps: None before the instance is created."""
        return None if self.history.created is None else self.status

    @property
    def rests(self) -> bool:
        """Whether nothing of it can go on by itself, here or in the next process."""
        run = self.body.run
        return not self.put_off if run is None else run.waits.rests and not run.cut_off

    @property
    def born(self) -> int:
        """When the instance was first created, in microseconds: what tells it from those that had its id before it."""
        created = self.history.created
        assert created is not None
        return int(created.detail.get("born") or first_created(created))

    @property
    def identity(self) -> str:
        """What tells this instance from every other."""
        return f"{self.host.address}/{self.born}"

    def idempotency_key(self, step: str) -> str:
        """What tells this step of this run of this instance from every other."""
        return f"{self.identity}/{self.history.run}/{step}"

    def check_exists(self) -> None:
        """Raises InstanceNotFound when it was never created."""
        if self.history.created is None:
            raise InstanceNotFound(self.address)

    def check_unfinished(self, asked: str, instead: str) -> None:
        """Raises WrongStatus when it has ended."""
        if self.history.end is not None:
            raise WrongStatus(self.address, self.status, asked, instead)
