"""SQLite, for whoever writes: one `Database` is the one connection that writes an actor's file.

Errors come out as two kinds: `QueryError` (the statement was refused and changed nothing; go on) and
`DatabaseFailure` (the file or the connection can no longer be trusted: the owner must stop using it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from . import guard
from .cursor import Result
from .cursor import Row as Row
from .errors import (
    ConstraintFailed,
    DatabaseFailure,
    NotADatabase,
    QueryError,
    TransactionLost,
)
from .wal import WalAccount
from .wal_start import wal_start

Value = str | int | float | bytes | None
Rows = list[tuple[str, Sequence[Value]]]
"""Statements that write, and their bindings."""

SQLITE_VERSION = apsw.sqlite_lib_version()

_OPEN = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW  # nobody's link leads us out of the data directory
BUSY_MS = 1_000  # only foreign shells can make us wait: z0 has one connection per file
_STATEMENT_ERRORS = (
    apsw.SQLError, apsw.AuthError, apsw.MismatchError, apsw.RangeError, apsw.TooBigError, apsw.BindingsError,
    apsw.IncompleteExecutionError, apsw.ExecutionCompleteError, apsw.CursorClosedError,
)  # fmt: skip

RawError = apsw.Error
"""What `Database.execute` raises; see `explain`."""


def explain(error: Exception) -> Exception:
    """An error of SQLite as the rest of the house knows it: QueryError, ConstraintFailed or DatabaseFailure."""
    if isinstance(error, (ValueError, OverflowError)):
        return QueryError(f"SQLite cannot hold or give back this value: {error}")
    if not isinstance(error, apsw.Error):
        return error
    if isinstance(error, apsw.ConstraintError):
        return ConstraintFailed(str(error))
    if isinstance(error, _STATEMENT_ERRORS):
        return QueryError(guard.plainer(str(error)))
    return _failure(error)


def _failure(error: apsw.Error, action: str = "") -> DatabaseFailure:
    """The file, or the connection, cannot be trusted any more; what was being done."""
    kind = NotADatabase if isinstance(error, (apsw.NotADBError, apsw.CorruptError)) else DatabaseFailure
    return kind(f"{action}{type(error).__name__.removesuffix('Error')}: {error}")


class Database(WalAccount):
    """One connection in WAL mode, used by one thread at a time. Not safe after a fork."""

    __slots__ = ("_connection", "_cursor", "_guarded", "_refused", "_user", "execute", "path")

    def __init__(self, path: Path, *, vfs: str | None, sync: bool) -> None:
        """Open an existing file. `sync`: whether a COMMIT returns only when it is on the device."""
        super().__init__()
        self.path = path
        self._guarded = self._user = False
        self._refused: str | None = None
        try:
            connection = apsw.Connection(str(path), flags=_OPEN, vfs=vfs)
        except apsw.Error as error:
            if path.resolve() != path.absolute():
                raise NotADatabase("there is a symbolic link in its path") from error
            raise _failure(error, "open: ") from error
        self._connection = connection
        try:
            self._profile(connection, sync)
            self._cursor = connection.cursor()
            self.execute = self._cursor.execute
            """Run a statement of ours without further ado; raises RawError."""
        except apsw.Error as error:
            self.abandon()
            raise _failure(error, "open: ") from error

    def _profile(self, connection: apsw.Connection, sync: bool) -> None:
        connection.set_busy_timeout(BUSY_MS)
        for option, value in _CONFIG:
            connection.config(option, value)
        connection.wal_autocheckpoint(0)  # the owner checkpoints: never on the hot path
        connection.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")

    # Transactions

    def begin(self) -> None:
        """Start a write transaction."""
        self._run("BEGIN IMMEDIATE")

    def commit(self, rows: Rows | None = None) -> None:
        """Commit; durable on return when opened with `sync`. Raises DatabaseFailure: the outcome is unknown.

        `rows`: what is to be written, when no transaction has begun.
        """
        if rows is None:
            self._run("COMMIT")
        elif len(rows) == 1:
            self._run(*rows[0])
        else:
            self.begin()
            for row in rows:
                self._run(*row)
            self._run("COMMIT")

    def rollback(self) -> None:
        """Take the open transaction back, if there is one."""
        if self._connection.in_transaction:
            self._run("ROLLBACK")

    def savepoint(self, name: str) -> None:
        """Mark a place to come back to."""
        self._run(f"SAVEPOINT {name}")

    def release(self, name: str) -> None:
        """Forget the mark and keep what came after it."""
        self._run(f"RELEASE {name}")

    def rollback_to(self, name: str) -> None:
        """Take back what came after the mark, and forget the mark."""
        self._run(f"ROLLBACK TO {name}")
        self._run(f"RELEASE {name}")

    def _run(self, sql: str, bindings: Sequence[Value] = ()) -> None:
        try:
            self.execute(sql, bindings)
        except apsw.Error as error:
            raise _failure(error, f"{sql}: ") from error

    # Statements of ours: constant text, so that they stay in the statement cache

    def write(self, sql: str, bindings: Sequence[Value]) -> None:
        """Run one statement of ours that returns no rows."""
        try:
            self.execute(sql, bindings)
        except apsw.Error as error:
            raise explain(error) from error

    def rows(self, sql: str, *bindings: Value) -> list[Row]:
        """All rows of one statement of ours."""
        try:
            return self.execute(sql, bindings).fetchall()
        except (apsw.Error, UnicodeError, OverflowError) as error:
            raise explain(error) from error

    def row(self, sql: str, *bindings: Value) -> Row | None:
        """The first row of one statement of ours, or None."""
        rows = self.rows(sql, *bindings)
        return rows[0] if rows else None

    # Statements of users

    def run_users(self, sql: str, bindings: Sequence[Value], on_write: Callable[[], None]) -> Result:
        """Run SQL of a user under the guard, all of it; the columns and rows are those of the last statement.

        `on_write` is called before each statement that writes. Raises QueryError, DatabaseFailure, TransactionLost.
        """
        if not self._guarded:
            self._guard()
        columns: tuple[str, ...] = ()
        rows: list[Row] = []
        steps = returned = 0
        connection = self._connection
        held, changes = connection.in_transaction, connection.total_changes()

        def before(cursor: apsw.Cursor, _sql: str, _bindings: object) -> bool:
            nonlocal columns, held, returned
            if not cursor.has_vdbe:  # a remark behind the last statement
                return True
            columns = tuple(name for name, _type in cursor.get_description())
            returned += len(rows)
            rows.clear()
            if not cursor.is_readonly and not cursor.is_explain:
                self._user = False
                on_write()
                self._user = held = True
            return True

        def after(event: dict[str, Any]) -> None:
            nonlocal steps
            steps += event["stmt_status"]["SQLITE_STMTSTATUS_FULLSCAN_STEP"]

        cursor = connection.cursor()
        cursor.exec_trace = before
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, after)
        self._user, self._refused = True, None
        try:
            # The flag keeps their texts apart from ours in the statement cache: theirs are authorised, ours are not.
            for row in cursor.execute(sql, bindings, prepare_flags=apsw.SQLITE_PREPARE_PERSISTENT):
                rows.append(row)
        except apsw.AuthError as error:
            raise QueryError(f"{self._refused or error}: {sql}") from error
        except (apsw.Error, ValueError, TypeError, OverflowError) as error:
            if held and not connection.in_transaction:
                raise TransactionLost(str(error)) from error
            raise explain(error) from error
        finally:
            self._user = False
            cursor.close(True)
            connection.trace_v2(0, None)
        if held and not connection.in_transaction:
            raise TransactionLost("a statement ended the transaction")
        return Result(columns, rows, max(steps, returned + len(rows)), connection.total_changes() - changes)

    def _guard(self) -> None:
        """From here on SQL of users runs here: under the authorizer, and with triggers, theirs among them."""
        self._connection.set_authorizer(self._authorize)
        self._connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)
        for limit, value in _LIMITS:
            self._connection.limit(limit, value)
        self._guarded = True

    def _authorize(self, action: int, first: str | None, second: str | None, _db: str | None, by: str | None) -> int:
        theirs = self._user or (by is not None and not guard.is_ours(by))  # their trigger may fire in our statement
        if not theirs:
            return apsw.SQLITE_OK
        why = guard.refusal(action, first, second)
        if why is None:
            return apsw.SQLITE_OK
        self._refused = why
        return apsw.SQLITE_DENY

    def deferred_violations(self) -> bool:
        """Whether deferred foreign keys are violated now, so that a COMMIT would fail."""
        return self._connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0] > 0

    @property
    def guarded(self) -> bool:
        """Whether SQL of users has run here, so that tables, triggers and foreign keys may be theirs."""
        return self._guarded

    # The file

    def sync(self) -> None:
        """Have all that was committed on the device: a synced commit syncs what is before it in the WAL."""
        (mode,) = self.rows("PRAGMA synchronous")[0]
        self._run("PRAGMA synchronous=FULL")
        self.begin()
        self.write(
            "INSERT OR REPLACE INTO z0_meta VALUES('synced', 1 + ifnull((SELECT value FROM z0_meta"
            " WHERE key = 'synced'), 0))",
            (),
        )
        self.commit()
        self._run(f"PRAGMA synchronous={mode}")

    def checkpoint_due(self, pages_max: int) -> bool:
        """Whether the WAL holds so many pages; ask at `measure_at` rows only. Gives the page cache back as well."""
        try:
            pages, copied = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
            self._connection.release_memory()
        except apsw.Error as error:
            raise _failure(error, "checkpoint: ") from error
        return self._counted(pages, copied, pages_max)

    def checkpoint(self, *, wait: bool = False) -> bool:
        """Copy the WAL into the database so that the WAL is reused; whether all of it was copied.

        `wait`: truncate the WAL, unless a reader is in the way, who is not waited for.
        """
        mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if wait else apsw.SQLITE_CHECKPOINT_PASSIVE
        try:
            self._connection.set_busy_timeout(0)
            pages, copied = self._connection.wal_checkpoint(mode=mode)
            self._connection.release_memory()  # an actor that rests needs no page cache
        except apsw.BusyError:
            self._hindered()
            return False
        except apsw.Error as error:
            raise _failure(error, "checkpoint: ") from error
        finally:
            self._connection.set_busy_timeout(BUSY_MS)
        return self._checkpointed(pages, copied)

    def relax(self, relaxed: bool = True) -> None:
        """From here on a COMMIT need not wait for the device (for what can be rebuilt), or must."""
        self._run(f"PRAGMA synchronous={'NORMAL' if relaxed else 'FULL'}")

    def upgrade(self, version: int, upgrades: Mapping[int, Sequence[str]]) -> int:
        """Bring a file's schema up to date, at once or not at all; the version that it has then.

        `upgrades`: the statements that lead from each older version to the next. Raises DatabaseFailure, QueryError.
        """
        self.begin()
        while statements := upgrades.get(version):
            for statement in statements:
                self.write(statement, ())
            version += 1
        self.write("UPDATE z0_meta SET value = ? WHERE key = 'schema'", (version,))
        self.commit()
        return version

    def examine(self) -> None:
        """Have SQLite look at every page. Raises NotADatabase for what is not as it should be."""
        (verdict,) = self.rows("PRAGMA quick_check(1)")[0]
        if verdict != "ok":
            raise NotADatabase(str(verdict))

    def size(self) -> int:
        """Bytes of the database, free pages apart."""
        pages, free, page = (
            self.rows(f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page)

    def close(self) -> None:
        """Close; as the last connection this leaves one complete file, without WAL."""
        try:
            self._connection.close()
        except apsw.Error as error:
            self.abandon()
            raise _failure(error, "close: ") from error

    def abandon(self) -> None:
        """Close without a checkpoint, whatever the state: what was committed stays in the WAL."""
        try:
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._connection.close(True)
        except apsw.Error:  # the file is given up; what it holds is read again from the disk
            return


# Our triggers protect a file from other people's shells; our own statements keep their rules by themselves, and
# running a trigger for each INSERT costs several percent of a commit. SQL of users turns them on (`_guard`).
_CONFIG = (
    (apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1),
    (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
    (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
    (apsw.SQLITE_DBCONFIG_DQS_DDL, 0),
    (apsw.SQLITE_DBCONFIG_DQS_DML, 0),
)
# As Durable Objects; from the first SQL of a user on.
_LIMITS = (
    (apsw.SQLITE_LIMIT_ATTACHED, 0),
    (apsw.SQLITE_LIMIT_TRIGGER_DEPTH, 10),
    (apsw.SQLITE_LIMIT_EXPR_DEPTH, 100),
)


_ONE_CHANGE = b"\0\0\0\1"


class Image(NamedTuple):
    """The content of a new file and of its WAL."""

    database: bytes
    wal: bytes


class Template:
    """An empty database of one schema, kept in memory, from which new files are made.

    Writing a prepared image beats running the DDL in each new file.
    """

    def __init__(self, schema: Sequence[str]) -> None:
        """Build the image from DDL statements; z0_meta must be among its tables."""
        self._connection = apsw.Connection(":memory:")
        for statement in schema:
            self._connection.execute(statement)

    def image(self, meta: dict[str, Value]) -> Image:
        """What a new file holds that has these rows of z0_meta."""
        self._connection.execute("DELETE FROM z0_meta")
        self._connection.executemany("INSERT INTO z0_meta VALUES(?, ?)", list(meta.items()))
        image = bytearray(self._connection.serialize("main"))
        image[18:20] = b"\x02\x02"  # the header's file format: WAL
        image[24:28] = image[92:96] = _ONE_CHANGE
        database, size = bytes(image), int.from_bytes(image[16:18], "big")
        return Image(database, wal_start(database[:size], len(database) // size))
