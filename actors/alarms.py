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
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from .alarm_index import ACTIVE
from .alarm_runs import AlarmRuns, Run
from .clock import FIRST_US, LAST_US, Span, datetime_of
from .database import Row, Value
from .errors import DatabaseFailure, LimitExceeded, NotADatabase, QueryError
from .names import check_name
from .schedule import due_us, next_due, recurrence
from .schema import OUTCOMES_DDL

if TYPE_CHECKING:
    from .host import Host

UNNAMED = ""
Write = Callable[[str, Sequence[Value]], None]
_DUE = "SELECT min(due) FROM z0_alarms"
_EXTENT = (  # and whether a row is damaged: for a file that comes from outside, not for what was just written
    "SELECT min(due), max(id), total(typeof(due) || typeof(scheduled) || typeof(id) || typeof(retries) || typeof(name)"
    f" <> 'integerintegerintegerintegertext' OR max(due, scheduled) > {LAST_US} OR min(due, scheduled) < {FIRST_US})"
    " FROM z0_alarms"
)
_CURRENT = "SELECT id, due, scheduled, recurs, retries, error FROM z0_alarms WHERE name = ? ORDER BY id DESC LIMIT 1"
_COUNT = "SELECT count(*) FROM z0_alarms"
_INSERT = "INSERT INTO z0_alarms(name, id, due, scheduled, recurs) VALUES(?, ?, ?, ?, ?)"
_RESET = "UPDATE z0_alarms SET due = ?, scheduled = ?, recurs = ?, retries = 0, error = NULL WHERE name = ? AND id = ?"
_REPLACE = _RESET.replace("SET", "SET id = ?,")
_RETRY = "UPDATE z0_alarms SET due = ?, retries = ?, error = ? WHERE name = ? AND id = ?"
_OWED = "SELECT recurs FROM z0_alarms WHERE name = ? AND id = ? AND scheduled = ?"
_ONCE = "UPDATE z0_alarms SET recurs = NULL WHERE name = ? AND id = ?"
_REMOVE = "DELETE FROM z0_alarms WHERE name = ? AND id = ?"
_REMOVE_OTHERS = "DELETE FROM z0_alarms WHERE name = ? AND id <> ?"
_REMOVE_ALL = "DELETE FROM z0_alarms"
_OUTCOME = (
    "INSERT INTO z0_alarm_outcomes VALUES(?1, ?2, 1, ?3, ?4, ?5, ?6) ON CONFLICT(name, outcome) DO UPDATE SET"
    " times = times + 1, scheduled = ?3, ended = ?4, retries = ?5, error = ?6"
)
_OUTCOMES_TRIMMED = (
    "DELETE FROM z0_alarm_outcomes WHERE ended <"
    " (SELECT ended FROM z0_alarm_outcomes ORDER BY ended DESC LIMIT 1 OFFSET ?)"
)
_OUTCOMES_MAX, _TRIM_EVERY = 1_000, 100


