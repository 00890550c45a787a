"""What a class of actors answers to: its messages, found once per class. Pure."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from operator import itemgetter
from types import CodeType
from typing import Any, TypeVar, cast

import msgspec

from .idempotency import Once, once, once_of, with_key

F = TypeVar("F", bound=Callable[..., Any])
Keyed = Callable[[tuple[Any, ...], dict[str, Any], Callable[[], str]], tuple[tuple[Any, ...], dict[str, Any]]]

HOOKS = frozenset({"start", "stop", "alarm"})
"""Called by the engine, never by a message."""

_SUSPENDING = frozenset(
    dis.opmap[name]
    for name in ("GET_AWAITABLE", "GET_ANEXT", "SEND", "YIELD_VALUE", "BEFORE_ASYNC_WITH")
    if name in dis.opmap
)


class Handler(msgspec.Struct, frozen=True):
    """One message of a class."""

    name: str
    function: Callable[..., Coroutine[Any, Any, Any]]
    suspends: bool
    """Whether it may wait for something; if not, it can run in its caller's turn, without a task."""
    direct: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any] | None = None
    """The same as a plain function of actor, args and kwargs; it keeps no argument, and shares nothing mutable."""
    once: Once | None = None
    """How it is idempotent, if it is."""
    keyed: Keyed | None = None
    """Gives arguments that have no idempotency key one; None: the message takes none."""


class outside:
    """Marks a message for callers only: on a stub it is a message, on `self` it raises and names the alternative."""

    def __init__(self, instead: str, direct: Callable[..., Any] | None = None, keyed: Keyed | None = None) -> None:
        """`instead`: what to use inside the actor. `direct`, `keyed`: see `Handler`."""
        self.instead = instead
        self.direct = direct
        self.keyed = keyed
        self.function: Callable[..., Any] | None = None
        self.name = ""

    def __call__(self, function: F) -> F:
        """Decorate."""
        self.function = function
        self.__doc__ = function.__doc__
        return cast(F, self)

    def __set_name__(self, owner: type, name: str) -> None:
        """Learn its name."""
        self.name = name

    def __get__(self, instance: object, owner: type) -> Any:
        """The message itself on the class; an error on an instance."""
        if instance is None:
            return self.function
        raise TypeError(f"{owner.__name__}.{self.name} is a message for callers; inside use {self.instead}")


def can_suspend(function: Callable[..., Any]) -> bool:
    """Whether a coroutine function can wait: one without await, `async for` and `async with` cannot."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or not code.co_flags & inspect.CO_COROUTINE:
        return True
    return not _SUSPENDING.isdisjoint(code.co_code[::2])  # each operation is two bytes, its code first


def handlers_of(cls: type, base: type, hooks: frozenset[str] = HOOKS) -> dict[str, Handler]:
    """The messages of `cls`: each public `async def` that is not a hook and not of `base` itself."""
    found: dict[str, Handler] = {}
    for name, attribute in _attributes_beyond(base, cls):
        if name.startswith("_") or name in hooks or hasattr(base, name):
            continue
        function = attribute.function if isinstance(attribute, outside) else attribute
        if inspect.iscoroutinefunction(function):
            mark = attribute if isinstance(attribute, outside) else None
            found[name] = _handler(name, function, mark)
    return found


def _attributes_beyond(base: type, cls: type) -> list[tuple[str, Any]]:
    """What a class has that its base has not, as it stands in the class: a property or a static method stays one."""
    found: dict[str, Any] = {}
    for each in reversed(cls.__mro__):
        if not issubclass(base, each):
            found.update(vars(each))
    return sorted(found.items(), key=itemgetter(0))


def _handler(name: str, function: Callable[..., Coroutine[Any, Any, Any]], outer: outside | None) -> Handler:
    direct, keyed = (None, None) if outer is None else (outer.direct, outer.keyed)
    mark = once_of(function)
    if mark is None:
        return Handler(name, function, can_suspend(function), direct, None, keyed)
    return Handler(name, once(name, function, mark), can_suspend(function), direct, mark, partial(with_key, mark))
