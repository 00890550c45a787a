"""How an error is kept in a journal, and raised again from it: type, message, cause and attributes. Pure.

Of a class only the name is kept. It is found again among the modules that are loaded; nothing is imported or run
because a file names it, and what is no exception class is not made one. A program that is run as a script is called
`__main__`, and elsewhere by its file: that is known of the workflow's own module only, its home. Values that cannot be
stored are left out; where the message would not be the same without them, what they looked like stands in their place.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from z0.actors import codec
from z0.actors.errors import Z0Error, message_of
from z0.actors.extensions import PLAIN

from .errors import StepFailed
from .keys import is_below

_TRACEBACK_CHARACTERS = 8_000
_LOOK_CHARACTERS = 8_000
_CAUSES_MAX = 8

# What errors of Python itself know besides their arguments, and not in their __dict__ ...
_FIELDS: dict[type[BaseException], tuple[str, ...]] = {
    OSError: ("errno", "strerror", "filename", "filename2"),
    ImportError: ("name", "path"),
    NameError: ("name",),
    AttributeError: ("name",),
}
# ... and those that know nothing but what their arguments say.
_READ_ARGS = (UnicodeEncodeError, UnicodeDecodeError, UnicodeTranslateError, SyntaxError)
E = TypeVar("E", bound=BaseException)


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as it is kept."""

    type: str
    """"<module>:<qualified name>"."""
    message: str
    args: bytes | None = None
    """The exception's arguments, as stored values; None: they cannot be stored."""
    attributes: bytes | None = None
    """Those that can be stored."""
    looks: dict[str, tuple[str, str]] | None = None
    """What others looked like, `str` and `repr`, if the message needs them: by attribute, or number of the argument."""
    members: list[Failure] | None = None
    """Of an exception group."""
    traceback: str | None = None
    cause: Failure | None = None

    @property
    def text(self) -> str:
        """The class's name and the message."""
        return text_of(self.type, self.message)


def text_of(type: str, message: str) -> str:
    """What is kept of an error, in one line: the class's name and the message."""
    return f"{type.partition(':')[2]}: {message}"


def failure_of(error: BaseException, depth: int = _CAUSES_MAX, traced: bool = True) -> Failure:
    """What is kept of the error, whatever its class does when it is looked at."""
    try:
        return _failure_of(error, depth, traced)
    except Exception:  # its attributes raise: its name, its message and where it came from are what is left
        where = "".join(traceback.format_tb(error.__traceback__))
        return Failure(type=_name_of(error), message=_text(message_of(error)), traceback=_text(where))


def shown(error: Exception) -> Exception | None:
    """The error as a log can take it (`exc_info`): None when it cannot be looked at."""
    try:
        traceback.format_exception(error)
    except Exception:
        return None
    return error


def _name_of(error: BaseException) -> str:
    return f"{type(error).__module__}:{type(error).__qualname__}"


def _failure_of(error: BaseException, depth: int, traced: bool) -> Failure:
    cause = error.__cause__
    group = error if isinstance(error, BaseExceptionGroup) else None
    args = list(error.args) if group is None else [group.message]
    attributes = dict(_attributes_of(error))
    failure = Failure(
        type=_name_of(error),
        message=_text(message_of(error)),
        args=codec.encode([arg if _stored(arg) else None for arg in args]),
        attributes=_encoded({name: value for name, value in attributes.items() if _stored(value)}),
        members=[failure_of(each, depth - 1, False) for each in group.exceptions] if group and depth else None,
        traceback=_text("".join(traceback.format_exception(error)))[-_TRACEBACK_CHARACTERS:] if traced else None,
        cause=failure_of(cause, depth - 1) if cause is not None and depth else None,
    )
    if _class_of(failure.type, BaseException) is None or _rebuilt(failure, BaseException) is not None:
        return failure
    values = {**{str(number): arg for number, arg in enumerate(args)}, **attributes}
    shown = replace(failure, looks={name: _look(value) for name, value in values.items() if not _is_exact(value)})
    return failure if _rebuilt(shown, BaseException) is None else shown


