"""What pausing, restarting, rolling back and children make of an instance's history: folds of their entries. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from .failure import Failure
from .journal import Entry, Event
from .keys import around, is_below, key_of, unescaped
from .verdicts import decided, orphan, reopen

if TYPE_CHECKING:
    from .history import History

Outcome = Literal["running", "complete", "failed"]
EVENT_IDS_KEPT = 1_000
TERMINATED = "z0:Terminated"
"""Says in the place of an error's type that a rollback was ended by somebody."""
_KEPT = ("origin", "groups", "priority", "schedule", "born")  # of the first run's creation, by all that follow


class Child(msgspec.Struct, frozen=True):
    """The instance that a step waits for."""

    namespace: str
    id: str
    outlives: bool = False
    """It goes on when nobody waits for it any more."""


class Parent(msgspec.Struct, frozen=True):
    """The step that waits for an instance."""

    namespace: str
    id: str
    step: str
    again: int = 0
    """How often the parent was told to try this step anew."""
    created: int = 0
    """When the parent was first created; 0: that was not kept."""


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """By whom an instance was created, if not by somebody outside."""

    key: str | None = None
    """Of the creation, in the step that did it or by a debounce: the same again is no conflict."""
    parent: Parent | None = None
    forked: str | None = None
    """The id of the instance whose steps it began with."""


class Undoing(msgspec.Struct):
    """Undoing what an instance has done."""

    ends: Event
    """The entry that ends the instance afterwards."""
    plan: list[str] | None
    """The steps to undo, in this order; None: all that have a handler and are in the journal, the last first."""
    error: Failure | None
    """Why."""
    step: str | None
    outcome: Outcome = "running"
    failed: list[str] = []
    """The steps whose handlers have failed."""
    failure: Failure | None = None
    """What the first of these failed with."""
    waits: list[str] = []
    """The steps of the body that waited when it began. Nobody waits for them while all is undone."""


def undo_key(step: str) -> str:
    """The key of the step that undoes that one."""
    return key_of("", "rollback", step, 1)


def undone(key: str) -> str:
    """The step that is undone by the one of this key."""
    return unescaped(key.partition(":")[2].rpartition("#")[0])


# Pausing


def _waiting_for_pause(history: History, entry: Entry) -> None:
    history.paused_at = entry.at


def _paused(history: History, entry: Entry) -> None:
    if "again_at" in entry.detail:  # the code does not do what the journal has
        history.diverged = entry
        return
    history.paused = True
    history.put_aside = entry if "reason" in entry.detail else None
    if history.paused_at is None:
        history.paused_at = entry.at


def _resumed(history: History, entry: Entry) -> None:
    """Deadlines stood still meanwhile."""
    since, history.paused_at, history.paused = history.paused_at, None, False
    if since is not None:
        for record in history.open.values():
            if record.due is not None:
                record.due += entry.at - since


# Beginning anew


def _restarted(history: History, entry: Entry) -> None:
    """A step and all that was begun after it are as if they had never been."""
    history.run = entry.detail["run"]
    if history.rollback is not None:
        waits = [history.records[key] for key in history.rollback.waits if key in history.records]
        history.open |= {record.key: record for record in waits if not record.done}
    history.end = history.rollback = history.diverged = None
    history.started = not history.limited
    history.again = max(history.again, entry.detail.get("again", 0))
    history.paused, history.paused_at = False, None
    target = entry.step
    if target is None:
        history.executed = 0
        drop(history, list(history.records))
        return
    reopened = around(target)
    first = history.records[target].position
    for key in decided(history, reopened):
        reopen(history, key)
    kept = [key for key, record in history.records.items() if record.position < first]
    drop(history, [key for key in history.records if key not in set(kept)])
    for key in reopened:
        record = history.records.get(key)
        if record is not None:
            record.done, record.value, record.failure, record.attempts = False, None, None, 0
            record.blob, record.past = None, False
            if record.child is not None:
                history.open[key] = record


