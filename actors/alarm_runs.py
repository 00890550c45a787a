"""Running the alarms of one actor that are due: one after another, as messages of its own.

A run's row goes (or moves to its next time) in the transaction of the handler's last segment, so a run either has
happened with all its effects or is still owed (as Durable Objects: deferred deletion). A failed run is retried 6
times, 2·2ⁿ seconds apart. A run that a reset cuts off is no failure of the handler's: it is begun anew, uncounted.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from .clock import datetime_of, to_us
from .handlers import Handler
from .mailbox import Message
from .schedule import RETRIES_MAX, retry_seconds
from .within import within

if TYPE_CHECKING:
    from .alarms import Alarms
    from .host import Host

log = logging.getLogger("z0.actors")

_ERROR_CHARACTERS = 2_000
_FIRST_DUE = "SELECT name, id, scheduled, retries, due FROM z0_alarms WHERE due <= ? ORDER BY due, name, id LIMIT 1"


class AlarmInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What an alarm handler is told of its run."""

    scheduled_time: datetime
    """When it was to run first; aware, UTC."""
    retry_count: int
    """Failed runs before this one."""
    name: str | None
    """None: the unnamed alarm."""

    @property
    def is_retry(self) -> bool:
        """Whether an earlier run failed."""
        return self.retry_count > 0


class Run(msgspec.Struct, frozen=True):
    """One run of an alarm."""

    name: str
    id: int
    scheduled: int
    retries: int


class AlarmRuns:
    """The runs of one actor's alarms."""

    __slots__ = ("_alarms", "_host", "busy", "given_up", "running")

    def __init__(self, host: Host, alarms: Alarms) -> None:
        """Nothing runs."""
        self._host = host
        self._alarms = alarms
        self.busy = False
        """Somebody runs what is due."""
        self.running: Run | None = None
        self.given_up: Run | None = None
        """The run that abort() ended for good, which its file does not say yet."""

    async def run(self) -> None:
        """Run what is due, one after another. Raises what keeps the actor from it: a reset, a failed opening."""
        host, failed = self._host, True
        try:
            while await self._run_first():
                if host.dead:  # reset since the run was committed: who is due next is not seen to here
                    raise host.reset_error()
                if self._alarms.due is None or self._alarms.due > self._now_us() or host.node.draining:
                    break
            failed = False
        finally:
            self.busy = False
            if host.is_open:
                if not failed:  # else not at once
                    host.node.wakeups.expect(host)
                host.node.rested(host)

    async def _run_first(self) -> bool:
        """Run what is due first; whether something was."""
        host, alarm = self._host, self._host.kind.alarm
        assert alarm is not None
        try:
            outcome = await self._send(Handler("alarm", _run_alarm, alarm.suspends))
        except Exception as error:
            run = self.running
            if run is None or host.dead:  # it never began, or was cut off: no fault of the handler's
                raise
            outcome = await self._send(Handler("alarm", _note_failure, False), run, error)
        finally:
            self.running = None
        if outcome is not None:
            host.node.metrics.alarms[outcome] += 1
        return outcome is not None

    async def _send(self, handler: Handler, *args: object) -> Any:
        """A message of our own: beside the mailbox's limits, for there is one at a time."""
        host = self._host
        if host.dead:
            raise host.reset_error()
        reply: asyncio.Future[Any] = host.node.loop.create_future()
        host.delivery.accept(Message(handler, args, {}, 0, Context(), reply), bounded=False)
        return await reply

    def begin(self) -> Run | None:
        """Take the first run that is due, in the segment that begins it."""
        node, now = self._host.node, self._now_us()
        row = self._host.writes.row(_FIRST_DUE, now)
        if row is None:
            return None
        *run, due = row
        node.wakeups.began(self._host.address)
        node.metrics.alarm_lateness.add(now - due)
        self.running = Run(*run)
        return self.running

    def give_up(self) -> None:
        """The run that is under way ends with this incarnation, and is owed no more."""
        self.given_up = self.running

    async def abandon(self, run: Run) -> None:
        """Have the file say that a run of a former incarnation is owed no more. Raises as `run`."""
        await self._send(Handler("alarm", _abandon, False), run)
        self._host.node.metrics.alarms["abandoned"] += 1

    def fail(self, run: Run, error: BaseException) -> str:
        """The run failed, and its last segment was taken back: retry it, or give it up; which of the two."""
        text = _text(error)
        address, name = self._host.address, run.name or "alarm"
        if not self._alarms.owes(run):
            log.warning("%s of %s failed after delete_all(), and is not run again", name, address, exc_info=error)
            return "abandoned"
        if run.retries >= RETRIES_MAX and self._given_up(run, text):
            log.error("%s of %s failed %d times and is given up", name, address, run.retries + 1, exc_info=error)
            return "abandoned"
        delay = retry_seconds(run.retries + 1, self._host.node.clock.random)
        log.warning("%s of %s failed and is run again in %.1f s", name, address, delay, exc_info=error)
        self._alarms.retry(run, self._now_us() + to_us(delay), text)
        return "retried"

    def _given_up(self, run: Run, error: str) -> bool:
        """End a run for good; an alarm whose next time nobody can tell is tried again instead of being dropped."""
        try:
            self._alarms.end(run, "abandoned", error)
        except ValueError:  # its time zone is not known here any more
            return False
        return True

    def _now_us(self) -> int:
        return self._host.node.clock.now_us()


def _text(error: BaseException) -> str:
    """The error as it can be stored: valid Unicode, of a bounded length."""
    text = f"{type(error).__name__}: {error}"[:_ERROR_CHARACTERS]
    return text.encode(errors="backslashreplace").decode()


async def _run_alarm(actor: Any) -> str | None:
    host: Host = actor._z0_host
    run = host.alarms.runs.begin()
    if run is None:
        return None
    info = AlarmInfo(scheduled_time=datetime_of(run.scheduled), retry_count=run.retries, name=run.name or None)
    alarm = host.kind.alarm
    assert alarm is not None
    if alarm.suspends:
        limit = host.node.limits.alarm_seconds
        exceeded = f"alarm() of {host.address} took more than {limit:g} seconds (alarm_seconds)"
        await within(host.node.clock, limit, alarm.function(actor, info), exceeded)
    else:
        await alarm.function(actor, info)
    host.alarms.end(run, "ok")
    return "ok"


async def _abandon(actor: Any, run: Run) -> None:
    host: Host = actor._z0_host
    host.alarms.end(run, "abandoned", "abort(retry_alarm=False)")


async def _note_failure(actor: Any, run: Run, error: BaseException) -> str:
    host: Host = actor._z0_host
    return host.alarms.runs.fail(run, error)
