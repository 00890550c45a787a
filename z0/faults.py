"""Faults by name, for tests: the storage of a runtime fails where you say, as often as you say.

    with fault(runtime, "commit-lost", actor=account) as lost:
        with pytest.raises(z0.CommitUnknown):
            await account.charge(100, key="order-1")
    assert lost.hits == 1

The seams of the commit path are replaced while a fault is set; nothing is asked on that path otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from z0.actors.database import Database
from z0.actors.durability import Durability
from z0.actors.errors import DatabaseFailure
from z0.actors.fileops import FileOps
from z0.actors.gates import Turn
from z0.actors.host import Host
from z0.actors.names import Address
from z0.actors.node import Node
from z0.actors.stub import Stub
from z0.runtime import Runtime

__all__ = ["Fault", "Point", "fault"]

Point = Literal[
    "storage",
    "commit-lost",
    "commit-kept",
    "commit-held",
    "crash-before-commit",
    "crash-after-commit",
    "open",
    "checkpoint",
    "register",
    "close",
]
_POINTS: tuple[Point, ...] = get_args(Point)
_COMMITS: tuple[Point, ...] = ("storage", "commit-lost", "commit-kept", "crash-before-commit", "crash-after-commit")


class Fault:
    """A fault that is set. `hits` says how often it has struck."""

    def __init__(self, point: Point, address: Address | None, nth: int, times: int | None) -> None:
        """Made by `fault`."""
        self.point = point
        self.hits = 0
        self._address = address
        self._nth = nth
        self._times = times
        self._seen = 0
        self._lock = threading.Lock()  # files are checkpointed and closed in threads
        self._held: list[Callable[[], None]] = []

    def release(self) -> None:
        """Let the COMMITs go on that "commit-held" holds up now; later ones are held as before."""
        held, self._held = self._held, []
        for go_on in held:
            go_on()

    def _strikes(self, address: Address) -> bool:
        """Whether this time, of this actor, is one of those that fail."""
        if self._address is not None and self._address != address:
            return False
        with self._lock:
            self._seen += 1
            after = self._seen - self._nth
            struck = after >= 0 and (self._times is None or after < self._times)
            self.hits += struck
        return struck


@contextmanager
def fault(
    runtime: Runtime, point: Point, *, actor: object = None, nth: int = 1, times: int | None = 1
) -> Iterator[Fault]:
    """Have something fail inside the block, from the `nth` time on, `times` times (None: every time).

    `actor`: a stub; only that actor's count (None: all actors of the runtime). Points, and what callers then get:

    - "storage": the storage fails before COMMIT. ActorReset; nothing was committed.
    - "commit-lost": COMMIT fails, and nothing of it is in the file. CommitUnknown.
    - "commit-kept": COMMIT fails, although all of it is in the file. CommitUnknown.
    - "commit-held": COMMIT takes until `release()`, or the end of the block; time can pass meanwhile.
    - "crash-before-commit", "crash-after-commit": the runtime crashes there. ActorReset, or CommitUnknown for the
      committed. `await crash(runtime)` returns when the directory is free.
    - "open": the actor's file cannot be opened. ActorReset.
    - "register": a new actor's registration in the catalogue fails. ActorReset.
    - "checkpoint": a checkpoint of the WAL fails: of an open actor, or when it is opened after a failure. ActorReset.
    - "close": closing an evicted actor's file fails, with its WAL left behind. Nobody is told; nothing is lost.

    Raises ValueError for another point, TypeError for an actor that is no stub, RuntimeError while the runtime is
    not open.
    """
    node = runtime.node
    set_ = Fault(_checked(point), _address_of(node, actor), nth, times)
    if nth < 1 or (times is not None and times < 1):
        raise ValueError(f"nth and times count from 1, not {nth} and {times}; leave a fault out that never strikes")
    if not hasattr(node, "catalog"):
        raise RuntimeError("the runtime is not open; set faults inside its `async with`")
    seams = node.file_ops if isinstance(node.file_ops, _Seams) else _Seams(node)
    seams.faults.append(set_)
    try:
        yield set_
    finally:
        seams.faults.remove(set_)
        if not seams.faults:
            seams.restore()
        set_.release()


def _checked(point: Point) -> Point:
    if point not in _POINTS:
        raise ValueError(f"no point is called {point!r}; there are: {', '.join(_POINTS)}")
    return point


def _address_of(node: Node, actor: object) -> Address | None:
    if actor is None:
        return None
    if not isinstance(actor, Stub):
        raise TypeError(f"{actor!r} is not a stub; get one by runtime.get(Class, name), which creates nothing")
    if actor._z0_node is not node:
        raise ValueError(f"{actor!r} belongs to another runtime; get it from the one that is to fail")
    return actor._z0_address


class _Seams(FileOps):
    """Stands in all seams of one node; restored when no fault is set any more."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.faults: list[Fault] = []
        self._node = node
        self._file_ops, node.file_ops = node.file_ops, self
        self._durability: Durability = node.durability
        node.durability = _Commits(self, node.durability)
        self._register = node.catalog.register
        vars(node.catalog)["register"] = self.register

    def restore(self) -> None:
        node = self._node
        node.file_ops, node.durability = self._file_ops, self._durability
        del vars(node.catalog)["register"]

    def struck(self, address: Address, *points: Point) -> Fault | None:
        """The first fault that strikes now; all that are set for these points see it."""
        struck = [each for each in list(self.faults) if each.point in points and each._strikes(address)]
        return struck[0] if struck else None

    def fail(self, address: Address, point: Point) -> None:
        if self.struck(address, point):
            raise _failure(point)

    def make_folder(self, path: Path) -> None:
        self._file_ops.make_folder(path)

    def create_file(self, path: Path, image: bytes, wal: bytes = b"") -> None:
        self._file_ops.create_file(path, image, wal)

    def renew_wal(self, path: Path) -> None:
        self._file_ops.renew_wal(path)

    def open(self, address: Address, path: Path, *, vfs: str | None, sync: bool) -> Database:
        self.fail(address, "open")
        return self._file_ops.open(address, path, vfs=vfs, sync=sync)

    def checkpoint(self, address: Address, database: Database, *, wait: bool) -> bool:
        self.fail(address, "checkpoint")
        return self._file_ops.checkpoint(address, database, wait=wait)

    def close(self, address: Address, database: Database) -> None:
        if self.struck(address, "close"):
            database.abandon()
            raise _failure("close")
        self._file_ops.close(address, database)

    async def register(self, address: Address, *args: Any) -> None:
        self.fail(address, "register")
        await self._register(address, *args)


