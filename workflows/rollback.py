"""How a step is undone: the handler that it was given. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from z0.actors.clock import Span

from .retries import Retries

if TYPE_CHECKING:
    from .history import History, Record
    from .options import Options


class Rollback(msgspec.Struct, frozen=True):
    """A handler with settings of its own: `step.do("charge", fn, rollback=z0.Rollback(refund, timeout="1 hour"))`."""

    fn: Callable[..., Any]
    """Takes nothing, or one RollbackContext; may be a coroutine function."""
    retries: Retries | None = None
    """None: the class's."""
    timeout: Span | msgspec.UnsetType | None = msgspec.UNSET
    """Of one attempt; UNSET: the class's."""


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
