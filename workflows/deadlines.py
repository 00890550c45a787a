"""The deadlines of an instance: sleeps, waits and backoffs end in the order in which they are due.

After an outage, or a jump of the clock, several may have passed. What the body makes of the first must not depend on
the others, as it did not have them when they were apart: those of the earliest deadline end alone. The next ones
follow when the body can get no further, or has had as long as they were apart, but at most some seconds: it may be
doing something long meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from z0.actors.clock import datetime_of

from . import divergence
from .errors import EventTimeout
from .failure import failure_of

if TYPE_CHECKING:
    from .engine import Engine
    from .history import Record

_REACTION = 10.0  # seconds


async def pass_time(engine: Engine) -> None:
    """End what is due, deadline by deadline, and have the body go on. For the handler of the alarm.

    The waiting is done here, and not by another alarm, for an alarm that is moved is a commit that gets nobody on.
    """
    while (due := _first(engine)) is not None:
        if engine.body.run is not None and engine.body.stirred_us is not None and due <= engine.body.stirred_us:
            if not await _is_over(engine, due):
                return
            continue
        for record in engine.history.waits():
            if record.due == due:
                _time_has_come(engine, record)
        engine.body.stirred_us, engine.body.passed_us, engine.body.resumed = engine.clock.now_us(), due, True
        engine.body.go_on()


def is_next(engine: Engine, due: int) -> bool:
    """Whether a body that comes to a backoff that ends then need not wait: it has passed, and nothing before it."""
    if engine.body.resumed or _first(engine) != due:
        return False
    engine.body.resumed = True
    return True


def _first(engine: Engine) -> int | None:
    """The earliest deadline that has passed."""
    history, now = engine.history, engine.clock.now_us()
    if history.end is not None or history.paused_at is not None:
        return None
    return min((each.due for each in history.open.values() if each.due is not None and each.due <= now), default=None)


async def _is_over(engine: Engine, due: int) -> bool:
    """Return when the body has come to rest, or has had its time; whether the instance goes on then.

    `due`: the deadline that comes next.
    """
    passed = engine.body.passed_us
    most = _REACTION if passed is None else min(_REACTION, (due - passed) / 1e6)
    engine.body.reaction = asyncio.get_running_loop().create_future()
    timer = engine.clock.call_later(most, engine.body.has_reacted)
    try:
        await engine.body.reaction
    finally:
        timer.cancel()
    engine.body.stirred_us = None
    host = engine.host
    return not host.dead and not host.node.draining


def _time_has_come(engine: Engine, record: Record) -> None:
    if record.kind == "sleep":
        engine.note("sleep_completed", record)
    elif record.kind == "wait":
        error = EventTimeout(record.key.rpartition(":")[2].rpartition("#")[0], record.type or "")
        engine.note("wait_timed_out", record, error=failure_of(error))
    else:
        engine.history.shut(record)
    if engine.body.run is not None:
        engine.body.run.waits.unpark(record.key)


def set_alarm(engine: Engine) -> None:
    """Have the alarm run when the first wait is due."""
    due = None if engine.history.end is not None else engine.history.due()
    if due is not None and engine.history.diverged is not None:
        due = max(due, engine.clock.now_us() + divergence.LOOK_AGAIN_US)
    if engine.tell_at is not None:
        due = engine.tell_at if due is None else min(due, engine.tell_at)
    if due != engine.alarm_us:
        engine.alarm_us = due
        if due is None:
            engine.storage.delete_alarm()
        else:
            engine.storage.set_alarm(datetime_of(due))
