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
    created = workflow.history.created
    if created is not None:
        key = created.detail.get("origin", {}).get("key")
        if key is not None and key == detail.get("origin", {}).get("key"):
            return
        raise InstanceExists(workflow.address)
    detail |= workflow._services.born(workflow.clock.now_us())
    if "trace" not in detail:
        detail |= tracing.begun(workflow)
    workflow.note("workflow_queued", None, payload, version=workflow.version, **detail)
    workflow.rested = False
    if not workflow.history.limited:
        workflow.begin()


async def start(workflow: Workflow, ticket: int) -> bool:
    """There is a slot for it; whether it holds it: one that is paused lets others have it until it is resumed."""
    if workflow.history.queued:
        if workflow.history.paused_at is not None:
            return False
        workflow.stir()
        workflow.begin()
    return workflow.history.started and workflow.history.end is None


def rests(workflow: Workflow) -> bool:
    """Whether nothing of it can go on by itself, here or in the next process."""
    run = workflow._run
    return not workflow.put_off if run is None else run.rests and not run.cut_off


async def status(workflow: Workflow) -> InstanceStatus:
    """How the instance is. Raises InstanceNotFound."""
    workflow.check_exists()
    history = workflow.history
    found = status_of(workflow.name, history, rests(workflow))
    return replace(found, warnings=warnings_of(history, workflow.steps_max, workflow.execution_max))


async def send_event(workflow: Workflow, type: str, payload: bytes, fields: dict[str, Any], id: str) -> bool:
    """Take an event in; whether it is new. Raises InstanceNotFound, WrongStatus."""
    workflow.check_exists()
    if id in workflow.history.event_ids:
        return False
    workflow.check_unfinished("sending it an event", "create another instance")
    workflow.stir()
    event = workflow.note("event_received", None, payload, id=id, type=check_type(type), fields=fields)
    record = workflow.history.wait_for(event)
    if record is not None:
        workflow.note("wait_completed", record, event=event.seq)
        if workflow._run is not None:
            workflow._run.unpark(record.key)
    if record is not None or any(each.type is not None for each in workflow.history.open.values()):
        workflow.go_on()  # also when it waits for another one: today's code may not
    return True


async def entries(workflow: Workflow, after: int = 0, limit: int = -1) -> list[Entry]:
    """Entries after a seq, at most so many. Raises InstanceNotFound."""
    workflow.check_exists()
    rows = workflow._z0_host.writes.rows(journal.ENTRIES_AFTER, after, limit)
    return [redacted(each) for each in journal.entries(rows)]
