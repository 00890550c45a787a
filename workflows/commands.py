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
    from .engine import Engine
    from .history import Record
    from .workflow import Workflow

log = logging.getLogger("z0.workflows")
_PURGE_AT_ONCE = 500  # rows of earlier runs


async def pause(workflow: Workflow) -> None:
    """Begin nothing new; what is under way ends first. Raises InstanceNotFound, WrongStatus."""
    engine = workflow._z0_engine
    engine.check_exists()
    engine.check_unfinished("pausing it", "there is nothing left to pause")
    if engine.history.paused_at is None:
        engine.note("workflow_waiting_for_pause")
        engine.set_alarm()
    pause_now(engine)


def pause_now(engine: Engine) -> None:
    """The pause begins, if nothing is under way."""
    history, run = engine.history, engine.body.run
    wanted = history.paused_at is not None and not history.paused and history.end is None
    if wanted and not engine.host.dead and (run is None or not run.waits.executes):
        engine.note("workflow_paused")
        engine.body.leave()


async def resume(workflow: Workflow) -> None:
    """Go on; deadlines have stood still. Raises InstanceNotFound, WrongStatus."""
    engine = workflow._z0_engine
    engine.check_exists()
    engine.check_unfinished("resuming it", "there is nothing left to resume")
    if engine.history.paused_at is None and engine.history.diverged is not None:
        engine.stir()  # the code may fit by now
        engine.body.go_on()
        return
    if engine.history.paused_at is None:
        raise WrongStatus(engine.address, engine.status, "resuming it", "only a paused instance is resumed")
    engine.stir()
    engine.note("workflow_resumed")
    engine.set_alarm()
    if engine.body.run is not None:
        engine.body.run.waits.unpause()
    engine.body.go_on()


async def terminate(workflow: Workflow, rollback: bool) -> None:
    """End it as it is, or after undoing what it did. Raises InstanceNotFound, WrongStatus."""
    engine = workflow._z0_engine
    engine.check_exists()
    engine.check_unfinished("terminating it", "there is nothing left to end")
    if not rollback:
        _terminate_now(engine, {})
        return
    if engine.history.rolls_back:
        return
    run, plan = engine.body.run, None
    if run is not None and not run.owed:  # else it has not come by all that it did
        plan = plan_of(run.undos, engine.history, None)
    if engine.history.paused_at is not None:
        engine.note("workflow_resumed")
    engine.stir()
    engine.note_end("rollback_started", None, {"ends": "workflow_terminated", "plan": plan})
    engine.body.leave()
    engine.body.go_on()
    kin.see_to(engine)


def _terminate_now(engine: Engine, detail: dict[str, Any]) -> None:
    if engine.history.rolls_back:
        engine.note("rollback_errored", error={"type": TERMINATED, "message": "the instance was terminated"})
    engine.note_end("workflow_terminated", None, detail)
    engine.body.leave()
    kin.see_to(engine)


async def cancel(workflow: Workflow, reason: str) -> None:
    """There is no slot for it, or not any more: end it."""
    engine = workflow._z0_engine
    if engine.history.created is not None and engine.history.end is None:
        _terminate_now(engine, {"reason": reason})


async def delete(workflow: Workflow) -> None:
    """End it, if it has not ended: it is going to be removed. Raises InstanceNotFound."""
    engine = workflow._z0_engine
    engine.check_exists()
    if engine.history.end is None:
        _terminate_now(engine, {"reason": "it was deleted"})


async def rollback_again(workflow: Workflow) -> None:
    """Try once more to undo what could not be undone. Raises InstanceNotFound, WrongStatus."""
    engine = workflow._z0_engine
    engine.check_exists()
    rollback = engine.history.rollback
    if engine.history.end is None or rollback is None or rollback.outcome != "failed":
        instead = "only an instance whose rollback has failed is rolled back again"
        raise WrongStatus(engine.address, engine.status, "rolling it back again", instead)
    _begin_anew(engine, "rollback_started", None, {"again": True})


