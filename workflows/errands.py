"""Errands: what an instance must get done outside, at least once, because an entry of its journal says so.

An entry *owes* errands ("owes" in its detail), in the transaction of whatever it tells. They run once that is durable,
beside the body, and each ends with an entry "errand_done". One that fails is tried again, the later the longer it is
owed, for as long as it takes; an instance that waits for that is not in memory.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from z0.actors import codec
from z0.actors.call import CURRENT
from z0.actors.clock import datetime_of
from z0.actors.segments import Segments

from .alerts import Alert, FailedInstance
from .failure import Failure
from .journal import Entry
from .services import services
from .status import InstanceStatus, status_of

if TYPE_CHECKING:
    from .workflow import Workflow

log = logging.getLogger("z0.workflows")

ALARM = "z0.errands"
_SHORTEST, _LONGEST = 2_000_000, 1_024_000_000  # microseconds between two tries

Errand = Callable[["Workflow", Entry], Awaitable[None]]


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
        for key in owed:
            if key not in self._running:
                self._running.add(key)
                workflow.wait_until(self._run(key))

    async def _run(self, key: str) -> None:
        call = CURRENT.get()
        assert call is not None
        assert call.activity is not None
        try:
            await Segments(self._workflow._z0_host, self._try(key), call.activity)
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
        except Exception as error:
            if workflow._z0_host.dead:
                raise
            self._later(key, entry, error)
            return
        workflow.note("errand_done", errand=key)

    def _later(self, key: str, entry: Entry, error: Exception) -> None:
        workflow = self._workflow
        now = workflow.clock.now_us()
        at = datetime_of(now + min(max(now - entry.at, _SHORTEST), _LONGEST))
        level = logging.ERROR if now - entry.at > _LONGEST else logging.WARNING
        log.log(level, "%s: %s failed, and is tried again at %s: %r", workflow.address, key, at, error)
        set_at = workflow.storage.get_alarm(name=ALARM)
        if set_at is None or set_at > at:
            workflow.storage.set_alarm(at, name=ALARM)


# What there is to do


async def _alert(workflow: Workflow, entry: Entry) -> None:
    host = workflow._z0_host
    alert = Alert(
        id=f"{host.address}#{entry.seq}",
        name=entry.detail["alert"],
        data=None if entry.value is None else codec.decode(entry.value),
        workflow=host.address.namespace,
        instance=workflow.id,
        tenant=host.address.tenant,
        timestamp=datetime_of(entry.at),
    )
    await services(host.node).alert(alert)


def _failed(workflow: Workflow, entry: Entry) -> InstanceStatus:
    """How the instance was when it failed, whatever has become of it since."""
    status = status_of(workflow.id, workflow.history, True)
    error = msgspec.convert(entry.detail["error"], Failure)
    return replace(status, status="errored", output=None, error=error, step=entry.step)


async def _on_failure(workflow: Workflow, entry: Entry) -> None:
    await workflow.on_failure(_failed(workflow, entry))


async def _tell_failure(workflow: Workflow, entry: Entry) -> None:
    host = workflow._z0_host
    hook = services(host.node).on_failure
    if hook is not None:
        status = _failed(workflow, entry)
        told: Any = hook(FailedInstance(workflow=host.address.namespace, tenant=host.address.tenant, status=status))
        if inspect.isawaitable(told):
            await told


ERRANDS: dict[str, Errand] = {"alert": _alert, "on_failure": _on_failure, "tell_failure": _tell_failure}
