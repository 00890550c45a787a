"""What an instance is told by those who make it, look at it and send it events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from . import journal, tracing
from .errors import InstanceExists
from .event import check_type
from .journal import Entry, redacted
from .limits import warnings_of
from .status import InstanceStatus, status_of

if TYPE_CHECKING:
    from .workflow import Workflow


async def create(workflow: Workflow, payload: bytes, detail: dict[str, Any]) -> None:
    """Begin; `detail`: what else the journal is to know of it. Raises InstanceExists."""
    engine = workflow._z0_engine
    created = engine.history.created
    if created is not None:
        key = created.detail.get("origin", {}).get("key")
        if key is not None and key == detail.get("origin", {}).get("key"):
            return
        raise InstanceExists(engine.address)
    detail |= engine.services.born(engine.clock.now_us())
    if "trace" not in detail:
        detail |= tracing.begun(engine)
    engine.note("workflow_queued", None, payload, version=engine.workflow.version, **detail)
    engine.rested = False
    if not engine.history.limited:
        engine.begin()


async def start(workflow: Workflow, ticket: int) -> bool:
    """There is a slot for it; whether it holds it: one that is paused lets others have it until it is resumed."""
    engine = workflow._z0_engine
    if engine.history.queued:
        if engine.history.paused_at is not None:
            return False
        engine.stir()
        engine.begin()
    return engine.history.started and engine.history.end is None


async def status(workflow: Workflow) -> InstanceStatus:
    """How the instance is. Raises InstanceNotFound."""
    engine = workflow._z0_engine
    engine.check_exists()
    history = engine.history
    found = status_of(engine.id, history, engine.rests)
    return replace(found, warnings=warnings_of(history, engine.workflow.steps_max, engine.workflow.execution_max))


async def send_event(workflow: Workflow, type: str, payload: bytes, fields: dict[str, Any], id: str) -> bool:
    """Take an event in; whether it is new. Raises InstanceNotFound, WrongStatus."""
    engine = workflow._z0_engine
    engine.check_exists()
    if id in engine.history.event_ids:
        return False
    engine.check_unfinished("sending it an event", "create another instance")
    engine.stir()
    event = engine.note("event_received", None, payload, id=id, type=check_type(type), fields=fields)
    record = engine.history.wait_for(event)
    if record is not None:
        engine.note("wait_completed", record, event=event.seq)
        if engine.body.run is not None:
            engine.body.run.waits.unpark(record.key)
    if record is not None or any(each.type is not None for each in engine.history.open.values()):
        engine.body.go_on()  # also when it waits for another one: today's code may not
    return True


async def entries(workflow: Workflow, after: int = 0, limit: int = -1) -> list[Entry]:
    """Entries after a seq, at most so many. Raises InstanceNotFound."""
    engine = workflow._z0_engine
    engine.check_exists()
    rows = engine.host.writes.rows(journal.ENTRIES_AFTER, after, limit)
    return [redacted(each) for each in journal.entries(rows)]
