"""What stands in a WAL: when to count its pages, and when they are worth a checkpoint. Pure.

Counting asks the file system, so it is done every few rows only, and a checkpoint that a reader stands in the way of
is not tried again for a while.
"""

from __future__ import annotations

_WAL_RESET_BUG_FIXED = (3, 51, 3)
_PAGES_PER_ROW = 5  # a row with its index entries rarely changes more
_MEASURE_FIRST, _MEASURE_LEAST, _MEASURE_MOST, _MEASURE_BUSY = 1, 8, 16, 500  # rows; busy: a reader is in the way


def check_version(version: str) -> None:
    """Refuse a SQLite whose WAL can lose commits. Raises RuntimeError."""
    if tuple(map(int, version.split("."))) < _WAL_RESET_BUG_FIXED:
        raise RuntimeError(f"SQLite {version} has the WAL-reset bug; install apsw >= 3.54")


class WalAccount:
    """How full the WAL of one file is, as far as known."""

    __slots__ = ("measure_at", "unmeasured", "wal_pages")

    def __init__(self) -> None:
        """Nothing is known."""
        self.wal_pages = 0
        """In the WAL, to be copied by a checkpoint, when they were last counted."""
        self.unmeasured = 0
        """Rows written since; whoever commits adds to it."""
        self.measure_at = _MEASURE_FIRST
        """How many of those make it worth counting again."""

    @property
    def has_wal(self) -> bool:
        """Whether a checkpoint would have something to copy."""
        return bool(self.wal_pages or self.unmeasured)

    def _counted(self, pages: int, copied: int, pages_max: int) -> bool:
        """Take in a count; whether there are too many."""
        self.wal_pages = 0 if pages == copied else pages
        self.unmeasured = 0
        self.measure_at = max(_MEASURE_LEAST, min(_MEASURE_MOST, (pages_max - self.wal_pages) // _PAGES_PER_ROW))
        return self.wal_pages >= pages_max

    def _checkpointed(self, pages: int, copied: int) -> bool:
        """Take in what a checkpoint did; whether all was copied."""
        self.wal_pages = 0 if pages == copied else pages
        self.unmeasured = 0
        self.measure_at = _MEASURE_LEAST if pages == copied else _MEASURE_BUSY
        return pages == copied

    def _hindered(self) -> None:
        """A reader was in the way of a checkpoint."""
        self.unmeasured, self.measure_at = 0, _MEASURE_BUSY
