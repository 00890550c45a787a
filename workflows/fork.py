"""The entries that make another instance as this one was before a step. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from .history import History, Record
from .journal import UNDOABLE, Entry, Event
from .keys import around, kind_of

_DONE: dict[str, Event] = {
    "do": "step_completed",
    "workflow": "step_completed",
    "sleep": "sleep_completed",
    "wait": "wait_completed",
    "value": "value_recorded",
    "patch": "value_recorded",
    "all": "value_recorded",
    "race": "value_recorded",
    "alert": "alert_raised",
}


def entries_before(history: History, target: Record) -> list[Entry]:
    """What was done before the step was begun, as if each had been done at once; what is under way is left out."""
    entries: list[Entry] = []
    reopened = set(around(target.key))
    before = [each for each in history.records.values() if each.position < target.position]
    done = {each.key for each in before if each.done and each.key not in reopened}
    for record in sorted(before, key=lambda each: each.position):
        kind = kind_of(record.key)
        if record.key in reopened:
            if kind == "do":
                entries.append(Entry(0, 0, "step_started", record.key, position=record.position))
        elif record.key in done and kind in _DONE and not _is_inside(record.key, done):
            if kind == "wait" and record.event is not None:
                entries.append(history.events[record.event])
            entries.append(_entry(kind, record))
    return entries


def _is_inside(key: str, done: set[str]) -> bool:
    """Whether the result of a step around it makes this one's superfluous."""
    return any(each in done and kind_of(each) in ("do", "workflow") for each in around(key))


def _entry(kind: str, record: Record) -> Entry:
    event, detail = _DONE[kind], dict[str, Any]()
    if record.failure is not None:
        event = "wait_timed_out" if kind == "wait" else "step_errored"
        detail["error"] = msgspec.to_builtins(record.failure)
    elif kind == "wait":
        detail["event"] = record.event
    elif kind == "sleep":
        detail["until"] = record.due
    if record.blob is not None:
        detail["blob"] = record.blob
    if record.sensitive:
        detail["sensitive"] = True
    if record.undo:
        detail |= UNDOABLE
    return Entry(0, 0, event, record.key, record.attempts or None, record.position, None, record.value, detail)
