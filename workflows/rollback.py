"""How a step is undone: the handler that it was given. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from z0.actors.clock import Span

from .keys import kind_of
from .lifecycle import TERMINATED, undo_key, undone
from .options import Options, uncallable
from .retries import Retries

if TYPE_CHECKING:
    from .history import History, Record
    from .lifecycle import Undoing


class Rollback(msgspec.Struct, frozen=True):
    """A handler with settings of its own: `step.do("charge", fn, rollback=z0.Rollback(refund, timeout="1 hour"))`."""

    fn: Callable[..., Any]
    """Takes nothing, or one RollbackContext; may be a coroutine function."""
    retries: Retries | None = None
    """None: the class's."""
    timeout: Span | msgspec.UnsetType | None = msgspec.UNSET
    """Of one attempt; UNSET: the class's."""


def check_rollback(name: str, rollback: Callable[..., Any] | Rollback) -> None:
    """Raises TypeError for what cannot undo the step of that name."""
    handler = rollback.fn if isinstance(rollback, Rollback) else rollback
    if not callable(handler):
        raise uncallable(handler, f"step {name!r}: rollback")


class Undo(msgspec.Struct, frozen=True):
    """What undoes one step."""

    record: Record
    name: str
    fn: Callable[..., Any]
    options: Options
    returns: Any
    """What the step's own callback is annotated to return."""


def plan_of(undos: dict[str, Undo], history: History, failed: str | None) -> list[str]:
    """The steps to undo, in order: the one that failed, then the others, the last begun first.

    Also those that had a handler when they were taken, and get none from today's code.
    """
    records = [undo.record for undo in undos.values()] + [each for each in history.records.values() if each.undo]
    begun = {each.key: each.position for each in records if each.position}
    return sorted(begun, key=lambda key: (key != failed, -begun[key]))


def undone_before(history: History, target: Record) -> Record | None:
    """The first of the steps before that one which were undone, or may have been in part."""
    keys = [undone(key) for key in history.records if "/" not in key and kind_of(key) == "rollback"]
    rollback = history.rollback
    if rollback is not None and (rollback.outcome == "running" or _was_cut_off(rollback)):
        plan = plan_of({}, history, rollback.step) if rollback.plan is None else rollback.plan
        keys += [key for key in plan if undo_key(key) not in history.records][:1]  # its handler may have begun
    before = [history.records[key] for key in keys if key in history.records]
    first = min(before, key=lambda record: record.position, default=None)
    return first if first is not None and first.position < target.position else None


def _was_cut_off(rollback: Undoing) -> bool:
    return rollback.failure is not None and rollback.failure.type == TERMINATED
