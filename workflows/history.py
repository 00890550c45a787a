"""What has happened to an instance so far: the fold of its journal. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from .failure import Failure
from .journal import Entry
from .retries import Settings

Status = Literal["queued", "running", "waiting", "paused", "complete", "errored", "terminated", "abandoned"]
FINISHED: frozenset[Status] = frozenset({"complete", "errored", "terminated", "abandoned"})


class Record(msgspec.Struct):
    """What has become of one step."""

    key: str
    position: int
    """In which order it was begun."""
    done: bool = False
    value: bytes | None = None
    failure: Failure | None = None
    """Of the last attempt."""
    attempts: int = 0
    """That have ended."""
    begun: bool = False
    """An attempt that must not be made twice has begun, and not ended."""
    settings: Settings | None = None
    due: int | None = None
    """When a sleep ends, a wait is given up, or the next attempt is made."""
    type: str | None = None
    """Of the event that it waits for."""
    match: dict[str, Any] | None = None
    event: int | None = None
    """The seq of the event that it got."""
    blob: str | None = None
    """Where the result is kept, when it is too big for a row."""
    past: bool = False
    """It stands in an attempt that failed: the next one need not come by here."""

    @property
    def kind(self) -> str:
        """What sort of step it is."""
        return self.key.rpartition("/")[2].partition(":")[0]


class History:
    """The state of one instance."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self.seq = 0
        self.created: Entry | None = None
        self.run = 1
        """Which run this is: restarting begins another."""
        self.started = False
        self.end: Entry | None = None
        self.records: dict[str, Record] = {}
        self.positions = 0
        """The highest that was given."""
        self.inside: dict[str, list[Record]] = {}
        """Steps that stand in another, by its key."""
        self.open: dict[str, Record] = {}
        """Those that wait for the time or for an event."""
        self.steps = 0
        """Steps done, or begun and recorded: what `steps_max` counts."""
        self.executed = 0
        """Microseconds that attempts took, without what they slept or waited."""
        self.diverged: Entry | None = None
        """Why the instance is paused: the code does not do what the journal has."""
        self.events: dict[int, Entry] = {}
        """Events that came, by seq."""
        self.inbox: dict[int, Entry] = {}
        """Those that nobody has taken."""
        self.event_ids: set[str] = set()

    def apply(self, entry: Entry) -> None:
        """Take one entry into account."""
        self.seq = entry.seq
        fold = _FOLDS.get(entry.event)
        if fold is not None:
            fold(self, entry)

    def status(self, resting: bool) -> Status:
        """How the instance is; `resting`: nothing of it can go on by itself."""
        if self.end is not None:
            return _ENDS[self.end.event]
        if self.diverged is not None:
            return "paused"
        if not self.started:
            return "queued"
        return "waiting" if resting else "running"

    def waits(self) -> list[Record]:
        """The steps that wait for the time or for an event, in the order in which they were begun."""
        return sorted(self.open.values(), key=_position)

    def due(self) -> int | None:
        """When the first of them is due."""
        dues = [each.due for each in self.open.values() if each.due is not None]
        if self.diverged is not None:
            dues.append(self.diverged.detail["again_at"])
        return min(dues, default=None)

    def record(self, entry: Entry) -> Record:
        """The record of the entry's step."""
        assert entry.step is not None
        record = self.records.get(entry.step)
        if record is None:
            position = entry.position or 0
            record = self.records[entry.step] = Record(entry.step, position)
            self.positions = max(self.positions, position)
            parent, _, own = entry.step.rpartition("/")
            self.steps += own.startswith("do:")
            if parent:
                self.inside.setdefault(parent, []).append(record)
                around = self.records.get(parent)
                if around is not None and around.due is not None:  # its next attempt is under way
                    _close(self, around)
        return record

    def came(self, record: Record) -> None:
        """The time of the step's next attempt has come."""
        _close(self, record)

    def below(self, key: str) -> Iterator[Record]:
        """The steps that stand in that one, however deep."""
        for record in self.inside.get(key, ()):
            yield record
            yield from self.below(record.key)

    # Which event a wait gets

    def event_for(self, type: str, match: dict[str, Any] | None) -> Entry | None:
        """The first event that a wait for this may take, if there is one."""
        return next((event for event in self.inbox.values() if fits(event, type, match)), None)

    def wait_for(self, event: Entry) -> Record | None:
        """The wait that gets this event, if one wants it: the one that has waited longest."""
        wanting = (each for each in self.waits() if each.type is not None and fits(event, each.type, each.match))
        return next(wanting, None)


