"""What SQL written by users may do: an authorizer for SQLite. Pure.

Tables of ours (`z0_...` in any case, and `facts`) may be read, never written; transactions, files and
settings are the engine's. As Durable Objects: the list of PRAGMAs.
"""

from __future__ import annotations

# SQLite's authorizer action codes (sqlite3.h: a stable interface).
_CREATE_INDEX, _CREATE_TABLE = 1, 2
_CREATE_TRIGGER, _CREATE_VIEW = 7, 8
_CREATE_TEMP = {3, 4, 5, 6}
_DELETE, _DROP_INDEX, _DROP_TABLE = 9, 10, 11
_DROP_TRIGGER, _DROP_VIEW = 16, 17
_INSERT, _PRAGMA, _TRANSACTION, _UPDATE = 18, 19, 22, 23
_ATTACH, _DETACH, _ALTER_TABLE = 24, 25, 26
_CREATE_VTABLE, _DROP_VTABLE, _FUNCTION, _SAVEPOINT = 29, 30, 31, 32

_WRITES_TABLE = {_INSERT, _UPDATE, _DELETE, _CREATE_TABLE, _CREATE_VIEW, _CREATE_VTABLE, _DROP_TABLE, _DROP_VIEW}
_NAMES_TABLE_SECOND = {_CREATE_INDEX, _CREATE_TRIGGER, _DROP_INDEX, _DROP_TRIGGER, _ALTER_TABLE, _DROP_VTABLE}
_REFUSED = {_ATTACH, _DETACH, _TRANSACTION, _SAVEPOINT} | _CREATE_TEMP
_REFUSED_FUNCTIONS = {"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"}
_PRAGMAS_READ = {"page_size"}
_PRAGMAS = {
    "data_version",
    "case_sensitive_like",
    "foreign_keys",
    "defer_foreign_keys",
    "ignore_check_constraints",
    "legacy_alter_table",
    "recursive_triggers",
    "reverse_unordered_selects",
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "quick_check",
    "optimize",
    "table_list",
    "table_info",
    "table_xinfo",
}


def is_ours(name: str | None) -> bool:
    """Whether a table (index, trigger) of this name belongs to z0."""
    if name is None:
        return False
    folded = name.lower()
    return folded == "facts" or folded.startswith("z0_")


def refusal(action: int, first: str | None, second: str | None) -> str | None:
    """Why SQLite must not prepare a statement of a user that does this, or None when it may."""
    if action in _REFUSED:
        return "transactions, attached and temporary databases are the engine's; use storage.transaction()"
    if action == _PRAGMA:
        name = (first or "").lower()
        if name == "foreign_keys" and second is not None:
            return "foreign keys are always enforced; see PRAGMA defer_foreign_keys"
        if name in _PRAGMAS or (name in _PRAGMAS_READ and second is None):
            return None
        return f"PRAGMA {first} is not available to actors"
    if action == _FUNCTION and (second or "").lower() in _REFUSED_FUNCTIONS:
        return f"function {second} is not available to actors"
    if action in _WRITES_TABLE and is_ours(first):
        return f"{first} belongs to z0 and is read-only; names beginning with z0_ and `facts` are reserved"
    if action in _NAMES_TABLE_SECOND and (is_ours(first) or is_ours(second)):
        return f"{second or first} belongs to z0; names beginning with z0_ and `facts` are reserved"
    return None


def plainer(message: str) -> str:
    """SQLite's message for what it refuses by itself, with what to do."""
    if message == "cannot VACUUM from within a transaction":
        return "VACUUM is not available to actors; pages that are free now are used by what is written next"
    return message
