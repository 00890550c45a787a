"""The alarms of one actor: rows of its own file, changed in its own transactions.

- Never early, at least once. A run's row goes (or moves to its next time) in the transaction of the handler's last
  segment, so a run either has happened with all its effects or is still owed (as Durable Objects: deferred
  deletion).
- A failed run is retried 6 times, 2·2ⁿ seconds apart; how far it has come is in the row, so a restart forgets nothing.
- The catalogue must never believe that an actor is due later than its file says. So before the first COMMIT that
  makes an actor due earlier than the catalogue knows, the actor enters the durable active set; from then until it is
  evicted no alarm costs the catalogue anything (as Durable Objects: the index first for earlier, last for later).
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from .alarm_index import ACTIVE
from .clock import Span
from .errors import DatabaseFailure, LimitExceeded
from .handlers import Handler
from .mailbox import Message
from .names import check_name
from .schedule import RETRIES_MAX, due_us, moment, next_due, recurrence, retry_seconds
from .schema import OUTCOMES_DDL

if TYPE_CHECKING:
    from .host import Host

log = logging.getLogger("z0.actors")

UNNAMED = ""
_EXTENT = "SELECT min(due), max(id) FROM z0_alarms"
_CURRENT = "SELECT id, due, scheduled, recurs, retries, error FROM z0_alarms WHERE name = ? ORDER BY id DESC LIMIT 1"
_COUNT = "SELECT count(*) FROM z0_alarms"
_FIRST_DUE = (
    "SELECT name, id, scheduled, retries, due FROM z0_alarms WHERE due <= ? ORDER BY due, name, id LIMIT 1"
)  # fmt: skip
_INSERT = "INSERT INTO z0_alarms(name, id, due, scheduled, recurs) VALUES(?, ?, ?, ?, ?)"
_RESET = "UPDATE z0_alarms SET due = ?, scheduled = ?, recurs = ?, retries = 0, error = NULL WHERE name = ? AND id = ?"
_RETRY = "UPDATE z0_alarms SET due = ?, retries = ?, error = ? WHERE name = ? AND id = ?"
_RECURS = "SELECT recurs FROM z0_alarms WHERE name = ? AND id = ?"
_ONCE = "UPDATE z0_alarms SET recurs = NULL WHERE name = ? AND id = ?"
_REMOVE = "DELETE FROM z0_alarms WHERE name = ? AND id = ?"
_REMOVE_ALL = "DELETE FROM z0_alarms WHERE name = ? AND id <> ?"
_OUTCOME = (
    "INSERT INTO z0_alarm_outcomes VALUES(?1, ?2, 1, ?3, ?4, ?5, ?6) ON CONFLICT(name, outcome) DO UPDATE SET"
    " times = times + 1, scheduled = ?3, ended = ?4, retries = ?5, error = ?6"
)
_OUTCOMES_TRIMMED = (
    "DELETE FROM z0_alarm_outcomes WHERE ended <"
    " (SELECT ended FROM z0_alarm_outcomes ORDER BY ended DESC LIMIT 1 OFFSET ?)"
)
_OUTCOMES_MAX, _TRIM_EVERY = 1_000, 100


class AlarmInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What an alarm handler is told of its run."""

    scheduled_time: datetime
    """When it was to run first; aware, UTC."""
    retry_count: int
    """Failed runs before this one."""
    name: str | None
    """None: the unnamed alarm."""

    @property
    def is_retry(self) -> bool:
        """Whether an earlier run failed."""
        return self.retry_count > 0


class Run(msgspec.Struct, frozen=True):
    """One run of an alarm."""

    name: str
    id: int
    scheduled: int
    retries: int


