"""Declared migrations: what an actor's file goes through once, in order, before its code sees it.

`migrations = ["CREATE TABLE ...", function_of_the_storage, ...]`: all pending ones are one part of the turn that opens
the actor, together with their number (`z0_meta`, key "migrations"), so they are kept or lost together, and the first
reply waits for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .errors import ActorFileError, ActorReset, MigrationFailed

if TYPE_CHECKING:
    from .host import Host
    from .storage import Storage

Migration = str | Callable[["Storage"], None]

_DONE = "INSERT OR REPLACE INTO z0_meta VALUES('migrations', ?)"


def declared(cls: type) -> Sequence[Migration]:
    """The migrations of a class. Raises TypeError for what cannot be one."""
    found = getattr(cls, "migrations", ())
    if not isinstance(found, (list, tuple)):
        raise TypeError(f"{cls.__name__}.migrations is a list of SQL texts and functions, not {found!r}")
    for number, migration in enumerate(found, 1):
        if isinstance(migration, str):
            continue
        if not callable(migration):
            raise TypeError(f"{cls.__name__}: migration {number} is SQL or a function, not {migration!r}")
        if _is_async(migration):
            raise TypeError(f"{cls.__name__}: migration {number} is async; make it a plain function of the storage")
    return tuple(found)


def bring_up(host: Host, meta: dict[str, Any]) -> None:
    """Run what the file has not had yet. Raises MigrationFailed, and ActorFileError for a file of newer code."""
    done = int(meta.get("migrations", 0))
    if done > len(host.kind.migrations):
        raise ActorFileError(
            str(host.database.path),
            f"has had {done} migrations, but class {host.kind.cls.__name__} declares {len(host.kind.migrations)}; "
            "use the newer code",
        )
    if done < len(host.kind.migrations):
        migrate(host, done)
    host.version = len(host.kind.migrations)


def migrate(host: Host, done: int) -> None:
    """Run the migrations after number `done`, all or none. Raises MigrationFailed."""
    migrations = host.kind.migrations
    if done == len(migrations):
        return
    number = done
    try:
        with host.writes.transaction():
            for number, migration in enumerate(migrations[done:], done + 1):  # noqa: B007  # named in the error
                _run(host.storage, migration)
            if host.database.guarded and host.database.deferred_violations():
                raise ValueError("FOREIGN KEY constraint failed (deferred)")
            host.writes.write(_DONE, (len(migrations),))
    except ActorReset:  # the storage failed under it
        raise
    except Exception as error:
        raise MigrationFailed(str(host.address), number, f"{type(error).__name__}: {error}") from error


def _run(storage: Storage, migration: Migration) -> None:
    if isinstance(migration, str):
        storage.sql(migration)
        return
    returned: object = migration(storage)
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise TypeError("it returned something to await; make it a plain function of the storage")


def _is_async(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    return any(
        test(candidate)
        for test in (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
        for candidate in (function, getattr(function, "__call__", None))  # noqa: B004  # the method, not whether
    )
