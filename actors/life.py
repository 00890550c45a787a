"""The life of a host: opening its file, starting the actor, and closing again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from .call import CURRENT, Activity, Call
from .database import Database
from .errors import (
    Aborted,
    DatabaseFailure,
    StorageFailed,
    presentable,
)
from .files import is_there
from .host import Host, State
from .migrations import bring_up
from .opening import Meta, is_clean, is_listed, make_trusted, open_file, opened
from .retention import purging
from .segments import Segments
from .within import within

log = logging.getLogger("z0.actors")


def open_now(host: Host) -> bool:
    """Open an existing actor on the spot, if nothing has to be waited for. Raises what opening raises."""
    node, kind = host.node, host.kind
    if kind.start is not None and kind.start.suspends:
        return False
    if host.address in node.closing or host.address in node.quarantine:
        return False
    sender = CURRENT.set(host.call)
    try:
        if not (is_there(host.path) and is_clean(host) and is_listed(host) and node.room.take(host)):
            return False
        _construct(host, *open_file(host))
        if kind.start is not None:
            host.run(kind.start, (), {})
    except BaseException as error:
        told = fail_opening(host, error)
        if told is error:
            raise
        raise told from error
    finally:
        CURRENT.reset(sender)
    _opened(host)
    return True


async def open_later(host: Host) -> None:
    """Open an actor, waiting for its predecessor, for a free slot, for its file to be made and for `start()`."""
    node = host.node
    CURRENT.set(host.call)
    try:
        while (predecessor := node.closing.get(host.address)) is not None:
            await asyncio.shield(predecessor.closed)
        damaged = node.quarantine.admit(host.address)
        await node.room.wait(host)
        clean, database, meta = await opened(host)
        if damaged or not clean:
            try:
                await node.threads.call(partial(make_trusted, host, database, damaged))
            except BaseException:
                database.abandon()
                raise
            node.quarantine.suspect.discard(host.address)
            node.quarantine.release(host.address)
        _construct(host, database, meta)
        if host.kind.start is not None:
            await _start(host)
    except BaseException as error:
        fail_opening(host, error)
        if not isinstance(error, (Exception, Aborted)):
            raise
        return
    if not host.dead:
        _opened(host)
        host.delivery.pump()


def _construct(host: Host, database: Database, meta: Meta) -> None:
    """The actor's object, on its open file."""
    host.attach(database)
    host.writes.segment += 1
    if host.kind.alarm is not None:
        host.alarms.open()
    actor = host.actor = host.kind.cls.__new__(host.kind.cls)
    actor._z0_bind(host)
    actor._z0_open(meta)
    if host.kind.migrations or "migrations" in meta:
        bring_up(host, meta)
    actor.__init__()  # type: ignore[misc]
    host.divide()  # what the constructor wrote is a segment


async def _start(host: Host) -> None:
    start = host.kind.start
    assert start is not None
    first = host.mailbox[0] if host.mailbox else None
    activity = Activity(None if first is None else first.sender)
    CURRENT.set(Call(host, activity))
    host.hold(activity)
    limit = host.node.limits.block_seconds
    exceeded = f"start() of {host.address} took more than {limit:g} seconds (block_seconds)"
    await within(host.node.clock, limit, Segments(host, start.function(host.actor), activity), exceeded)
    activity.end()
    host.unhold()


def _opened(host: Host) -> None:
    host.state = State.OPEN
    host.used = host.node.rest.tick
    host.refresh()
    host.node.wakeups.expect(host)
    host.node.opened(host)


def fail_opening(host: Host, error: BaseException) -> BaseException:
    """An actor could not be opened: fail the messages that wait for it; what they are told."""
    told = _as_told(host, error)
    failure = presentable(told)
    for message in host.mailbox:
        if not message.reply.done():
            message.reply.set_exception(failure)
    host.mailbox.clear()
    host.reset(f"it could not be opened: {error}")
    return told


