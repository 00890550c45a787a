"""What the entries of steps make of an instance's history: folds. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from .failure import Failure
from .journal import Entry
from .lifecycle import rollback_step_errored
from .retries import Settings
from .verdicts import close, orphan

if TYPE_CHECKING:
    from .history import History, Record


def _step_started(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.settings = _settings(entry)
    _undo(record, entry)


def _undo(record: Record, entry: Entry) -> None:
    if "undo" in entry.detail:
        record.undo = True


def _step_completed(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.done, record.value, record.failure, record.begun = True, entry.value, None, False
    record.attempts, detail = entry.attempt or 0, entry.detail
    record.blob, record.sensitive = detail.get("blob"), bool(detail.get("sensitive"))
    _undo(record, entry)
    _took(history, entry)
    history.shut(record)
    if history.inside:
        _forget_unfinished(history, record.key)


def _took(history: History, entry: Entry) -> None:
    took = entry.detail.get("took")
    if took is None and entry.started is not None:
        took = entry.at - entry.started
    history.executed += max(0, took or 0)


def _settings(entry: Entry) -> Settings | None:
    settings = entry.detail.get("settings")
    return None if settings is None else msgspec.convert(settings, Settings)


def _forget_unfinished(history: History, key: str) -> None:
    for inner in history.below(key):
        if not inner.done:
            orphan(history, [inner.key], rollback=False)
            if inner.kind == "do" and any(each.done for each in history.below(inner.key)):
                history.shut(inner)  # should what is around it be retried, it goes on behind these
            else:
                history.forget(inner)


def _failed(history: History, entry: Entry) -> Record:
    record = history.record(entry)
    record.attempts, record.begun = entry.attempt or 0, False
    record.failure = msgspec.convert(entry.detail["error"], Failure) if "error" in entry.detail else None
    history.positions = max(history.positions, entry.detail.get("begun", 0))
    _undo(record, entry)
    _took(history, entry)
    history.shut(record)
    return record


def _step_errored(history: History, entry: Entry) -> None:
    record = _failed(history, entry)
    record.done = True
    _forget_unfinished(history, record.key)


def _attempt_started(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.begun, record.settings = True, _settings(entry)
    _undo(record, entry)


def _attempt_errored(history: History, entry: Entry) -> None:
    record = _failed(history, entry)
    record.due = entry.detail["retry_at"]
    record.settings = _settings(entry)
    history.open[record.key] = record
    for inner in history.below(record.key):
        inner.past = True
        if inner.type is not None and not inner.done:  # it must not take an event that nobody waits for
            history.forget(inner)


def _sleep_started(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.due = entry.detail["until"]
    history.open[record.key] = record


def _sleep_completed(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.done = True
    history.shut(record)


def _wait_started(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.due, record.type = entry.detail["until"], entry.detail["type"]
    record.match = entry.detail.get("match")
    history.open[record.key] = record


def _wait_completed(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.done, record.event, record.value = True, entry.detail["event"], entry.value
    history.inbox.pop(entry.detail["event"], None)
    history.shut(record)


def _wait_timed_out(history: History, entry: Entry) -> None:
    record = _failed(history, entry)
    record.done = True


def _event_received(history: History, entry: Entry) -> None:
    history.events[entry.seq] = history.inbox[entry.seq] = entry
    history.event_ids[entry.detail["id"]] = None


def _value_recorded(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.done, record.value = True, entry.value
    close(history, record.key, entry.detail.get("closed", []))


def _undo_errored(history: History, entry: Entry) -> None:
    _step_errored(history, entry)
    rollback_step_errored(history, entry)


def _errand_done(history: History, entry: Entry) -> None:
    history.errands.pop(entry.detail["errand"], None)


OUTCOMES: dict[str, Callable[[Any, Entry], None]] = {
    "step_started": _step_started,
    "step_completed": _step_completed,
    "step_errored": _step_errored,
    "attempt_started": _attempt_started,
    "attempt_errored": _attempt_errored,
    "sleep_started": _sleep_started,
    "sleep_completed": _sleep_completed,
    "wait_started": _wait_started,
    "wait_completed": _wait_completed,
    "wait_timed_out": _wait_timed_out,
    "event_received": _event_received,
    "value_recorded": _value_recorded,
    "rollback_step_started": _step_started,
    "rollback_step_completed": _step_completed,
    "rollback_step_errored": _undo_errored,
    "rollback_attempt_errored": _attempt_errored,
    "alert_raised": _value_recorded,
    "errand_done": _errand_done,
}
