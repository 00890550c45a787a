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
from z0.actors.background import wait_until
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
    from .engine import Engine

log = logging.getLogger("z0.workflows")

ALARM = "z0.errands"
_BEGINNINGS = frozenset({"workflow_queued", "workflow_retried", "workflow_restarted"})
_OWING = _BEGINNINGS | ENDS.keys() | {"alert_raised", "workflow_resumed"}

Errand = Callable[["Engine", Entry], Awaitable[None]]


def owed_by(engine: Engine, event: str, detail: dict[str, Any]) -> list[str]:
    """What must be done outside because of an entry that is about to be made."""
    if event not in _OWING:
        return []
    if event == "alert_raised":
        return ["alert"]
    created = engine.history.created
    limited = "groups" in (detail if created is None else created.detail)
    if event in _BEGINNINGS:
        return ["take_slot"] if limited else []
    if event == "workflow_resumed":
        return ["take_slot"] if limited and engine.history.queued else []
    owed = ["give_slot_back"] if limited else []
    if event == "workflow_errored":
        if not _is_ours(type(engine.workflow).on_failure):
            owed.append("on_failure")
        if engine.services.on_failure is not None or not engine.services.performs_errands:
            owed.append("tell_failure")
    return owed


def _is_ours(hook: object) -> bool:
    """Whether the class has no hook of its own."""
    ours = (f"{__package__}.workflow", "Workflow.on_failure")
    return (getattr(hook, "__module__", ""), getattr(hook, "__qualname__", "")) == ours


class Errands:
    """Of one instance."""

    def __init__(self, engine: Engine) -> None:
        """None is under way."""
        self._engine = engine
        self._running: set[str] = set()

    def go_on(self) -> None:
        """Begin what is owed and not under way. Part of a segment, or between segments."""
        engine = self._engine
        owed = engine.history.errands
        if not owed or engine.host.dead:
            return
        if put_off.errands(engine):
            self._be_reminded(min(entry.at for entry in owed.values()))
            return
        for key in owed:
            if key not in self._running:
                self._running.add(key)
                wait_until(engine.host, self._run(key))

    async def _run(self, key: str) -> None:
        try:
            await gated(self._engine.host, self._try(key))
        finally:
            self._running.discard(key)

    async def _try(self, key: str) -> None:
        engine = self._engine
        await engine.host.durable()
        entry = engine.history.errands.get(key)
        if entry is None:  # what owed it was taken back
            return
        try:
            await ERRANDS[key.partition("@")[0]](engine, entry)
        except (Exception, asyncio.CancelledError) as error:
            if engine.host.dead:
                raise
            # The engine cancels nobody whose incarnation goes on, so a cancellation is a failure of theirs.
            self._later(key, entry, error)
            return
        engine.note("errand_done", errand=key)
        retention.ended(engine)

    def _later(self, key: str, entry: Entry, error: BaseException) -> None:
        engine, at = self._engine, self._be_reminded(entry.at)
        level = logging.ERROR if engine.clock.now_us() - entry.at > LONGEST_US else logging.WARNING
        log.log(level, "%s: %s failed, and is tried again at %s: %r", engine.address, key, at, error)

    def _be_reminded(self, since: int) -> datetime:
        """Set the alarm for what is owed since then; when that is to be tried."""
        storage, now = self._engine.storage, self._engine.clock.now_us()
        at = datetime_of(as_long_again(since, now))
        set_at = storage.get_alarm(name=ALARM)
        if set_at is None or set_at > at:
            storage.set_alarm(at, name=ALARM)
        return at


# What there is to do


def _seq(entry: Entry) -> int:
    """Of the entry that owed it first: another run may owe it by a copy."""
    return int(entry.detail.get("of", entry.seq))


async def _alert(engine: Engine, entry: Entry) -> None:
    host = engine.host
    alert = Alert(
        id=f"{engine.identity}#{_seq(entry)}",
        name=entry.detail["alert"],
        data=None if entry.value is None else codec.decode(entry.value),
        workflow=host.address.namespace,
        instance=engine.id,
        tenant=host.address.tenant,
        timestamp=datetime_of(entry.at),
    )
    await services(host.node).alert(alert, host.node.clock)


def _failed(engine: Engine, entry: Entry) -> InstanceStatus:
    """How the instance was when it failed, whatever has become of it since."""
    status = status_of(engine.id, engine.history, True)
    error = msgspec.convert(entry.detail["error"], Failure)
    return replace(status, status="errored", output=None, error=error, step=entry.step)


async def _on_failure(engine: Engine, entry: Entry) -> None:
    told: Any = engine.workflow.on_failure(_failed(engine, entry))
    if inspect.isawaitable(told):
        await told


async def _tell_failure(engine: Engine, entry: Entry) -> None:
    host = engine.host
    hook = services(host.node).on_failure
    if hook is not None:
        status = _failed(engine, entry)
        told: Any = hook(FailedInstance(workflow=host.address.namespace, tenant=host.address.tenant, status=status))
        if inspect.isawaitable(told):
            await told


async def _take_slot(engine: Engine, entry: Entry) -> None:
    created = engine.history.created
    if created is None or not engine.history.queued or engine.history.paused_at is not None:
        return
    tenant, groups = engine.host.address.tenant, created.detail["groups"]
    priority, keeps = created.detail["priority"], entry.event == "workflow_resumed"
    await _turnstile(engine).z0_join(tenant, engine.id, groups, priority, entry.seq, keeps)


async def reserve_slot(engine: Engine) -> str | None:
    """Before an instance that has ended begins anew: why it must not, if so. It is told when it may, as ever."""
    created, rules = engine.history.created, rules_of(type(engine.workflow).concurrency)
    if created is None or not engine.history.limited or queues(rules):
        return None
    tenant, detail = engine.host.address.tenant, created.detail
    turnstile = _turnstile(engine)
    return await turnstile.z0_reserve(tenant, engine.id, detail["groups"], detail["priority"], engine.history.seq)


async def _give_slot_back(engine: Engine, entry: Entry) -> None:
    await _turnstile(engine).z0_leave(engine.host.address.tenant, engine.id, _seq(entry))


def _turnstile(engine: Engine) -> Turnstile:
    host = engine.host
    return host.node.stub(Turnstile, host.kind.namespace, home_of(type(engine.workflow), host.address.tenant), host)


ERRANDS: dict[str, Errand] = {
    "alert": _alert,
    "on_failure": _on_failure,
    "tell_failure": _tell_failure,
    "take_slot": _take_slot,
    "give_slot_back": _give_slot_back,
}
