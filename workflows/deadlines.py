"""The deadlines of an instance: sleeps, waits and backoffs end in the order in which they are due.

After an outage, or a jump of the clock, several may have passed. What the body makes of the first must not depend on
the others, as it did not have them when they were apart: those of the earliest deadline end alone. The next ones
follow when the body can get no further, or has had some seconds: it may be doing something long meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from z0.actors.clock import datetime_of

from . import divergence
from .errors import EventTimeout
from .failure import failure_of

if TYPE_CHECKING:
    from .history import Record
    from .workflow import Workflow

_REACTION = 10  # seconds


async def pass_time(workflow: Workflow) -> None:
    """End what is due, deadline by deadline, and have the body go on. For the handler of the alarm.

    The waiting is done here, and not by another alarm, for an alarm that is moved is a commit that gets nobody on.
    """
    while (due := _first(workflow)) is not None:
        if workflow._run is not None and workflow.stirred_us is not None and due <= workflow.stirred_us:
            if not await _is_over(workflow):
                return
            continue
        for record in workflow.history.waits():
            if record.due == due:
                _time_has_come(workflow, record)
        workflow.stirred_us, workflow.resumed = workflow.clock.now_us(), True
        workflow.go_on()


def is_next(workflow: Workflow, due: int) -> bool:
    """Whether a body that comes to a backoff that ends then need not wait: it has passed, and nothing before it."""
    if workflow.resumed or _first(workflow) != due:
        return False
    workflow.resumed = True
    return True


def _first(workflow: Workflow) -> int | None:
    """The earliest deadline that has passed."""
    history, now = workflow.history, workflow.clock.now_us()
    if history.end is not None or history.paused_at is not None:
        return None
    return min((each.due for each in history.open.values() if each.due is not None and each.due <= now), default=None)


async def _is_over(workflow: Workflow) -> bool:
    """Return when the body has come to rest, or has had its time; whether the instance goes on then."""
    workflow.reaction = asyncio.get_running_loop().create_future()
    timer = workflow.clock.call_later(_REACTION, workflow.has_reacted)
    try:
        await workflow.reaction
    finally:
        timer.cancel()
    workflow.stirred_us = None
    host = workflow._z0_host
    return not host.dead and not host.node.draining


def _time_has_come(workflow: Workflow, record: Record) -> None:
    if record.kind == "sleep":
        workflow.note("sleep_completed", record)
    elif record.kind == "wait":
        error = EventTimeout(record.key.rpartition(":")[2].rpartition("#")[0], record.type or "")
        workflow.note("wait_timed_out", record, error=failure_of(error))
    else:
        workflow.history.shut(record)
    if workflow._run is not None:
        workflow._run.unpark(record.key)


def set_alarm(workflow: Workflow) -> None:
    """Have the alarm run when the first wait is due."""
    due = None if workflow.history.end is not None else workflow.history.due()
    if due is not None and workflow.history.diverged is not None:
        due = max(due, workflow.clock.now_us() + divergence.LOOK_AGAIN_US)
    if workflow.tell_at is not None:
        due = workflow.tell_at if due is None else min(due, workflow.tell_at)
    if due != workflow.alarm_us:
        workflow.alarm_us = due
        if due is None:
            workflow.storage.delete_alarm()
        else:
            workflow.storage.set_alarm(datetime_of(due))