class Alarms:
    """When one actor wakes, and the run that is under way. One run at a time."""

    __slots__ = (
        "_host",
        "_last_id",
        "_marking",
        "_outcomes",
        "busy",
        "due",
        "given_up",
        "indexed",
        "running",
        "touched",
    )

    def __init__(self, host: Host) -> None:
        """Nothing is known yet."""
        self._host = host
        self._last_id = 0
        self._marking: asyncio.Future[None] | None = None
        self._outcomes = 0
        self.due: int | None = None
        """When the next run is due, as of the last commit."""
        self.running: Run | None = None
        self.given_up: Run | None = None
        """The run that abort() ended for good, which its file does not say yet."""
        self.touched = False
        """The open turn may have changed `due`."""
        self.busy = False
        """Somebody runs what is due."""
        self.indexed: int | None = None
        """A time at or before which the catalogue will look for the actor, durably; None: no such time is known."""

    def open(self) -> None:
        """Learn from the file when the actor is due."""
        row = self._host.database.row(_EXTENT)
        assert row is not None
        self.due, self._last_id = row[0], row[1] or 0

    # What the actor does

    def set(self, name: str | None, when: datetime | Span | None, recurs: str | None) -> None:
        """Set the alarm of that name, in place of the one that was set; a run under way keeps its retries."""
        host, writes = self._host, self._host.writes
        if host.kind.alarm is None:
            raise TypeError(f"{host.kind.cls.__name__} has no `async def alarm(self, info)` that an alarm could run")
        now = host.node.clock.now_us()
        due = due_us(when, now) if when is not None else next_due(recurs or "", now, now)
        name = _checked(name)
        current = self._current(name)
        if current is not None and not self._is_running(name, current[0]):
            if current[1:4] == (due, due, recurs):
                return
            self._record(Run(name, current[0], current[2], current[4]), "replaced", current[5])
            host.node.metrics.alarms["replaced"] += 1
            writes.write(_RESET, (due, due, recurs, name, current[0]))
        else:
            self._refuse_too_many()
            if current is not None and current[3] is not None:
                writes.write(_ONCE, (name, current[0]))
            self._last_id += 1
            writes.write(_INSERT, (name, self._last_id, due, due, recurs))
        self._changed(due)

    def get(self, name: str | None) -> datetime | None:
        """When the alarm of that name is to run; not the run that is under way."""
        current = self._current(_checked(name))
        if current is None:
            return None
        if not self._is_running(_checked(name), current[0]):
            return moment(current[2])
        return None if current[3] is None else moment(next_due(current[3], current[2], self._now_us()))

    def delete(self, name: str | None) -> None:
        """Remove the alarm of that name, and stop its recurrence; a run that is under way goes on."""
        name = _checked(name)
        current = self._current(name)
        if current is None:
            return
        running = self.running.id if self.running is not None and self.running.name == name else 0
        self._host.writes.write(_REMOVE_ALL, (name, running))
        if running:
            self._host.writes.write(_ONCE, (name, running))
        self._changed(None)

    def _current(self, name: str) -> tuple[Any, ...] | None:
        rows = self._host.writes.rows(_CURRENT, name)
        return rows[0] if rows else None

    def _is_running(self, name: str, id: int) -> bool:
        running = self.running
        return running is not None and (running.name, running.id) == (name, id)

    def _refuse_too_many(self) -> None:
        most = self._host.node.limits.alarms_per_actor
        if self._host.writes.rows(_COUNT)[0][0] >= most:
            raise LimitExceeded(
                f"{self._host.address} has {most} alarms (alarms_per_actor); delete some, or allow more"
            )

    def _now_us(self) -> int:
        return self._host.node.clock.now_us()

    # The catalogue

    def _changed(self, due: int | None) -> None:
        """The open turn makes the actor due at `due`, or later than before."""
        self.touched = True
        if due is not None and (self.indexed is None or due < self.indexed):
            self._host.unindexed = True
            self._mark()  # its sync runs beside what the handler does until its turn ends

    def _mark(self) -> asyncio.Future[None]:
        if self._marking is None:
            self._marking = self._host.node.alarm_index.mark(self._host.address)
            self._marking.add_done_callback(self._marked)
        return self._marking

    def commit_when_marked(self) -> None:
        """End the turn once the catalogue knows, durably, that the actor may be due."""
        self._mark()

    def _marked(self, marking: asyncio.Future[None]) -> None:
        self._marking = None
        host, error = self._host, marking.exception()
        if host.dead:
            return
        if error is not None:
            host.storage_failed(DatabaseFailure(f"the catalogue cannot note that an alarm is set: {error}"))
            return
        self.indexed = ACTIVE
        host.unindexed = False
        host.commit()

    def committed(self) -> None:
        """Learn when the actor is due now."""
        self.touched = False
        host = self._host
        try:
            row = host.database.row(_EXTENT)
        except DatabaseFailure as failure:
            host.storage_failed(failure)
            return
        self.due = row[0] if row else None
        host.node.wakeups.expect(host)

    # Runs

    async def run(self) -> None:
        """Run what is due, one after another. Raises what keeps the actor from it: a reset, a failed opening."""
        host = self._host
        try:
            while await self._run_first():
                if self.due is None or self.due > self._now_us() or host.node.draining or host.dead:
                    break
        finally:
            self.busy = False
            if host.is_open:
                host.node.wakeups.expect(host)
                host.node.rested(host)

    async def _run_first(self) -> bool:
        """Run what is due first; whether something was."""
        host, alarm = self._host, self._host.kind.alarm
        assert alarm is not None
        try:
            outcome = await self._send(Handler("alarm", _run_alarm, alarm.suspends))
        except Exception as error:
            run = self.running
            if run is None or host.dead:  # it never began, or was cut off: no fault of the handler's
                raise
            outcome = await self._send(Handler("alarm", _note_failure, False), run, error)
        finally:
            self.running = None
        if outcome is not None:
            host.node.metrics.alarms[outcome] += 1
        return outcome is not None

    async def _send(self, handler: Handler, *args: object) -> Any:
        """A message of our own: beside the mailbox's limits, for there is one at a time."""
        host = self._host
        if host.dead:
            raise host.reset_error()
        reply: asyncio.Future[Any] = host.node.loop.create_future()
        host.delivery.accept(Message(handler, args, {}, 0, Context(), reply), bounded=False)
        return await reply

    def begin(self) -> Run | None:
        """Take the first run that is due, in the segment that begins it."""
        node, now = self._host.node, self._now_us()
        rows = self._host.writes.rows(_FIRST_DUE, now)
        if not rows:
            return None
        *run, due = rows[0]
        node.wakeups.began(self._host.address)
        node.metrics.alarm_lateness.add(now - due)
        self.running = Run(*run)
        return self.running

    def give_up(self) -> None:
        """The run that is under way ends with this incarnation, and is owed no more."""
        self.given_up = self.running

    async def abandon(self, run: Run) -> None:
        """Have the file say that a run of a former incarnation is owed no more. Raises as `run`."""
        await self._send(Handler("alarm", _abandon, False), run)
        self._host.node.metrics.alarms["abandoned"] += 1

    def fail(self, run: Run, error: BaseException) -> str:
        """The run failed, and its last segment was taken back: retry it, or give it up; which of the two."""
        text = f"{type(error).__name__}: {error}"
        address, name = self._host.address, run.name or "alarm"
        if run.retries >= RETRIES_MAX:
            log.error("%s of %s failed %d times and is given up", name, address, run.retries + 1, exc_info=error)
            self.end(run, "abandoned", text)
            return "abandoned"
        delay = retry_seconds(run.retries + 1, self._host.node.clock.random)
        log.warning("%s of %s failed and is run again in %.1f s", name, address, delay, exc_info=error)
        due = self._now_us() + round(delay * 1e6)
        self._record(run, "retried", text)
        self._host.writes.write(_RETRY, (due, run.retries + 1, text, run.name, run.id))
        self._changed(due)
        return "retried"

    def end(self, run: Run, outcome: str, error: str | None) -> None:
        """Go on from the run to the alarm's next time, or remove it; part of the open segment."""
        writes = self._host.writes
        rows = writes.rows(_RECURS, run.name, run.id)
        if not rows:
            return  # delete_all() took it
        recurs = rows[0][0]
        self._record(run, outcome, error)
        if recurs is None:
            writes.write(_REMOVE, (run.name, run.id))
            self._changed(None)
        else:
            due = next_due(recurs, run.scheduled, self._now_us())
            writes.write(_RESET, (due, due, recurs, run.name, run.id))
            self._changed(due)

    def _record(self, run: Run, outcome: str, error: str | None) -> None:
        writes = self._host.writes
        writes.write(OUTCOMES_DDL, ())
        writes.write(_OUTCOME, (run.name, outcome, run.scheduled, self._now_us(), run.retries, error))
        self._outcomes += 1
        if not self._outcomes % _TRIM_EVERY:
            writes.write(_OUTCOMES_TRIMMED, (_OUTCOMES_MAX,))


