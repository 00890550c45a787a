"""How long finished instances are kept. Each sets an alarm for it at its end, so nobody ever looks through them all.

One that still owes something (see `errands`) is kept until that is done, for only its journal knows of it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from z0.actors.clock import Span, datetime_of, seconds, to_us
from z0.actors.errors import Z0Error
from z0.actors.kind import Kind
from z0.actors.names import Address
from z0.actors.node import Node
from z0.actors.schedule import SPAN_MAX

from .checks import check_span

if TYPE_CHECKING:
    from .engine import Engine

log = logging.getLogger("z0.workflows")

ALARM = "z0.retention"
_AGAIN = "1 hour"


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long finished instances are kept, by how they ended; None: for ever."""

    success: Span | None = None
    """Those that are complete."""
    error: Span | None = None
    """Those that failed, were terminated or abandoned."""

    def __post_init__(self) -> None:
        """Raises ValueError for what is no span, or longer than 1,000 years."""
        for name in self.__struct_fields__:
            _check_kept(getattr(self, name), f"Retention.{name}")

    def by_end(self, event: str) -> Span | None:
        """How long an instance is kept whose journal ends so."""
        return self.success if event == "workflow_completed" else self.error


def check_retention(kept: object, what: str) -> None:
    """Raises ValueError for what does not say how long to keep an instance, or says more than 1,000 years."""
    if not isinstance(kept, Retention):
        _check_kept(kept, what)


def _check_kept(span: object, what: str) -> None:
    if span is not None:
        check_span(span, what, SPAN_MAX)


def over_at(engine: Engine) -> int | None:
    """When a finished instance is to be removed, in µs since the epoch; None: never."""
    kept, end = engine.workflow.retention, engine.history.end
    if kept is None or end is None:
        return None
    span = kept.by_end(end.event) if isinstance(kept, Retention) else kept
    return None if span is None else end.at + to_us(seconds(span))


def ended(engine: Engine) -> None:
    """The instance has ended, or done the last that it owed, in the open segment."""
    at = over_at(engine)
    if at is not None and not engine.history.errands:
        engine.storage.set_alarm(datetime_of(at), name=ALARM)


def due(engine: Engine) -> None:
    """The time may have come: remove the instance, unless it goes on again or the class keeps it longer by now."""
    at, host = over_at(engine), engine.host
    if at is None or at > engine.clock.now_us() or engine.history.errands:
        ended(engine)
        return
    engine.storage.set_alarm(_AGAIN, name=ALARM)  # should it not come to that now
    host.node.spawn(_remove(host.node, host.kind, host.address))


async def _remove(node: Node, kind: Kind, address: Address) -> None:
    try:
        await node.removals.remove(kind, address)
    except Z0Error as error:
        log.warning("%s could not be removed now, and is by and by: %s", address, error)
