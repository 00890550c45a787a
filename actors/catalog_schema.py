"""The tables of the catalogue, and what brings older ones up to date."""

from __future__ import annotations

CATALOG_VERSION = 3
WHOSE = "WHERE tenant = ? AND namespace = ? AND name = ?"
"""Of one actor: its address."""
KNOWN_STATUS = "iif(active, NULL, status)"
"""Of an actor in `actors`, as the catalogue knows it: one in memory has to be asked."""
_ACTIVE_INDEX = "CREATE INDEX actors_active ON actors(active) WHERE active"
_STATUS_INDEX = "CREATE INDEX actors_status ON actors(tenant, namespace, status) WHERE status IS NOT NULL"
# The one table with rowids, and without an index: no page of another, put here by a damage, is taken for what is to go.
_REMOVALS = "CREATE TABLE removals(tenant TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL)"
CATALOG_SCHEMA = (
    "CREATE TABLE z0_meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    # next_alarm and last_use in microseconds since the epoch; version: of the class's migrations; status: in the
    # class's own words, for classes that have one
    "CREATE TABLE actors(tenant TEXT, namespace TEXT, name TEXT, path TEXT NOT NULL, size INTEGER,"
    " facts INTEGER, next_alarm INTEGER, last_use INTEGER, active INTEGER NOT NULL DEFAULT 0, version INTEGER,"
    " status TEXT, PRIMARY KEY(tenant, namespace, name)) WITHOUT ROWID",
    "CREATE INDEX actors_next_alarm ON actors(next_alarm) WHERE next_alarm IS NOT NULL",
    _ACTIVE_INDEX,
    _STATUS_INDEX,
    _REMOVALS,
)
CATALOG_UPGRADES = {
    1: (
        "ALTER TABLE actors ADD COLUMN active INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE actors ADD COLUMN version INTEGER",
        _ACTIVE_INDEX,
    ),
    2: ("ALTER TABLE actors ADD COLUMN status TEXT", _STATUS_INDEX, _REMOVALS),
}
