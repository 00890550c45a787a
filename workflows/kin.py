"""Parents and children: an instance that another one waits for, and what they have to tell each other.

A child tells its parent that it has ended, and a parent tells children that nobody waits for them any more: at least
once, for what is still to be told is in the journal until an entry says that it was.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from z0.actors.background import wait_until
from z0.actors.clock import to_us
from z0.actors.errors import InvalidName
from z0.actors.names import Address
from z0.actors.segments import gated

from . import put_off
from .errors import InstanceFailed, InstanceNotFound, NonDeterminismError, Suspended, WrongStatus
from .failure import failure_of
from .lifecycle import Child, Origin, Parent
from .place import INSIDE
from .values import stored

if TYPE_CHECKING:
    from .engine import Engine
    from .history import Record
    from .run import Run
    from .steps import Steps
    from .workflow import Workflow

log = logging.getLogger("z0.workflows")
_FIRST_DELAY, _DELAY_MAX = 1.0, 300.0  # seconds between attempts to tell
_ID_PREFIX = 80


def derived_id(key: str, prefix: str = "") -> str:
    """An id that follows from the key of whoever makes the instance."""
    digest = blake2b(key.encode(), digest_size=8 if prefix else 16).hexdigest()
    return f"{prefix[:_ID_PREFIX]}-{digest}" if prefix else digest


# The step that waits for a child


def child_class(run: Run, cls: type[Workflow] | str) -> type[Workflow] | None:
    """The class of a child; None: its name is not known here, which a child that has ended does not mind.

    Raises TypeError for what is neither a class nor a name.
    """
    try:
        return run.engine.workflow.workflows.class_of(cls)
    except InvalidName:
        return None


async def run_child(
    steps: Steps, inside: Steps, record: Record, of: type[Workflow] | str, payload: Any, id: str | None, outlives: bool
) -> None:
    """Have the child run, and return when it has ended: the record has its result then.

    `inside`: takes the steps that stand in this one.
    """
    run = inside.run
    engine = run.engine
    with steps.waiting():
        await run.reach(record)
        cls = engine.workflow.workflows.class_of(of)
        if record.key not in run.history.records:
            chosen = id or derived_id(_key(engine, record), engine.id)
            child = Child(engine.workflow.workflows.get(cls, chosen)._address.namespace, chosen, outlives)
            steps.announce()
            engine.note("child_started", record, child=msgspec.to_builtins(child))
        record = run.history.records[record.key]
    token = INSIDE.set(record.key)
    try:
        await _create(inside, record, cls, payload)
    except NonDeterminismError:
        raise
    except Exception as error:
        if run.closed or run.host.dead:
            raise Suspended from None
        if not record.done:
            engine.note("step_errored", record, attempt=record.attempts + 1, error=failure_of(error))
        return
    finally:
        INSIDE.reset(token)
    if not record.done:
        with steps.waiting():
            await run.waits.park(record)


def _key(engine: Engine, record: Record) -> str:
    """Of the creation: another one when the step was forgotten, for its child may have ended by then."""
    key, anew = engine.idempotency_key(record.key), engine.history.anew[record.key]
    return f"{key}~{anew}" if anew else key


async def _create(inside: Steps, record: Record, cls: type[Workflow], payload: Any) -> None:
    """Create the child once; and have it retried, once for each time that this step is."""
    engine, child = inside.run.engine, record.child
    assert child is not None
    instance = engine.workflow.workflows.get(cls, child.id)
    parent = Parent(engine.host.kind.namespace, engine.id, record.key, created=engine.born)
    origin = Origin(key=_key(engine, record), parent=parent)

    async def create() -> None:
        encoded = stored(payload, f"the payload of {child.id}", cls.result_bytes)
        detail = engine.workflow.workflows.detail_of(instance.cls, payload, None, 0, origin)
        await instance._stub.z0_create(encoded, detail)

    async def retry() -> None:
        await instance._stub.z0_retry_for_parent(record.again)

    await inside.do("create", create)
    for _ in range(record.again):
        await inside.do("retry", retry)


# Telling


def see_to(engine: Engine) -> None:
    """Tell whom there is something to tell."""
    host = engine.host
    if is_due(engine) and not engine.telling and not host.dead and not host.node.draining:
        host.alarms.hold()
        if not put_off.errands(engine):
            engine.telling = True
            wait_until(engine.host, _tell_all(engine))


def is_due(engine: Engine) -> bool:
    """Whether somebody is still to be told."""
    return bool(engine.history.orphans) or engine.history.owes_parent


async def _tell_all(engine: Engine) -> None:
    try:
        await gated(engine.host, _tell(engine))
    except asyncio.CancelledError:
        return
    finally:
        engine.telling = False


async def _tell(engine: Engine) -> None:
    history, host = engine.history, engine.host
    try:
        while is_due(engine):
            if history.orphans:
                child, rollback = next(iter(history.orphans.items()))
                await _terminate(engine, child, rollback)
                engine.note("child_told", child=child)
            else:
                end, asked = history.end, history.again
                await _tell_parent(engine)
                if history.end is end and history.again == asked:
                    engine.note("parent_told")
            await host.durable()
    except Exception as error:
        if host.dead:
            return
        log.warning("%s could not tell its kin, and tries again: %s", engine.address, error)
        engine.tell_delay = min(max(_FIRST_DELAY, 2 * engine.tell_delay), _DELAY_MAX)
        engine.tell_at = engine.clock.now_us() + to_us(engine.tell_delay)
        engine.set_alarm()
    else:
        engine.tell_delay, engine.tell_at = 0.0, None


async def _terminate(engine: Engine, child: Child, rollback: bool) -> None:
    with suppress(WrongStatus, InstanceNotFound):  # it has ended, or never began
        await engine.workflow.workflows.get(child.namespace, child.id).terminate(rollback=rollback)


async def _tell_parent(engine: Engine) -> None:
    created = engine.history.created
    assert created is not None
    parent = msgspec.convert(created.detail["origin"]["parent"], Parent)
    node, tenant = engine.host.node, engine.host.address.tenant
    address = Address(tenant, parent.namespace, parent.id)
    if not node.knows(address):
        return
    kind = node.kind_of(parent.namespace)
    if kind is None:
        raise InvalidName(f"workflow {parent.namespace!r}", "is not known; name its class in Runtime(actors=[...])")
    value, failure = _outcome(engine)
    stub: Any = node.stub(kind.cls, parent.id, tenant, engine.host)
    await stub.z0_child_ended(parent.step, engine.id, engine.history.again, value, failure, parent.created)


def _outcome(engine: Engine) -> tuple[bytes | None, dict[str, Any] | None]:
    end = engine.history.end
    assert end is not None
    if end.event == "workflow_completed":
        return end.value, None
    failure = end.detail.get("error")
    if end.event != "workflow_errored" or failure is None:
        status, reason = engine.status, str(end.detail.get("reason", "it has no result"))
        failure = msgspec.to_builtins(failure_of(InstanceFailed(engine.address, status, reason)))
    return None, failure
