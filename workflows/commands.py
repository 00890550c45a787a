"""What an instance is told about its own life: pause, resume, terminate, retry, restart, fork, roll back again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from . import journal, kin, tracing
from .errands import reserve_slot
from .errors import InstanceExists, StepNotFound, WrongStatus
from .fork import entries_before
from .journal import Entry, Event
from .keys import kind_of, name_of
from .lifecycle import TERMINATED, Origin, continued
from .retrying import begun_since
from .rollback import plan_of, undone_before
from .verdicts import KINDS

if TYPE_CHECKING:
    from .history import Record
    from .workflow import Workflow

log = logging.getLogger("z0.workflows")
_PURGE_AT_ONCE = 500  # rows of earlier runs


async def pause(workflow: Workflow) -> None:
    """Begin nothing new; what is under way ends first. Raises InstanceNotFound, WrongStatus."""
    workflow.check_exists()
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


async def resume(workflow: Workflow) -> None:
    """Go on; deadlines have stood still. Raises InstanceNotFound, WrongStatus."""
    workflow.check_exists()
    workflow.check_unfinished("resuming it", "there is nothing left to resume")
    if workflow.history.paused_at is None and workflow.history.diverged is not None:
        workflow.stir()  # the code may fit by now
        workflow.go_on()
        return
    if workflow.history.paused_at is None:
        raise WrongStatus(workflow.address, workflow.status, "resuming it", "only a paused instance is resumed")
    workflow.stir()
    workflow.note("workflow_resumed")
    workflow.set_alarm()
    if workflow._run is not None:
        workflow._run.unpause()
    workflow.go_on()


async def terminate(workflow: Workflow, rollback: bool) -> None:
    """End it as it is, or after undoing what it did. Raises InstanceNotFound, WrongStatus."""
    workflow.check_exists()
    workflow.check_unfinished("terminating it", "there is nothing left to end")
    if not rollback:
        _terminate_now(workflow, {})
        return
    if workflow.history.rolls_back:
        return
    run, plan = workflow._run, None
    if run is not None and not run.owed:  # else it has not come by all that it did
        plan = plan_of(run.undos, workflow.history, None)
    if workflow.history.paused_at is not None:
        workflow.note("workflow_resumed")
    workflow.stir()
    workflow.note_end("rollback_started", None, {"ends": "workflow_terminated", "plan": plan})
    workflow.leave_run()
    workflow.go_on()
    kin.see_to(workflow)


def _terminate_now(workflow: Workflow, detail: dict[str, Any]) -> None:
    if workflow.history.rolls_back:
        workflow.note("rollback_errored", error={"type": TERMINATED, "message": "the instance was terminated"})
    workflow.note_end("workflow_terminated", None, detail)
    workflow.leave_run()
    kin.see_to(workflow)


async def cancel(workflow: Workflow, reason: str) -> None:
    """There is no slot for it, or not any more: end it."""
    if workflow.history.created is not None and workflow.history.end is None:
        _terminate_now(workflow, {"reason": reason})


async def delete(workflow: Workflow) -> None:
    """End it, if it has not ended: it is going to be removed. Raises InstanceNotFound."""
    workflow.check_exists()
    if workflow.history.end is None:
        _terminate_now(workflow, {"reason": "it was deleted"})


async def rollback_again(workflow: Workflow) -> None:
    """Try once more to undo what could not be undone. Raises InstanceNotFound, WrongStatus."""
    workflow.check_exists()
    rollback = workflow.history.rollback
    if workflow.history.end is None or rollback is None or rollback.outcome != "failed":
        instead = "only an instance whose rollback has failed is rolled back again"
        raise WrongStatus(workflow.address, workflow.status, "rolling it back again", instead)
    _begin_anew(workflow, "rollback_started", None, {"again": True})


async def retry(workflow: Workflow) -> None:
    """Go on with a failed instance at the step that failed. Raises InstanceNotFound, WrongStatus."""
    workflow.check_exists()
    await _retry(workflow, {})


async def _retry(workflow: Workflow, detail: dict[str, Any]) -> None:
    _check_retry(workflow)
    await _check_slot(workflow, "retrying it")
    end = _check_retry(workflow)  # it may have been retried meanwhile
    if end.step is not None:
        entries = journal.entries(workflow._z0_host.writes.rows(journal.ENTRIES))
        if forgotten := begun_since(workflow.history, entries, end.step):
            detail = {**detail, "forgotten": forgotten}
    _begin_anew(workflow, "workflow_retried", end.step, detail)


async def _check_slot(workflow: Workflow, asked: str) -> None:
    """Raises WrongStatus when it has ended, and others hold the slots that it would be ended for."""
    if workflow.history.end is not None:
        why = await reserve_slot(workflow)
        if why is not None:
            raise WrongStatus(workflow.address, workflow.status, asked, f"{why}; try again when they have ended")


def _check_retry(workflow: Workflow) -> Entry:
    end = workflow.history.end
    if end is None or workflow.status != "errored":
        raise WrongStatus(workflow.address, workflow.status, "retrying it", "only a failed instance is retried")
    if workflow.history.rollback is not None:
        raise WrongStatus(workflow.address, "rolled back", "retrying it", "restart it instead")
    return end


async def retry_for_parent(workflow: Workflow, again: int) -> None:
    """Go on when it has failed, once for each time that the parent's step is tried anew. Raises WrongStatus.

    It begins anew when it was terminated: its parent had given it up. Else the parent is told of its end once more.
    """
    if workflow.history.again >= again:
        return
    if workflow.status == "errored":
        await _retry(workflow, {"again": again})
    elif workflow.status == "terminated":
        await _check_slot(workflow, "restarting it")
        _begin_anew(workflow, "workflow_restarted", None, {"run": workflow.history.run + 1, "again": again})
    else:
        workflow.note("parent_asked", again=again)
        kin.see_to(workflow)


async def abandon(workflow: Workflow, reason: str) -> None:
    """Close a failed instance. Raises InstanceNotFound, TypeError, WrongStatus."""
    if not isinstance(reason, str):
        raise TypeError(f"abandon(reason={reason!r}): say why in a string")
    workflow.check_exists()
    if workflow.status != "errored":
        raise WrongStatus(workflow.address, workflow.status, "abandoning it", "only a failed instance is abandoned")
    workflow.note_end("workflow_abandoned", None, {"reason": reason})


async def restart(workflow: Workflow, from_step: str | None) -> None:
    """Run it anew, from its beginning or from a step. Raises InstanceNotFound, StepNotFound, WrongStatus."""
    workflow.check_exists()
    target = None if from_step is None else _from(workflow, from_step, "restarting it", "restart it").key
    await _check_slot(workflow, "restarting it")
    if target is not None:
        target = _from(workflow, target, "restarting it", "restart it").key  # it may have gone meanwhile
    _begin_anew(workflow, "workflow_restarted", target, {"run": workflow.history.run + 1})


def _from(workflow: Workflow, step: str, asked: str, instead: str) -> Record:
    """The step to begin anew from, when all that it would find done has not been undone."""
    record = _found(workflow, step)
    gone = undone_before(workflow.history, record)
    if gone is not None:
        name = name_of(gone.key)
        instead = f"{name!r}, which comes before, was undone, so {instead} from there, or from a step before it"
        raise WrongStatus(workflow.address, "rolled back", f"{asked} from {step!r}", instead)
    return record


def _found(workflow: Workflow, step: str) -> Record:
    history = workflow.history
    record = history.find(step)
    if record is None:
        known = [name for key, name in history.names().items() if kind_of(key) not in ("value", "patch")]
        raise StepNotFound(workflow.address, step, known)
    if record.kind in KINDS:  # it has the place of the step before: what is meant is the first in it
        return min(history.below(record.key), key=lambda each: each.position, default=record)
    return record


def _begin_anew(workflow: Workflow, event: Event, step: str | None, detail: dict[str, Any]) -> None:
    """Go on in another way than so far, as the entry says."""
    workflow._z0_host.alarms.hold()
    workflow.leave_run()
    workflow.enter(event, step, detail=detail)
    workflow.set_alarm()
    workflow.rested = False
    workflow.go_on()
    kin.see_to(workflow)


def _copy(workflow: Workflow, entry: Entry, detail: dict[str, Any]) -> Entry:
    """Add an entry that says the same again."""
    at = entry.at or workflow.clock.now_us()
    copied = msgspec.structs.replace(entry, seq=workflow.history.seq + 1, at=at, detail=detail)
    journal.write(workflow._z0_host.writes, copied)
    workflow.history.apply(copied)
    return copied


async def fork_from(workflow: Workflow, from_step: str) -> tuple[bytes, dict[str, Any], list[Entry]]:
    """The payload, the groups, and the entries that another instance begins with.

    Raises InstanceNotFound, StepNotFound, WrongStatus.
    """
    workflow.check_exists()
    created = workflow.history.created
    assert created is not None
    names = ("groups", "priority", "schedule")
    groups: dict[str, Any] = {name: created.detail[name] for name in names if name in created.detail}
    groups["forked_at"] = created.detail.get("forked_at", created.at)
    entries = entries_before(workflow.history, _from(workflow, from_step, "forking it", "fork it"))
    for number, entry in enumerate(entries):
        if (blob := entry.detail.pop("blob", None)) is not None:
            entries[number] = msgspec.structs.replace(entry, value=await workflow.kept(blob))
    return created.value or b"", groups, entries


async def fork(workflow: Workflow, payload: bytes, groups: dict[str, Any], entries: list[Entry], of: str) -> None:
    """Begin an instance with the steps of another one. Raises InstanceExists."""
    if workflow.history.created is not None:
        raise InstanceExists(workflow.address)
    origin = msgspec.to_builtins(Origin(forked=of))
    born = workflow._services.born(workflow.clock.now_us())
    detail = {"origin": origin, **groups, **tracing.begun(workflow), **born}
    workflow.note("workflow_queued", None, payload, version=workflow.version, **detail)
    seqs: dict[int, int] = {}
    for entry in entries:
        detail = dict(entry.detail)
        if entry.event == "wait_completed":
            detail["event"] = seqs[detail["event"]]
        copied = _copy(workflow, entry, detail)
        if entry.event == "event_received":
            seqs[entry.seq] = copied.seq
    if not workflow.history.limited:
        workflow.begin()


def continue_as_new(workflow: Workflow, payload: bytes) -> None:
    """End this run, and begin the next with an empty history; events that nobody took come along."""
    waiting, owed = list(workflow.history.inbox.values()), dict(workflow.history.errands)
    detail = continued(workflow.history, workflow.version)
    entry = workflow.note("workflow_continued", None, payload, **detail)
    workflow._z0_host.writes.write(journal.SET_FLOOR, (entry.seq,))
    for event in waiting:
        _copy(workflow, event, event.detail)
    for key, entry in owed.items():
        detail = {**entry.detail, "owes": [key.partition("@")[0]], "of": entry.detail.get("of", entry.seq)}
        _copy(workflow, msgspec.structs.replace(entry, event="errand_owed", position=None), detail)
    workflow.see_to_errands()
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


async def child_ended(
    workflow: Workflow,
    step: str,
    id: str,
    again: int,
    value: bytes | None,
    failure: dict[str, Any] | None,
    created: int = 0,
) -> None:
    """A child has ended: the step that waits for it has its result. `created`: when its parent was; 0: not known."""
    record = workflow.history.records.get(step)
    if record is None or record.done or record.child is None or record.child.id != id or again < record.again:
        return
    if created and created != workflow.born:  # it is the child of one that had this id before
        return
    workflow.stir()
    if failure is None:
        workflow.note("step_completed", record, value, attempt=record.attempts + 1)
    else:
        workflow.note("step_errored", record, attempt=record.attempts + 1, error=failure)
    if workflow._run is not None:
        workflow._run.unpark(record.key)
    workflow.go_on()
