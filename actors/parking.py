"""The file in other hands: while a thread commits, checkpoints or syncs, its actor is parked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .clock import Timer
from .database import Database
from .errors import DatabaseFailure
from .gates import Turn
from .retention import purging
from .threads import Work

if TYPE_CHECKING:
    from .host import Host


class Gone:
    """Stands where the database of a dead incarnation was."""

    def __init__(self, host: Host) -> None:
        """Of this host."""
        self._host = host

    def __getattr__(self, name: str) -> Any:
        """Raise ActorReset."""
        raise self._host.reset_error()


class Taken:
    """Stands where the database is while a thread has it: whoever is not gated waits for the thread, or is quicker."""

    def __init__(self, database: Database, work: Work) -> None:
        """`work` is what the thread does."""
        self._database = database
        self._work = work

    def __getattr__(self, name: str) -> Any:
        """Have it done, then go on."""
        self._work.finish()
        return getattr(self._database, name)


class Parking:
    """What threads do with one actor's file; one thing at a time, with the input gate closed."""

    __slots__ = ("_host", "_sync_timer", "committing", "thread")

    def __init__(self, host: Host) -> None:
        """Nothing is under way."""
        self._host = host
        self._sync_timer: Timer | None = None
        self.thread: Work | None = None
        """What has the file now."""
        self.committing: Turn | None = None
        """The turn that it commits."""

    def run(self, work: Callable[[], Any], done: Callable[[BaseException | None], None]) -> None:
        """Park the actor, have a thread work on its file, then go on."""
        host = self._host
        host.gate.parked = True
        host.ready = False

        def returned(_result: Any, error: BaseException | None) -> None:
            self.thread = None
            if not host.dead:
                host.writes.database = host.database
                host.gate.parked = False
            done(error)
            if not host.dead and not host.gate.parked:
                host.resume()

        self.thread = host.node.threads.run(work, returned)
        host.writes.database = Taken(host.database, self.thread)  # type: ignore[assignment]

    def commit(self, turn: Turn, work: Callable[[], Any]) -> None:
        """Have a thread do the commit of this turn."""
        self.committing = turn

        def done(failure: BaseException | None) -> None:
            self.committing = None
            self._host.committed(turn, failure)

        self.run(work, done)

    def checkpoint_if_due(self) -> None:
        """Count the WAL's pages, and checkpoint when there are too many."""
        host = self._host
        if host.dead or host.gate.parked or host.turn is not None:
            return
        if host.created:
            host.created = False
            host.node.catalog.stored(host.address)
        try:
            due = host.database.checkpoint_due(host.node.limits.checkpoint_pages)
        except DatabaseFailure as failure:
            host.storage_failed(failure)
        else:
            if due:
                self.checkpoint()

    def checkpoint(self) -> None:
        """Let a thread copy the WAL, which nobody writes now, into the database, so that it is reused, not growing."""
        host = self._host
        wait = host.database.wal_pages >= host.node.limits.checkpoint_pages_max

        def done(error: BaseException | None) -> None:
            if error is not None:
                host.storage_failed(error)
            else:
                host.node.metrics.checkpoints += 1

        self.run(partial(_checkpoint, host, wait, purging(host)), done)

    async def over(self) -> None:
        """Return when no thread has the file (or the actor is dead)."""
        while self._host.gate.parked and not self._host.dead:
            await self._host.gate.wait()

    async def sync(self) -> None:
        """Return when what is committed now is on the device."""
        host = self._host
        await self.over()
        while host.turn is not None:
            await host.durable()
            await self.over()
        self._sync_file()
        await self.over()
        if host.dead:
            raise host.reset_error()

    def sync_soon(self) -> None:
        """Have what was committed synced within the time of `durability="relaxed"`."""
        if self._sync_timer is None:
            node = self._host.node
            self._sync_timer = node.clock.call_later(node.limits.relaxed_sync_seconds, self._sync_due)

    def _sync_due(self) -> None:
        self._sync_timer = None
        host = self._host
        if not host.is_open:
            return
        if not host.gate.parked:
            host.commit()
        if host.gate.parked or host.turn is not None:
            self.sync_soon()
        else:
            self._sync_file()

    def _sync_file(self) -> None:
        host = self._host
        if host.gate.parked or host.dead:
            return

        def done(error: BaseException | None) -> None:
            if error is not None:
                host.storage_failed(error)

        self.run(host.database.sync, done)


def _checkpoint(host: Host, wait: bool, purge: Callable[[], None] | None) -> None:
    """Runs in a thread."""
    if purge is not None:
        purge()
    host.node.file_ops.checkpoint(host.address, host.database, wait=wait)
