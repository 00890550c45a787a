"""The alarm index: when each actor is due, as the catalogue knows it.

Its time for an actor is never later than the actor's file says, unless the actor is in the active set: then it was
in memory, and only its file knows. It is made earlier before the file's COMMIT, and later after it (as Durable
Objects: an alarm may be looked for too early, never too late).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import NamedTuple

from .catalog import Catalog
from .catalog_schema import WHOSE
from .names import Address

ACTIVE = -1
"""When an actor of the active set is due: whenever."""

_MARK = f"UPDATE actors SET active = 1 {WHOSE}"
_LEFT = f"UPDATE actors SET next_alarm = ?, active = 0 {WHOSE}"
_AT = f"SELECT iif(active, {ACTIVE}, next_alarm) FROM actors {WHOSE}"
_IN = "namespace IN (SELECT value FROM json_each(?))"
_DUE = (
    "SELECT next_alarm, tenant, namespace, name FROM actors WHERE next_alarm <= ?"
    f" AND (next_alarm, tenant, namespace, name) > (?, ?, ?, ?) AND NOT active AND {_IN}"
    " ORDER BY next_alarm, tenant, namespace, name LIMIT ?"
)
_ACTIVE = (
    f"SELECT tenant, namespace, name FROM actors WHERE active AND (tenant, namespace, name) > (?, ?, ?) AND {_IN}"
    " ORDER BY tenant, namespace, name LIMIT ?"
)
_NEXT = f"SELECT min(next_alarm) FROM actors WHERE next_alarm > ? AND {_IN}"
_UNSERVED = (
    f"SELECT namespace, count(*) FROM (SELECT namespace FROM actors WHERE next_alarm <= ? AND NOT {_IN}"
    f" UNION ALL SELECT namespace FROM actors WHERE active AND NOT {_IN}) GROUP BY namespace"
)


class Due(NamedTuple):
    """An actor and when it is due, in µs since the epoch, or ACTIVE."""

    at: int
    address: Address


BEFORE_ALL = Due(ACTIVE, Address("", "", ""))


class AlarmIndex:
    """What the catalogue knows of alarms. Queries name the namespaces whose classes can run them."""

    def __init__(self, catalog: Catalog) -> None:
        """Of this catalogue."""
        self._catalog = catalog
        self._unwritten: dict[Address, int] = {}

    def mark(self, address: Address) -> asyncio.Future[None]:
        """Put the actor into the active set; done when that is durable. Its error is DatabaseFailure."""
        return self._catalog.written(_MARK, address)

    def left(self, address: Address, due: int | None, then: Callable[[], None]) -> None:
        """Note that the actor has left the memory, its file complete, and is due then; `then` when it is written."""
        self._unwritten[address] = self._unwritten.get(address, 0) + 1

        def written() -> None:
            self._unwritten[address] -= 1
            if not self._unwritten[address]:
                del self._unwritten[address]
            then()

        self._catalog.note(_LEFT, (due, *address), written)

    def at(self, address: Address) -> int | None:
        """When the actor is due, at the latest; None when that is not certain now."""
        if address in self._unwritten:
            return None
        rows = self._catalog.rows(_AT, *address)
        return rows[0][0] if rows else None

    def due(self, after: Due, now: int, namespaces: list[str], limit: int) -> list[Due]:
        """Actors that are due and not in the active set, the earliest first, a page at a time."""
        rows = self._catalog.rows(_DUE, now, after.at, *after.address, json.dumps(namespaces), limit)
        return [Due(at, Address(*address)) for at, *address in rows]

    def active(self, after: Due, namespaces: list[str], limit: int) -> list[Due]:
        """Actors of the active set, a page at a time."""
        rows = self._catalog.rows(_ACTIVE, *after.address, json.dumps(namespaces), limit)
        return [Due(ACTIVE, Address(*address)) for address in rows]

    def next(self, now: int, namespaces: list[str]) -> int | None:
        """When the next one is due after now."""
        due: int | None = self._catalog.rows(_NEXT, now, json.dumps(namespaces))[0][0]
        return due

    def unserved(self, now: int, namespaces: list[str]) -> list[tuple[str, int]]:
        """Other namespaces that have actors which are, or may be, due; and how many."""
        known = json.dumps(namespaces)
        return [(namespace, count) for namespace, count in self._catalog.rows(_UNSERVED, now, known, known)]
