"""The roster: actors by their status, as their class calls it, whether they are in memory or not.

Of an actor that is not in memory the catalogue knows the status, as it was left. Of one in memory the actor itself
knows. What neither can say, who was in memory when the process was killed, has to be asked: `status` is None then.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from .catalog_schema import KNOWN_STATUS, WHOSE
from .names import Address

if TYPE_CHECKING:
    from .kind import Kind
    from .node import Node

_OF = "FROM actors WHERE tenant = ? AND namespace = ?"
_PREFIX = "AND substr(name, 1, ?) = ?"
_PAGE = (
    f"SELECT name, {KNOWN_STATUS}, size, last_use, next_alarm {_OF} AND name > ? {_PREFIX}"
    f" AND (? IS NULL OR ifnull({KNOWN_STATUS}, ?) = ? OR name IN (SELECT value FROM json_each(?)))"
    " ORDER BY name LIMIT ?"
)
_COUNTS = f"SELECT {KNOWN_STATUS}, count(*) {_OF} {_PREFIX} GROUP BY 1"
_UNKNOWN = f"SELECT name {_OF} {_PREFIX} AND {KNOWN_STATUS} IS NULL ORDER BY name"
_ONE = f"SELECT {KNOWN_STATUS} FROM actors {WHOSE}"


class Listed(NamedTuple):
    """One actor; sizes and times as of its last eviction, times in µs since the epoch."""

    name: str
    status: str | None
    size: int | None
    last_use: int | None
    next_alarm: int | None


class Roster:
    """The actors of one class and tenant."""

    def __init__(self, node: Node, kind: Kind, tenant: str) -> None:
        """Of this node."""
        self._node = node
        self._whose = (tenant, kind.namespace)

    def _live(self, prefix: str) -> dict[str, str | None]:
        """The status of each actor in memory; None: it has to be asked."""
        node = self._node
        hosts = [*node.hosts.values(), *node.closing.values()]
        return {
            host.address.name: host.actor._z0_status() if host.is_open else None
            for host in hosts
            if host.address[:2] == self._whose and host.address.name.startswith(prefix)
        }

    def one(self, name: str) -> tuple[bool, str | None]:
        """Whether there is such an actor, and its status, where that is known."""
        node, address = self._node, Address(*self._whose, name)
        host = node.hosts.get(address)
        if host is not None or address in node.closing:
            return True, host.actor._z0_status() if host is not None and host.is_open else None
        rows = node.catalog.rows(_ONE, *address)
        return bool(rows), rows[0][0] if rows else None

    async def page(self, status: str | None, prefix: str, after: str, limit: int) -> list[Listed]:
        """Some actors behind `after`, by name: all that have the status, or may have it (None)."""
        self._node.admit_loop()
        catalog = self._node.catalog
        await catalog.flushed()
        live = self._live(prefix)
        rows = catalog.rows(
            _PAGE, *self._whose, after, len(prefix), prefix, status, status, status, json.dumps(list(live)), limit
        )
        return [Listed(*row)._replace(status=live[row[0]]) if row[0] in live else Listed(*row) for row in rows]

    async def counts(self, prefix: str) -> tuple[Counter[str], list[str]]:
        """How many actors there are by status, and the names of those that have to be asked."""
        self._node.admit_loop()
        catalog = self._node.catalog
        await catalog.flushed()
        live = self._live(prefix)
        counts = Counter[str](
            {status: count for status, count in catalog.rows(_COUNTS, *self._whose, len(prefix), prefix) if status}
        )
        asked = {name for (name,) in catalog.rows(_UNKNOWN, *self._whose, len(prefix), prefix)}
        for name, status in live.items():
            for (left,) in catalog.rows(_ONE, *self._whose, name):
                if left is not None:
                    counts[left] -= 1
            asked.discard(name)
            if status is None:
                asked.add(name)
            else:
                counts[status] += 1
        return counts, sorted(asked)
