"""`Storage.delete_all`: everything that is the user's leaves the file, whatever refers to what."""

from __future__ import annotations

from . import guard
from .errors import ConstraintFailed
from .writes import Writes

# Newest first: what refers to something is mostly younger than that.
_LIST = "SELECT name FROM sqlite_schema WHERE type = ? AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid DESC"
_VIRTUAL = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage = 0 ORDER BY rowid DESC"


def wipe(writes: Writes) -> None:
    """Remove the user's key-value pairs, views, triggers and tables, with their indexes.

    Part of the caller's transaction, which must be opaque. Raises QueryError for what SQLite cannot drop.
    """
    writes.write("DELETE FROM z0_kv", ())
    for kind in "trigger", "view":
        for name in _theirs(writes, _LIST, kind):
            _drop(writes, kind, name)
    for name in _theirs(writes, _VIRTUAL):  # before tables: they take their shadow tables with them
        _drop(writes, "table", name)
    tables = _theirs(writes, _LIST, "table")
    stuck = _drop_tables(writes, tables)
    while stuck and len(stuck) < len(tables):
        tables, stuck = stuck, _drop_tables(writes, stuck)
    if stuck:  # they refer to each other in a circle
        writes.rows("PRAGMA defer_foreign_keys = ON")
        for name in stuck:
            _drop(writes, "table", name)
        writes.rows("PRAGMA defer_foreign_keys = OFF")  # no row is left that could violate anything


def _drop_tables(writes: Writes, tables: list[str]) -> list[str]:
    """Drop what can be dropped; the tables whose rows others still need."""
    stuck = []
    for name in tables:
        try:
            _drop(writes, "table", name)
        except ConstraintFailed:
            stuck.append(name)
    return stuck


def _theirs(writes: Writes, sql: str, *bindings: str) -> list[str]:
    return [name for (name,) in writes.rows(sql, *bindings) if not guard.is_ours(name)]


def _drop(writes: Writes, kind: str, name: str) -> None:
    quoted = name.replace('"', '""')
    writes.rows(f'DROP {kind} "{quoted}"')
