"""Stubs: what callers hold. A call of a stub is a coroutine; running it sends the message.

The hot path is here: a message that cannot wait, to an actor that is free, runs in its caller's own step; the caller
then lets the loop run what else is ready and ends the turn itself, so that one commit serves all of it
without a task, a queue or a future.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

from .alone import is_alone
from .call import CURRENT, cycle, waiting
from .codec import share, weigh
from .delivery import expire
from .errors import DeadlineExceeded, presentable
from .gates import pass_once
from .handlers import Handler
from .host import Host
from .mailbox import Message
from .names import Address

if TYPE_CHECKING:
    from .kind import Kind
    from .node import Node

Method = Callable[..., Coroutine[Any, Any, Any]]


class Stub:
    """A handle on one actor, typed as its class. Holds nothing of the actor and keeps nothing alive."""

    __slots__ = ("_z0_address", "_z0_host", "_z0_kind", "_z0_node", "_z0_sender")

    def __init__(self, node: Node, kind: Kind, address: Address, sender: Host | None) -> None:
        """`sender`: the actor that calls through this stub, if one does."""
        self._z0_node = node
        self._z0_kind = kind
        self._z0_address = address
        self._z0_sender = sender
        self._z0_host = node.hosts.get(address, ABSENT)

    def __getattr__(self, name: str) -> NoReturn:
        """Say what there is."""
        kind = object.__getattribute__(self, "_z0_kind")
        messages = ", ".join(sorted(kind.handlers)) or "none"
        raise AttributeError(f"a stub of {kind.cls.__name__} has no {name!r}; its messages are: {messages}")

    def __repr__(self) -> str:
        """Class and name."""
        return f"<stub of {self._z0_kind.cls.__name__} {self._z0_address.name!r}>"

    def __eq__(self, other: object) -> bool:
        """Stubs of the same actor are equal."""
        return isinstance(other, Stub) and (self._z0_node, self._z0_address) == (other._z0_node, other._z0_address)

    def __hash__(self) -> int:
        """By address."""
        return hash(self._z0_address)

    def __z0_share__(self) -> Stub:
        """Stubs travel in messages; whoever gets one sends in their own name."""
        return self if self._z0_sender is None else type(self)(self._z0_node, self._z0_kind, self._z0_address, None)


class _Absent:
    """Stands where a host will be."""

    __slots__ = ()
    ready = False


ABSENT = cast(Host, _Absent())
"""A host that is never ready."""


def stub_class(cls: type, handlers: dict[str, Handler]) -> type[Stub]:
    """The class of the stubs of `cls`: a method per message, nothing else."""
    methods: dict[str, Any] = {name: _method(handler) for name, handler in handlers.items()}
    return type(f"{cls.__name__}Stub", (Stub,), {"__slots__": (), "__doc__": cls.__doc__, **methods})


def _method(handler: Handler) -> Method:
    method = _queued(handler) if handler.suspends else _direct(handler)
    method.__name__ = handler.name
    method.__doc__ = handler.function.__doc__
    return method


def _queued(handler: Handler) -> Method:
    async def method(self: Stub, /, *args: Any, **kwargs: Any) -> Any:
        return await _post(self, handler, args, kwargs)

    return method


def _direct(handler: Handler) -> Method:
    keeps = handler.direct is None

    async def method(self: Stub, /, *args: Any, **kwargs: Any) -> Any:
        host = self._z0_host
        if not host.ready or host.running or self._z0_sender is not None or CURRENT.get() is not None:
            return await _post(self, handler, args, kwargs)
        if host.turn is not None:
            host.node.admit_thread()
            host.mailbox.join(host.turn, host.delivery.running, weigh(args, kwargs))
        if keeps and (args or kwargs):
            args, kwargs = share(args), share(kwargs)
        if host.used != host.node.rest.tick:
            host.node.touch(host)
        # A caller that was alone in its last turn ends this one at once; everybody else first lets others join.
        lone = host.turn is None and host.caller != 0 and is_alone(host) and host.caller == id(current_task())
        failure = None
        call = CURRENT.set(host.call) if keeps else None
        try:
            reply = host.run(handler, args, kwargs, True, lone)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a CancelledError, say, that the handler raised: not to cancel the caller
            failure = presentable(error)
        finally:
            if call is not None:
                CURRENT.reset(call)
        turn = host.turn
        if turn is None:
            if host.ended_at_once(lone):
                await pass_once()
        elif not turn.confirmed:
            host.node.loop.call_soon(host.commit)
            if host.ended_at_once(False):
                await pass_once()
        else:  # wait at the output gate; the first of the turn to come back commits for all
            turn.waiting += 1
            if turn.waiting == 1 and not lone:  # others may join, within the mailbox's bytes
                turn.bytes += weigh(args, kwargs)
            if lone:
                host.streak += 1
            else:
                try:
                    await pass_once()
                except BaseException:  # the caller has gone: its message happens all the same
                    host.node.loop.call_soon(host.commit)
                    raise
                host.caller, host.streak = id(current_task()) if turn.waiting == 1 else 0, 0
            if not turn.done:
                host.commit()
                if not turn.done:
                    await turn.settled()
            if turn.error is not None:
                raise turn.failure()
        if failure is not None:
            raise failure
        return reply

    return method


async def _post(stub: Stub, handler: Handler, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Send through the mailbox; opens the actor when it is not live. Raises as `admit`, CallCycle, DeadlineExceeded."""
    node, address = stub._z0_node, stub._z0_address
    call = CURRENT.get()
    sender, deadline = stub._z0_sender, None
    if call is not None:
        sender, deadline = sender or call.host, call.deadline
        if call.keys is not None and handler.keyed is not None:
            args, kwargs = handler.keyed(args, kwargs, call.keys)
    args, kwargs = share(args), share(kwargs)
    node.admit(sender)
    if deadline is not None and deadline <= node.clock.monotonic():
        raise DeadlineExceeded(str(address), handler.name, started=False)
    reply: asyncio.Future[Any] = node.loop.create_future()
    size = weigh(args, kwargs)
    message = Message(handler, args, kwargs, size, copy_context(), reply, waiting(call), deadline)

    def deliver() -> None:
        error = cycle(message.sender, node, address)
        if error is not None:
            raise error
        host = stub._z0_host = node.host(stub._z0_kind, address)
        host.delivery.accept(message)

    if sender is None:
        deliver()
    else:
        sender.outbox.send(deliver, reply)
    if deadline is None:
        return await reply
    left = max(0.0, deadline - node.clock.monotonic())
    timer = node.clock.call_later(left, partial(expire, message, str(address)))
    try:
        return await reply
    finally:
        timer.cancel()
