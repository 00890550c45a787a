"""What the annotations of bodies and callbacks say, as far as they can be resolved; the log tells where they cannot.

Each is resolved by itself: in its module, then with the names around it, which the function or its class holds.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
import typing
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache, partial
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

import msgspec

from .event import Event

log = logging.getLogger("z0.workflows")
_NOTHING = object()


def returned_by(function: Callable[..., Any]) -> Any:
    """The type that a callback is annotated to return; Any when it says nothing."""
    function = getattr(function, "__func__", function)
    annotation = (getattr(function, "__annotations__", None) or {}).get("return", _NOTHING)
    if annotation is _NOTHING:
        inner = None if type(function) is FunctionType else called(function)
        return Any if inner is None else returned_by(inner)
    if isinstance(annotation, type):
        return annotation
    return _kind_of(function, annotation, "to return %s", "what it returns")


def payload_of(run: Callable[..., Any]) -> Any:
    """What the payload of a body is: of `run(self, event: Event[X], step)`, X; Any when it says nothing."""
    annotations = getattr(run, "__annotations__", None) or {}
    code = getattr(run, "__code__", None)
    if isinstance(code, CodeType) and code.co_argcount > 1:
        name = code.co_varnames[1]
    else:  # around another, whose annotations it has taken over
        name = next((each for each in annotations if each != "return"), "")
    if name not in annotations:
        return Any
    event = _kind_of(run, annotations[name], f"with {name}: %s", "the payload")
    args = typing.get_args(event) if typing.get_origin(event) is Event else ()
    return args[0] if args and not isinstance(args[0], typing.TypeVar) else Any


def called(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """What is called when this is, which is no function itself; None: that cannot be seen."""
    if isinstance(function, partial):
        return function.func
    call = getattr(type(function), "__call__", None)  # noqa: B004
    return call if isinstance(call, FunctionType) else None


class Unknown(msgspec.Struct, frozen=True):
    """An annotation that cannot be resolved."""

    why: str


def _kind_of(function: Callable[..., Any], annotation: Any, says: str, what: str) -> Any:
    """What it means; Any when that cannot be found out, which is told once. `says`, `what`: for people."""
    module = function.__module__
    free = getattr(getattr(function, "__code__", None), "co_freevars", ())
    if free and isinstance(annotation, str) and not _names_in(annotation).isdisjoint(free):  # nearer than the module's
        kind = _meant(annotation, module, _around(function))
    else:
        try:
            kind = read(annotation, module)
        except TypeError:  # it cannot be hashed, as Annotated[int, {"unit": "cents"}]
            kind = _meant(annotation, module)
        if isinstance(kind, Unknown):
            kind = _meant(annotation, module, _around(function))
    if not isinstance(kind, Unknown):
        return kind
    _tell(f"{module}.{getattr(function, '__qualname__', '?')}", says % (annotation,), kind.why, what)
    return Any


def _meant(annotation: Any, module: str, around: dict[str, Any] | None = None) -> Any:
    try:
        written = SimpleNamespace(__annotations__={"it": annotation})
        names = vars(sys.modules[module]) if module in sys.modules else {}
        kind = typing.get_type_hints(written, names, around)["it"]
        origin = typing.get_origin(kind)
        if isinstance(origin, type) and issubclass(origin, Awaitable):
            kind = (typing.get_args(kind) or (Any,))[-1]
    except Exception as error:  # whatever evaluating it raises
        return Unknown(f"{type(error).__name__}: {error}")
    return Any if isinstance(kind, typing.TypeVar) or kind in _NEVER else kind


_NEVER = (typing.NoReturn, typing.Never)  # of what always raises


# By what is written and where, never by the function: a callback is mostly a closure that is made anew for each step,
# so that it would not be found again, and would keep the instance and its whole runtime in memory.
read = lru_cache(maxsize=1024)(_meant)


@lru_cache(maxsize=1024)
def _names_in(annotation: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", annotation))


def _around(function: Callable[..., Any]) -> dict[str, Any]:
    """The names that the function has beside those of its module, the nearest last."""
    inner = inspect.unwrap(function)
    names = dict(getattr(inner, "__globals__", {}))  # of a module that is none of sys.modules'
    owner: Any = None
    for part in getattr(inner, "__qualname__", "").split(".")[:-1]:
        owner = names.get(part) if owner is None else getattr(owner, part, "")
    if isinstance(owner, type):
        names |= vars(owner)
    names |= {each.__name__: each for each in getattr(inner, "__type_params__", ())}
    free = getattr(getattr(inner, "__code__", None), "co_freevars", ())
    for name, cell in zip(free, getattr(inner, "__closure__", None) or (), strict=False):
        with suppress(ValueError):  # not bound yet
            names[name] = cell.cell_contents
    return names


@lru_cache(maxsize=1024)  # once
def _tell(function: str, says: str, why: str, what: str) -> None:
    log.warning(
        "%s is annotated %s, which cannot be resolved (%s): %s comes untyped, a struct or dataclass as a dict; import "
        "what it names outside `if TYPE_CHECKING:`, and define it outside functions",
        function, says, why, what,
    )  # fmt: skip
