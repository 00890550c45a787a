"""The writes of one turn: one transaction that many messages share, and the undo of a single one.

The rows that were written are kept in order (`log`: they are the turn's commit record). When a segment fails, its
writes are undone in the cheapest sound way: a plain ROLLBACK if it was alone, else ROLLBACK and the others'
rows once more; only after SQL of users, whose effects cannot be repeated from rows, or after a failure in the
same turn, does a segment begin with a savepoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from .database import Database, DatabaseFailure, Row, Value
from .errors import Z0Error

_SEGMENT = "z0_segment"


class Memory(Protocol):
    """What is kept in memory of the file, and must go back with it."""

    def save(self) -> object:
        """What `restore` needs to come back to now; cheap."""

    def restore(self, saved: object) -> None:
        """Be as at that `save`; the file already is."""


class Writes:
    """Writes to one actor's file. A segment's writes stay together or go together."""

    __slots__ = (
        "_begin",
        "_fail",
        "_mark",
        "_saved",
        "_savepoint",
        "_wrote",
        "active",
        "database",
        "depth",
        "log",
        "loose",
        "memory",
        "opaque",
        "segment",
        "sql_ran",
    )

    def __init__(
        self, database: Database, begin: Callable[[], None], fail: Callable[[DatabaseFailure], Z0Error]
    ) -> None:
        """`begin` is told of the first write of a turn; `fail` of a storage error, and returns what to raise."""
        self.database = database
        self._begin = begin
        self._fail = fail
        self.memory: Memory | None = None
        self.log: list[tuple[str, Sequence[Value]]] = []
        self.active = False  # a transaction is open
        self.segment = 0
        self._wrote = 0  # the last segment that wrote
        self._mark = 0  # where its rows begin in the log
        self._saved: object = None
        self._savepoint = False
        self.opaque = False  # the turn holds effects that rows cannot repeat
        self.sql_ran = False  # the segment ran SQL of users that writes
        self.loose = False  # the end of the segment has something to do
        self.depth = 0  # open transaction() blocks

    def write(self, sql: str, bindings: Sequence[Value]) -> None:
        """Run one statement of ours that changes rows, as part of this segment."""
        if self._wrote != self.segment:
            self.first()
        try:
            self.database.write(sql, bindings)
        except DatabaseFailure as failure:
            raise self._fail(failure) from failure
        self.log.append((sql, bindings))

    def rows(self, sql: str, *bindings: Value) -> list[Row]:
        """All rows of one statement of ours; what this turn wrote is seen."""
        try:
            return self.database.rows(sql, *bindings)
        except DatabaseFailure as failure:
            raise self._fail(failure) from failure

    def first(self) -> None:
        """Make ready for the first write of a segment."""
        try:
            if not self.active:
                self.database.begin()
                self.active = True
                self._begin()
            elif self.opaque:
                self.database.savepoint(_SEGMENT)
                self._savepoint = self.loose = True
        except DatabaseFailure as failure:
            raise self._fail(failure) from failure
        self._wrote = self.segment
        self._mark = len(self.log)
        if self.memory is not None:
            self._saved = self.memory.save()

    def ran_sql(self) -> None:
        """Note that this segment runs SQL of a user that writes."""
        if self._wrote != self.segment:
            self.first()
        self.sql_ran = self.loose = True

    def keep(self) -> None:
        """End a segment well. Only needed when it is `loose`: it ran SQL of users or began with a savepoint."""
        self.loose = False
        if self._wrote != self.segment:
            return
        try:
            if self._savepoint:
                self.database.release(_SEGMENT)
                self._savepoint = False
        except DatabaseFailure as failure:
            raise self._fail(failure) from failure
        if self.sql_ran:
            self.opaque, self.sql_ran = True, False

    def undo(self) -> None:
        """Take back every write of this segment, in the file and in memory."""
        self.depth = 0
        self.sql_ran = self.loose = False
        if self._wrote != self.segment:
            return
        self._wrote = 0
        try:
            self._undo_file()
            if self.memory is not None:
                self.memory.restore(self._saved)
        except DatabaseFailure as failure:
            raise self._fail(failure) from failure

    def _undo_file(self) -> None:
        others = self.log[: self._mark]
        if self._savepoint:
            self.database.rollback_to(_SEGMENT)
            self._savepoint = False
            self.log = others
        else:
            self._repeat(others)
            self.opaque = bool(others)  # one failure in a turn is cheap to undo; many would not be

    def undo_to(self, mark: int, saved: object) -> None:
        """Take back what this segment wrote since the log had `mark` rows.

        Only while rows can repeat the rest: not when `opaque`, after SQL of users, or in a transaction().
        """
        try:
            self._repeat(self.log[:mark])
            if self.memory is not None:
                self.memory.restore(saved)
        except DatabaseFailure as failure:
            raise self._fail(failure) from failure

    def _repeat(self, rows: list[tuple[str, Sequence[Value]]]) -> None:
        self.database.rollback()
        self.database.begin()
        for sql, bindings in rows:
            self.database.write(sql, bindings)
        self.log = rows

    def turn_ended(self) -> None:
        """Forget the turn: it is being committed."""
        self.active = False
        self.log = []
        self.opaque = False
        self._wrote = 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A part of a segment that is kept or taken back by itself."""
        if self._wrote != self.segment:
            self.first()
        self.depth += 1
        name, mark = f"z0_transaction_{self.depth}", len(self.log)
        saved = None if self.memory is None else self.memory.save()
        depth = self.depth
        self._guarded(self.database.savepoint, name)
        try:
            yield
        except BaseException:
            if self.depth == depth:  # else the whole segment has been undone meanwhile
                self.depth -= 1
                self._guarded(self.database.rollback_to, name)
                del self.log[mark:]
                if self.memory is not None:
                    self.memory.restore(saved)
            raise
        else:
            self.depth -= 1
            self._guarded(self.database.release, name)

    def _guarded(self, action: Callable[[str], None], name: str) -> None:
        try:
            action(name)
        except DatabaseFailure as failure:
            raise self._fail(failure) from failure
