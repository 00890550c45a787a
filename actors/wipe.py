"""`Storage.delete_all`: everything that is the user's leaves the file, whatever refers to what."""

from __future__ import annotations

from . import guard
from .errors import QueryError
from .writes import Writes

# Newest first: what refers to something is mostly younger than that.
_LIST = "SELECT name FROM sqlite_schema WHERE type = ? AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid DESC"
_VIRTUAL = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage = 0 ORDER BY rowid DESC"
_REFERENCES = 'SELECT lower("table"), id, lower("to") FROM pragma_foreign_key_list(?) ORDER BY id, seq'


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
    if stuck:
        writes.rows("PRAGMA defer_foreign_keys = ON")
        _unknot(writes, stuck)
        writes.rows("PRAGMA defer_foreign_keys = OFF")  # no row is left that could violate anything


def _drop_tables(writes: Writes, tables: list[str]) -> list[str]:
    """Drop what can be dropped; the tables whose rows others still need."""
    stuck = []
    for name in tables:
        try:
            _drop(writes, "table", name)
        except QueryError:
            stuck.append(name)
    return stuck


def _unknot(writes: Writes, stuck: list[str]) -> None:
    """Drop tables that refer to each other in circles.

    SQLite cannot drop a table while one that follows it (ON DELETE CASCADE) has lost another parent, so each is
    replaced by an empty one of its name that refers to nothing, and these go last.
    """
    keys: dict[str, set[tuple[str | None, ...]]] = {name.lower(): set() for name in stuck}
    for name in stuck:
        found: dict[tuple[str, int], tuple[str | None, ...]] = {}
        for parent, number, column in writes.rows(_REFERENCES, name):
            found[parent, number] = (*found.get((parent, number), ()), column)
        for (parent, _), columns in found.items():
            keys.setdefault(parent, set()).add(columns)
    there = {name for (name,) in writes.rows("SELECT lower(name) FROM sqlite_schema")}
    made = [parent for parent in keys if parent not in there]
    for parent in made:
        _stand_in(writes, parent, keys[parent])
    for name in stuck:
        _drop(writes, "table", name)
        _stand_in(writes, name.lower(), keys[name.lower()])
        made.append(name)
    for name in made:
        _drop(writes, "table", name)


def _stand_in(writes: Writes, name: str, keys: set[tuple[str | None, ...]]) -> None:
    """Make an empty table that foreign keys may refer to by these columns; None: by the primary key."""
    parts = ["z0_none"]
    for key in keys:
        columns = [_quoted(column or f"z0_{n}") for n, column in enumerate(key)]
        parts += [column for column in columns if column not in parts]
    for key in keys:
        columns = [_quoted(column or f"z0_{n}") for n, column in enumerate(key)]
        parts.append(f"{'PRIMARY KEY' if None in key else 'UNIQUE'}({', '.join(columns)})")
    writes.rows(f"CREATE TABLE {_quoted(name)}({', '.join(parts)})")


def _theirs(writes: Writes, sql: str, *bindings: str) -> list[str]:
    return [name for (name,) in writes.rows(sql, *bindings) if not guard.is_ours(name)]


def _drop(writes: Writes, kind: str, name: str) -> None:
    writes.rows(f"DROP {kind} {_quoted(name)}")


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
