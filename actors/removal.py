"""Removing actors for good: out of memory, off the disk, out of the catalogue.

The catalogue notes first, durably, that the actor is to go; then its files go; then its row. A crash in between is
made up for when the directory is opened the next time, so that no actor is ever half there.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .catalog import Catalog
from .catalog_schema import WHOSE
from .errors import ActorReset, DatabaseFailure
from .files import Files
from .names import Address, file_path

BLOBS = ".blobs"
"""Of the folder beside an actor's file for what is too large to stand in it."""

if TYPE_CHECKING:
    from .host import Host
    from .kind import Kind
    from .node import Node

_BEGIN = "INSERT INTO removals VALUES(?, ?, ?)"
_FORGET = f"DELETE FROM actors {WHOSE}"
_END = f"DELETE FROM removals {WHOSE}"


class Removals:
    """The actors of one node that are to be removed as soon as they rest."""

    __slots__ = ("_erased", "_node", "_wanted")

    def __init__(self, node: Node) -> None:
        """None yet."""
        self._node = node
        self._wanted: dict[Address, asyncio.Future[bool]] = {}
        self._erased: set[Address] = set()

    def __contains__(self, address: Address) -> bool:
        """Whether the actor is to be removed."""
        return address in self._wanted

    def __bool__(self) -> bool:
        """Whether some actor is."""
        return bool(self._wanted)

    async def remove(self, kind: Kind, address: Address) -> bool:
        """Remove the actor once nothing runs in it; whether it is gone. Durable on return.

        What it is told until then it still does, which may save it (`Actor._z0_removable`). Raises RuntimeClosed,
        ActorReset, DatabaseFailure.
        """
        node = self._node
        node.admit(None)
        while (closing := node.closing.get(address)) is not None:
            await asyncio.shield(closing.closed)
        if not node.knows(address):
            return False
        done = self._wanted.get(address)
        if done is None:
            done = self._wanted[address] = node.loop.create_future()
            node.attend()
            host = node.host(kind, address)
            if host.idle:
                node.evict(host, "removed")
        return await asyncio.shield(done)

    async def erase(self, host: Host) -> None:
        """Take the closed file off the disk, and the actor out of the catalogue. Raises DatabaseFailure."""
        node, address = self._node, host.address
        await node.catalog.written(_BEGIN, address)
        await node.threads.call(partial(_unlink, node.file_ops, node.folder / file_path(*address)))
        node.catalog.note(_FORGET, address)  # is written by and by, should it fail now
        node.catalog.note(_END, address)
        await node.catalog.written(_END, address)
        self._erased.add(address)

    def fail(self, host: Host, error: BaseException) -> None:
        """The actor could not be removed, or not wholly."""
        done = self._wanted.pop(host.address, None)
        if done is not None and not done.done():
            reset = ActorReset(str(host.address), f"it was not removed: {error!r}")
            done.set_exception(reset)
            done.exception()  # whoever waited may have gone

    def left(self, host: Host) -> None:
        """A host has closed its file, and erased it or not."""
        done = self._wanted.pop(host.address, None)
        erased = host.address in self._erased
        self._erased.discard(host.address)
        if done is None or done.done():
            return
        if host.evicted:
            done.set_result(erased)
        else:
            self._wanted[host.address] = done
            self.fail(host, host.reset_error())


def finish(catalog: Catalog, directory: Path, files: Files) -> None:
    """Remove what a crash has left half removed."""
    for address in catalog.removals():
        _unlink(files, directory / file_path(*address))
        catalog.write_now([(_FORGET, address), (_END, address)])  # before anybody looks who is to be opened


def _unlink(files: Files, path: Path) -> None:
    try:
        files.remove_folder(path.with_suffix(BLOBS))
        for suffix in ("-wal", "-shm", ""):  # the file last: as long as it is there, the actor is
            files.remove(path.with_name(f"{path.name}{suffix}"))
        if path.parent.is_dir():
            files.sync_folder(path.parent)
    except OSError as error:
        raise DatabaseFailure(f"cannot remove {path}: {error}") from error