async def retry(workflow: Workflow) -> None:
    """Go on with a failed instance at the step that failed. Raises InstanceNotFound, WrongStatus."""
    engine = workflow._z0_engine
    engine.check_exists()
    await _retry(engine, {})


async def _retry(engine: Engine, detail: dict[str, Any]) -> None:
    _check_retry(engine)
    await _check_slot(engine, "retrying it")
    end = _check_retry(engine)  # it may have been retried meanwhile
    if end.step is not None:
        entries = journal.entries(engine.host.writes.rows(journal.ENTRIES))
        if forgotten := begun_since(engine.history, entries, end.step):
            detail = {**detail, "forgotten": forgotten}
    _begin_anew(engine, "workflow_retried", end.step, detail)


async def _check_slot(engine: Engine, asked: str) -> None:
    """Raises WrongStatus when it has ended, and others hold the slots that it would be ended for."""
    if engine.history.end is not None:
        why = await reserve_slot(engine)
        if why is not None:
            raise WrongStatus(engine.address, engine.status, asked, f"{why}; try again when they have ended")


def _check_retry(engine: Engine) -> Entry:
    end = engine.history.end
    if end is None or engine.status != "errored":
        raise WrongStatus(engine.address, engine.status, "retrying it", "only a failed instance is retried")
    if engine.history.rollback is not None:
        raise WrongStatus(engine.address, "rolled back", "retrying it", "restart it instead")
    return end


async def retry_for_parent(workflow: Workflow, again: int) -> None:
    """Go on when it has failed, once for each time that the parent's step is tried anew. Raises WrongStatus.

    It begins anew when it was terminated: its parent had given it up. Else the parent is told of its end once more.
    """
    engine = workflow._z0_engine
    if engine.history.again >= again:
        return
    if engine.status == "errored":
        await _retry(engine, {"again": again})
    elif engine.status == "terminated":
        await _check_slot(engine, "restarting it")
        _begin_anew(engine, "workflow_restarted", None, {"run": engine.history.run + 1, "again": again})
    else:
        engine.note("parent_asked", again=again)
        kin.see_to(engine)


async def abandon(workflow: Workflow, reason: str) -> None:
    """Close a failed instance. Raises InstanceNotFound, TypeError, WrongStatus."""
    engine = workflow._z0_engine
    if not isinstance(reason, str):
        raise TypeError(f"abandon(reason={reason!r}): say why in a string")
    engine.check_exists()
    if engine.status != "errored":
        raise WrongStatus(engine.address, engine.status, "abandoning it", "only a failed instance is abandoned")
    engine.note_end("workflow_abandoned", None, {"reason": reason})


async def restart(workflow: Workflow, from_step: str | None) -> None:
    """Run it anew, from its beginning or from a step. Raises InstanceNotFound, StepNotFound, WrongStatus."""
    engine = workflow._z0_engine
    engine.check_exists()
    target = None if from_step is None else _from(engine, from_step, "restarting it", "restart it").key
    await _check_slot(engine, "restarting it")
    if target is not None:
        target = _from(engine, target, "restarting it", "restart it").key  # it may have gone meanwhile
    _begin_anew(engine, "workflow_restarted", target, {"run": engine.history.run + 1})


def _from(engine: Engine, step: str, asked: str, instead: str) -> Record:
    """The step to begin anew from, when all that it would find done has not been undone."""
    record = _found(engine, step)
    gone = undone_before(engine.history, record)
    if gone is not None:
        name = name_of(gone.key)
        instead = f"{name!r}, which comes before, was undone, so {instead} from there, or from a step before it"
        raise WrongStatus(engine.address, "rolled back", f"{asked} from {step!r}", instead)
    return record


def _found(engine: Engine, step: str) -> Record:
    history = engine.history
    record = history.find(step)
    if record is None:
        known = [name for key, name in history.names().items() if kind_of(key) not in ("value", "patch")]
        raise StepNotFound(engine.address, step, known)
    if record.kind in KINDS:  # it has the place of the step before: what is meant is the first in it
        return min(history.below(record.key), key=lambda each: each.position, default=record)
    return record