def error_of(failure: Failure, home: str = "") -> Exception:
    """The error to raise for it: of its own class where that is known, else StepFailed.

    `home`: the workflow's module.
    """
    return _error_of(failure, Exception, home)


def _error_of(failure: Failure, kind: type[E], home: str) -> E | StepFailed:
    error = _rebuilt(failure, kind, home) or StepFailed(failure.type.replace(":", "."), failure.message)
    if failure.cause is not None:
        error.__cause__ = _error_of(failure.cause, BaseException, home)
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


class _Look(str):
    """Stands for a value that could not be stored: it is shown as that was."""

    __slots__ = ("shown",)
    shown: str

    def __new__(cls, text: str, shown: str) -> _Look:
        look = super().__new__(cls, text)
        look.shown = shown
        return look

    def __repr__(self) -> str:
        return self.shown


def _attributes_of(error: BaseException) -> Iterator[tuple[str, Any]]:
    for base, names in _FIELDS.items():
        if isinstance(error, base):
            yield from ((name, value) for name in names if (value := getattr(error, name, None)) is not None)
    yield from ((name, value) for name, value in vars(error).items() if not name.startswith("_z0_"))


def _rebuilt(failure: Failure, base: type[E], home: str = "") -> E | None:
    """The error, of its own class and with its own message; None: that cannot be had."""
    kind = _class_of(failure.type, base) or _class_at_home(failure.type, base, home)
    if kind is None or failure.args is None:
        return None
    looks = failure.looks or {}
    error = _made(failure, kind, {name: text for name, (text, _) in looks.items()}, home)
    if error is None and looks:
        error = _made(failure, kind, {name: _Look(*look) for name, look in looks.items()}, home)
    return error


def _made(failure: Failure, kind: type[E], looks: dict[str, str], home: str) -> E | None:
    assert failure.args is not None
    args = [looks.pop(str(number), arg) for number, arg in enumerate(codec.decode(failure.args))]
    if failure.members is not None:
        args.append([error_of(each, home) for each in failure.members])
    attributes = {} if failure.attributes is None else codec.decode(failure.attributes)
    try:
        error = kind.__new__(kind, *args)  # never its __init__, which may want anything, and do anything
        error.args = tuple(args)
        for of in _READ_ARGS:
            if isinstance(error, of):
                of.__init__(error, *args)  # type: ignore[arg-type]  # it is one
        for name, value in {**attributes, **looks}.items():
            if any(name in names for of, names in _FIELDS.items() if isinstance(error, of)):
                setattr(error, name, value)
            else:
                error.__dict__[name] = value
        return error if _text(message_of(error)) == failure.message and _is_sound(error) else None
    except Exception:  # a class with a constructor, or a message, of its own liking
        return None


def _is_sound(error: BaseException) -> bool:
    """Whether the error, which was made without its constructor, can be looked at for what it lacks."""
    for _ in range(2):
        try:
            getattr(error, "__notes__", None)
            return True
        except Exception:
            error.__dict__.setdefault("file", None)  # whom urllib's HTTPError asks
    return False


def _class_of(name: str, base: type[E]) -> type[E] | None:
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, base) else None


def _class_at_home(name: str, base: type[E], home: str) -> type[E] | None:
    """The class, when the workflow's module had another name where it was raised: it is a script here, or was there."""
    module, _, path = name.partition(":")
    return _class_of(f"{home}:{path}", base) if "__main__" in (module, home) else None


def _encoded(attributes: dict[str, Any]) -> bytes | None:
    return codec.encode(attributes) if attributes else None


def _stored(value: Any) -> bool:
    """Whether the value can be stored."""
    try:
        codec.encode([value])
    except (Z0Error, RecursionError):
        return False
    return True


def _is_exact(value: Any) -> bool:
    """Whether the value is shown as before when it comes back."""
    if not _stored(value):
        return False
    return type(value) in PLAIN or repr(codec.decode(codec.encode(value))) == _look(value)[1]


def _look(value: Any) -> tuple[str, str]:
    looks = []
    for look in (str, repr):
        try:
            looks.append(_text(look(value))[:_LOOK_CHARACTERS])
        except Exception:
            looks.append(f"a {type(value).__name__}")
    return looks[0], looks[1]


def _text(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