def _checked(name: str | None) -> str:
    return UNNAMED if name is None else check_name(name, "alarm name")


def recurs_of(every: Span | None, cron: str | None, timezone: str, when: object) -> str | None:
    """How an alarm with these arguments recurs. Raises TypeError when there is neither a time nor a recurrence."""
    if when is None and every is None and cron is None:
        raise TypeError("when is the alarm to run? Give a time or a span, every=... or cron=...")
    return recurrence(every, cron, timezone)


async def _run_alarm(actor: Any) -> str | None:
    host: Host = actor._z0_host
    run = host.alarms.begin()
    if run is None:
        return None
    info = AlarmInfo(scheduled_time=moment(run.scheduled), retry_count=run.retries, name=run.name or None)
    alarm = host.kind.alarm
    assert alarm is not None
    if alarm.suspends:
        await _limited(host, alarm.function(actor, info))
    else:
        await alarm.function(actor, info)
    host.alarms.end(run, "ok", None)
    return "ok"


async def _limited(host: Host, running: Any) -> None:
    """Wait for the handler, within its time limit (as Durable Objects: 15 minutes)."""
    limit, task = host.node.limits.alarm_seconds, asyncio.current_task()
    assert task is not None
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = host.node.clock.call_later(limit, expire)
    try:
        await running
    except asyncio.CancelledError:
        if not expired:
            raise
        task.uncancel()
        raise LimitExceeded(f"alarm() of {host.address} took more than {limit:g} seconds (alarm_seconds)") from None
    finally:
        timer.cancel()


async def _abandon(actor: Any, run: Run) -> None:
    host: Host = actor._z0_host
    host.alarms.end(run, "abandoned", "abort(retry_alarm=False)")


async def _note_failure(actor: Any, run: Run, error: BaseException) -> str:
    host: Host = actor._z0_host
    return host.alarms.fail(run, error)
