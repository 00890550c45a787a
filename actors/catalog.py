"""The catalogue: one SQLite file per data directory that lists every actor.

A new actor's row is durable before its first reply; what it says of sizes and last use is as of the last
eviction and may be lost in a crash. It holds nothing that the actors' files do not: when it is missing it is
rebuilt from them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from .clock import EPOCH
from .database import Database, Row, Template, Value, open_reader
from .errors import ActorFileError, DatabaseFailure, NotADatabase, RuntimeClosed, Z0Error
from .files import create_file
from .names import Address, file_path

CATALOG_FILE = "catalog.sqlite"
CATALOG_VERSION = 1
_WAL_PAGES = 1_000
_SCHEMA = (
    "CREATE TABLE z0_meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    # next_alarm and last_use in microseconds since the epoch
    "CREATE TABLE actors(tenant TEXT, namespace TEXT, name TEXT, path TEXT NOT NULL, size INTEGER,"
    " facts INTEGER, next_alarm INTEGER, last_use INTEGER,"
    " PRIMARY KEY(tenant, namespace, name)) WITHOUT ROWID",
    "CREATE INDEX actors_next_alarm ON actors(next_alarm) WHERE next_alarm IS NOT NULL",
)
log = logging.getLogger("z0.actors")

_COMPLETE = "SELECT 1 FROM z0_meta WHERE key = 'complete'"
_REGISTER = "INSERT OR IGNORE INTO actors(tenant, namespace, name, path, last_use) VALUES(?, ?, ?, ?, ?)"
_UPDATE = "UPDATE actors SET size = ?, facts = ?, last_use = ? WHERE tenant = ? AND namespace = ? AND name = ?"
_HAS = "SELECT 1 FROM actors WHERE tenant = ? AND namespace = ? AND name = ?"
_SIZE = "SELECT size FROM actors WHERE tenant = ? AND namespace = ? AND name = ?"
_LIST = (
    "SELECT tenant, namespace, name, path, size, facts, next_alarm, last_use FROM actors"
    " WHERE tenant = ? AND namespace = ? AND name >= ? AND (? IS NULL OR name > ?)"
    " AND substr(name, 1, ?) = ? ORDER BY name LIMIT ?"
)

Write = tuple[str, tuple[Value, ...], "asyncio.Future[None] | None"]


class ActorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the catalogue knows of one actor; sizes, counts and times as of its last eviction."""

    tenant: str
    namespace: str
    name: str
    path: str
    """Of the file, relative to the data directory."""
    size: int | None
    """Bytes."""
    facts: int | None
    next_alarm: datetime | None
    last_use: datetime | None


def actor_info(row: Row) -> ActorInfo:
    """A row of the catalogue's `actors`."""
    tenant, namespace, name, path, size, facts, next_alarm, last_use = row
    return ActorInfo(
        tenant=tenant,
        namespace=namespace,
        name=name,
        path=path,
        size=size,
        facts=facts,
        next_alarm=_datetime(next_alarm),
        last_use=_datetime(last_use),
    )


Batch = list[Write]


def _datetime(us: int | None) -> datetime | None:
    return None if us is None else EPOCH + timedelta(microseconds=us)


