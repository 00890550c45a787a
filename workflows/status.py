"""How an instance is, for people and programs. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from z0.actors import codec
from z0.actors.clock import datetime_of

from .failure import Failure
from .history import FINISHED, History, Record, Status
from .journal import Entry
from .lifecycle import Outcome, first_created, undone


class RollbackStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far undoing what an instance did has come."""

    outcome: Outcome
    error: Failure | None = None
    """What the first handler failed with that failed."""
    failed: list[str] = []
    """The steps that could not be undone."""
    undone: list[str] = []
    """The steps that were, in this order."""
    planned: list[str] | None = None
    """The steps to undo, in this order; None: all that have a handler."""


class InstanceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How an instance is."""

    id: str
    status: Status
    created: datetime
    output: Any = None
    """What the body returned, as plain data."""
    error: Failure | None = None
    """Why it failed."""
    step: str | None = None
    """The key of the step that failed it."""
    reason: str | None = None
    """Why it was abandoned, or is paused."""
    waiting_for: list[str] = []
    """What it waits for, the first due first."""
    wake_at: datetime | None = None
    """When the first of these is due."""
    attempt: int | None = None
    """Of the step that is tried again: the attempt that is waited for, or under way; or, of the one that failed the
    instance, the attempt that failed last."""
    steps: int = 0
    """That were begun."""
    run: int = 1
    """Which run this is: restarting and continuing begin another."""
    rollback: RollbackStatus | None = None
    """None: nothing was rolled back."""
    warnings: list[str] = []
    """Limits that are nearly reached."""
    code_version: int = 1
    """Of the class, when it was created."""

    @property
    def finished(self) -> bool:
        """Whether nothing will happen any more by itself."""
        return self.status in FINISHED


def status_of(id: str, history: History, resting: bool) -> InstanceStatus:
    """The status that a history amounts to."""
    created, end = history.created, history.end
    assert created is not None
    waits = [] if end is not None else sorted(history.waits(), key=lambda record: record.due or 2**63)
    due = None if end is not None else history.due()
    why = end or history.diverged or (history.put_aside if history.paused else None)
    failed = history.failed if end is not None and end.event == "workflow_abandoned" else end
    says = failed or why
    error = None if says is None else says.detail.get("error")
    return InstanceStatus(
        id=id,
        status=history.status(resting),
        created=datetime_of(first_created(created)),
        output=codec.decode(end.value) if end is not None and end.value is not None else None,
        error=None if error is None else msgspec.convert(error, Failure),
        step=None if failed is None else failed.step,
        reason=None if why is None else why.detail.get("reason"),
        waiting_for=["a slot (concurrency)"] if history.queued else [_what(record) for record in waits],
        wake_at=None if due is None else datetime_of(due),
        attempt=_last_attempt(history, failed) if end is not None else _next_attempt(history, waits),
        steps=history.positions,
        run=history.run,
        rollback=_rollback(history),
        code_version=created.detail["version"],
    )


def _next_attempt(history: History, waits: list[Record]) -> int | None:
    """Of the step that is waited for; else of the one that was begun last, and has failed before."""
    if waits and waits[0].attempts:
        return waits[0].attempts + 1
    records = history.records.values()
    tried = [each for each in records if each.attempts and not (each.done or each.past or each.given_up)]
    trying = [each for each in tried if each.key.startswith("rollback:") is history.rolls_back and each.due is None]
    return max(trying, key=lambda record: record.position).attempts + 1 if trying else None


def _last_attempt(history: History, failed: Entry | None) -> int | None:
    record = None if failed is None or failed.step is None else history.records.get(failed.step)
    return None if record is None else record.attempts or None


def _rollback(history: History) -> RollbackStatus | None:
    rollback = history.rollback
    if rollback is None:
        return None
    done = [each for each in history.records.values() if each.key.startswith("rollback:") and "/" not in each.key]
    ended = sorted((each for each in done if each.done and each.failure is None), key=lambda each: each.position)
    return RollbackStatus(
        outcome=rollback.outcome,
        error=rollback.failure,
        failed=rollback.failed,
        undone=[undone(each.key) for each in ended],
        planned=rollback.plan,
    )


def _what(record: Record) -> str:
    """What a step waits for, in words."""
    until = "" if record.due is None else f" until {datetime_of(record.due):%Y-%m-%d %H:%M:%S} UTC"
    if record.type is not None:
        return f"{record.key}: event {record.type!r}{until}"
    if record.child is not None:
        return f"{record.key}: {record.child.namespace} {record.child.id!r}"
    if record.attempts:
        return f"{record.key}: attempt {record.attempts + 1}{until.replace(' until', ' at')}"
    return f"{record.key}: sleep{until}"