def drop(history: History, keys: list[str]) -> None:
    """Forget steps: what they waited for is let go, and events that they took may be taken again."""
    orphan(history, keys, rollback=False)
    for key in keys:
        record = history.records[key]
        history.forget(record)
        history.steps -= record.kind == "do"
        if record.event is not None and record.event in history.events:
            history.inbox[record.event] = history.events[record.event]
    history.inbox = dict(sorted(history.inbox.items()))


def continued(history: History, version: int) -> dict[str, Any]:
    """What a run that ends here tells the next one."""
    created = history.created
    assert created is not None
    orphan(history, list(history.records), rollback=False)
    return {
        "run": history.run + 1,
        "version": version,
        "created": first_created(created),
        "event_ids": list(history.event_ids)[-EVENT_IDS_KEPT:],
        "orphans": [[msgspec.to_builtins(child), rollback] for child, rollback in history.orphans.items()],
        **{name: created.detail[name] for name in _KEPT if name in created.detail},
        **({} if history.trace is None else {"trace": history.trace}),
    }


def _continued(history: History, entry: Entry) -> None:
    """A new run, with an empty history; what it has to know of those before is in the entry."""
    history.__init__()  # type: ignore[misc]  # what was owed is owed again by copies
    history.seq, history.run, history.started, history.created = entry.seq, entry.detail["run"], True, entry
    history.trace = entry.detail.get("trace")
    history.event_ids = dict.fromkeys(entry.detail["event_ids"])
    history.orphans = {msgspec.convert(child, Child): rollback for child, rollback in entry.detail["orphans"]}


def first_created(created: Entry) -> int:
    """When the first run was created."""
    return int(created.detail.get("created", created.at))


# Rolling back


def _rollback_started(history: History, entry: Entry) -> None:
    history.end = history.diverged = None
    if history.rollback is not None:  # what had failed is tried again
        for step in history.rollback.failed:
            drop(history, [key for key in history.records if key == undo_key(step) or is_below(key, undo_key(step))])
        history.rollback.outcome, history.rollback.failed, history.rollback.failure = "running", [], None
        return
    error = entry.detail.get("error")
    history.rollback = Undoing(
        ends=entry.detail["ends"],
        plan=entry.detail["plan"],
        error=None if error is None else msgspec.convert(error, Failure),
        step=entry.step,
        waits=list(history.open),
    )
    history.open.clear()
    orphan(history, list(history.records), rollback=True)


def rollback_step_errored(history: History, entry: Entry) -> None:
    """A handler has failed for good."""
    rollback = history.rollback
    assert rollback is not None
    assert entry.step is not None
    rollback.failed = [*rollback.failed, undone(entry.step)]
    if rollback.failure is None:
        rollback.failure = msgspec.convert(entry.detail["error"], Failure)


def _rollback_completed(history: History, entry: Entry) -> None:
    assert history.rollback is not None
    history.rollback.outcome = "complete"


def _rollback_errored(history: History, entry: Entry) -> None:
    assert history.rollback is not None
    history.rollback.outcome = "failed"
    if history.rollback.failure is None:
        history.rollback.failure = msgspec.convert(entry.detail["error"], Failure)


# Children


def _child_started(history: History, entry: Entry) -> None:
    record = history.record(entry)
    record.child = msgspec.convert(entry.detail["child"], Child)
    history.open[record.key] = record


def _child_told(history: History, entry: Entry) -> None:
    history.orphans.pop(msgspec.convert(entry.detail["child"], Child), None)


def _parent_told(history: History, entry: Entry) -> None:
    history.parent_told = entry.seq


def _parent_asked(history: History, entry: Entry) -> None:
    """The parent tries the step that waits for this instance anew: it is told again."""
    history.again, history.parent_told = entry.detail["again"], 0


LIFECYCLE: dict[str, Callable[[Any, Entry], None]] = {
    "workflow_waiting_for_pause": _waiting_for_pause,
    "workflow_paused": _paused,
    "workflow_resumed": _resumed,
    "workflow_restarted": _restarted,
    "workflow_continued": _continued,
    "rollback_started": _rollback_started,
    "rollback_completed": _rollback_completed,
    "rollback_errored": _rollback_errored,
    "child_started": _child_started,
    "child_told": _child_told,
    "parent_told": _parent_told,
    "parent_asked": _parent_asked,
}
