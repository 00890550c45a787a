"""The class that users derive their actors from."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .clock import Clock, Timer
from .migrations import Migration
from .schema import ACTOR_SCHEMA
from .segments import CURRENT
from .storage import Storage

if TYPE_CHECKING:
    from .host import Host

A = TypeVar("A", bound="Actor")


class Actor:
    """One thread of control with its own SQLite file. Every public `async def` of a subclass is a message.

    Inside: `self.name`, `self.storage`, `self.clock`, `self.env` and `self.get(Class, name)`. Writes of one segment
    are all or nothing, and a message that raises leaves none of its last segment's writes behind.
    """

    namespace: ClassVar[str | None] = None
    """What the class is called on disk; None: the class's name. Set it to rename the class."""

    migrations: ClassVar[Sequence[Migration]] = ()
    """SQL texts, and functions of the storage, that bring an actor's file up to this class.

    Each runs once, in order, all pending ones in one transaction, before the constructor. Never change one that has
    run anywhere; append another. A failure is `MigrationFailed`, and the next message tries anew.
    """

    _z0_schema: ClassVar[tuple[str, ...]] = ACTOR_SCHEMA
    _z0_host: Host
    name: str
    storage: Storage
    clock: Clock
    env: Any

    def _z0_bind(self, host: Host) -> None:
        """Give the actor what it has before its constructor runs."""
        self._z0_host = host
        self.name = host.address.name
        self.storage = host.storage
        self.clock = host.node.clock
        self.env = host.node.env

    def _z0_open(self, meta: dict[str, Any]) -> None:
        """Bring into memory what is kept of the file; `meta` is the file's z0_meta."""

    def _z0_close(self) -> None:
        """Write what makes the next opening cheap; it can be rebuilt, so it need not be durable."""

    def _z0_facts(self) -> int | None:
        """How many facts the actor keeps, for the catalogue."""
        return None

    async def start(self) -> None:
        """Run before the first message; raising fails that message, and the next one tries anew."""

    async def stop(self, reason: str) -> None:
        """Run before the memory is dropped ("idle", "room", "closing"); best effort."""

    def get(self, cls: type[A], name: str) -> A:
        """A stub of another actor of the same tenant. Nothing is sent before its call is awaited."""
        return self._z0_host.node.stub(cls, name, self._z0_host.address.tenant, self._z0_host)

    def block(self) -> Block:
        """`async with self.block():` nothing else is delivered to this actor meanwhile.

        As Durable Objects: blockConcurrencyWhile. At most `Limits.block_seconds`, nesting up to
        `Limits.block_depth` (LimitExceeded); leaving it by an exception resets the actor.
        """
        return Block(self._z0_host)

    def __repr__(self) -> str:
        """Class and name."""
        return f"<{type(self).__name__} {self.name!r}>"


class Block:
    """The context of `Actor.block`."""

    __slots__ = ("_host", "_message", "_timer")

    def __init__(self, host: Host) -> None:
        """Not held yet."""
        self._host = host
        self._message: object = None
        self._timer: Timer | None = None

    async def __aenter__(self) -> None:
        """Take the gate, after whoever has it."""
        host, call = self._host, CURRENT.get()
        if call is None or call.host is not host:
            raise RuntimeError("block() is for the actor's own handlers")
        self._message = call.message
        while not host.dead and not host.gate.admits(self._message):
            await host.gate.wait()
        if host.dead:
            raise host.reset_error()
        host.hold(self._message)
        self._timer = host.node.clock.call_later(host.node.limits.block_seconds, self._expired)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Give the gate back; after an exception, reset."""
        if self._timer is not None:
            self._timer.cancel()
        if error is not None:
            self._host.reset(f"block() was left by {type(error).__name__}: {error}", spare=self._message)
        if not self._host.dead:
            self._host.unhold()

    def _expired(self) -> None:
        limit = self._host.node.limits.block_seconds
        self._host.reset(f"block() was held for more than {limit:g} seconds (block_seconds)")