def _as_told(host: Host, error: BaseException) -> BaseException:
    """What the callers of an actor are told that could not be opened."""
    quarantine = host.node.quarantine
    if isinstance(error, DatabaseFailure):
        quarantine.failed(host.address, host.path, error)
    if host.address in quarantine:
        return quarantine.refusal(host.address)
    if isinstance(error, (DatabaseFailure, StorageFailed)):
        host.reason = f"it could not be opened: {error}"
        return host.reset_error()
    if isinstance(error, asyncio.CancelledError):
        host.reason = "the runtime was closed"
        return host.reset_error()
    if isinstance(error, Aborted):
        return host.reset_error()
    return error


async def close(host: Host, reason: str) -> None:
    """Evict a host that is CLOSING: stop the actor, write what is open, and leave one complete file."""
    try:
        await _stop(host, reason)
        await host.parking.over()
        while host.turn is not None and not host.dead:  # stop() wrote, or a task of the actor
            await host.durable()
            await host.parking.over()
        if not host.dead:
            await _leave(host)
            host.node.metrics.evictions[reason] += 1
    except BaseException as error:
        if isinstance(error, Exception) and host.state is not State.RESET:
            log.warning("actor %s was not closed cleanly", host.address, exc_info=True)
        if isinstance(error, DatabaseFailure):
            host.node.quarantine.failed(host.address, host.database.path, error)
        host.reset(f"closing failed: {error!r}")
        if not isinstance(error, (Exception, Aborted)):
            raise


async def _stop(host: Host, reason: str) -> None:
    if host.kind.stop is None:
        return
    activity = Activity()
    host.hold(activity)
    CURRENT.set(Call(host, activity))
    task = asyncio.current_task()
    assert task is not None
    limit = host.node.clock.call_later(host.node.limits.stop_seconds, task.cancel)
    host.node.stopping[task] = None
    try:
        await Segments(host, host.kind.stop.function(host.actor, reason), activity)
        if host.background:
            await host.background.over()
    except asyncio.CancelledError:
        task.uncancel()
        log.warning("stop() of actor %s took too long and was cancelled", host.address)
    except Exception:
        log.exception("stop() of actor %s failed", host.address)
    finally:
        del host.node.stopping[task]
        limit.cancel()
        activity.end()
        if not host.dead:
            host.unhold()


async def _leave(host: Host) -> None:
    node, database = host.node, host.database
    host.writes.segment += 1
    database.relax()
    host.running = host.led = True  # nobody else ends this turn
    status = host.actor._z0_status()
    host.actor._z0_close()
    host.running = False
    turn = host.turn
    if turn is not None:
        database.commit(host.writes.end_turn())
        host.committed(turn, None)
    facts = host.actor._z0_facts()
    removed = host.address in node.removals and host.actor._z0_removable()
    host.abandon("it was evicted", State.CLOSING)
    if host.background is not None:
        host.background.cancel()
    try:
        await node.threads.call(partial(_close_file, host, purging(host)))
        if removed:
            await node.removals.erase(host)
        else:
            _list(host, facts, status)
    except BaseException as error:
        node.wakeups.lost(host)  # the catalogue does not know when it is due
        node.removals.fail(host, error)
        raise
    finally:
        host.abandon("it was evicted", State.EVICTED)
        node.left(host)


def _list(host: Host, facts: int | None, status: str | None) -> None:
    """Have the catalogue say how the actor was left, its file complete."""
    node, due = host.node, host.alarms.due
    try:
        size = host.database.path.stat().st_size
    except OSError:  # somebody took it away; that it was there is known, so that it is missed
        size = 0
    node.catalog.update(host.address, size, facts, host.version, status, node.clock.now_us())
    if host.kind.alarm is not None:
        node.alarm_index.left(host.address, due, partial(node.wakeups.evicted, due))


def _close_file(host: Host, purge: Callable[[], None] | None) -> None:
    """Runs in a thread."""
    try:
        if purge is not None:
            purge()
    except BaseException:
        host.database.abandon()
        raise
    host.node.file_ops.close(host.address, host.database)