class _Commits:
    """Stands in the durability's place. Not quick, so that every commit passes here."""

    quick = False

    def __init__(self, seams: _Seams, durability: Durability) -> None:
        self.name, self.sync = durability.name, durability.sync
        self._seams = seams
        self._durability = durability

    async def sync_now(self, host: Host) -> None:
        await self._durability.sync_now(host)

    def commit(self, host: Host, turn: Turn, dirty: int) -> None:
        held = self._seams.struck(host.address, "commit-held")
        if held is None:
            self._commit(host, turn, dirty)
        else:
            held._held.append(_hold(host, turn, partial(self._commit, host, turn, dirty)))

    def _commit(self, host: Host, turn: Turn, dirty: int) -> None:
        struck = self._seams.struck(host.address, *_COMMITS)
        if struck is None:
            self._durability.commit(host, turn, dirty)
            return
        failure = _failure(struck.point)
        if struck.point == "storage":
            host.storage_failed(failure)
        elif struck.point == "crash-before-commit":
            host.node.kill()
        else:
            if struck.point == "commit-lost":
                host.database.rollback()
            else:
                host.database.commit(turn.pending)
            host.committed(turn, failure)
            if struck.point == "crash-after-commit":
                host.node.kill()


def _failure(point: Point) -> DatabaseFailure:
    return DatabaseFailure(f"fault {point!r}")


def _hold(host: Host, turn: Turn, commit: Callable[[], None]) -> Callable[[], None]:
    """Park the actor as a thread that commits would; what ends that."""
    over = False

    def go_on() -> None:
        nonlocal over
        if over:
            return
        over = True
        host.node.held.discard(host)
        if host.dead or host.turn is not turn:
            return
        host.gate.parked = False
        host.writes.database = host.database
        commit()
        if not host.dead and not host.gate.parked:
            host.resume()

    host.gate.parked, host.ready = True, False
    host.writes.database = _Held(host, go_on)  # type: ignore[assignment]
    host.node.held.add(host)
    return go_on


class _Held:
    """Stands where the database is while its COMMIT is held: whoever is not gated would wait, so the COMMIT goes on."""

    def __init__(self, host: Host, go_on: Callable[[], None]) -> None:
        self._host = host
        self._go_on = go_on

    def __getattr__(self, name: str) -> Any:
        self._go_on()
        return getattr(self._host.writes.database, name)
