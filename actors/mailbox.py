"""The bounded inbox of one actor. What does not fit is refused at once, before anything of it happened."""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from .call import Activity, Call
from .clock import perf_ns
from .errors import Overloaded
from .handlers import Handler

if TYPE_CHECKING:
    from .gates import Turn
    from .limits import Limits
    from .metrics import Metrics


class Message(Activity):
    """A call on its way to an actor."""

    __slots__ = ("accepted_ns", "args", "begun", "context", "deadline", "handler", "kwargs", "reply", "size", "task")

    def __init__(
        self,
        handler: Handler,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        size: int,
        context: Context,
        reply: asyncio.Future[Any],
        sender: Call | None = None,
        deadline: float | None = None,
    ) -> None:
        """Arguments are the actor's own already; `size` is about how many bytes they hold."""
        super().__init__(sender)
        self.handler = handler
        self.args = args
        self.kwargs = kwargs
        self.size = size
        self.context = context
        self.reply = reply
        self.task: asyncio.Task[None] | None = None
        self.accepted_ns = 0
        self.begun = False
        self.deadline = deadline


class Load:
    """Bytes of the messages that all mailboxes of a runtime have accepted and not answered."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        """None yet."""
        self.bytes = 0


class Mailbox(deque[Message]):
    """Messages that were accepted and not begun, in order. Counts the bytes of all that are not answered."""

    __slots__ = ("_limits", "_load", "_metrics", "_owner", "bytes")

    def __init__(self, owner: object, limits: Limits, load: Load, metrics: Metrics) -> None:
        """`owner` is named in errors."""
        super().__init__()
        self._owner = owner
        self._limits = limits
        self._load = load
        self._metrics = metrics
        self.bytes = 0

    def accept(self, message: Message, running: int, turn: Turn | None) -> None:
        """Take a message in, beside `running` ones and those that wait for `turn`. Raises Overloaded."""
        limits = self._limits
        waiting = len(self) + running + (0 if turn is None else turn.waiting)
        if waiting >= limits.mailbox_messages:
            raise self._refusal(f"{waiting} messages wait", "mailbox_messages")
        if self.bytes + message.size > limits.mailbox_bytes:
            raise self._refusal(f"{self.bytes} + {message.size} bytes", "mailbox_bytes")
        if self._load.bytes + message.size > limits.runtime_mailbox_bytes:
            raise self._refusal(f"{self._load.bytes} + {message.size} bytes", "runtime_mailbox_bytes")
        self.bytes += message.size
        self._load.bytes += message.size
        message.reply.add_done_callback(partial(self._answered, message))
        message.accepted_ns = perf_ns()
        self._metrics.posted += 1
        self.append(message)

    def accept_own(self, message: Message) -> None:
        """Take in what the actor sends itself, beside the limits."""
        message.accepted_ns = perf_ns()
        self.append(message)

    def take(self) -> Message:
        """The first message, which waits no more."""
        message = self.popleft()
        self._metrics.queued.add(perf_ns() - message.accepted_ns)
        return message

    def _answered(self, message: Message, _reply: asyncio.Future[Any]) -> None:
        self.bytes -= message.size
        self._load.bytes -= message.size
        if message.task is None and message in self:  # its caller has gone before it began: nothing of it happens
            self.remove(message)

    def join(self, turn: Turn, running: int, size: int) -> None:
        """Let one more message join the turn without waiting here. Raises Overloaded."""
        limits = self._limits
        if turn.waiting + running >= limits.mailbox_messages:
            raise self._refusal(f"{turn.waiting + running} messages wait", "mailbox_messages")
        if self.bytes + turn.bytes + size > limits.mailbox_bytes:
            raise self._refusal(f"{self.bytes + turn.bytes} + {size} bytes", "mailbox_bytes")
        turn.bytes += size

    def _refusal(self, what: str, limit: str) -> Overloaded:
        self._metrics.overloaded[limit] += 1
        return Overloaded(str(self._owner), f"{what} ({limit})")