def _begin_anew(engine: Engine, event: Event, step: str | None, detail: dict[str, Any]) -> None:
    """Go on in another way than so far, as the entry says."""
    engine.host.alarms.hold()
    engine.body.leave()
    engine.enter(event, step, detail=detail)
    engine.set_alarm()
    engine.rested = False
    engine.body.go_on()
    kin.see_to(engine)


def _copy(engine: Engine, entry: Entry, detail: dict[str, Any]) -> Entry:
    """Add an entry that says the same again."""
    at = entry.at or engine.clock.now_us()
    copied = msgspec.structs.replace(entry, seq=engine.history.seq + 1, at=at, detail=detail)
    journal.write(engine.host.writes, copied)
    engine.history.apply(copied)
    return copied


async def fork_from(workflow: Workflow, from_step: str) -> tuple[bytes, dict[str, Any], list[Entry]]:
    """The payload, the groups, and the entries that another instance begins with.

    Raises InstanceNotFound, StepNotFound, WrongStatus.
    """
    engine = workflow._z0_engine
    engine.check_exists()
    created = engine.history.created
    assert created is not None
    names = ("groups", "priority", "schedule")
    groups: dict[str, Any] = {name: created.detail[name] for name in names if name in created.detail}
    groups["forked_at"] = created.detail.get("forked_at", created.at)
    entries = entries_before(engine.history, _from(engine, from_step, "forking it", "fork it"))
    for number, entry in enumerate(entries):
        if (blob := entry.detail.pop("blob", None)) is not None:
            entries[number] = msgspec.structs.replace(entry, value=await engine.kept(blob))
    return created.value or b"", groups, entries


async def fork(workflow: Workflow, payload: bytes, groups: dict[str, Any], entries: list[Entry], of: str) -> None:
    """Begin an instance with the steps of another one. Raises InstanceExists."""
    engine = workflow._z0_engine
    if engine.history.created is not None:
        raise InstanceExists(engine.address)
    origin = msgspec.to_builtins(Origin(forked=of))
    born = engine.services.born(engine.clock.now_us())
    detail = {"origin": origin, **groups, **tracing.begun(engine), **born}
    engine.note("workflow_queued", None, payload, version=engine.workflow.version, **detail)
    seqs: dict[int, int] = {}
    for entry in entries:
        detail = dict(entry.detail)
        if entry.event == "wait_completed":
            detail["event"] = seqs[detail["event"]]
        copied = _copy(engine, entry, detail)
        if entry.event == "event_received":
            seqs[entry.seq] = copied.seq
    if not engine.history.limited:
        engine.begin()


def continue_as_new(engine: Engine, payload: bytes) -> None:
    """End this run, and begin the next with an empty history; events that nobody took come along."""
    waiting, owed = list(engine.history.inbox.values()), dict(engine.history.errands)
    detail = continued(engine.history, engine.workflow.version)
    entry = engine.note("workflow_continued", None, payload, **detail)
    engine.host.writes.write(journal.SET_FLOOR, (entry.seq,))
    for event in waiting:
        _copy(engine, event, event.detail)
    for key, entry in owed.items():
        detail = {**entry.detail, "owes": [key.partition("@")[0]], "of": entry.detail.get("of", entry.seq)}
        _copy(engine, msgspec.structs.replace(entry, event="errand_owed", position=None), detail)
    engine.errands.go_on()
    engine.set_alarm()


async def purge(engine: Engine) -> None:
    """Remove the entries of earlier runs, a batch in each transaction."""
    host = engine.host
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
    engine = workflow._z0_engine
    record = engine.history.records.get(step)
    if record is None or record.done or record.child is None or record.child.id != id or again < record.again:
        return
    if created and created != engine.born:  # it is the child of one that had this id before
        return
    engine.stir()
    if failure is None:
        engine.note("step_completed", record, value, attempt=record.attempts + 1)
    else:
        engine.note("step_errored", record, attempt=record.attempts + 1, error=failure)
    if engine.body.run is not None:
        engine.body.run.waits.unpark(record.key)
    engine.body.go_on()
