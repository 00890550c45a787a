"""The rows of a query, as `Storage.sql` gives them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .errors import QueryError

Row = tuple[Any, ...]


class Result(NamedTuple):
    """What SQL of a user did."""

    columns: tuple[str, ...]
    rows: list[Row]
    rows_read: int
    rows_written: int


class Cursor:
    """The rows of a query, as tuples: iterate, `one()` or `all()`. Closed when the segment ends.

    The query has run to its end when its cursor is made, so nothing that happens later changes the rows.
    """

    __slots__ = ("_closed", "_rows", "columns", "rows_read", "rows_written")

    def __init__(self, result: Result) -> None:
        """Made by `Storage.sql`."""
        self.columns = result.columns
        self.rows_read = result.rows_read
        """The greater of: steps that the call's statements took through whole tables or indexes (SQLite's
        FULLSCAN_STEP: one less than the rows, for each scan), and rows that they returned. What an index found
        without being returned is not seen: a high number means a missing index."""
        self.rows_written = result.rows_written
        """Rows that the call's statements inserted, updated or deleted, by triggers and foreign keys too."""
        self._rows = iter(result.rows)
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
