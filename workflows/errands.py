"""Errands: what an instance must get done outside, at least once, because an entry of its journal says so.

An entry *owes* errands ("owes" in its detail), in the transaction of whatever it tells. They run once that is durable,
beside the body, and each ends with an entry "errand_done". One that fails is tried again, the later the longer it is
owed, for as long as it takes; an instance that waits for that is not in memory. A runtime that performs no errands
(`Services.performs_errands`) leaves them owed, for the next one to do.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from z0.actors import codec
from z0.actors.clock import datetime_of
from z0.actors.schedule import LONGEST_US, as_long_again
from z0.actors.segments import gated

from . import put_off, retention
from .alerts import Alert, FailedInstance
from .failure import Failure
from .flow import queues, rules_of
from .history import ENDS
from .journal import Entry
from .services import services
from .status import InstanceStatus, status_of
from .turnstile import Turnstile, home_of

if TYPE_CHECKING:
    from .workflow import Workflow

log = logging.getLogger("z0.workflows")

ALARM = "z0.errands"
_BEGINNINGS = frozenset({"workflow_queued", "workflow_retried", "workflow_restarted"})
_OWING = _BEGINNINGS | ENDS.keys() | {"alert_raised", "workflow_resumed"}

Errand = Callable[["Workflow", Entry], Awaitable[None]]


def owed_by(workflow: Workflow, event: str, detail: dict[str, Any]) -> list[str]:
    """What must be done outside because of an entry that is about to be made."""
    if event not in _OWING:
        return []
    if event == "alert_raised":
        return ["alert"]
    created = workflow.history.created
    limited = "groups" in (detail if created is None else created.detail)
    if event in _BEGINNINGS:
        return ["take_slot"] if limited else []
    if event == "workflow_resumed":
        return ["take_slot"] if limited and workflow.history.queued else []
    owed = ["give_slot_back"] if limited else []
    if event == "workflow_errored":
        if not _is_ours(type(workflow).on_failure):
            owed.append("on_failure")
        if workflow._services.on_failure is not None or not workflow._services.performs_errands:
            owed.append("tell_failure")
    return owed


def _is_ours(hook: object) -> bool:
    """Whether the class has no hook of its own."""
    ours = (f"{__package__}.workflow", "Workflow.on_failure")
    return (getattr(hook, "__module__", ""), getattr(hook, "__qualname__", "")) == ours


class Errands:
    """Of one instance."""

    def __init__(self, workflow: Workflow) -> None:
        """None is under way."""
        self._workflow = workflow
        self._running: set[str] = set()

    def go_on(self) -> None:
        """Begin what is owed and not under way. Part of a segment, or between segments."""
        workflow = self._workflow
        owed = workflow.history.errands
        if not owed or workflow._z0_host.dead:
            return
        if put_off.errands(workflow):
            self._be_reminded(min(entry.at for entry in owed.values()))
            return
        for key in owed:
            if key not in self._running:
                self._running.add(key)
                workflow.wait_until(self._run(key))

    async def _run(self, key: str) -> None:
        try:
            await gated(self._workflow._z0_host, self._try(key))
        finally:
            self._running.discard(key)

    async def _try(self, key: str) -> None:
        workflow = self._workflow
        await workflow._z0_host.durable()
        entry = workflow.history.errands.get(key)
        if entry is None:  # what owed it was taken back
            return
        try:
            await ERRANDS[key.partition("@")[0]](workflow, entry)
        except (Exception, asyncio.CancelledError) as error:
            if workflow._z0_host.dead:
                raise
            # The engine cancels nobody whose incarnation goes on, so a cancellation is a failure of theirs.
            self._later(key, entry, error)
            return
        workflow.note("errand_done", errand=key)
        retention.ended(workflow)

    def _later(self, key: str, entry: Entry, error: BaseException) -> None:
        workflow, at = self._workflow, self._be_reminded(entry.at)
        level = logging.ERROR if workflow.clock.now_us() - entry.at > LONGEST_US else logging.WARNING
        log.log(level, "%s: %s failed, and is tried again at %s: %r", workflow.address, key, at, error)

    def _be_reminded(self, since: int) -> datetime:
        """Set the alarm for what is owed since then; when that is to be tried."""
        storage, now = self._workflow.storage, self._workflow.clock.now_us()
        at = datetime_of(as_long_again(since, now))
        set_at = storage.get_alarm(name=ALARM)
        if set_at is None or set_at > at:
            storage.set_alarm(at, name=ALARM)
        return at


# What there is to do


def _seq(entry: Entry) -> int:
    """Of the entry that owed it first: another run may owe it by a copy."""
    return int(entry.detail.get("of", entry.seq))


async def _alert(workflow: Workflow, entry: Entry) -> None:
    host = workflow._z0_host
    alert = Alert(
        id=f"{workflow.identity}#{_seq(entry)}",
        name=entry.detail["alert"],
        data=None if entry.value is None else codec.decode(entry.value),
        workflow=host.address.namespace,
        instance=workflow.id,
        tenant=host.address.tenant,
        timestamp=datetime_of(entry.at),
    )
    await services(host.node).alert(alert, host.node.clock)


def _failed(workflow: Workflow, entry: Entry) -> InstanceStatus:
    """How the instance was when it failed, whatever has become of it since."""
    status = status_of(workflow.id, workflow.history, True)
    error = msgspec.convert(entry.detail["error"], Failure)
    return replace(status, status="errored", output=None, error=error, step=entry.step)


async def _on_failure(workflow: Workflow, entry: Entry) -> None:
    told: Any = workflow.on_failure(_failed(workflow, entry))
    if inspect.isawaitable(told):
        await told


async def _tell_failure(workflow: Workflow, entry: Entry) -> None:
    host = workflow._z0_host
    hook = services(host.node).on_failure
    if hook is not None:
        status = _failed(workflow, entry)
        told: Any = hook(FailedInstance(workflow=host.address.namespace, tenant=host.address.tenant, status=status))
        if inspect.isawaitable(told):
            await told


async def _take_slot(workflow: Workflow, entry: Entry) -> None:
    created = workflow.history.created
    if created is None or not workflow.history.queued or workflow.history.paused_at is not None:
        return
    tenant, groups = workflow._z0_host.address.tenant, created.detail["groups"]
    priority, keeps = created.detail["priority"], entry.event == "workflow_resumed"
    await _turnstile(workflow).z0_join(tenant, workflow.id, groups, priority, entry.seq, keeps)


async def reserve_slot(workflow: Workflow) -> str | None:
    """Before an instance that has ended begins anew: why it must not, if so. It is told when it may, as ever."""
    created, rules = workflow.history.created, rules_of(type(workflow).concurrency)
    if created is None or not workflow.history.limited or queues(rules):
        return None
    tenant, detail = workflow._z0_host.address.tenant, created.detail
    turnstile = _turnstile(workflow)
    return await turnstile.z0_reserve(tenant, workflow.id, detail["groups"], detail["priority"], workflow.history.seq)


async def _give_slot_back(workflow: Workflow, entry: Entry) -> None:
    await _turnstile(workflow).z0_leave(workflow._z0_host.address.tenant, workflow.id, _seq(entry))


def _turnstile(workflow: Workflow) -> Turnstile:
    host = workflow._z0_host
    return host.node.stub(Turnstile, host.kind.namespace, home_of(type(workflow), host.address.tenant), host)


ERRANDS: dict[str, Errand] = {
    "alert": _alert,
    "on_failure": _on_failure,
    "tell_failure": _tell_failure,
    "take_slot": _take_slot,
    "give_slot_back": _give_slot_back,
}
