"""What an instance is told about its own life: pause, resume, terminate, retry, restart, fork, roll back again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from . import journal, kin
from .errors import StepNotFound, WrongStatus
from .fork import entries_before
from .journal import Entry
from .lifecycle import Origin, continued
from .rollback import plan_of

if TYPE_CHECKING:
    from .workflow import Workflow

log = logging.getLogger("z0.workflows")
_PURGE_AT_ONCE = 500  # rows of earlier runs


def pause(workflow: Workflow) -> None:
    """Begin nothing new; what is under way ends first. Raises WrongStatus."""
    workflow.check_unfinished("pausing it", "there is nothing left to pause")
    if workflow.history.paused_at is None:
        workflow.note("workflow_waiting_for_pause")
        workflow.set_alarm()
    pause_now(workflow)


def pause_now(workflow: Workflow) -> None:
    """The pause begins, if nothing is under way."""
    history, run = workflow.history, workflow._run
    wanted = history.paused_at is not None and not history.paused and history.end is None
    if wanted and not workflow._z0_host.dead and (run is None or not run.executes):
        workflow.note("workflow_paused")
        workflow.leave_run()


def resume(workflow: Workflow) -> None:
    """Go on; deadlines have stood still. Raises WrongStatus."""
    workflow.check_unfinished("resuming it", "there is nothing left to resume")
    if workflow.history.paused_at is None:
        raise WrongStatus(workflow.address, workflow.status, "resuming it", "only a paused instance is resumed")
    workflow.stir()
    workflow.note("workflow_resumed")
    workflow.set_alarm()
    if workflow._run is not None:
        workflow._run.unpause()
    workflow.go_on()


def terminate(workflow: Workflow, rollback: bool) -> None:
    """End it as it is, or after undoing what it did. Raises WrongStatus."""
    workflow.check_unfinished("terminating it", "there is nothing left to end")
    if not rollback and not workflow.history.rolls_back:
        workflow.note_end("workflow_terminated")
    elif not rollback:
        workflow.note("rollback_errored", error={"type": "z0:Terminated", "message": "the instance was terminated"})
        workflow.note_end("workflow_terminated")
    elif not workflow.history.rolls_back:
        run = workflow._run
        plan = None if run is None else plan_of(run.undos, None)
        if workflow.history.paused_at is not None:
            workflow.note("workflow_resumed")
        workflow.stir()
        workflow.note_end("rollback_started", None, {"ends": "workflow_terminated", "plan": plan})
    else:
        return
    workflow.leave_run()
    workflow.go_on()
    kin.see_to(workflow)


def rollback_again(workflow: Workflow) -> None:
    """Try once more to undo what could not be undone. Raises WrongStatus."""
    rollback = workflow.history.rollback
    if workflow.history.end is None or rollback is None or rollback.outcome != "failed":
        instead = "only an instance whose rollback has failed is rolled back again"
        raise WrongStatus(workflow.address, workflow.status, "rolling it back again", instead)
    workflow.begin_anew("rollback_started", None, {"again": True})


def retry(workflow: Workflow, again: int = 0) -> None:
    """Go on with a failed instance at the step that failed. Raises WrongStatus."""
    end = workflow.history.end
    if end is None or workflow.status != "errored":
        raise WrongStatus(workflow.address, workflow.status, "retrying it", "only a failed instance is retried")
    if workflow.history.rollback is not None:
        raise WrongStatus(workflow.address, "rolled back", "retrying it", "restart it instead")
    workflow.begin_anew("workflow_retried", end.step, {"again": again} if again else {})


def restart(workflow: Workflow, from_step: str | None) -> None:
    """Run it anew, from its beginning or from a step. Raises StepNotFound."""
    target = None
    if from_step is not None:
        record = workflow.history.find(from_step)
        if record is None:
            raise StepNotFound(workflow.address, from_step)
        target = record.key
    workflow.begin_anew("workflow_restarted", target, {"run": workflow.history.run + 1})


def fork_from(workflow: Workflow, from_step: str) -> tuple[bytes, list[Entry]]:
    """The payload, and the entries that another instance begins with. Raises StepNotFound."""
    record = workflow.history.find(from_step)
    if record is None:
        raise StepNotFound(workflow.address, from_step)
    created = workflow.history.created
    assert created is not None
    return created.value or b"", entries_before(workflow.history, record)


def begin_fork(workflow: Workflow, payload: bytes, entries: list[Entry], of: str) -> None:
    """Begin an instance with the steps of another one."""
    origin = msgspec.to_builtins(Origin(forked=of))
    workflow.note("workflow_queued", None, payload, version=workflow.version, origin=origin)
    seqs: dict[int, int] = {}
    for entry in entries:
        detail = dict(entry.detail)
        if entry.event == "wait_completed":
            detail["event"] = seqs[detail["event"]]
        seqs[entry.seq] = workflow.copy_entry(entry, detail).seq
    workflow.note("workflow_started")
    workflow.go_on()


def continue_as_new(workflow: Workflow, payload: bytes) -> None:
    """End this run, and begin the next with an empty history; events that nobody took come along."""
    waiting = list(workflow.history.inbox.values())
    detail = continued(workflow.history, workflow.version)
    entry = workflow.note("workflow_continued", None, payload, **detail)
    workflow._z0_host.writes.write(journal.SET_FLOOR, (entry.seq,))
    for event in waiting:
        workflow.copy_entry(event, event.detail)
    workflow.set_alarm()


async def purge(workflow: Workflow) -> None:
    """Remove the entries of earlier runs, a batch in each transaction."""
    host = workflow._z0_host
    while True:
        low, _, floor = host.writes.rows(journal.EXTENT)[0]
        if low is None or floor is None or low >= floor:
            return
        host.writes.write(journal.PURGE, (min(low + _PURGE_AT_ONCE, floor),))
        await host.durable()


def told_by_child(workflow: Workflow, step: str, id: str, again: int, value: Any, failure: Any) -> None:
    """A child has ended: the step that waits for it has its result."""
    record = workflow.history.records.get(step)
    if record is None or record.done or record.child is None or record.child.id != id or again < record.again:
        return
    workflow.stir()
    if failure is None:
        workflow.note("step_completed", record, value, attempt=record.attempts + 1)
    else:
        workflow.note("step_errored", record, attempt=record.attempts + 1, error=failure)
    if workflow._run is not None:
        workflow._run.unpark(record.key)
    workflow.go_on()
