"""The writes of one turn: one transaction that many messages share, and the undo of a single one.

The rows that were written are kept in order (`log`: they are the turn's commit record). When a segment fails, its
writes are undone in the cheapest sound way: a plain ROLLBACK if it was alone, else ROLLBACK and the others'
rows once more; only after SQL of users, whose effects cannot be repeated from rows, or after a failure in the
same turn, does a segment begin with a savepoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from .clock import perf_ns
from .database import Database, RawError, Row, Rows, Value, explain
from .errors import DatabaseFailure, Z0Error
from .gates import Turn

if TYPE_CHECKING:
    from .host import Host

_SEGMENT = "z0_segment"


class Memory(Protocol):
    """What is kept in memory of the file, and must go back with it."""

    saved: Any
    """What `restore` needs to come back to now; kept up to date by whoever it belongs to."""

    def restore(self, saved: Any) -> None:
        """Be as when `saved` was this; the file already is."""


class NoMemory:
    """Nothing is kept in memory."""

    saved = None

    def restore(self, saved: Any) -> None:
        """Nothing to do."""


class Pending:
    """Stands where the database is while no row of the turn is written: who needs the file has them written first."""

    def __init__(self, writes: Writes) -> None:
        """Of these writes."""
        self._writes = writes

    def __getattr__(self, name: str) -> Any:
        """Write them, then go on. Raises ActorReset."""
        return getattr(self._writes.write_pending(), name)


class Writes:
    """Writes to one actor's file. A segment's writes stay together or go together."""

    __slots__ = (
        "_host",
        "_mark",
        "_saved",
        "_savepoint",
        "_unconfirmed",
        "active",
        "database",
        "depth",
        "log",
        "lone",
        "loose",
        "memory",
        "opaque",
        "pending",
        "segment",
        "sql_ran",
        "unconfirmed",
        "wrote",
    )

    def __init__(self, host: Host, database: Database) -> None:
        """Of this host; `database` may be replaced while it is in other hands."""
        self._host = host
        self.database = database
        self.memory: Memory = NoMemory()
        self.log: Rows = []
        self.active = False  # a transaction is open, or its first rows are pending
        self.lone = False  # the segment's turn will be ended with it
        self.segment = 0
        self.wrote = -1  # the last segment that wrote
        self._mark = 0  # where its rows begin in the log
        self._saved: object = None
        self._savepoint = False
        self._unconfirmed = True  # what `unconfirmed` was before this segment wrote
        self.unconfirmed = False  # nobody has to wait for what the turn has written so far
        self.opaque = False  # the turn holds effects that rows cannot repeat
        self.sql_ran = False  # the segment ran SQL of users that writes
        self.loose = False  # the end of the segment has something to do
        self.depth = 0  # open transaction() blocks
        self.pending: Rows | None = None  # rows that are all of the turn so far, and will be written with its commit

    def write(self, sql: str, bindings: Sequence[Value]) -> None:
        """Run one statement of ours that changes rows, as part of this segment."""
        if self.wrote != self.segment:
            self.first()
        try:
            self.database.execute(sql, bindings)
        except RawError as error:
            raise self._explain(error) from error
        self.log.append((sql, bindings))
        if self.unconfirmed:
            self._confirm(True)

    def write_unconfirmed(self, sql: str, bindings: Sequence[Value]) -> None:
        """As `write`, but nothing that the actor says waits for it (as Durable Objects: allowUnconfirmed).

        One confirmed write makes the whole turn confirmed. If the commit fails, the actor is reset all the same.
        """
        if self.wrote != self.segment:
            self.first(confirmed=False)
        try:
            self.database.execute(sql, bindings)
        except RawError as error:
            raise self._explain(error) from error
        self.log.append((sql, bindings))

    def write_late(self, sql: str, bindings: Sequence[Value]) -> None:
        """As `write`, for what nothing but a failing storage can refuse: it is run with the commit, if that is near.

        Beside threads that commit, a statement costs the event loop several times what it does alone.
        """
        if (self.active and self.pending is None) or self._host.gate.parked:
            self.write(sql, bindings)
            return
        if self.wrote != self.segment:
            self.first(late=True)
        assert self.pending is not None
        self.pending.append((sql, bindings))
        self.log.append((sql, bindings))

    def write_pending(self) -> Database:
        """Have the file hold all that was written; the database. Raises ActorReset."""
        pending, self.pending = self.pending, None
        database = self.database = self._host.database
        try:
            database.execute("BEGIN IMMEDIATE")
            for sql, bindings in pending or ():
                database.execute(sql, bindings)
        except RawError as error:
            raise self._explain(error) from error
        return database

    def writer(self, *, unconfirmed: bool) -> Callable[[str, Sequence[Value]], None]:
        """`write_unconfirmed`, or `write`."""
        return self.write_unconfirmed if unconfirmed else self.write

    def _confirm(self, confirmed: bool) -> None:
        """Say whether the open turn must be waited for."""
        turn = self._host.turn
        assert turn is not None
        self.unconfirmed = not confirmed
        turn.confirmed = confirmed

    @property
    def alone(self) -> bool:
        """Whether the next write may be a transaction by itself, because nobody else can join the turn."""
        node = self._host.node
        return self.lone and not node.dirty and node.durability.quick and self.wrote != self.segment

    def write_alone(self, sql: str, bindings: Sequence[Value]) -> None:
        """Run one statement of ours as a turn of its own, committed on return; only when `alone`, and the last write.

        Raises as `write`, and CommitUnknown.
        """
        started = perf_ns()
        try:
            self.database.execute(sql, bindings)
        except RawError as error:
            explained = explain(error)
            if isinstance(explained, DatabaseFailure):
                raise self._host.commit_failed(explained) from error
            raise explained from error
        node = self._host.node
        node.committer = self._host.address
        node.metrics.alone.add(perf_ns() - started)
        self.database.unmeasured += 1
        if not node.durability.sync:
            self._host.parking.sync_soon()

    def _explain(self, error: Exception) -> Exception:
        """The error as callers know it, after stopping the actor if its storage failed."""
        explained = explain(error)
        return self.fail(explained) if isinstance(explained, DatabaseFailure) else explained

    def fail(self, failure: DatabaseFailure) -> Z0Error:
        """Stop the actor, whose storage failed; what to raise."""
        return self._host.storage_failed(failure)

    def rows(self, sql: str, *bindings: Value) -> list[Row]:
        """All rows of one statement of ours; what this turn wrote is seen."""
        try:
            return self.database.rows(sql, *bindings)
        except DatabaseFailure as failure:
            raise self.fail(failure) from failure

    def row(self, sql: str, *bindings: Value) -> Row | None:
        """The first row of one statement of ours, or None."""
        rows = self.rows(sql, *bindings)
        return rows[0] if rows else None

    def first(self, confirmed: bool = True, late: bool = False) -> None:
        """Make ready for the first write of a segment. `late`: the transaction need not begin yet."""
        host = self._host
        host.node.admit_thread()
        self._unconfirmed = self.unconfirmed
        try:
            if not self.active:
                if late:
                    self.pending = []
                    self.database = Pending(self)  # type: ignore[assignment]
                else:
                    self.database.execute("BEGIN IMMEDIATE")
                self.active = True
                # What is said while an earlier turn is on its way must wait for that one, through this one.
                self._unconfirmed = host.turn is None
                self.unconfirmed = self._unconfirmed and not confirmed
                host.turn = Turn(confirmed=not self.unconfirmed, began_ns=perf_ns())
                host.node.dirty += 1
                if not (host.led and host.running):
                    host.node.loop.call_soon(host.commit)
            elif self.opaque and host.running:  # what is written between segments is nobody's to undo
                self.database.savepoint(_SEGMENT)
                self._savepoint = self.loose = True
        except (RawError, DatabaseFailure) as error:
            raise self._explain(error) from error
        if host.database.guarded:  # deferred foreign keys are checked at the segment's end
            self.loose = True
        self.wrote = self.segment
        self._mark = len(self.log)
        self._saved = self.memory.saved

    def ran_sql(self) -> None:
        """Note that this segment runs SQL of a user that writes."""
        if self.wrote != self.segment:
            self.first()
        if self.unconfirmed:
            self._confirm(True)
        self.loose = True
        if self._host.running:
            self.sql_ran = True
        else:
            self.opaque = True

    def keep(self) -> None:
        """End a segment well. Only needed when it is `loose`: it ran SQL of users or began with a savepoint."""
        self.loose = False
        if self.wrote != self.segment:
            return
        try:
            if self._savepoint:
                self.database.release(_SEGMENT)
                self._savepoint = False
        except DatabaseFailure as failure:
            raise self.fail(failure) from failure
        if self.sql_ran:
            self.opaque, self.sql_ran = True, False

    def undo(self) -> None:
        """Take back every write of this segment, in the file and in memory."""
        self.loose = False
        if self.wrote != self.segment:
            return
        self.depth = 0
        self.sql_ran = False
        self.wrote = -1
        try:
            self._undo_file()
            self.memory.restore(self._saved)
        except DatabaseFailure as failure:
            raise self.fail(failure) from failure

    def end_turn(self) -> Rows | None:
        """Forget the turn: it is being committed, or was given back; what its commit must write first.

        None: nothing, for its transaction has begun.
        """
        pending, self.pending = self.pending, None
        if pending is not None:
            self.database = self._host.database
        self.active = self.opaque = self.sql_ran = self._savepoint = self.unconfirmed = False
        self.wrote = -1
        self.log = []
        return pending

    def drop_empty(self) -> bool:
        """Give a transaction back that holds nothing and that nobody waits for; whether that was so."""
        host = self._host
        turn = host.turn
        if self.log or self.opaque or self.sql_ran or self.depth or turn is None or turn.awaited:
            return False
        try:
            self.database.rollback()
        except DatabaseFailure as failure:
            raise self.fail(failure) from failure
        self.end_turn()
        host.turn = None
        host.node.dirty -= 1
        turn.done = True
        if host.outbox:
            host.node.loop.call_soon(host.outbox.release)
        return True

    def _undo_file(self) -> None:
        others = self.log[: self._mark]
        if self._savepoint:
            self.database.rollback_to(_SEGMENT)
            self._savepoint = False
            self.log = others
        else:
            self.log = others
            if self.drop_empty():
                return
            self._repeat(others)
            self.opaque = bool(others)  # one failure in a turn is cheap to undo; many would not be
        self._confirm(not self._unconfirmed)

    def undo_to(self, mark: int, saved: object) -> None:
        """Take back what this segment wrote since the log had `mark` rows.

        Only while rows can repeat the rest: not when `opaque`, after SQL of users, or in a transaction().
        """
        try:
            self._repeat(self.log[:mark])
            self.memory.restore(saved)
        except DatabaseFailure as failure:
            raise self.fail(failure) from failure

    def _repeat(self, rows: Rows) -> None:
        self.database.rollback()
        self.database.begin()
        for sql, bindings in rows:
            self.database.write(sql, bindings)
        self.log = rows

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A part of a segment that is kept or taken back by itself."""
        if self.wrote != self.segment:
            self.first(confirmed=False)
        self.depth += 1
        name, mark = f"z0_transaction_{self.depth}", len(self.log)
        saved, unconfirmed = self.memory.saved, self.unconfirmed
        depth = self.depth
        self._guarded(self.database.savepoint, name)
        try:
            yield
        except BaseException:
            if self.depth == depth and not self._host.dead:  # else the whole segment has been undone meanwhile
                self.depth -= 1
                self._guarded(self.database.rollback_to, name)
                del self.log[mark:]
                self._confirm(not unconfirmed)
                self.memory.restore(saved)
            raise
        else:
            self.depth -= 1
            self._guarded(self.database.release, name)

    def _guarded(self, action: Callable[[str], None], name: str) -> None:
        try:
            action(name)
        except DatabaseFailure as failure:
            raise self.fail(failure) from failure
