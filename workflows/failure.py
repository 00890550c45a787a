"""How an error is kept in a journal, and raised again from it: type, message, cause and attributes. Pure.

Of a class only the name is kept. It is found again among the modules that are loaded; nothing is imported or run
because a file names it, and what is no exception class is not made one.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from typing import Any

import msgspec

from z0.actors import codec
from z0.actors.errors import Z0Error

from .errors import StepFailed
from .keys import is_below

_TRACEBACK_CHARACTERS = 8_000
_CAUSES_MAX = 8


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as it is kept."""

    type: str
    """"<module>:<qualified name>"."""
    message: str
    args: bytes | None = None
    """The exception's arguments, as stored values; None: they cannot be stored."""
    attributes: bytes | None = None
    traceback: str | None = None
    cause: Failure | None = None

    @property
    def text(self) -> str:
        """The class's name and the message."""
        return text_of(self.type, self.message)


def text_of(type: str, message: str) -> str:
    """What is kept of an error, in one line: the class's name and the message."""
    return f"{type.partition(':')[2]}: {message}"


def failure_of(error: BaseException, depth: int = _CAUSES_MAX) -> Failure:
    """What is kept of the error."""
    kind = type(error)
    cause = error.__cause__
    attributes = {name: value for name, value in vars(error).items() if not name.startswith("_z0_")}
    return Failure(
        type=f"{kind.__module__}:{kind.__qualname__}",
        message=_text(str(error)),
        args=_stored(error.args),
        attributes=_stored(attributes) if attributes else None,
        traceback=_text("".join(traceback.format_exception(error)))[-_TRACEBACK_CHARACTERS:],
        cause=failure_of(cause, depth - 1) if cause is not None and depth else None,
    )


def error_of(failure: Failure) -> Exception:
    """The error to raise for it: of its own class where that is known, else StepFailed."""
    error = _rebuilt(failure) or StepFailed(failure.type.replace(":", "."), failure.message)
    if failure.cause is not None:
        error.__cause__ = error_of(failure.cause)
    return error


def failing_step(error: BaseException | None) -> str | None:
    """The key of the step whose error this is, or led to this; None: it came from the body itself."""
    return next(iter(_blamed(error)[0]), None)


def blame(error: BaseException, steps: Iterable[str] = ()) -> dict[str, Any]:
    """What the journal keeps of an error that has failed the instance, and of what is to be tried anew.

    `steps`: others that have failed too.
    """
    blamed, branches = _blamed(error)
    also = [step for step in dict.fromkeys([*blamed[1:], *steps]) if step not in blamed[:1]]
    detail: dict[str, Any] = {"error": msgspec.to_builtins(failure_of(error))}
    if also:
        detail["also"] = also
    if branches:
        detail["branches"] = branches
    return detail


def decides(error: BaseException, branches: str) -> None:
    """Keep in mind that it is what these branches came to."""
    within = [each for each in error.__dict__.get("_z0_branches", ()) if is_below(each, branches)]
    error.__dict__["_z0_branches"] = [*within, branches]


def _blamed(error: BaseException | None, depth: int = _CAUSES_MAX) -> tuple[list[str], list[str]]:
    """The steps whose errors led to this, of a group all of them; and what branches came to by it, by their keys."""
    branches: list[str] = []
    while error is not None and depth:
        branches += error.__dict__.get("_z0_branches", ())
        step = error.__dict__.get("_z0_step")
        if step is not None:
            return [str(step)], branches
        if isinstance(error, BaseExceptionGroup):
            found = [_blamed(each, depth - 1) for each in error.exceptions]
            steps = [step for inner, _ in found for step in inner]
            return steps, branches + [key for _, inner in found for key in inner]
        error, depth = error.__cause__ or error.__context__, depth - 1
    return [], branches


def _rebuilt(failure: Failure) -> Exception | None:
    kind = _class_of(failure.type)
    if kind is None or failure.args is None:
        return None
    args = codec.decode(failure.args)
    try:
        error = kind.__new__(kind, *args)
    except Exception:  # a class with a constructor of its own liking
        return None
    error.args = tuple(args)
    if failure.attributes is not None:
        error.__dict__.update(codec.decode(failure.attributes))
    return error if str(error) == failure.message else None


def _class_of(name: str) -> type[Exception] | None:
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _stored(value: Any) -> bytes | None:
    try:
        return codec.encode(value)
    except (Z0Error, RecursionError):
        return None


def _text(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