class Catalog:
    """The open catalogue of a runtime. Writes are batched in a thread of its own; reads are of what is written."""

    def __init__(
        self,
        directory: Path,
        vfs: str | None,
        loop: asyncio.AbstractEventLoop,
        written: Callable[[], object] | None = None,
    ) -> None:
        """Open, creating or rebuilding it from the actors' files. Raises ActorFileError for a foreign file.

        `written` is called on the loop when a batch has been.
        """
        path = directory / CATALOG_FILE
        if not path.exists():
            create_file(path, Template(_SCHEMA).image({"schema": CATALOG_VERSION}))
        self._loop = loop
        self._on_written = written
        try:
            self._database = Database(path, vfs=vfs, sync=True)
        except NotADatabase as error:
            raise ActorFileError(
                str(path), f"{error}; remove it, and it is made anew from the actors' files"
            ) from error
        self._check_version(path)
        if self._database.row(_COMPLETE) is None:
            self._rebuild(directory)
        self._reader = open_reader(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="z0-catalog")
        self._waiting: list[Write] = []
        self._running: list[Write] = []
        self._abandoned = False
        self.writing = False
        self.commits = 0

    def _check_version(self, path: Path) -> None:
        row = self._database.row("SELECT value FROM z0_meta WHERE key = 'schema'")
        if row is None or row[0] != CATALOG_VERSION:
            raise ActorFileError(str(path), f"catalogue of schema {row and row[0]}, this z0 reads {CATALOG_VERSION}")

    def _rebuild(self, directory: Path) -> None:
        self._database.begin()
        for address in addresses_on_disk(directory):
            self._database.write(_REGISTER, (*address, str(file_path(*address)), None))
        self._database.write("INSERT INTO z0_meta VALUES('complete', 1)", ())
        self._database.commit()

    def has(self, address: Address) -> bool:
        """Whether the actor is listed, durably."""
        return bool(self._reader.rows(_HAS, *address))

    def was_left(self, address: Address) -> bool:
        """Whether the actor was evicted once, so that its file was complete and must be there."""
        return any(row[0] is not None for row in self._reader.rows(_SIZE, *address))

    async def register(self, address: Address, now_us: int) -> None:
        """List a new actor; durable on return."""
        done = self._loop.create_future()
        self._write((_REGISTER, (*address, str(file_path(*address)), now_us), done))
        await asyncio.shield(done)

    def update(self, address: Address, size: int, facts: int | None, now_us: int) -> None:
        """Note how an actor was left; written soon."""
        self._write((_UPDATE, (size, facts, now_us, *address), None))

    async def list(self, tenant: str, namespace: str, prefix: str, after: str | None, limit: int) -> list[ActorInfo]:
        """Actors of a namespace in order of their names."""
        await self.flushed()
        rows = self._reader.rows(_LIST, tenant, namespace, prefix, after, after, len(prefix), prefix, limit)
        return [actor_info(row) for row in rows]

    async def flushed(self) -> None:
        """Return when everything noted so far is written."""
        if self.writing or self._waiting:
            done = self._loop.create_future()
            self._write(("SELECT 1", (), done))
            await asyncio.shield(done)

    async def close(self) -> None:
        """Write what is noted and close."""
        await self.flushed()
        self._reader.close()
        self._thread.shutdown(wait=True)
        self._database.close()

    def abandon(self) -> None:
        """Close at once, leaving the file as a kill would."""
        self._abandoned = True
        self._thread.shutdown(wait=True, cancel_futures=True)
        self.writing = False
        self._reader.close()
        self._database.abandon()
        for _sql, _bindings, done in [*self._running, *self._waiting]:
            if done is not None and not done.done():
                done.set_exception(RuntimeClosed())
                done.exception()  # whoever waited may have gone

    def _write(self, write: Write) -> None:
        self._waiting.append(write)
        if not self.writing:
            self.writing = True
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        if self._abandoned:
            return
        batch, self._waiting = self._waiting, []
        self._running = batch
        self._thread.submit(self._run, batch)

    def _run(self, batch: Batch) -> None:
        failure: Exception | None = None
        try:
            self._database.begin()
            for sql, bindings, _done in batch:
                self._database.write(sql, bindings)
            self._database.commit()
            self._database.unmeasured += len(batch)
            if self._database.unmeasured >= self._database.measure_at and self._database.checkpoint_due(_WAL_PAGES):
                self._database.checkpoint()
        except (DatabaseFailure, Z0Error) as caught:
            failure = caught
            _attempt(self._database.rollback)
        self._loop.call_soon_threadsafe(self._written, batch, failure)

    def _written(self, batch: Batch, failure: Exception | None) -> None:
        self.commits += failure is None
        for _sql, _bindings, done in batch:
            if done is None or done.done():
                continue
            if failure is None:
                done.set_result(None)
            else:
                done.set_exception(DatabaseFailure(f"catalogue: {failure}"))
        if self._waiting:
            self._start()
        else:
            self.writing = False
        if self._on_written is not None:
            self._on_written()


def _attempt(action: Callable[[], None]) -> None:
    try:
        action()
    except DatabaseFailure:  # the next batch begins with a statement that will say so
        return


def addresses_on_disk(directory: Path) -> Iterator[Address]:
    """The addresses that the actors' files say they have."""
    for path in _actor_files(directory):
        try:
            with open_reader(path) as reader:
                meta: dict[str, str] = dict(reader.rows("SELECT key, value FROM z0_meta"))
            yield Address(meta["tenant"], meta["namespace"], meta["name"])
        except (ActorFileError, KeyError) as error:
            log.warning("%s is left out of the catalogue: %r", path, error)


def _actor_files(directory: Path) -> Iterable[Path]:
    return sorted(directory.glob("*/*/*.sqlite"))
