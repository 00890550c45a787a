"""Delivery: messages leave the mailbox in order, while the gate is free, and their answers leave at the output gate."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .call import CURRENT, Call, cycle
from .errors import Aborted, ActorReset, CommitUnknown, DeadlineExceeded, presentable
from .gates import Reply
from .mailbox import Message
from .segments import Segments
from .tasks import task_of

if TYPE_CHECKING:
    from .host import Host


_RESET = (asyncio.CancelledError, ActorReset, Aborted, BaseExceptionGroup)
"""What comes out of a handler whose actor was reset under it."""


def expire(message: Message, actor: str) -> None:
    """Tell the caller that the deadline has passed; a message that has not begun never will."""
    if not message.reply.done():
        message.reply.set_exception(DeadlineExceeded(actor, message.handler.name, message.begun))


class Delivery:
    """Brings messages to one actor."""

    __slots__ = ("_host", "tasks")

    def __init__(self, host: Host) -> None:
        """Nothing is under way."""
        self._host = host
        self.tasks: dict[Message, asyncio.Task[None]] = {}
        """Handlers that may wait, from before their first step to their end."""

    def accept(self, message: Message, *, bounded: bool = True) -> None:
        """Put a message into the mailbox, or run it. Raises Overloaded when it does not fit (`bounded`)."""
        host = self._host
        if bounded:
            host.mailbox.accept(message, self.running, host.turn)
        else:
            host.mailbox.accept_own(message)
        host.ready = False
        if host.running:
            host.node.loop.call_soon(self.pump)
        else:
            self.pump()

    @property
    def running(self) -> int:
        """How many handlers that may wait have left the mailbox."""
        mailbox = self._host.mailbox
        return len(self.tasks) - (1 if mailbox and mailbox[0].task is not None else 0)

    def pump(self) -> None:
        """Deliver what waits, while the gate is free."""
        host, mailbox = self._host, self._host.mailbox
        while mailbox and host.is_open and host.gate.free and not host.running:
            message = mailbox[0]
            if message.handler.suspends:
                if message.task is None:  # it leaves the mailbox with its first step: what is behind it waits
                    run = self._run_task(message)
                    message.task = self.tasks[message] = task_of(host.node.loop, run, message.context)
                break
            else:
                mailbox.take()
                message.context.run(self._run_at_once, message)
        host.refresh()
        if host.node.attentive:
            host.node.rested(host)

    def _run_at_once(self, message: Message) -> None:
        if self._is_over(message):
            return
        CURRENT.set(Call(self._host, message, message.deadline))  # in the message's own context
        message.begun = True
        value: object = None
        error: Exception | None = None
        fatal: BaseException | None = None
        try:
            value = self._host.run(message.handler, message.args, message.kwargs)
        except BaseException as caught:
            fatal = caught if isinstance(caught, (KeyboardInterrupt, SystemExit)) else None
            error = presentable(caught)
        message.end()
        self._answer(message, value, error)
        if fatal is not None:
            self._host.node.loop.call_soon(self.pump)  # what is behind it, while the program ends
            raise fatal

    async def _run_task(self, message: Message) -> None:
        host = self._host
        CURRENT.set(Call(host, message, message.deadline))
        value: object = None
        error: Exception | None = None
        fatal: BaseException | None = None
        try:
            await self._admitted(message)
            coroutine = message.handler.function(host.actor, *message.args, **message.kwargs)
            value = await Segments(host, coroutine, message)
        except BaseException as caught:
            fatal = caught if isinstance(caught, (KeyboardInterrupt, SystemExit)) else None
            error = presentable(caught)
            if host.dead and isinstance(caught, _RESET):
                error = self._lost(message)
            elif message.kept and isinstance(caught, ActorReset):  # another actor's: of this call something stands
                error = CommitUnknown(str(host.address), f"it had committed a part of it when {caught.actor} was reset")
                error.__cause__ = caught
        message.end()
        self.tasks.pop(message, None)
        if host.mailbox and host.mailbox[0] is message:  # it failed before its first segment
            host.mailbox.popleft()
        self._answer(message, value, error)
        if not host.dead:
            self.pump()
            host.node.touch(host)
            host.node.rest.watch()
            host.node.rested(host)
        if fatal is not None:
            raise fatal

    async def _admitted(self, message: Message) -> None:
        """Return when the message may begin; it is cancelled when nobody waits for it any more."""
        host = self._host
        while not host.dead and not host.gate.admits(message):
            await host.gate.wait()
        if self._is_over(message):
            raise asyncio.CancelledError

    def _is_over(self, message: Message) -> bool:
        """Whether nobody waits for a message that has not begun: its caller has gone, or its deadline has passed."""
        host, deadline = self._host, message.deadline
        if deadline is not None and host.node.clock.monotonic() >= deadline:
            expire(message, str(host.address))
        return message.reply.done()

    def refuse_cycles(self) -> None:
        """The gate is held now: fail what waits here and could only be answered to who holds it."""
        host = self._host
        for message in list(host.mailbox):
            error = cycle(message.sender, host.node, host.address)
            if error is not None and not message.reply.done():
                message.reply.set_exception(error)

    def _lost(self, message: Message) -> ActorReset | CommitUnknown:
        """What a message is told whose actor was reset under it."""
        host = self._host
        return CommitUnknown(str(host.address), host.reason) if message.kept else host.reset_error()

    def _answer(self, message: Message, value: object, error: BaseException | None) -> None:
        """Reply when everything written so far is durable; errors are replies."""
        reply = Reply(message.reply, value, error, message.kept)
        turn = self._host.turn
        if turn is None or not turn.confirmed:
            reply.send()
        else:
            turn.answer(reply)

    def discard(self, spare: object) -> None:
        """The incarnation is over: fail what waits and cancel what runs, but for `spare`."""
        host = self._host
        for message in host.mailbox:
            if not message.reply.done() and message is not spare:
                message.reply.set_exception(host.reset_error())
        host.mailbox.clear()
        for message, task in list(self.tasks.items()):
            if message is not spare:
                task.cancel()
