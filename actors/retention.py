"""Replies of idempotent messages are kept for a time, then deleted a few at a time by threads that have the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from .clock import to_us
from .database import Database, Value

if TYPE_CHECKING:
    from .host import Host

_DAY_US = 86_400_000_000
_BATCH_ROWS = 1_000
_BATCHES = 10  # per visit: nobody else has the file meanwhile

_META = "SELECT value FROM z0_meta WHERE key = ?"
_SET = "INSERT OR REPLACE INTO z0_meta VALUES(?, ?)"
_UNSET = "DELETE FROM z0_meta WHERE key = 'purging'"
_NEXT = (
    "SELECT message, key, created FROM z0_replies WHERE (message, key) > (?, ?) ORDER BY message, key"
    f" LIMIT {_BATCH_ROWS}"
)
_DELETE = "DELETE FROM z0_replies WHERE message = ? AND key = ?"


def purging(host: Host) -> Callable[[], None] | None:
    """What a thread that has the host's file should do about old replies; None for a class without any."""
    retentions = host.kind.retentions
    if not retentions:
        return None
    default = host.node.limits.idempotency_seconds
    lifetimes = {message: to_us(default if kept is None else kept) for message, kept in retentions.items()}
    return partial(purge, host.database, lifetimes, to_us(default), host.node.clock.now_us())


def purge(database: Database, lifetimes: Mapping[str, int], default: int, now: int) -> None:
    """Look through a part of the replies and delete those that are too old, at most one round a day.

    Times in microseconds; `default` is for messages that the class no longer has. Where a round has come to is kept
    in the file (`purging`), and when the last one ended (`purged`). Raises DatabaseFailure.
    """
    position = _meta(database, "purging")
    if position is None:
        purged = _meta(database, "purged")
        if isinstance(purged, int) and 0 <= now - purged < _DAY_US:
            return
    for _ in range(_BATCHES):
        message, _, key = str(position or "\n").partition("\n")
        rows = database.rows(_NEXT, message, key)
        old = [row[:2] for row in rows if isinstance(row[2], int) and now - row[2] >= lifetimes.get(row[0], default)]
        ended = len(rows) < _BATCH_ROWS
        position = None if ended else "\n".join(rows[-1][:2])
        database.begin()
        for reply in old:
            database.write(_DELETE, reply)
        if ended:
            database.write(_UNSET, ())
        database.write(_SET, ("purged", now) if ended else ("purging", position))
        database.commit()
        if ended:
            break


def _meta(database: Database, key: str) -> Value:
    row = database.row(_META, key)
    return None if row is None else row[0]
