"""The class that users derive their actors from."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from .alarm_runs import AlarmInfo
from .background import wait_until
from .call import CURRENT, Activity, Deadline
from .clock import Clock, Span, Timer, perf_ns
from .errors import Aborted
from .handlers import HOOKS
from .migrations import Migration
from .schema import ACTOR_SCHEMA
from .storage import Storage

if TYPE_CHECKING:
    from .host import Host

A = TypeVar("A", bound="Actor")
T = TypeVar("T")


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
    _z0_hooks: ClassVar[frozenset[str]] = HOOKS
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

    def _z0_status(self) -> str | None:
        """How the actor is, in one word of its class's, for the catalogue; None: its class has no such words."""
        return None

    def _z0_removable(self) -> bool:
        """Whether the actor, which was to be removed when it rests and rests now, may still be."""
        return True

    async def start(self) -> None:
        """Run before the first message, for at most `Limits.block_seconds`.

        Raising fails the messages that wait, and the next one tries anew.
        """

    async def alarm(self, info: AlarmInfo) -> None:
        """Run when an alarm is due: never early, at least once, retried when it raises (see `storage.set_alarm`)."""

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

    def deadline(self, span: Span) -> Deadline:
        """`with self.deadline("5 seconds"):` calls made inside answer within the span or raise DeadlineExceeded.

        So do the calls that these make in turn. Deadlines nest, the earlier one wins. Raises ValueError.
        """
        return Deadline(self.clock, span)

    @property
    def time_left(self) -> float | None:
        """Seconds until the deadline of the call that runs now, at least 0; None when it has none."""
        call = CURRENT.get()
        if call is None or call.deadline is None:
            return None
        return max(0.0, call.deadline - self.clock.monotonic())

    def wait_until(self, work: Awaitable[T]) -> asyncio.Task[T]:
        """Run a coroutine beside the messages, and keep the actor in memory until it ends.

        As Durable Objects: waitUntil. It is neither gated nor rolled back, and bound by no caller's deadline. Its
        error is logged. A reset cancels it; closing the runtime waits for it within `Limits.close_seconds`. Raises
        TypeError for what cannot be awaited, ActorReset when this incarnation is over.
        """
        return wait_until(self._z0_host, work)

    def abort(self, reason: str = "abort() was called", *, retry_alarm: bool = True) -> NoReturn:
        """Reset the actor at once: uncommitted writes never happen, and the next message opens it anew.

        As Durable Objects: ctx.abort. Every caller gets ActorReset with the reason; CommitUnknown where an earlier
        segment of its message has written. What this raises is no Exception, so that the code ends here. A run of an
        alarm that is under way is run again, or given up (`retry_alarm=False`).
        """
        if not retry_alarm:
            self._z0_host.alarms.runs.give_up()
        self._z0_host.reset(reason)
        raise Aborted(reason)

    def __repr__(self) -> str:
        """Class and name."""
        return f"<{type(self).__name__} {self.name!r}>"


class Block:
    """The context of `Actor.block`."""

    __slots__ = ("_activity", "_host", "_timer")

    def __init__(self, host: Host) -> None:
        """Not held yet."""
        self._host = host
        self._activity: Activity | None = None
        self._timer: Timer | None = None

    async def __aenter__(self) -> None:
        """Take the gate, after whoever has it."""
        host, call = self._host, CURRENT.get()
        if call is None or call.host is not host or call.activity is None:
            raise RuntimeError("block() is for the actor's own handlers")
        activity = self._activity = call.activity
        if not host.dead and not host.gate.admits(activity):
            await self._gate(activity)
        if host.dead:
            raise host.reset_error()
        host.hold(activity)
        self._timer = host.node.clock.call_later(host.node.limits.block_seconds, self._expired)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Give the gate back; after an exception, reset."""
        if self._timer is not None:
            self._timer.cancel()
        if error is not None:
            self._host.reset(f"block() was left by {type(error).__name__}: {error}", spare=self._activity)
        if not self._host.dead:
            self._host.unhold()

    async def _gate(self, activity: Activity) -> None:
        host, since = self._host, perf_ns()
        while not host.dead and not host.gate.admits(activity):
            await host.gate.wait()
        host.node.metrics.gate_waited.add(perf_ns() - since)

    def _expired(self) -> None:
        limit = self._host.node.limits.block_seconds
        self._host.reset(f"block() was held for more than {limit:g} seconds (block_seconds)")
