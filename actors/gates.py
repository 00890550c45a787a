"""The gates of one actor.

- Input gate: while it is held or parked, nothing runs in the actor but the message that holds it: no new
  message and no segment that resumes (as Durable Objects: input gate).
- Output gate: a `Turn` stands for one commit. Nothing that the actor answers leaves before the turn that was
  open when it was said is durable; if the commit fails, nothing leaves but an error (as Durable Objects:
  output gate).
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import msgspec

from .database import Rows
from .errors import ActorReset, CommitUnknown

if TYPE_CHECKING:
    from .call import Activity


@types.coroutine
def pass_once() -> Generator[None, None, None]:
    """Let everything else that is ready run, once."""
    yield


class SharedFuture(asyncio.Future[None]):
    """A future that many await: cancelling one of them must not cancel it for all.

    A cancelled waiter gets its CancelledError when the future is done.
    """

    def cancel(self, msg: Any = None) -> bool:
        """Refuse."""
        return False


class InputGate:
    """Who may run now. `holder` is the activity inside `block()`; `parked` means that the file is in other hands."""

    __slots__ = ("depth", "held_ns", "holder", "parked", "waiters")

    def __init__(self) -> None:
        """An open gate."""
        self.holder: Activity | None = None
        self.depth = 0
        self.held_ns = 0  # when it was taken
        self.parked = False
        self.waiters: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> bool:
        """Whether a new message may enter."""
        return self.holder is None and not self.parked

    def admits(self, activity: Activity) -> bool:
        """Whether the next segment of this activity may run."""
        return not self.parked and (self.holder is None or self.holder is activity)

    def wait(self) -> asyncio.Future[None]:
        """A future that is done when it is worth asking again."""
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        return waiter

    def wake(self) -> None:
        """Let everybody ask again, in their order."""
        waiters, self.waiters = self.waiters, deque()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Reply:
    """Where the answer of one message goes: the caller's future, set when the output gate opens."""

    __slots__ = ("error", "future", "kept", "value")

    def __init__(self, future: asyncio.Future[Any], value: object, error: BaseException | None, kept: bool) -> None:
        """An answer that waits for its turn. `kept`: some of the message's writes may have been in an earlier one."""
        self.future = future
        self.value = value
        self.error = error
        self.kept = kept

    def send(self) -> None:
        """Answer; a caller that has gone is not told."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.value)
        else:
            self.future.set_exception(self.error)


class Turn(msgspec.Struct, eq=False):
    """What one commit of one actor makes durable, and who waits for it."""

    done: bool = False
    error: ActorReset | CommitUnknown | None = None
    replies: list[Reply] | None = None
    waiting: int = 0
    bytes: int = 0
    settling: SharedFuture | None = None
    began_ns: int = 0
    commit_ns: int = 0
    threaded: bool = False
    pending: Rows | None = None
    """What its commit must write first, if its transaction has not begun."""
    confirmed: bool = True
    """Whether what the actor says must wait for it; False: all its writes were made with `allow_unconfirmed`."""

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for it."""
        return bool(self.waiting or self.replies or self.settling)

    def answer(self, reply: Reply) -> None:
        """Send this when the turn is durable."""
        self.waiting += 1
        if self.replies is None:
            self.replies = []
        self.replies.append(reply)

    def settled(self) -> SharedFuture:
        """Done when the turn, which is open now, is durable or has failed."""
        if self.settling is None:
            self.settling = SharedFuture(loop=asyncio.get_running_loop())
        return self.settling

    def settle(self, error: ActorReset | CommitUnknown | None) -> None:
        """Open the gate, or fail everything that waits at it."""
        self.done = True
        self.error = error
        for reply in self.replies or ():
            if error is not None:
                reply.error = self.failure(reply.kept)
            reply.send()
        if self.settling is not None and not self.settling.done():
            self.settling.set_result(None)

    def failure(self, kept: bool = False) -> ActorReset | CommitUnknown:
        """The turn's error, anew for each who gets it. `kept`: not all that they wrote is in this turn."""
        assert self.error is not None
        kind = CommitUnknown if kept else type(self.error)
        return kind(self.error.actor, self.error.reason)
