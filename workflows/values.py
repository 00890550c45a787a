"""Values in a journal: as stored values of actors, with facts besides. Pure."""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakSet

import msgspec

from z0.actors import codec
from z0.actors.errors import InvalidValue, LimitExceeded
from z0.actors.extensions import EXACT, PLAIN
from z0.actors.readable import why_unreadable

from .annotations import payload_of
from .event import Event

if typing.TYPE_CHECKING:
    from .journal import Entry

REDACTED = codec.encode("[REDACTED]")
"""What readers are shown of a sensitive result."""


def stored(value: Any, what: str, bytes_max: int) -> bytes:
    """The value as it is stored. Raises InvalidValue, LimitExceeded; `what` is named in it."""
    encoded = codec.encode(value)
    if len(encoded) > bytes_max:
        raise LimitExceeded(
            f"{what} has {len(encoded):,} bytes, more than {bytes_max:,} (result_bytes); keep what is needed later, "
            "or a reference to where the rest is"
        )
    return encoded


def loaded(encoded: bytes | None, kind: Any, what: str) -> Any:
    """The stored value, as the type that it is declared to be. Raises InvalidValue."""
    return None if encoded is None else codec.decode_as(encoded, kind, what)


def check_returns(kind: Any, step: str) -> None:
    """Raises InvalidValue when nothing that the step's callback returned could be read as the type that it declares."""
    if kind is Any or (kind.__class__ is type and kind in _READABLE):
        return
    why = _why_unreadable_class(kind) if isinstance(kind, type) else _why_unreadable(kind)
    if why is not None:
        raise InvalidValue(
            f"step {step!r} was not run: its callback is annotated to return {codec.name_of(kind)}, which nothing can "
            f"be read as: {why}; declare another type, or none"
        )


_READABLE = EXACT | {bytearray, object}
_checked: WeakSet[type] = WeakSet()  # of the user's classes, which may be of no more use some time


def _why_unreadable_class(kind: type) -> str | None:
    if kind in _checked:
        return None
    why = why_unreadable(kind)
    if why is None:
        _checked.add(kind)
    return why


def _why_unreadable(kind: Any) -> str | None:
    try:
        return _why_unreadable_once(kind)
    except TypeError:  # it cannot be hashed
        return why_unreadable(kind)


_why_unreadable_once = lru_cache(maxsize=1024)(why_unreadable)


def returned(value: Any, kind: Any, step: str) -> tuple[bytes | None, Any]:
    """What the step's callback has returned, as it is stored and as it is read again. Raises InvalidValue."""
    try:
        encoded = None if value is None else codec.encode(value)
        if type(value) not in PLAIN or (kind is not Any and kind is not type(value)):
            value = loaded(encoded, kind, "its result")
    except InvalidValue as error:
        why = error
        if isinstance(error.__cause__, msgspec.ValidationError):
            why = InvalidValue(
                f"it returned a {type(value).__name__}, and is annotated to return {codec.name_of(kind)} "
                f"({error.__cause__}); correct what is wrong of the two"
            )
        raise InvalidValue(f"step {step!r} was run, and what it did is done, but without a result: {why}") from error
    return encoded, value


def first_event(run: Callable[..., Any], created: Entry, id: str, what: str) -> Event[Any]:
    """What the body `run` is given, of an instance that begins with that entry. Raises InvalidValue.

    `what`: how an error names the payload.
    """
    payload = loaded(created.value, payload_of(run), what)
    return Event(payload=payload, timestamp=created.created_at, id=id, scheduled_time=created.scheduled)
