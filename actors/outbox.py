"""Messages of an actor to others, held at its output gate in the order in which they were sent.

As Durable Objects: an outgoing message leaves when the writes made before it are durable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .gates import Turn
    from .host import Host

Deliver = Callable[[], None]


class Outbox:
    """What waits to leave one actor."""

    __slots__ = ("_host", "_waiting")

    def __init__(self, host: Host) -> None:
        """Empty."""
        self._host = host
        self._waiting: deque[tuple[Turn | None, Deliver, asyncio.Future[Any]]] = deque()

    def send(self, deliver: Deliver, reply: asyncio.Future[Any]) -> None:
        """Deliver now, or after what is before it is durable and has left. `reply` gets what delivering raises.

        Raises ActorReset when the sender's incarnation was reset: its writes never came to be.
        """
        host = self._host
        if host.dead:
            if not host.evicted:
                raise host.reset_error()
            deliver()
            return
        turn = host.turn if host.turn is not None and host.turn.confirmed else None
        if turn is None and not self._waiting:
            deliver()
        else:
            self._waiting.append((turn, deliver, reply))
            host.node.loop.call_soon(host.commit)

    def release(self) -> None:
        """Let go what no longer waits for a commit."""
        while self._waiting and ((turn := self._waiting[0][0]) is None or turn.done):
            _, deliver, reply = self._waiting.popleft()
            if reply.done():  # the caller has gone: nothing of it happens
                continue
            try:
                deliver()
            except Exception as error:
                reply.set_exception(error)

    def discard(self) -> None:
        """The incarnation is over: nothing of this leaves."""
        while self._waiting:
            reply = self._waiting.popleft()[2]
            if not reply.done():
                reply.set_exception(self._host.reset_error())

    def __bool__(self) -> bool:
        """Whether something waits."""
        return bool(self._waiting)
