"""A node is one data directory in one process: its lock, its catalogue, and the actors that are live in it."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import Any, TypeVar, cast

from msgspec.structs import replace

from . import life, removal
from .actor import Actor
from .alarm_index import AlarmIndex
from .catalog import ActorInfo, Catalog
from .clock import Clock
from .database import SQLITE_VERSION
from .durability import Mode, durability_of
from .ending import Ending
from .errors import NamespaceConflict, OtherLoop, RuntimeClosed
from .fileops import FileOps
from .followers import Followers
from .host import Host, State
from .kind import Kind
from .limits import Limits
from .lock import DirectoryLock
from .mailbox import Load
from .metrics import Metrics
from .names import Address, check_name
from .quarantine import Quarantine
from .removal import Removals
from .rest import Rest
from .room import Room
from .tasks import task_of
from .threads import Threads
from .wakeups import Wakeups
from .wal import check_version
from .watchdog import Watchdog

A = TypeVar("A", bound=Actor)
_NOWHERE = cast(asyncio.AbstractEventLoop, None)  # no loop is this one


class Node:
    """The live actors of one data directory. Use `Runtime`; this is its engine."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        env: object,
        durability: Mode,
        limits: Limits,
        vfs: str | None = None,
        executor: Executor | None = None,
    ) -> None:
        """Nothing is opened yet. `vfs` and `executor`: where SQLite runs (simulation, fault injection)."""
        check_version(SQLITE_VERSION)
        self.path = path
        self.folder = path.resolve()  # the same wherever the program goes, and without links
        self.clock = clock
        self.env = env
        self.limits = limits
        self.durability = durability_of(durability, limits)
        self.vfs = vfs
        self.file_ops = FileOps()
        self._executor = executor
        self.kinds: dict[type[Actor], Kind] = {}
        self._namespaces: dict[str, Kind] = {}
        self.hosts: OrderedDict[Address, Host] = OrderedDict()  # least recently used first
        self.closing: dict[Address, Host] = {}  # their files are not closed yet; a successor waits
        self.dirty = 0  # actors with a turn that is not durable
        self.held: set[Host] = set()  # ... whose COMMIT a test holds up
        self.committer: Address | None = None  # who ended a turn last
        self.load = Load()
        self.metrics = Metrics()
        self.quarantine = Quarantine(clock, self.metrics)
        self.followers = Followers()
        self.calls = 0  # messages that wrote nothing
        self.draining = False
        self.only: frozenset[Address] | None = None  # who may go on by themselves, when not everybody may
        self.attentive = False  # somebody waits for an actor to rest
        self.room = Room(self, limits.open_files_max())
        self.rest = Rest(self)
        self.removals = Removals(self)
        self.services: dict[type, Any] = {}  # what upper floors of the house keep for their actors, one of a kind
        self.wakeups = Wakeups(self)
        self.ending = Ending(self)
        self.tasks: dict[asyncio.Task[None], None] = {}  # no set: in order, so that a run can be repeated exactly
        self.opening: dict[asyncio.Task[None], None] = {}
        self.stopping: dict[asyncio.Task[Any], None] = {}  # tasks inside a stop() hook
        self.is_open = False
        self.loop = _NOWHERE  # until the node is open
        self.thread = 0  # ... as well
        self.threads: Threads
        self.watchdog: Watchdog
        self.catalog: Catalog
        self.alarm_index: AlarmIndex
        self.lock: DirectoryLock
        self._look_again: Callable[[], object]

    def open(self) -> None:
        """Take the data directory. Raises DataDirLocked, RuntimeClosed."""
        if self.draining:
            raise RuntimeClosed
        self.file_ops.make_folder(self.folder)
        self.lock = DirectoryLock(self.folder)
        self.loop, self.thread = asyncio.get_running_loop(), get_ident()
        os.register_at_fork(after_in_child=partial(_forked, weakref.ref(self)))
        try:
            threads = partial(Threads, self.loop, executor=self._executor, delivered=lambda: self._look_again())
            self.threads = threads(self.limits.commit_threads)
            self.catalog = Catalog(self.folder, self.vfs, self.file_ops, self.loop, threads)
            try:
                removal.finish(self.catalog, self.folder, self.file_ops)
                self.alarm_index = AlarmIndex(self.catalog)
            except BaseException:
                self.catalog.abandon()
                raise
        except BaseException:
            self.lock.release()
            self.loop, self.thread = _NOWHERE, 0
            raise
        self._look_again = self.clock.watch(self._busy, lambda: self.metrics.spent_ns)
        self.is_open = True
        self.watchdog = Watchdog(self)
        self.wakeups.look(unclean=True)

    def _busy(self) -> bool:
        """Whether something will go on by itself, without time passing."""
        if self.threads.in_flight or self.catalog.writing:
            return True
        return self.dirty > sum(host.turn is not None for host in self.held) if self.dirty else False

    # Addresses

    def kind(self, cls: type[Actor]) -> Kind:
        """What is known of the class. Raises NamespaceConflict, InvalidName."""
        kind = self.kinds.get(cls)
        if kind is None:
            if not (isinstance(cls, type) and issubclass(cls, Actor)):
                raise TypeError(f"{cls!r} is not a subclass of z0.Actor")
            kind = Kind(cls)
            other = self._namespaces.setdefault(kind.namespace.casefold(), kind)
            if other is not kind:
                raise NamespaceConflict(kind.namespace, other.cls, cls)
            self.kinds[cls] = kind
            if kind.alarm is not None and self.is_open:
                self.wakeups.look(unclean=True)
        return kind

    def kind_of(self, namespace: str) -> Kind | None:
        """What is known of the class of that namespace, if it is known."""
        kind = self._namespaces.get(namespace.casefold())
        return kind if kind is not None and kind.namespace == namespace else None

    def stub(self, cls: type[A], name: str, tenant: str, sender: Host | None) -> A:
        """A stub of the actor; creates nothing. Raises InvalidName."""
        kind = self.kinds.get(cls) or self.kind(cls)
        address = Address(tenant, kind.namespace, check_name(name))
        return cast(A, kind.stub_class(self, kind, address, sender))

    async def list(self, cls: type[Actor], tenant: str, prefix: str, after: str | None, limit: int) -> list[ActorInfo]:
        """Actors of the class, from the catalogue. Raises RuntimeClosed."""
        self.admit(None)
        found = await self.catalog.list(tenant, self.kind(cls).namespace, prefix, after, limit)
        live = self._live_versions(tenant, self.kind(cls).namespace)
        return [replace(info, version=live[info.name]) if info.name in live else info for info in found]

    async def versions(self, cls: type[Actor], tenant: str) -> dict[int, int]:
        """How many actors of the class have had how many migrations. Raises RuntimeClosed."""
        self.admit(None)
        namespace = self.kind(cls).namespace
        return await self.catalog.versions(tenant, namespace, self._live_versions(tenant, namespace))

    def _live_versions(self, tenant: str, namespace: str) -> dict[str, int]:
        """How many migrations the actors in memory have had, by name."""
        return {
            host.address.name: host.version
            for host in self.hosts.values()
            if host.is_open and host.address[:2] == (tenant, namespace)
        }

    # Hosts

    def admit(self, sender: Host | None) -> None:
        """Refuse messages from other loops, and once closing has begun those from outside. Raises as `admit_loop`."""
        self.admit_loop()
        if self.draining and (sender is None or sender.dead):
            raise RuntimeClosed

    def admit_loop(self) -> None:
        """Refuse what is asked before the node is open, or on another event loop. Raises RuntimeClosed, OtherLoop."""
        if asyncio.get_running_loop() is not self.loop:
            raise OtherLoop if self.is_open and not self.draining else RuntimeClosed(self.draining)

    def admit_thread(self) -> None:
        """The same by the thread: a third of what asking for the loop costs. Raises OtherLoop."""
        if get_ident() != self.thread:
            raise OtherLoop

    def host(self, kind: Kind, address: Address, *, at_once: bool = True, indexed: int | None = None) -> Host:
        """The actor's live host; it may be opening. Raises what opening raises, when it is opened `at_once`.

        `indexed`: when the catalogue says that the actor, which is not in memory, is due.
        """
        host = self.hosts.get(address)
        if host is not None:
            self.touch(host)
            return host
        host = self.hosts[address] = Host(self, kind, address)
        host.alarms.indexed = indexed
        if not (at_once and life.open_now(host)):
            opening = self.spawn(life.open_later(host))
            self.opening[opening] = None
            opening.add_done_callback(self.opening.pop)
        return host

    def knows(self, address: Address) -> bool:
        """Whether there is such an actor, in memory or not: a message to another one would make it."""
        return address in self.hosts or address in self.closing or self.catalog.has(address)

    def lively(self, address: Address) -> bool:
        """Whether the actor may do by itself what no message asks for."""
        return self.only is None or address in self.only

    def touch(self, host: Host) -> None:
        """Note that an actor was used in this tick."""
        host.used = self.rest.tick
        if host.address in self.hosts:
            self.hosts.move_to_end(host.address)

    def opened(self, host: Host) -> None:
        """A host is open: watch when it becomes idle."""
        self.metrics.activations[host.address.namespace] += 1
        if self.draining:
            self.ending.look()
        else:
            self.rest.watch()

    def rested(self, host: Host) -> None:
        """A host may have become idle: somebody may be waiting for that."""
        if not self.attentive or not host.idle:
            return
        if self.draining:
            self.ending.look()
        elif host.address in self.removals:
            self.evict(host, "removed")
        elif len(self.closing) < self.room.wanted:
            self.evict(host, "room")

    def evict(self, host: Host, reason: str) -> asyncio.Future[None]:
        """Begin to close an idle host; the future is done when its file is closed."""
        assert host.idle
        host.state, host.ready = State.CLOSING, False
        del self.hosts[host.address]
        self.closing[host.address] = host
        self.spawn(life.close(host, reason))
        return host.closed

    async def evict_idle(self, address: Address) -> bool:
        """Evict the actor if it is idle; whether it is out of memory on return. Raises RuntimeClosed."""
        self.admit(None)
        host = self.hosts.get(address)
        if host is not None and host.turn is not None and not host.turn.confirmed:  # its messages were answered
            await host.turn.settled()
            host = self.hosts.get(address)
        if host is not None and host.idle:
            self.evict(host, "asked")
        if (closing := self.closing.get(address)) is not None:
            await asyncio.shield(closing.closed)
        return address not in self.hosts

    def left(self, host: Host) -> None:
        """A host has closed its file."""
        if self.hosts.get(host.address) is host:
            del self.hosts[host.address]
        host.actor = None  # a stub may keep the host
        if self.closing.get(host.address) is host:
            del self.closing[host.address]
        if not host.closed.done():
            host.closed.set_result(None)
        self.room.leave(host)
        self.removals.left(host)
        self.ending.look()
        self.attend()
        if not self.draining:
            self.rest.look()

    def forget(self, host: Host) -> None:
        """A host was reset: close its file without believing it, then let a successor open."""
        if self.hosts.get(host.address) is host:
            del self.hosts[host.address]
        if not hasattr(host, "database"):  # ... and it may be waiting for its predecessor, which is closing
            self.left(host)
            return
        self.closing[host.address] = host
        busy = host.parking.thread

        def abandon() -> None:
            if busy is not None:
                busy.finish()
            host.database.abandon()

        self.threads.run(abandon, lambda _result, _error: self.left(host))

    def attend(self) -> None:
        """Note whether somebody waits for an actor to rest."""
        self.attentive = self.draining or self.room.wanted > 0 or bool(self.removals)

    def evict_least_recently_used(self) -> None:
        """Begin to close the idle actor that was used least recently, if one is idle."""
        for host in self.hosts.values():
            if host.idle:
                self.evict(host, "room")
                return

    # The end

    async def close(self) -> None:
        """Drain within `Limits.close_seconds`, reset what does not, and give the directory back."""
        await self.ending.close()

    async def crash(self) -> None:
        """Drop the memory as a kill would, keep what was committed, and give the directory back."""
        await self.ending.crash()

    def kill(self) -> None:
        """The part of a crash that happens at once: nothing more is run or committed."""
        self.ending.kill()

    def spawn(self, coroutine: Coroutine[Any, Any, None], context: Context | None = None) -> asyncio.Task[None]:
        """Run work of the engine that ends before the node does."""
        task = task_of(self.loop, coroutine, context)
        self.tasks[task] = None
        task.add_done_callback(partial(_ended, self.tasks))
        return task


def _forked(reference: weakref.ref[Node]) -> None:
    """In a forked child: the files are the parent's, so nothing here may touch them."""
    node = reference()
    if node is not None:
        node.lock.forget()
        for host in [*node.hosts.values(), *node.closing.values()]:
            host.abandon("this process was forked: a child must not use its parent's actors")
        node.draining = True


def _ended(tasks: dict[asyncio.Task[None], None], task: asyncio.Task[None]) -> None:
    del tasks[task]
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
