"""Limits: every bound of the engine, with its unit and its reason."""

from __future__ import annotations

import resource

import msgspec

MIB = 1024 * 1024
FILES_PER_ACTOR = 3  # the database, its -wal and its -shm


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one runtime; the defaults suit a service on one machine."""

    mailbox_messages: int = 1_000
    """Accepted and not yet answered messages of one actor; one more is `Overloaded`."""
    mailbox_bytes: int = 8 * MIB
    """Bytes of those messages, of one actor."""
    runtime_mailbox_bytes: int = 256 * MIB
    """Bytes of waiting messages, of all actors together."""
    idle_seconds: float = 10.0
    """An actor without work for this long is evicted (as Durable Objects)."""
    resident_actors: int = 10_000
    """Actors in memory at once; hard. Each has its file open, so `open_files` bounds them as well."""
    open_files: int | None = None
    """Actor files open at once; hard. None: a third of the descriptor limit, at most 2,000."""
    block_seconds: float = 30.0
    """Time limit of `block()`, and of `start()` (as Durable Objects: blockConcurrencyWhile)."""
    block_depth: int = 64
    """Nesting limit of `block()` (as Durable Objects)."""
    room_seconds: float = 30.0
    """How long a message waits for an open file when all are in use, before it is `Overloaded`."""
    alarms_per_actor: int = 1_000
    """Alarms that one actor may have set, by name."""
    alarm_seconds: float = 900.0
    """Time limit of a run of `alarm()` (as Durable Objects: 15 minutes); past it, the run has failed."""
    alarm_openings: int = 4
    """Actors that are opened at once because they are due; so many due at once leave room for other work."""
    stop_seconds: float = 5.0
    """Time that the `stop()` hook gets; it is best effort."""
    close_seconds: float = 30.0
    """Time that closing a runtime may spend on draining before it resets what is left."""
    commit_threads: int = 16
    """Threads that commit when several actors are dirty at once."""
    inline_sync_seconds: float = 0.0005
    """A lone dirty actor commits on the event loop while its smoothed commit time is below this."""
    relaxed_sync_seconds: float = 0.1
    """Under `durability="relaxed"`: what was committed is synced within this time."""
    checkpoint_pages: int = 1_000
    """WAL pages after which a busy actor is parked for a checkpoint."""
    checkpoint_pages_max: int = 4_000
    """WAL pages after which the checkpoint also waits for readers."""
    blocked_seconds: float = 1.0
    """A segment that blocks the event loop for longer is logged, with its stack; 0: never."""
    idempotency_seconds: float = 30 * 86_400.0
    """How long the reply of an idempotent message counts, unless the message says otherwise."""
    snapshot_facts: int = 1_000
    """Facts between two snapshots of a projection: bounds the fold when an actor is opened."""

    def open_files_max(self) -> int:
        """How many actor files may be open, within the process's descriptor limit."""
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        room = max(1, (soft - 64) // FILES_PER_ACTOR)
        if self.open_files is None:
            return min(2_000, max(1, soft // FILES_PER_ACTOR), room, self.resident_actors)
        return min(self.open_files, room, self.resident_actors)
