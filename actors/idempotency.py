"""Messages that happen once: the reply is kept under the caller's key, in the message's own transaction."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, get_type_hints

import msgspec

from . import codec
from .clock import Span, seconds, to_us
from .errors import IdempotencyConflict

Function = Callable[..., Coroutine[Any, Any, Any]]
F = TypeVar("F", bound=Function)

_MARK = "__z0_idempotent__"
_GET = "SELECT arguments, reply, created FROM z0_replies WHERE message = ? AND key = ?"
_PUT = "INSERT OR REPLACE INTO z0_replies(message, key, arguments, reply, created) VALUES(?, ?, ?, ?, ?)"


class Once(msgspec.Struct, frozen=True):
    """How a message is idempotent."""

    parameter: str
    """Which parameter takes the key."""
    retention: float | None
    """Seconds that a reply counts; None: `Limits.idempotency_seconds`."""
    position: int | None = None
    """At which place it may be given; None: by its name only."""


def idempotent(key: str, *, retention: Span | None = None) -> Callable[[F], F]:
    """Make a message answer a repeated call from its first reply; `key` names the parameter with the caller's key.

    The reply and a hash of the other arguments are stored in the message's own transaction. The same key again
    returns that reply before the body runs; with other arguments it raises IdempotencyConflict. A message that
    raises stores nothing. Replies come back as the type that the message is annotated to return.

    A reply counts for `retention` ("30 days"; default: `Limits.idempotency_seconds`) and is deleted some time after
    that; then the message runs anew. Raises TypeError without such a parameter, ValueError for an impossible span.
    """
    kept = None if retention is None else seconds(retention)
    if kept == 0:
        raise ValueError("retention must be more than 0; leave the decorator away to keep no reply")

    def mark(function: F) -> F:
        parameters = inspect.signature(function).parameters
        if key not in parameters:
            raise TypeError(f"{function.__qualname__} has no parameter {key!r} to take the idempotency key from")
        by_name = parameters[key].kind is inspect.Parameter.KEYWORD_ONLY
        setattr(function, _MARK, Once(key, kept, None if by_name else list(parameters).index(key) - 1))
        return function

    return mark


def once_of(function: object) -> Once | None:
    """How a message is idempotent, if it is."""
    return getattr(function, _MARK, None)


def with_key(
    mark: Once, args: tuple[Any, ...], kwargs: dict[str, Any], keys: Callable[[], str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, with the next key where none was given."""
    if mark.parameter in kwargs or (mark.position is not None and len(args) > mark.position):
        return args, kwargs
    return args, {**kwargs, mark.parameter: keys()}


def once(message: str, function: Function, mark: Once) -> Function:
    """The message as it runs in the actor: from the stored reply when there is one."""
    signature = inspect.signature(function)
    parameter = mark.parameter
    kind = _reply_type(function)
    msgspec.msgpack.Decoder(kind)  # raises TypeError for what msgspec can never decode

    async def run(actor: Any, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(actor, *args, **kwargs)
        bound.apply_defaults()
        arguments = dict(list(bound.arguments.items())[1:])
        key = arguments.pop(parameter)
        if not isinstance(key, str) or not key:
            raise TypeError(f"{message}: {parameter} must be a non-empty string, not {key!r}")
        hashed = codec.digest(arguments)
        host = actor._z0_host
        running: dict[tuple[str, str], asyncio.Future[None]] = host.running_keys
        while (message, key) in running:  # only a message that suspends can be met half-way
            await asyncio.shield(running[message, key])
        for stored, reply, created in host.writes.rows(_GET, message, key):
            if not isinstance(created, int):
                raise codec.damaged(f"the reply of {message}", TypeError("its time is no integer"))
            kept = host.node.limits.idempotency_seconds if mark.retention is None else mark.retention
            if actor.clock.now_us() - created >= to_us(kept):
                break
            if stored != hashed:
                raise IdempotencyConflict(key, f"arguments of {message}")
            return codec.decode_as(reply, kind, f"the reply of {message}")
        done = running[message, key] = asyncio.get_running_loop().create_future()
        try:
            reply = await function(actor, *args, **kwargs)
            host.writes.write(_PUT, (message, key, hashed, codec.encode(reply), actor.clock.now_us()))
        finally:
            del running[message, key]
            done.set_result(None)
        return reply

    return run


def _reply_type(function: Function) -> Any:
    try:
        return get_type_hints(function).get("return", Any)
    except Exception:  # an annotation that cannot be resolved outside its scope: the reply comes back as plain data
        return Any
