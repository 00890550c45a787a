"""Durability: how a turn's commit becomes durable. One seam, several implementations.

- `FileSync` (full, the default): the actor's own COMMIT with `synchronous=FULL`. On the event loop while one
  actor is dirty and commits are quick, for a thread hop costs half a commit; in threads when several actors
  are dirty, so that their syncs overlap.
- `Relaxed`: COMMIT without a sync, which survives a kill of the process; what was committed is synced within
  `Limits.relaxed_sync_seconds`, so a power cut may take back that much. Only on request.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from .clock import perf_ns
from .database import Database
from .errors import DatabaseFailure

if TYPE_CHECKING:
    from .gates import Turn
    from .host import Host
    from .limits import Limits

Mode = Literal["full", "relaxed"]
_SMOOTHING = 0.1
_MESSAGE_NS = 10_000  # of a commit's time, about what each message's pages take; the rest is the sync


class Durability(Protocol):
    """How commits are made durable."""

    name: Mode
    sync: bool
    """Whether COMMIT itself syncs."""
    quick: bool
    """Whether a commit may hold up the event loop."""

    def commit(self, host: Host, turn: Turn, dirty: int) -> None:
        """Commit the host's turn and tell the host, now or later. `dirty`: actors with an open turn."""

    async def sync_now(self, host: Host) -> None:
        """Return when all that the host committed is on the device."""


class FileSync:
    """Each turn is on the device when its gate opens."""

    name: Mode = "full"
    sync = True

    def __init__(self, limits: Limits) -> None:
        """A policy that has seen no commit yet."""
        self._inline_ns = limits.inline_sync_seconds * 1e9
        self.smoothed_ns = self._inline_ns / 2
        self.quick = self._inline_ns > 0

    def commit(self, host: Host, turn: Turn, dirty: int) -> None:
        """Commit on the loop when that is cheaper for everybody, else in a thread."""
        if dirty == 1 and self.quick:
            started = perf_ns()
            failure: Exception | None = None
            try:
                host.database.commit(turn.pending)
            except DatabaseFailure as caught:
                failure = caught
            turn.commit_ns = perf_ns() - started
            self._learn(turn.commit_ns, turn)
            host.committed(turn, failure)
        else:
            turn.threaded = True
            host.parking.commit(turn, partial(self._timed_commit, host.database, turn, dirty == 1))

    async def sync_now(self, host: Host) -> None:
        """Nothing to do: a committed turn is durable."""

    def _timed_commit(self, database: Database, turn: Turn, alone: bool) -> None:
        started = perf_ns()
        database.commit(turn.pending)
        turn.commit_ns = perf_ns() - started
        if alone:  # beside others a commit is slow for reasons that say nothing of the device
            self._learn(turn.commit_ns, turn)

    def _learn(self, ns: int, turn: Turn) -> None:
        ns = max(0, ns - turn.waiting * _MESSAGE_NS)
        smoothed = self.smoothed_ns
        # an outlier counts no more than twice the usual: the machine's hiccups say nothing of the device
        smoothed += (min(ns, 2 * smoothed) - smoothed) * _SMOOTHING
        self.smoothed_ns = smoothed
        self.quick = smoothed < self._inline_ns


class Relaxed:
    """A turn survives a kill of the process when its gate opens, and a power cut a moment later."""

    name: Mode = "relaxed"
    sync = False
    quick = True

    def commit(self, host: Host, turn: Turn, dirty: int) -> None:
        """Commit on the loop, and have the file synced soon."""
        started = perf_ns()
        failure = None
        try:
            host.database.commit(turn.pending)
        except DatabaseFailure as caught:
            failure = caught
        turn.commit_ns = perf_ns() - started
        host.committed(turn, failure)
        if failure is None:
            host.parking.sync_soon()

    async def sync_now(self, host: Host) -> None:
        """Have the file synced now."""
        await host.parking.sync()


def durability_of(mode: Mode, limits: Limits) -> Durability:
    """The implementation of that name. Raises ValueError for another."""
    if mode == "full":
        return FileSync(limits)
    if mode == "relaxed":
        return Relaxed()
    raise ValueError(f'durability is "full" or "relaxed", not {mode!r}')
