"""The journal of an instance: one append-only table, which is the only truth. Everything else is a fold of it.

    seq | at | event | step | attempt | position | started | value | detail

`step` is the step's key: kind, name and occurrence, below the step that it stands in ("do:charge#1/sleep:wait#1").
What stands before the floor (in z0_meta) belongs to earlier runs, counts no more, and is removed by and by.
`position` says in which order steps were begun. `value` is a stored value (msgpack), `detail` is JSON for readers and
for the fold. Times are in microseconds since the epoch. A step that succeeds at once is one row.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec.structs import astuple

from z0.actors.clock import datetime_of
from z0.actors.writes import Writes

from .values import REDACTED

Event = Literal[
    "workflow_queued",
    "workflow_started",
    "workflow_completed",
    "workflow_errored",
    "workflow_terminated",
    "workflow_abandoned",
    "workflow_retried",
    "workflow_waiting_for_pause",
    "workflow_paused",
    "workflow_running",
    "workflow_resumed",
    "workflow_restarted",
    "workflow_continued",
    "trace_begun",
    "step_started",
    "step_completed",
    "step_errored",
    "attempt_started",
    "attempt_errored",
    "attempt_ignored",
    "sleep_started",
    "sleep_completed",
    "wait_started",
    "wait_completed",
    "wait_timed_out",
    "event_received",
    "alert_raised",
    "errand_owed",
    "errand_done",
    "value_recorded",
    "rollback_started",
    "rollback_completed",
    "rollback_errored",
    "rollback_step_started",
    "rollback_step_completed",
    "rollback_step_errored",
    "rollback_attempt_started",
    "rollback_attempt_errored",
    "rollback_attempt_ignored",
    "child_started",
    "child_told",
    "parent_told",
    "parent_asked",
]

_REFUSE = "SELECT RAISE(ABORT, 'a journal is append-only')"
JOURNAL_SCHEMA = (
    "CREATE TABLE z0_journal(seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, event TEXT NOT NULL, step TEXT,"
    " attempt INTEGER, position INTEGER, started INTEGER, value BLOB, detail TEXT)",
    f"CREATE TRIGGER z0_journal_no_update BEFORE UPDATE ON z0_journal BEGIN {_REFUSE}; END",
    "CREATE TRIGGER z0_journal_no_delete BEFORE DELETE ON z0_journal"
    f" WHEN OLD.seq >= coalesce((SELECT value FROM z0_meta WHERE key = 'floor'), 0) BEGIN {_REFUSE}; END",
)
_INSERT = "INSERT INTO z0_journal VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)"
SET_FLOOR = "INSERT OR REPLACE INTO z0_meta VALUES('floor', ?)"
PURGE = "DELETE FROM z0_journal WHERE seq < ?"
EXTENT = "SELECT min(seq), max(seq), (SELECT value FROM z0_meta WHERE key = 'floor') FROM z0_journal"
_LIVING = " WHERE seq >= coalesce((SELECT value FROM z0_meta WHERE key = 'floor'), 0)"
_COLUMNS = "seq, at, event, step, attempt, position, started, value, detail"
ENTRIES = f"SELECT {_COLUMNS} FROM z0_journal{_LIVING} ORDER BY seq"
ENTRIES_AFTER = f"SELECT {_COLUMNS} FROM z0_journal{_LIVING} AND seq > ? ORDER BY seq LIMIT ?"

UNDOABLE: dict[str, Any] = {"undo": True}
"""Detail of a step's entries: it has a rollback handler."""

_json = msgspec.json.Encoder().encode
_plain = msgspec.json.Decoder(dict[str, Any]).decode


class Entry(msgspec.Struct, frozen=True):
    """One row."""

    seq: int
    at: int
    event: Event
    step: str | None = None
    attempt: int | None = None
    position: int | None = None
    started: int | None = None
    value: bytes | None = None
    detail: dict[str, Any] = {}

    @property
    def created_at(self) -> datetime:
        """When the instance was created that begins with this entry; of a fork, the one that it was made from."""
        return datetime_of(self.detail.get("forked_at", self.at))

    @property
    def scheduled(self) -> datetime | None:
        """When a calendar wanted the instance that begins with this entry."""
        schedule = self.detail.get("schedule")
        return None if schedule is None else datetime_of(schedule["at"])


def entries(rows: Iterable[tuple[Any, ...]]) -> list[Entry]:
    """Rows of the table, as they are selected by `ENTRIES`."""
    return [_entry(*row) for row in rows]


def redacted(entry: Entry) -> Entry:
    """The entry as readers are shown it."""
    hidden = entry.value is not None and entry.detail.get("sensitive")
    return msgspec.structs.replace(entry, value=REDACTED) if hidden else entry


def _entry(
    seq: int,
    at: int,
    event: Event,
    step: str | None,
    attempt: int | None,
    position: int | None,
    started: int | None,
    value: bytes | None,
    detail: str | None,
) -> Entry:
    return Entry(seq, at, event, step, attempt, position, started, value, {} if detail is None else _plain(detail))


def write(writes: Writes, entry: Entry, *, alone: bool = False) -> None:
    """Add a row, as a part of the open segment; or `alone`: as a turn by itself, durable on return."""
    detail = _json(entry.detail).decode() if entry.detail else None
    add = writes.write_alone if alone else writes.write_late
    add(_INSERT, (*astuple(entry)[:8], detail))
