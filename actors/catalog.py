"""The catalogue: one SQLite file per data directory that lists every actor.

A new actor's row is durable before its first reply; what it says of sizes and last use is as of the last
eviction and may be lost in a crash. `next_alarm` of an actor is never later than its file says, unless the actor
is in the active set (`active`): then it was in memory, and only its file knows. It holds nothing that the actors'
files do not: when it is missing it is rebuilt from them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import msgspec

from .catalog_schema import CATALOG_SCHEMA, CATALOG_UPGRADES, CATALOG_VERSION, WHOSE
from .clock import datetime_of
from .database import Database, Row, Template, Value
from .errors import ActorFileError, DatabaseFailure, NotADatabase, QueryError, RuntimeClosed
from .files import Files, is_there
from .names import Address, file_path
from .reader import Reader
from .threads import Threads, Work

CATALOG_FILE = "catalog.sqlite"
_WAL_PAGES = 1_000
_RETRY_SECONDS = 1.0
log = logging.getLogger("z0.actors")

_NO_TIME = "SELECT 1 FROM actors WHERE next_alarm > 9223372036854775807 LIMIT 1"  # texts come after all integers
_NO_ACTOR = (  # as when pages of the table and of its index were swapped
    "SELECT 1 FROM (SELECT tenant, namespace, name FROM actors INDEXED BY actors_status"
    " WHERE status IS NOT NULL LIMIT 1) AS one"
    " WHERE NOT EXISTS (SELECT 1 FROM actors NOT INDEXED WHERE tenant = one.tenant"
    " AND namespace = one.namespace AND name = one.name)"
)
_COMPLETE = "SELECT 1 FROM z0_meta WHERE key = 'complete'"
_REGISTER = (
    "INSERT OR IGNORE INTO actors(tenant, namespace, name, path, last_use, active, next_alarm, status)"
    " VALUES(?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE = f"UPDATE actors SET size = ?, facts = ?, version = ?, status = ?, last_use = ? {WHOSE}"
_VERSIONS = "SELECT ifnull(version, 0), count(*) FROM actors WHERE tenant = ? AND namespace = ? GROUP BY 1"
_VERSION = f"SELECT ifnull(version, 0) FROM actors {WHOSE}"
_HAS = f"SELECT 1 FROM actors {WHOSE}"
_STORED = f"UPDATE actors SET version = ifnull(version, 0) {WHOSE}"
_HAS_STORED = f"{_HAS} AND (size IS NOT NULL OR version IS NOT NULL)"
_LIST = (
    "SELECT tenant, namespace, name, path, size, facts, next_alarm, last_use, version FROM actors"
    " WHERE tenant = ? AND namespace = ? AND name >= ? AND (? IS NULL OR name > ?)"
    " AND substr(name, 1, ?) = ? ORDER BY name LIMIT ?"
)

Write = tuple[str, tuple[Value, ...], "asyncio.Future[None] | Callable[[], None] | None"]
"""A statement, and who is told when it is written: a future, which gets an error as well; others are tried again."""


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
    version: int | None
    """How many of its class's migrations it has had."""


def actor_info(row: Row) -> ActorInfo:
    """A row of the catalogue's `actors`."""
    tenant, namespace, name, path, size, facts, next_alarm, last_use, version = row
    return ActorInfo(
        tenant=tenant,
        namespace=namespace,
        name=name,
        path=path,
        size=size,
        facts=facts,
        next_alarm=_datetime(next_alarm),
        last_use=_datetime(last_use),
        version=version,
    )


Batch = list[Write]
Rows = list[Row]


def _datetime(us: int | None) -> datetime | None:
    return None if us is None else datetime_of(us)


