"""The tables of every actor's file. Names beginning with z0_ are ours; the rest belongs to the actor."""

from __future__ import annotations

SCHEMA_VERSION = 1
"""Version of the tables below; stored in each file. A newer one is refused, an older one migrated."""

ACTOR_SCHEMA = (
    "CREATE TABLE z0_meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE z0_kv(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    # name '' is the unnamed alarm; times in microseconds since the epoch
    "CREATE TABLE z0_alarms(name TEXT PRIMARY KEY, due INTEGER NOT NULL, scheduled INTEGER NOT NULL,"
    " retries INTEGER NOT NULL DEFAULT 0, error TEXT) WITHOUT ROWID",
    # replies of idempotent messages; arguments is a hash, reply is msgpack (last: who looks for old ones skips it)
    "CREATE TABLE z0_replies(message TEXT NOT NULL, key TEXT NOT NULL, created INTEGER NOT NULL,"
    " arguments BLOB NOT NULL, reply BLOB NOT NULL, PRIMARY KEY(message, key)) WITHOUT ROWID",
)