class Alarms:
    """The alarms that one actor has set."""

    __slots__ = ("_host", "_last_id", "_marking", "_outcomes", "due", "indexed", "runs", "touched")

    def __init__(self, host: Host) -> None:
        """Nothing is known yet."""
        self._host = host
        self._last_id = 0
        self._marking: asyncio.Future[None] | None = None
        self._outcomes = 0
        self.runs = AlarmRuns(host, self)
        self.due: int | None = None
        """When the next run is due, as of the last commit."""
        self.touched = False
        """The open turn may have changed `due`."""
        self.indexed: int | None = None
        """A time at or before which the catalogue will look for the actor, durably; None: no such time is known."""

    def open(self) -> None:
        """Learn from the file when the actor is due. Raises DatabaseFailure."""
        due, last, damaged = self._host.database.rows(_EXTENT)[0]
        if damaged:
            raise NotADatabase("a row of z0_alarms is damaged")
        self.due, self._last_id = due, last or 0

    # What the actor does

    def set(self, name: str | None, when: datetime | Span | None, recurs: str | None, unconfirmed: bool) -> None:
        """Set the alarm of that name, in place of the one that was set; a run under way keeps its retries."""
        host, write = self._host, self._host.writes.writer(unconfirmed=unconfirmed)
        if host.kind.alarm is None:
            raise TypeError(f"{host.kind.cls.__name__} has no `async def alarm(self, info)` that an alarm could run")
        now = host.node.clock.now_us()
        due = due_us(when, now) if when is not None else next_due(recurs or "", now, now)
        name = _checked(name)
        current = self._current(name)
        id = self._last_id + 1  # a new one, so that the end of a former run cannot be taken for this one's
        if current is not None and not self._is_running(name, current[0]):
            if current[1:4] == (due, due, recurs):
                return
            self._record(Run(name, current[0], current[2], current[4]), "replaced", current[5], write)
            host.node.metrics.alarms["replaced"] += 1
            write(_REPLACE, (id, due, due, recurs, name, current[0]))
        else:
            self._refuse_too_many()
            if current is not None and current[3] is not None:
                write(_ONCE, (name, current[0]))
            write(_INSERT, (name, id, due, due, recurs))
        self._last_id = id
        self._changed(due)

    def get(self, name: str | None) -> datetime | None:
        """When the alarm of that name is to run; not the run that is under way."""
        current = self._current(_checked(name))
        if current is None:
            return None
        if not self._is_running(_checked(name), current[0]):
            return datetime_of(current[2])
        return None if current[3] is None else datetime_of(next_due(current[3], current[2], self._now_us()))

    def delete(self, name: str | None, unconfirmed: bool) -> None:
        """Remove the alarm of that name, and stop its recurrence; a run that is under way goes on."""
        name, write = _checked(name), self._host.writes.writer(unconfirmed=unconfirmed)
        current = self._current(name)
        if current is None:
            return
        run = self.runs.running
        running = run.id if run is not None and run.name == name else 0
        write(_REMOVE_OTHERS, (name, running))
        if running:
            write(_ONCE, (name, running))
        self._changed(None)

    def delete_all(self) -> None:
        """Remove every alarm; a run that is under way is owed no more."""
        self._host.writes.write(_REMOVE_ALL, ())
        self._changed(None)

    def _current(self, name: str) -> Row | None:
        return self._host.writes.row(_CURRENT, name)

    def _is_running(self, name: str, id: int) -> bool:
        running = self.runs.running
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
            self.mark()  # its sync runs beside what the handler does until its turn ends

    def hold(self) -> None:
        """Have the actor looked for after a crash, from the open turn on, whatever alarms it has: work is under way."""
        self._changed(self._now_us())

    def mark(self) -> None:
        """Have the catalogue note, durably, that the actor may be due; then the open turn is ended."""
        if self._marking is None:
            self._marking = self._host.node.alarm_index.mark(self._host.address)
            self._marking.add_done_callback(self._marked)

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
            (self.due,) = host.database.rows(_DUE)[0]
        except DatabaseFailure as failure:
            host.storage_failed(failure)
            return
        host.node.wakeups.expect(host)

    # The end of a run: part of the open segment

    def retry(self, run: Run, due: int, error: str) -> None:
        """The run failed, and is to be made again at `due`."""
        self._record(run, "retried", error)
        self._host.writes.write(_RETRY, (due, run.retries + 1, error, run.name, run.id))
        self._changed(due)

    def owes(self, run: Run) -> bool:
        """Whether the run is still to be ended: neither was it, nor was everything deleted, nor the alarm set anew."""
        return self._owed(run) is not None

    def _owed(self, run: Run) -> Row | None:
        return self._host.writes.row(_OWED, run.name, run.id, run.scheduled)

    def end(self, run: Run, outcome: str, error: str | None = None) -> None:
        """The run is over: go on to the alarm's next time, or remove it."""
        writes = self._host.writes
        row = self._owed(run)
        if row is None:
            return
        recurs = row[0]
        due = None if recurs is None else next_due(recurs, run.scheduled, self._now_us())
        self._record(run, outcome, error)
        if due is None:
            writes.write(_REMOVE, (run.name, run.id))
        else:
            writes.write(_RESET, (due, due, recurs, run.name, run.id))
        self._changed(due)

    def _record(self, run: Run, outcome: str, error: str | None, write: Write | None = None) -> None:
        write = write or self._host.writes.write
        row = (run.name, outcome, run.scheduled, self._now_us(), run.retries, error)
        try:
            write(_OUTCOME, row)
        except QueryError:  # the file was made when its class had no alarms
            write(OUTCOMES_DDL, ())
            write(_OUTCOME, row)
        self._outcomes += 1
        if not self._outcomes % _TRIM_EVERY:
            write(_OUTCOMES_TRIMMED, (_OUTCOMES_MAX,))


def _checked(name: str | None) -> str:
    return UNNAMED if name is None else check_name(name, "alarm name")


def recurs_of(every: Span | None, cron: str | None, timezone: str, when: object) -> str | None:
    """How an alarm with these arguments recurs. Raises TypeError when there is neither a time nor a recurrence."""
    if when is None and every is None and cron is None:
        raise TypeError("when is the alarm to run? Give a time or a span, every=... or cron=...")
    return recurrence(every, cron, timezone)
