"""What an actor keeps: key-value pairs and SQL tables in its own file. Synchronous, so never a boundary.

Every write of a segment is part of one transaction; the transaction is committed when the turn ends.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, TypeVar, overload

from . import codec
from .alarms import Alarms, recurs_of
from .clock import Span
from .cursor import Cursor, Result
from .database import Value
from .errors import DatabaseFailure, QueryError
from .wipe import wipe
from .writes import Writes

_GET = "SELECT value FROM z0_kv WHERE key = ?"
_PUT = "INSERT INTO z0_kv VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value"
_DELETE = "DELETE FROM z0_kv WHERE key = ?"
_LIST = (
    "SELECT key, value FROM z0_kv WHERE key >= ? AND (? IS NULL OR key > ?) AND (? IS NULL OR key < ?)"
    " ORDER BY key {order} LIMIT ?"
)


_RESERVED = (
    "SELECT count(*), (SELECT count(*) FROM sqlite_schema AS s, pragma_foreign_key_list(s.name) AS k"
    " WHERE s.type = 'table' AND (lower(k.\"table\") GLOB 'z0[_]*' OR lower(k.\"table\") = 'facts')"
    # any other key than the primary one would fail each of our own statements; other tables are the engine's to delete
    " AND (k.seq OR lower(k.\"table\") || ' ' || ifnull(lower(k.\"to\"), '')"
    " NOT IN ('facts ', 'facts seq', 'z0_kv ', 'z0_kv key')))"
    " FROM sqlite_schema WHERE lower(name) GLOB 'z0[_]*' OR lower(name) = 'facts'"
)
_MAY_TAKE_OURS = re.compile("alter|references", re.IGNORECASE)

_KEY_BYTES_MAX = 2_048  # as Durable Objects
_MISSING: Any = object()

T = TypeVar("T")
D = TypeVar("D")


class Storage:
    """The actor's own data. Every method but `sync` is synchronous."""

    __slots__ = ("_alarms", "_cursors", "_renew", "_sync", "_writes")

    def __init__(
        self, writes: Writes, sync: Callable[[], Awaitable[None]], alarms: Alarms, renew: Callable[[], None]
    ) -> None:
        """Made by the host. `renew`: make an emptied file as that of a new actor."""
        self._writes = writes
        self._alarms = alarms
        self._sync = sync
        self._renew = renew
        self._cursors: list[Cursor] = []

    # Key-value

    @overload
    def get(self, key: str, default: Any = None) -> Any: ...
    @overload
    def get(self, key: str, *, type: builtins.type[T]) -> T | None: ...
    @overload
    def get(self, key: str, default: D, *, type: builtins.type[T]) -> T | D: ...
    @overload
    def get(self, key: builtins.list[str]) -> dict[str, Any]: ...
    @overload
    def get(self, key: builtins.list[str], *, type: builtins.type[T]) -> dict[str, T]: ...
    @overload
    def get(self, key: str, default: Any = None, *, type: Any) -> Any: ...
    def get(self, key: str | builtins.list[str], default: Any = None, *, type: Any = Any) -> Any:
        """The value of the key, or `default`; of a list of keys, a dict of those that are there, in key order.

        Values come back as they were put; structs and dataclasses as dicts, or as what `type` says. Raises
        InvalidValue when a value does not fit the type, or is damaged.
        """
        if isinstance(key, builtins.list):
            if default is not None:
                raise TypeError("a default is for one key; of several, those that are there come back")
            keys = sorted({_key(one) for one in key})
            found = ((one, self._writes.row(_GET, one)) for one in keys)
            return {one: _value(one, row[0], type) for one, row in found if row is not None}
        row = self._writes.row(_GET, _key(key))
        return default if row is None else _value(key, row[0], type)

    @overload
    def put(self, key: str, value: Any, *, allow_unconfirmed: bool = False) -> None: ...
    @overload
    def put(self, key: Mapping[str, Any], *, allow_unconfirmed: bool = False) -> None: ...
    def put(self, key: str | Mapping[str, Any], value: Any = _MISSING, *, allow_unconfirmed: bool = False) -> None:
        """Set the key to a value, or many at once, all or none, from a dict.

        `allow_unconfirmed`: what the actor says next does not wait until this is durable; a failure still resets the
        actor (as Durable Objects). Raises InvalidValue for a value that cannot be stored, ValueError for a key of
        more than 2,048 bytes.
        """
        write = self._writes.writer(unconfirmed=allow_unconfirmed)
        if isinstance(key, str) or not isinstance(key, Mapping):  # an abstract class is slow to ask
            if value is _MISSING:
                raise TypeError("put() takes a key and its value, or a dict of them")
            write(_PUT, (_key(key), codec.encode(value)))
            return
        if value is not _MISSING:
            raise TypeError("put() of a dict takes no other value")
        rows = [(_key(one), codec.encode(its)) for one, its in key.items()]
        if rows:
            with self._writes.transaction():
                for row in rows:
                    write(_PUT, row)

    @overload
    def delete(self, key: str, *, allow_unconfirmed: bool = False) -> bool: ...
    @overload
    def delete(self, key: builtins.list[str], *, allow_unconfirmed: bool = False) -> int: ...
    def delete(self, key: str | builtins.list[str], *, allow_unconfirmed: bool = False) -> bool | int:
        """Remove the key; whether it was there. Of a list of keys, how many were. `allow_unconfirmed`: see `put`."""
        if isinstance(key, builtins.list):
            keys = [_key(one) for one in key]
            return sum(self._delete(one, allow_unconfirmed) for one in keys)
        return self._delete(_key(key), allow_unconfirmed)

    def _delete(self, key: str, allow_unconfirmed: bool) -> bool:
        if self._writes.row(_GET, key) is None:
            return False
        write = self._writes.writer(unconfirmed=allow_unconfirmed)
        write(_DELETE, (key,))
        return True

    @overload
    def list(
        self,
        *,
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        prefix: str = "",
        reverse: bool = False,
        limit: int | None = None,
        type: builtins.type[T],
    ) -> dict[str, T]: ...
    @overload
    def list(
        self,
        *,
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        prefix: str = "",
        reverse: bool = False,
        limit: int | None = None,
        type: Any = Any,
    ) -> dict[str, Any]: ...
    def list(
        self,
        *,
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        prefix: str = "",
        reverse: bool = False,
        limit: int | None = None,
        type: Any = Any,
    ) -> dict[str, Any]:
        """Keys and values in order of the keys' UTF-8 bytes.

        `start` inclusive, `start_after` and `end` exclusive, `limit` at least 1; `type`: see `get`. Raises ValueError
        for both starts or a limit below 1, InvalidValue when a value does not fit the type.
        """
        for bound in (start, start_after, end, prefix):
            if bound is not None:
                _text(bound)
        if limit is not None and limit < 1:
            raise ValueError("limit must be at least 1 (None: all)")
        if start is not None and start_after is not None:
            raise ValueError("give start or start_after, not both")
        low = max(start or "", prefix, key=str.encode)
        stops = [stop for stop in (end, _after_prefix(prefix)) if stop is not None]
        stop = min(stops, key=str.encode) if stops else None
        sql = _LIST.format(order="DESC" if reverse else "ASC")
        rows = self._writes.rows(sql, low, start_after, start_after, stop, stop, -1 if limit is None else limit)
        return {key: _value(key, value, type) for key, value in rows}

    def delete_all(self) -> None:
        """Remove all that is the actor's own: key-value pairs, tables, views, triggers and alarms; never facts.

        All or nothing, as part of the segment; the class's migrations have run anew on return, so the actor's file
        is as new. Stored replies of idempotent messages stay, so a retry still gets the first one. Raises
        RuntimeError inside `transaction()`, MigrationFailed.
        """
        writes = self._writes
        if writes.depth:
            raise RuntimeError(
                "delete_all() cannot run inside storage.transaction(): call it before or after the block"
            )
        with writes.transaction():
            writes.ran_sql()
            wipe(writes)
            self._alarms.delete_all()
            self._renew()

    # SQL

    def sql(self, query: str, *params: Value) -> Cursor:
        """Run SQL now and read its rows; several statements may stand in it, parameters are taken in order.

        The cursor has the rows of the last statement. Tables of ours (`z0_...`, `facts`) are read-only. Raises
        QueryError for a statement that is refused, ConstraintFailed for a constraint.
        """
        writes = self._writes
        try:
            if _MAY_TAKE_OURS.search(query):
                cursor = Cursor(self._define(query, params))
            else:
                cursor = Cursor(writes.database.run_users(query, params, writes.ran_sql))
        except DatabaseFailure as failure:
            raise writes.fail(failure) from failure
        self._cursors.append(cursor)
        writes.loose = True
        return cursor

    def _define(self, query: str, params: tuple[Value, ...]) -> Result:
        """Run SQL that may rename a table, or hold on to our rows by a foreign key: no authorizer is told of these."""
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
        allow_unconfirmed: bool = False,
    ) -> None:
        """Have `alarm(info)` run at a time or after a span, instead of when this alarm was set for before.

        Part of the segment's transaction; a time that is past is now. Each name has its alarm; None is the unnamed one.
        `every` or `cron` (five fields, in `timezone`): again and again, first at `when` or else at the next time. Runs
        that were missed are made up for by one; while a run is retried, later ones wait.
        `allow_unconfirmed`: see `put`.
        Raises ValueError, TypeError (a class without `alarm`), InvalidName, LimitExceeded (`alarms_per_actor`).
        """
        self._alarms.set(name, when, recurs_of(every, cron, timezone, when), allow_unconfirmed)

    def get_alarm(self, name: str | None = None) -> datetime | None:
        """When the alarm is to run (aware, UTC); None while its handler runs, unless it is set again or recurs."""
        return self._alarms.get(name)

    def delete_alarm(self, name: str | None = None, *, allow_unconfirmed: bool = False) -> None:
        """Remove the alarm and stop its recurrence. A run that is under way goes on, and keeps its retries."""
        self._alarms.delete(name, allow_unconfirmed)

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


def _value(key: str, stored: bytes, kind: Any) -> Any:
    if kind is not Any:
        return codec.decode_as(stored, kind, f"the value of key {key!r}")
    try:
        return codec.decode(stored)
    except Exception as error:
        raise codec.damaged(f"the value of key {key!r}", error) from error


def _key(key: object) -> str:
    text = _text(key)
    if len(text) * 4 > _KEY_BYTES_MAX and (size := len(text.encode())) > _KEY_BYTES_MAX:
        raise ValueError(f"a key has at most {_KEY_BYTES_MAX:,} UTF-8 bytes, not {size:,}; put the rest into the value")
    return text


def _text(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key is a string, not {key!r}")
    if key.isascii():
        return key
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ValueError(f"a key is Unicode text, but {key!r} holds a lone surrogate; encode it otherwise") from None
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
