"""The tables of an entity's file, readable with any SQLite shell since 3.40."""

from __future__ import annotations

from z0.actors.schema import ACTOR_SCHEMA

from .fact import COLUMNS

__all__ = ["COLUMNS", "ENTITY_SCHEMA", "FACTS_DDL", "FACTS_INDEX_DDL"]

FACTS_DDL = (
    "CREATE TABLE facts(seq INTEGER PRIMARY KEY, type TEXT NOT NULL, subtype TEXT, timestamp INTEGER NOT NULL,"
    " tenant_id TEXT NOT NULL, entity_id TEXT NOT NULL, source_id TEXT, from_entity TEXT, to_entity TEXT,"
    " amount INTEGER, currency TEXT, config_id TEXT, config_version INTEGER, trace_id TEXT, external_source TEXT,"
    " external_id TEXT, idempotency_key TEXT, data TEXT, hash BLOB NOT NULL)"
)
FACTS_INDEX_DDL = (
    "CREATE UNIQUE INDEX z0_by_idempotency_key ON facts(idempotency_key) WHERE idempotency_key IS NOT NULL"
)
_REFUSE = "SELECT RAISE(ABORT, 'facts are append-only: write a new fact that corrects the old one')"
_TRIGGERS = (
    f"CREATE TRIGGER z0_facts_no_update BEFORE UPDATE ON facts BEGIN {_REFUSE}; END",
    f"CREATE TRIGGER z0_facts_no_delete BEFORE DELETE ON facts BEGIN {_REFUSE}; END",
    # An INSERT OR REPLACE deletes without firing the trigger above (recursive triggers are off in most shells);
    # this one also keeps seq contiguous.
    "CREATE TRIGGER z0_facts_append_only BEFORE INSERT ON facts"
    " WHEN NEW.seq IS NOT (SELECT ifnull(max(seq), 0) + 1 FROM facts)"
    " OR EXISTS(SELECT 1 FROM facts WHERE idempotency_key = NEW.idempotency_key)"
    f" BEGIN {_REFUSE}; END",
)
ENTITY_SCHEMA = (
    *ACTOR_SCHEMA,
    FACTS_DDL,
    FACTS_INDEX_DDL,
    *_TRIGGERS,
    # state is msgpack: the projection after fact number seq
    "CREATE TABLE z0_snapshots(projection TEXT PRIMARY KEY, version INTEGER NOT NULL, seq INTEGER NOT NULL,"
    " state BLOB NOT NULL) WITHOUT ROWID",
)

assert FACTS_DDL.count(",") + 1 == len(COLUMNS)
