"""How a callback takes the context of its step: as its first argument, by name, or not at all. Pure."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable
from types import FunctionType, MethodType, UnionType
from typing import Any

from .annotations import Unknown, called, read

_NAMES = frozenset({"ctx", "context"})
_CLASSES = frozenset({"StepContext", "RollbackContext"})
_WRITTEN = re.compile(r"\b(Step|Rollback)Context\b")
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def argument_of(fn: Callable[..., Any]) -> str | None:
    """The name by which the callback takes the context; "": as its first argument; None: it takes none.

    It goes to a parameter that is annotated as one, else to the first without a default, else to one that is named
    `ctx` or `context` and not annotated, but not of the standard library's functions, which mean others by that. A
    default other than None is a value that was bound: it is kept.
    """
    code = getattr(fn, "__code__", None)
    if code is not None and not (code.co_argcount or code.co_kwonlyargcount or code.co_flags & inspect.CO_VARARGS):
        return None
    function = fn.__func__ if isinstance(fn, MethodType) else fn
    if _is_plain(function):
        takes = function.__code__.co_argcount - (function is not fn)
        if not function.__defaults__ and not function.__code__.co_kwonlyargcount:
            return "" if takes else None
        names = function.__code__.co_varnames[: function.__code__.co_argcount + function.__code__.co_kwonlyargcount]
        if takes == len(function.__defaults__ or ()) and not function.__annotations__ and _NAMES.isdisjoint(names):
            return None  # lambda n=n: ...
    return _seen_in_signature(fn)


def _is_plain(function: Any) -> typing.TypeGuard[FunctionType]:
    """Whether all there is to know of its parameters is in its code."""
    if type(function) is not FunctionType or function.__code__.co_flags & inspect.CO_VARARGS:
        return False
    return getattr(function, "__wrapped__", None) is None and getattr(function, "__signature__", None) is None


def _seen_in_signature(fn: Callable[..., Any]) -> str | None:
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except ValueError:  # of C, and silent about what it takes: time.time, int
        return None
    empty = inspect.Parameter.empty
    positional = [each for each in parameters if each.kind in _POSITIONAL]
    first = positional[0] if positional else None
    unbound = [each for each in parameters if each.default is empty or each.default is None]
    free = [each for each in unbound if each is first or each.kind in _BY_NAME]
    module = _module_of(fn)
    found = next((each for each in free if each.annotation is not empty and _is_context(each.annotation, module)), None)
    if found is None and first is not None and first.default is empty:
        return ""
    if found is None and module.partition(".")[0] not in _NOT_OURS:
        found = next((each for each in free if each.annotation is empty and each.name in _NAMES), None)
    return None if found is None else "" if found is first else found.name


_NOT_OURS = sys.stdlib_module_names | {""}


def _module_of(fn: Any) -> str:
    """Of the Python function that is called in the end; "" when it is none."""
    while fn is not None and not isinstance(fn, FunctionType):
        fn = getattr(fn, "__func__", None) or getattr(fn, "__wrapped__", None) or called(fn)
    return "" if fn is None else getattr(inspect.unwrap(fn), "__module__", None) or ""


def _is_context(annotation: Any, module: str) -> bool:
    if isinstance(annotation, str):
        kind = read(annotation, module)
        return bool(_WRITTEN.search(annotation)) if isinstance(kind, Unknown) else _is_context(kind, module)
    if isinstance(annotation, type):
        return any(each.__name__ in _CLASSES for each in annotation.__mro__)
    of_several = typing.get_origin(annotation) in (typing.Union, UnionType, typing.Annotated)
    return of_several and any(_is_context(each, module) for each in typing.get_args(annotation))
