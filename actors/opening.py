"""The file of an actor that is opened: made when the actor is new, listed in the catalogue, known to be its own."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from .alarm_index import ACTIVE
from .database import Database, Image
from .errors import ActorFileError, NotADatabase, QueryError
from .files import is_there
from .schema import SCHEMA_OBJECTS, SCHEMA_VERSION, UPGRADES, stranger

if TYPE_CHECKING:
    from .host import Host

Meta = dict[str, Any]
Opened = tuple[Database, Meta]


async def opened(host: Host) -> tuple[bool, Database, Meta]:
    """Whether the actor's file was clean, and the file, which is made when the actor is new, and its meta data."""
    if not is_there(host.path):
        if host.node.catalog.has_stored(host.address):
            raise ActorFileError(str(host.path), "the actor's file is gone; put a backup in its place")
        return host.address not in host.node.quarantine.suspect, *await _create(host)
    if not is_listed(host):
        await _list_new(host)
    clean = is_clean(host)
    return clean, *await _unless_left(host.node.threads.call(partial(open_file, host)))


async def _create(host: Host) -> Opened:
    """Make the file of a new actor, and list it meanwhile: both wait for the device.

    Cut off between the two, an actor is listed that has no file, or the other way round: the next message makes good.
    """
    meta = _meta(host)
    making = host.node.threads.call(partial(_make_file, host, host.kind.image(meta), meta))
    try:
        if not is_listed(host):
            await _list_new(host)
    except BaseException as error:
        making.add_done_callback(_drop)
        if isinstance(error, Exception):
            await asyncio.wait([making])  # whoever opens the actor next must not meet this thread
        raise
    host.created = True
    return await _unless_left(making)


async def _unless_left(opening: asyncio.Future[Opened]) -> Opened:
    """What a thread opens; it is closed again when nobody waits for it any more."""
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_drop)
        raise


def _drop(opening: asyncio.Future[Opened]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].abandon()


def is_listed(host: Host) -> bool:
    """Whether the catalogue has the actor, durably."""
    return host.alarms.indexed is not None or host.node.catalog.has(host.address)


async def _list_new(host: Host) -> None:
    """Have the catalogue know the actor, durably."""
    node, active = host.node, host.kind.alarm is not None
    await node.catalog.register(host.address, node.clock.now_us(), active)
    host.alarms.indexed = ACTIVE if active else None
    node.metrics.first_activations[host.address.namespace] += 1


def _meta(host: Host) -> Meta:
    """The meta data of a new file."""
    tenant, namespace, name = host.address
    meta: Meta = {"schema": SCHEMA_VERSION, "tenant": tenant, "namespace": namespace, "name": name}
    if host.kind.retentions:
        meta["purged"] = host.node.clock.now_us()
    return meta


def _make_file(host: Host, image: Image, meta: Meta) -> Opened:
    """The actor's new file, opened, and its meta data. Runs in a thread. Raises ActorFileError, DatabaseFailure."""
    node, folder = host.node, host.path.parent
    for each in (folder.parent, folder):
        if os.path.islink(each):
            raise ActorFileError(str(each), "a symbolic link leads out of here; put a folder in its place")
    node.file_ops.make_folder(folder)
    # When no commit is synced, a WAL that SQLite begins itself is: only that makes the file's entry durable.
    node.file_ops.create_file(host.path, image.database, image.wal if node.durability.sync else b"")
    return _open(host), meta


def _open(host: Host) -> Database:
    return host.node.file_ops.open(host.address, host.path, vfs=host.node.vfs, sync=host.node.durability.sync)


def open_file(host: Host) -> Opened:
    """The actor's file, and its meta data. Raises ActorFileError, DatabaseFailure."""
    database = _open(host)
    try:
        return database, _identified(host, database)
    except BaseException:
        database.abandon()
        raise


def is_clean(host: Host) -> bool:
    """Whether the file was left whole and synced: else its WAL may hold what a power cut would take back."""
    return host.address not in host.node.quarantine.suspect and not is_there(f"{host.path}-wal")


def make_trusted(host: Host, database: Database, damaged: bool) -> None:
    """Have what was committed on the device, after making sure of a file that was found damaged. Runs in a thread."""
    host.node.file_ops.renew_wal(database.path)
    if damaged:
        database.examine()
    if not host.node.file_ops.checkpoint(host.address, database, wait=True):  # a reader is in the way
        database.sync()


def _identified(host: Host, database: Database) -> Meta:
    """The file's meta data, after making sure that it is this actor's file, with nothing in it that could run."""
    found = stranger(database.rows(SCHEMA_OBJECTS), host.kind.triggers)
    if found is not None:
        raise NotADatabase(f"{found} in it was not made by z0")
    try:
        meta: Meta = dict(database.rows("SELECT key, value FROM z0_meta"))
    except QueryError as error:
        raise NotADatabase(f"not a file of z0 ({error})") from error
    schema = meta.get("schema")
    if schema in UPGRADES:
        meta["schema"] = schema = database.upgrade(schema, UPGRADES)
    if schema != SCHEMA_VERSION:
        if not isinstance(schema, int) or schema < SCHEMA_VERSION:
            raise NotADatabase(f"its schema version is {schema!r}, which is none of z0's")
        reason = f"schema version {schema}, but this z0 knows {SCHEMA_VERSION}; use a newer z0"
        raise ActorFileError(str(database.path), reason)
    if not all(isinstance(meta.get(count, 0), int) for count in ("migrations", "purged")):
        raise NotADatabase("its table z0_meta is damaged")
    whose = (meta.get("tenant"), meta.get("namespace"), meta.get("name"))
    if whose != tuple(host.address):
        raise NotADatabase(f"the file of {whose}, not of {tuple(host.address)}; was it moved?")
    return meta
