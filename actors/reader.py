"""Reading a file that somebody else may own: an actor's file or a catalogue, live or copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import apsw

from .database import BUSY_MS, Row, Value, explain
from .errors import ActorFileError, StorageFailed, Z0Error


class Reader:
    """A read-only connection to a file that somebody else may own; never disturbs the owner."""

    def __init__(self, path: Path, vfs: str | None = None) -> None:
        """Open `path`. Raises ActorFileError when it is missing or no SQLite database, StorageFailed."""
        if not path.is_file():
            what = "is a directory, and not one actor's file" if path.is_dir() else "no such file"
            raise ActorFileError(str(path), what)
        # A copied file needs no -shm; a live one has a -wal that must not be ignored.
        alone = not path.with_name(f"{path.name}-wal").exists()
        uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if alone else ''}"
        self._path = path
        try:
            self._connection = apsw.Connection(uri, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, vfs)
        except apsw.Error as error:
            raise self._unreadable(f"not a readable SQLite database ({error})", error) from error
        try:
            self._connection.set_busy_timeout(BUSY_MS)
            self._connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
            self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        except apsw.Error as error:
            self.close()
            raise self._unreadable(f"not a readable SQLite database ({error})", error) from error

    def iter(self, sql: str, *bindings: Value) -> Iterator[Row]:
        """The rows of a statement, one by one.

        Raises ActorFileError for a damaged file, StorageFailed, QueryError for a binding.
        """
        try:
            yield from self._connection.execute(sql, bindings)
        except (UnicodeEncodeError, OverflowError) as error:
            raise explain(error) from error
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._unreadable(str(error), error) from error

    def _unreadable(self, reason: str, error: Exception) -> Z0Error:
        kind = StorageFailed if isinstance(error, (apsw.IOError, apsw.FullError)) else ActorFileError
        return kind(str(self._path), reason)

    def rows(self, sql: str, *bindings: Value) -> list[Row]:
        """All rows of a statement."""
        return list(self.iter(sql, *bindings))

    def has_table(self, name: str) -> bool:
        """Whether a table of this name exists."""
        return bool(self.rows("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", name))

    def close(self) -> None:
        """Close."""
        with suppress(apsw.Error):  # nothing was written
            self._connection.close(True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