class Catalog:
    """The open catalogue of a runtime. Writes are batched, one batch at a time; reads are of what is written."""

    def __init__(
        self,
        directory: Path,
        vfs: str | None,
        files: Files,
        loop: asyncio.AbstractEventLoop,
        threads: Callable[[int], Threads],
    ) -> None:
        """Open, creating or rebuilding it from the actors' files. Raises ActorFileError for a foreign file.

        `threads` makes as many as are asked for: one, where no commit of an actor is in the way.
        """
        path = directory / CATALOG_FILE
        self._loop = loop
        self._files = files
        self._path = path
        try:
            if not is_there(path):
                files.create_file(path, Template(CATALOG_SCHEMA).image({"schema": CATALOG_VERSION}).database)
            is_there(path.with_name(f"{path.name}-wal"))
            self._database = Database(path, vfs=vfs, sync=True)
            try:
                self._make_durable()
                self._check_version(path)
                if self._database.row(_NO_TIME) is not None:
                    raise NotADatabase("a time of an alarm is none")
                if self._database.row(_NO_ACTOR) is not None:
                    raise NotADatabase("a status is of no actor")
                if self._database.row(_COMPLETE) is None:
                    self._rebuild(directory)
                self._reader = Reader(path, vfs)
            except BaseException:
                self._database.abandon()
                raise
        except (NotADatabase, QueryError) as error:
            raise self._damaged(error) from error
        self._thread = threads(1)
        self._waiting: Batch = []
        self._running: Batch = []
        self._work: Work | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._synced = True  # a COMMIT waits for the device
        self._doubtful = False  # a COMMIT failed: what is in the WAL may not be on the device, whoever syncs it
        self._closed = False
        self.writing = False
        self.commits = 0

    def _make_durable(self) -> None:
        """Have all that is in the WAL on the device: after a kill, or a failure, readers may see what is not."""
        self._files.renew_wal(self._database.path)
        if not self._database.checkpoint(wait=True):
            self._database.sync()

    def _damaged(self, error: object) -> ActorFileError:
        return ActorFileError(
            str(self._path), f"{error}; remove it and its -wal, and it is made anew from the actors' files"
        )

    def _check_version(self, path: Path) -> None:
        row = self._database.row("SELECT value FROM z0_meta WHERE key = 'schema'")
        version = row and row[0]
        if version == CATALOG_VERSION:
            return
        if not isinstance(version, int) or version not in CATALOG_UPGRADES:
            raise NotADatabase(f"catalogue of schema {version}, this z0 reads {CATALOG_VERSION}: use a newer one")
        self._database.upgrade(version, CATALOG_UPGRADES)

    def _rebuild(self, directory: Path) -> None:
        self._database.begin()
        for address, next_alarm, status in addresses_on_disk(directory):
            self._database.write(_REGISTER, (*address, str(file_path(*address)), None, 0, next_alarm, status))
            self._database.write(_STORED, address)
        self._database.write("INSERT INTO z0_meta VALUES('complete', 1)", ())
        self._database.commit()

    def has(self, address: Address) -> bool:
        """Whether the actor is listed, durably."""
        return bool(self.rows(_HAS, *address))

    def has_stored(self, address: Address) -> bool:
        """Whether the actor has committed something, so that its file must be there."""
        return bool(self.rows(_HAS_STORED, *address))

    def removals(self) -> list[Address]:
        """The actors whose removal has begun."""
        rows = self.rows("SELECT tenant, namespace, name FROM removals")
        try:
            return [Address(*msgspec.convert(row, tuple[str, str, str])) for row in rows]
        except msgspec.ValidationError as error:
            raise self._damaged(error) from error

    def stored(self, address: Address) -> None:
        """Note that a new actor has committed something; written soon."""
        self.note(_STORED, address)

    async def register(self, address: Address, now_us: int, active: bool) -> None:
        """List a new actor, in the active set or not; durable on return."""
        await asyncio.shield(
            self.written(_REGISTER, (*address, str(file_path(*address)), now_us, int(active), None, None))
        )

    def update(
        self, address: Address, size: int, facts: int | None, version: int, status: str | None, now_us: int
    ) -> None:
        """Note how an actor was left; written soon."""
        self.note(_UPDATE, (size, facts, version, status, now_us, *address))

    async def list(self, tenant: str, namespace: str, prefix: str, after: str | None, limit: int) -> list[ActorInfo]:
        """Actors of a namespace in order of their names."""
        await self.flushed()
        rows = self.rows(_LIST, tenant, namespace, prefix, after, after, len(prefix), prefix, limit)
        try:
            return [actor_info(row) for row in rows]
        except (TypeError, ValueError, OverflowError) as error:
            raise self._damaged(error) from error

    async def versions(self, tenant: str, namespace: str, live: dict[str, int]) -> dict[int, int]:
        """How many actors of a namespace have had how many migrations: `live` ones now, others when they were left."""
        await self.flushed()
        counts = Counter[int](dict(self.rows(_VERSIONS, tenant, namespace)))
        for name, version in live.items():
            for (left,) in self.rows(_VERSION, tenant, namespace, name):
                counts[left] -= 1
                counts[version] += 1
        if not all(isinstance(version, int) for version in counts):
            raise self._damaged("a number of migrations is none")
        return {version: counts[version] for version in sorted(counts) if counts[version]}

    def rows(self, sql: str, *bindings: Value) -> Rows:
        """The rows of a query, of what is written. Raises ActorFileError when it is damaged, StorageFailed."""
        try:
            return self._reader.rows(sql, *bindings)
        except ActorFileError as error:
            raise self._damaged(error) from error

    async def flushed(self) -> None:
        """Return when everything noted so far is written, or could not be now: it is all in the actors' files.

        Raises RuntimeClosed when the catalogue was closed meanwhile.
        """
        if self.writing or self._waiting:
            with contextlib.suppress(DatabaseFailure):
                await asyncio.shield(self.written("SELECT 1", ()))
        if self._closed:
            raise RuntimeClosed

    async def close(self) -> None:
        """Write what is noted and close."""
        await self.flushed()
        self._closed = True
        self._forget_retry()
        self._thread.close()
        self.writing = False
        self._reader.close()
        try:
            self._database.close()
        except DatabaseFailure as failure:  # what was written is in its WAL, and all of it in the actors' files
            log.warning("the catalogue was not closed cleanly: %s", failure)

    def abandon(self) -> None:
        """Close at once, leaving the file as a kill would."""
        self._closed = True
        self._forget_retry()
        if self._work is not None:
            self._work.drop()
        self._thread.close()
        self.writing = False
        self._reader.close()
        self._database.abandon()
        for _sql, _bindings, told in [*self._running, *self._waiting]:
            if isinstance(told, asyncio.Future) and not told.done():
                told.set_exception(RuntimeClosed())
                told.exception()  # whoever waited may have gone

    def write_now(self, statements: Iterable[tuple[str, tuple[Value, ...]]]) -> None:
        """Have this written on return, while nothing else is noted yet. Raises DatabaseFailure."""
        self._database.begin()
        for sql, bindings in statements:
            self._database.write(sql, bindings)
        self._database.commit()

    def note(self, sql: str, bindings: tuple[Value, ...], then: Callable[[], None] | None = None) -> None:
        """Have this written soon, after what was noted before; also when it fails at first. `then` is called then."""
        self._add((sql, bindings, then))

    def written(self, sql: str, bindings: tuple[Value, ...]) -> asyncio.Future[None]:
        """Have this written; done when it is durable. Its error is DatabaseFailure."""
        done = self._loop.create_future()
        self._add((sql, bindings, done))
        return done

    def _add(self, write: Write) -> None:
        self._waiting.append(write)
        if not self.writing:
            self.writing = True
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._forget_retry()
        if self._closed or self._work is not None:  # the end of the batch under way starts the next one
            return
        self._running, self._waiting = self._waiting, []
        self.writing = True
        self._work = self._thread.run(partial(self._write, self._running), self._written)

    def _forget_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _write(self, batch: Batch) -> None:
        """Runs in the thread."""
        awaited = any(isinstance(told, asyncio.Future) for _sql, _bindings, told in batch)
        try:
            if self._doubtful:
                self._make_durable()
                self._doubtful = False
            if awaited != self._synced:  # what is only noted may be lost in a power cut: it is in the actors' files
                self._database.relax(not awaited)
                self._synced = awaited
            self._database.begin()
            for sql, bindings, _told in batch:
                self._database.write(sql, bindings)
            self._database.commit()
            self._database.unmeasured += len(batch)
            if self._database.unmeasured >= self._database.measure_at and self._database.checkpoint_due(_WAL_PAGES):
                self._database.checkpoint()
        except BaseException:
            self._doubtful = True
            _attempt(self._database.rollback)
            raise

    def _written(self, _result: None, failure: BaseException | None) -> None:
        batch, self._running, self._work = self._running, [], None
        if self._closed:
            return
        self.commits += failure is None
        for _sql, _bindings, told in batch:
            if not isinstance(told, asyncio.Future):
                if told is not None and failure is None:
                    told()
            elif not told.done() and failure is None:
                told.set_result(None)
            elif not told.done():
                told.set_exception(DatabaseFailure(f"catalogue: {failure}"))
        if failure is not None:
            log.warning("the catalogue could not be written, and will be: %s", failure)
            self._waiting[:0] = [write for write in batch if not isinstance(write[2], asyncio.Future)]
            self.writing = False
            self._forget_retry()
            self._retry = self._loop.call_later(_RETRY_SECONDS, self._start)
        elif self._waiting:
            self._start()
        else:
            self.writing = False


def _attempt(action: Callable[[], None]) -> None:
    try:
        action()
    except DatabaseFailure:  # the next batch begins with a statement that will say so
        return


def addresses_on_disk(directory: Path) -> Iterator[tuple[Address, int | None, str | None]]:
    """The addresses that the actors' files say they have, when they are due, and their status."""
    for path in _actor_files(directory):
        try:
            with Reader(path) as reader:
                meta: dict[str, object] = dict(reader.rows("SELECT key, value FROM z0_meta"))
                next_alarm = reader.rows("SELECT min(due) FROM z0_alarms")[0][0]
            whose = (meta["tenant"], meta["namespace"], meta["name"], next_alarm, meta.get("status"))
            *address, due, status = msgspec.convert(whose, tuple[str, str, str, int | None, str | None])
            yield Address(*address), due, status
        except (ActorFileError, KeyError, msgspec.ValidationError) as error:
            log.warning("%s is left out of the catalogue: %r", path, error)


def _actor_files(directory: Path) -> Iterable[Path]:
    return sorted(directory.glob("*/*/*.sqlite"))