def fits(event: Entry, type: str, match: dict[str, Any] | None) -> bool:
    """Whether the event is of the type, with all that `match` asks for in its payload."""
    if event.detail["type"] != type:
        return False
    fields = event.detail.get("fields", {})
    return all(name in fields and _same(fields[name], value) for name, value in (match or {}).items())


def _same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _position(record: Record) -> int:
    return record.position


_ENDS: dict[str, Status] = {
    "workflow_completed": "complete",
    "workflow_errored": "errored",
    "workflow_terminated": "terminated",
    "workflow_abandoned": "abandoned",
}


def _queued(history: History, entry: Entry) -> None:
    history.created = entry


def _started(history: History, entry: Entry) -> None:
    history.started = True


def _ended(history: History, entry: Entry) -> None:
    history.end = entry


def _retried(history: History, entry: Entry) -> None:
    """The step that failed the instance is tried anew, with all its attempts."""
    history.end = None
    failed = history.records.get(entry.step or "")
    if failed is None:
        return
    for record in (failed, *history.below(failed.key)):
        if record.failure is not None:
            record.done, record.attempts, record.failure, record.type = False, 0, None, None


def _diverged(history: History, entry: Entry) -> None:
    history.diverged = entry


def _goes_on(history: History, entry: Entry) -> None:
    history.diverged = None


def _step_started(history: History, entry: Entry) -> None:
    history.record(entry).settings = _settings(entry)


def _step_completed(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.done, record.value, record.failure, record.begun = True, entry.value, None, False
    record.attempts, record.blob = entry.attempt or 0, entry.detail.get("blob")
    _took(history, entry)
    _close(history, record)
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


def _close(history: History, record: Record) -> None:
    """The step waits for nothing."""
    record.due = None
    history.open.pop(record.key, None)


def _forget(history: History, record: Record) -> None:
    """Nobody is there any more who waits for the step: should one come, it begins anew."""
    _close(history, record)
    history.records.pop(record.key, None)
    history.inside[record.key.rpartition("/")[0]].remove(record)


def _forget_unfinished(history: History, key: str) -> None:
    for inner in list(history.below(key)):
        if not inner.done:
            _forget(history, inner)


def _failed(history: History, entry: Entry) -> Record:
    record = history.record(entry)
    record.attempts, record.begun = entry.attempt or 0, False
    record.failure = msgspec.convert(entry.detail["error"], Failure) if "error" in entry.detail else None
    _took(history, entry)
    _close(history, record)
    return record


def _step_errored(history: History, entry: Entry) -> None:
    record = _failed(history, entry)
    record.done = True
    _forget_unfinished(history, record.key)


def _attempt_started(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.begun, record.settings = True, _settings(entry)


def _attempt_errored(history: History, entry: Entry) -> None:
    record = _failed(history, entry)
    record.due = entry.detail["retry_at"]
    record.settings = _settings(entry)
    history.open[record.key] = record
    for inner in list(history.below(record.key)):
        inner.past = True
        if inner.type is not None and not inner.done:  # it must not take an event that nobody waits for
            _forget(history, inner)


def _sleep_started(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.due = entry.detail["until"]
    history.open[record.key] = record


def _sleep_completed(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.done = True
    _close(history, record)


def _wait_started(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.due, record.type = entry.detail["until"], entry.detail["type"]
    record.match = entry.detail.get("match")
    history.open[record.key] = record


def _wait_completed(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.done, record.event, record.value = True, entry.detail["event"], entry.value
    history.inbox.pop(entry.detail["event"], None)
    _close(history, record)


def _wait_timed_out(history: History, entry: Entry) -> None:
    record = _failed(history, entry)
    record.done = True


def _event_received(history: History, entry: Entry) -> None:
    history.events[entry.seq] = history.inbox[entry.seq] = entry
    history.event_ids.add(entry.detail["id"])


def _value_recorded(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.done, record.value = True, entry.value


_FOLDS: dict[str, Callable[[History, Entry], None]] = {
    "workflow_queued": _queued,
    "workflow_started": _started,
    "workflow_completed": _ended,
    "workflow_errored": _ended,
    "workflow_terminated": _ended,
    "workflow_abandoned": _ended,
    "workflow_retried": _retried,
    "workflow_paused": _diverged,
    "workflow_running": _goes_on,
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
}
