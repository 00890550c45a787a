"""Who does what for whom, and until when: the chain of calls, which travels in the context.

A chain ends where nobody waits any more: an activity that has ended lets go of who asked for it, so a chain is
never longer than the calls that are under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING

from .clock import Clock, Span, seconds
from .errors import CallCycle

if TYPE_CHECKING:
    from .host import Host
    from .names import Address
    from .node import Node


class Activity:
    """Something that an actor does: a message, a hook or background work."""

    __slots__ = ("ended", "kept", "sender")

    def __init__(self, sender: Call | None = None) -> None:
        """`sender`: the call that waits for it, if one does."""
        self.sender = sender
        self.ended = False
        self.kept = False  # an earlier segment of it has written, which a reset does not take back

    def end(self) -> None:
        """Nobody waits for it any more."""
        self.ended = True
        self.sender = None


class Call:
    """Which activity of which actor the running code belongs to, and its deadline; travels to what it starts."""

    __slots__ = ("activity", "deadline", "host", "keys")

    def __init__(
        self,
        host: Host | None,
        activity: Activity | None,
        deadline: float | None = None,
        keys: Callable[[], str] | None = None,
    ) -> None:
        """Of `host`, or of code outside of actors; `deadline` by the monotonic clock of the node.

        `keys` gives what this code sends idempotency keys, where it has none itself: it may run again.
        """
        self.host = host
        self.activity = activity
        self.deadline = deadline
        self.keys = keys

    @property
    def waits(self) -> bool:
        """Whether an activity that goes on may be waiting for what this code asks for."""
        return self.activity is not None and not self.activity.ended


CURRENT: ContextVar[Call | None] = ContextVar("z0_current", default=None)
"""The call that this context belongs to; None outside of actors and deadlines."""


def waiting(call: Call | None) -> Call | None:
    """The call, if it may wait for what it asks for."""
    return call if call is not None and call.waits else None


def cycle(sender: Call | None, node: Node, address: Address) -> CallCycle | None:
    """The error for a message whose actor holds its gate for a call of the message's own chain, if it does."""
    names = [str(address)]
    for host, activity in _chain(sender):
        names.append(str(host.address))
        if host.address == address and host.node is node and host.gate.holder is activity and not host.dead:
            return CallCycle(tuple(reversed(names)))
    return None


def _chain(call: Call | None) -> Iterator[tuple[Host, Activity]]:
    """Who waits for this call, from within."""
    while call is not None and call.host is not None and call.activity is not None:
        yield call.host, call.activity
        call = call.activity.sender


class Deadline:
    """`with deadline:` every call made inside, and all that these call in turn, has to answer within the span.

    Deadlines nest: the earlier one wins. The block itself is not interrupted.
    """

    __slots__ = ("_clock", "_seconds", "_token")

    def __init__(self, clock: Clock, span: Span) -> None:
        """The span begins when the block is entered. Raises ValueError for what is no span."""
        self._clock = clock
        self._seconds = seconds(span)
        self._token: Token[Call | None] | None = None

    def __enter__(self) -> None:
        """Begin. Raises RuntimeError when it is entered already."""
        if self._token is not None:
            raise RuntimeError("a deadline serves one block at a time; make another one with deadline(span)")
        call, deadline = CURRENT.get(), self._clock.monotonic() + self._seconds
        if call is None:
            call = _OUTSIDE
        elif call.deadline is not None:
            deadline = min(deadline, call.deadline)
        self._token = CURRENT.set(Call(call.host, call.activity, deadline, call.keys))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        token, self._token = self._token, None
        if token is not None:
            CURRENT.reset(token)


_OUTSIDE = Call(None, None)
