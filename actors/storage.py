"""What an actor keeps: key-value pairs and SQL tables in its own file. Synchronous, so never a boundary.

Every write of a segment is part of one transaction; the transaction is committed when the turn ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from . import codec
from .alarms import Alarms, recurs_of
from .clock import Span
from .database import Row, Value
from .errors import DatabaseFailure, QueryError
from .writes import Writes

_GET = "SELECT value FROM z0_kv WHERE key = ?"
_PUT = "INSERT INTO z0_kv VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value"
_DELETE = "DELETE FROM z0_kv WHERE key = ?"
_LIST = (
    "SELECT key, value FROM z0_kv WHERE key >= ? AND (? IS NULL OR key > ?) AND (? IS NULL OR key < ?)"
    " ORDER BY key {order} LIMIT ?"
)


_RESERVED = "SELECT count(*) FROM sqlite_schema WHERE lower(name) GLOB 'z0[_]*' OR lower(name) = 'facts'"

Result = tuple[tuple[str, ...], list[Row]]


class Cursor:
    """The rows of a query, as tuples: iterate, `one()` or `all()`. Closed when the segment ends."""

    __slots__ = ("_closed", "_rows", "columns")

    def __init__(self, columns: tuple[str, ...], rows: list[Row]) -> None:
        """Made by `Storage.sql`, which has run the query to its end."""
        self.columns = columns
        self._rows = iter(rows)
        self._closed = False

    def __iter__(self) -> Iterator[Row]:
        """The rows that were not taken yet."""
        return self

    def __next__(self) -> Row:
        """The next row. Raises QueryError when the cursor is closed."""
        if self._closed:
            raise QueryError("the cursor was closed when its segment ended; take the rows before waiting")
        return next(self._rows)

    def all(self) -> list[Row]:
        """All rows that were not taken yet."""
        return list(self)

    def one(self) -> Row:
        """The only row. Raises QueryError when there is none, or a second."""
        row = next(self, None)
        if row is None:
            raise QueryError("expected exactly one row, but got none")
        if next(self, None) is not None:
            raise QueryError("expected exactly one row, but got more")
        return row

    def close(self) -> None:
        """Let the rows go."""
        self._closed = True
        self._rows = iter(())


class Storage:
    """The actor's own data. Every method but `sync` is synchronous."""

    __slots__ = ("_alarms", "_cursors", "_sync", "_writes")

    def __init__(self, writes: Writes, sync: Callable[[], Awaitable[None]], alarms: Alarms) -> None:
        """Made by the host."""
        self._writes = writes
        self._alarms = alarms
        self._sync = sync
        self._cursors: list[Cursor] = []

    # Key-value

    def get(self, key: str, default: Any = None) -> Any:
        """The value of the key, or `default`."""
        row = self._row(_GET, _key(key))
        return default if row is None else codec.decode(row[0])

    def put(self, key: str, value: Any) -> None:
        """Set the key to a value that msgspec can encode. Raises TypeError for another."""
        self._writes.write(_PUT, (_key(key), codec.encode(value)))

    def delete(self, key: str) -> bool:
        """Remove the key; whether it was there."""
        if self._row(_GET, _key(key)) is None:
            return False
        self._writes.write(_DELETE, (key,))
        return True

    def list(
        self,
        *,
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        prefix: str = "",
        reverse: bool = False,
        limit: int | None = None,
    ) -> dict[str, Any]:
        """Keys and values in order of the keys' UTF-8 bytes.

        `start` inclusive, `start_after` and `end` exclusive, `limit` at least 1. Raises ValueError for both starts
        or a limit below 1.
        """
        if limit is not None and limit < 1:
            raise ValueError("limit must be at least 1 (None: all)")
        if start is not None and start_after is not None:
            raise ValueError("give start or start_after, not both")
        low = max(start or "", prefix, key=str.encode)
        stops = [stop for stop in (end, _after_prefix(prefix)) if stop is not None]
        stop = min(stops, key=str.encode) if stops else None
        sql = _LIST.format(order="DESC" if reverse else "ASC")
        rows = self._writes.rows(sql, low, start_after, start_after, stop, stop, -1 if limit is None else limit)
        return {key: codec.decode(value) for key, value in rows}

    # SQL

    def sql(self, query: str, *params: Value) -> Cursor:
        """Run SQL now and read its rows; several statements may stand in it, parameters are taken in order.

        The cursor has the rows of the last statement. Tables of ours (`z0_...`, `facts`) are read-only. Raises
        QueryError for a statement that is refused, ConstraintFailed for a constraint.
        """
        writes = self._writes
        try:
            if "alter" in query.lower():
                cursor = Cursor(*self._alter(query, params))
            else:
                cursor = Cursor(*writes.database.run_users(query, params, writes.ran_sql))
        except DatabaseFailure as failure:
            raise writes.fail(failure) from failure
        self._cursors.append(cursor)
        writes.loose = True
        return cursor

    def _alter(self, query: str, params: tuple[Value, ...]) -> Result:
        """Run SQL that may rename a table: the authorizer is not told the new name."""
        writes = self._writes
        with writes.transaction():
            before = writes.rows(_RESERVED)
            result = writes.database.run_users(query, params, writes.ran_sql)
            if writes.rows(_RESERVED) != before:
                raise QueryError(f"names beginning with z0_ and `facts` are reserved: {query}")
        return result

    def transaction(self) -> AbstractContextManager[None]:
        """A block (`with storage.transaction():`) whose writes are kept together, or taken back by an exception.

        Nests. Suspending inside raises RuntimeError there, and takes them back.
        """
        return self._writes.transaction()

    # Alarms

    def set_alarm(
        self,
        when: datetime | Span | None = None,
        name: str | None = None,
        *,
        every: Span | None = None,
        cron: str | None = None,
        timezone: str = "UTC",
    ) -> None:
        """Have `alarm(info)` run at a time or after a span, instead of when this alarm was set for before.

        Part of the segment's transaction; a time that is past is now. Each name has its alarm; None is the unnamed one.
        `every` or `cron` (five fields, in `timezone`): again and again, first at `when` or else at the next time. Runs
        that were missed are made up for by one; while a run is retried, later ones wait.
        Raises ValueError, TypeError (a class without `alarm`), InvalidName, LimitExceeded (`alarms_per_actor`).
        """
        self._alarms.set(name, when, recurs_of(every, cron, timezone, when))

    def get_alarm(self, name: str | None = None) -> datetime | None:
        """When the alarm is to run (aware, UTC); None while its handler runs, unless it is set again or recurs."""
        return self._alarms.get(name)

    def delete_alarm(self, name: str | None = None) -> None:
        """Remove the alarm and stop its recurrence. A run that is under way goes on, and keeps its retries."""
        self._alarms.delete(name)

    async def sync(self) -> None:
        """Return when everything written so far is durable. Raises what the commit raised."""
        await self._sync()

    @property
    def size(self) -> int:
        """Bytes of the actor's database."""
        return self._writes.database.size()

    def end_segment(self) -> None:
        """Close what the segment left open (called by the host)."""
        for cursor in self._cursors:
            cursor.close()
        self._cursors.clear()

    def _row(self, sql: str, *bindings: Value) -> Row | None:
        rows = self._writes.rows(sql, *bindings)
        return rows[0] if rows else None


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key is a string, not {key!r}")
    return key


def _after_prefix(prefix: str) -> str | None:
    """The first string, in order of UTF-8 bytes, after all that begin with the prefix."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            after = 0xE000 if last == 0xD7FF else last + 1  # surrogates are no characters
            return prefix[:-1] + chr(after)
        prefix = prefix[:-1]
    return None
