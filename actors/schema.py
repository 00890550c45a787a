"""The tables of every actor's file. Names beginning with z0_ are ours; the rest belongs to the actor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .guard import is_ours

SCHEMA_VERSION = 2
"""Version of the tables below; stored in each file. A newer one is refused, an older one upgraded when it is opened."""

# Times in microseconds since the epoch. The unnamed alarm is called ''. Of the rows of one name the one with the
# highest id is the alarm as it was last set; another is a failed run whose handler had set the next one, and is
# still owed its retries. `due` is when it runs next, `scheduled` when it was to run first.
_ALARMS = (
    "CREATE TABLE z0_alarms(name TEXT NOT NULL, id INTEGER NOT NULL, due INTEGER NOT NULL, scheduled INTEGER NOT NULL,"
    " retries INTEGER NOT NULL DEFAULT 0, error TEXT, recurs TEXT, PRIMARY KEY(name, id)) WITHOUT ROWID"
)
# What became of the runs, by alarm: how often, and the last time.
OUTCOMES_DDL = (
    "CREATE TABLE IF NOT EXISTS z0_alarm_outcomes(name TEXT NOT NULL, outcome TEXT NOT NULL, times INTEGER NOT NULL,"
    " scheduled INTEGER NOT NULL, ended INTEGER NOT NULL, retries INTEGER NOT NULL, error TEXT,"
    " PRIMARY KEY(name, outcome)) WITHOUT ROWID"
)
"""Only in files of classes that have alarms; made with the first outcome when the class has got them later."""

ACTOR_SCHEMA = (
    "CREATE TABLE z0_meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE z0_kv(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    _ALARMS,
    # replies of idempotent messages; arguments is a hash, reply is msgpack (last: who looks for old ones skips it)
    "CREATE TABLE z0_replies(message TEXT NOT NULL, key TEXT NOT NULL, created INTEGER NOT NULL,"
    " arguments BLOB NOT NULL, reply BLOB NOT NULL, PRIMARY KEY(message, key)) WITHOUT ROWID",
)

UPGRADES = {
    1: (
        "ALTER TABLE z0_alarms RENAME TO z0_alarms_1",
        _ALARMS,
        "INSERT INTO z0_alarms(name, id, due, scheduled, retries, error)"
        " SELECT name, 1, due, scheduled, retries, error FROM z0_alarms_1",
        "DROP TABLE z0_alarms_1",
    ),
}
"""What leads from each older version to the next."""

SCHEMA_OBJECTS = "SELECT type, name, sql FROM sqlite_schema"


def stranger(objects: Iterable[tuple[Any, ...]], triggers: frozenset[str]) -> str | None:
    """What bears a name of ours in a file's schema, could run code and is none of `triggers` (their texts).

    Tables are only read and written; a view or a virtual table in the place of one, or a trigger on one, would run.
    """
    for type, name, sql in objects:
        if not (isinstance(name, str) and is_ours(name)) or (type == "trigger" and sql in triggers):
            continue
        if type not in ("table", "index") or "VIRTUAL" in str(sql).upper().split()[:2]:
            return f"{type} {name!r}"
    return None
