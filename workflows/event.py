"""Events: what an instance is told from outside, and what its body begins with. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from z0.actors.errors import InvalidName

T = TypeVar("T")
EVENT_TIMEOUT = "24 hours"
_TYPE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_SCALARS = (str, int, float, bool, type(None))


class Event(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Something that an instance was told."""

    payload: T
    timestamp: datetime
    """When it was sent; aware, UTC."""
    type: str = ""
    """Of the event that the body begins with: ""."""
    id: str = ""
    """The sender's, by which a repeated event is known; of the one that the body begins with: the instance's."""
    scheduled_time: datetime | None = None
    """Of the event that the body of a scheduled instance begins with: when it was to begin."""


def check_type(type: object) -> str:
    """The type of an event. Raises InvalidName."""
    if not isinstance(type, str) or not _TYPE.fullmatch(type):
        raise InvalidName(f"event type {type!r}", "is not 1 to 100 letters, digits, '_', '.' or '-'")
    return type


def fields_of(payload: Any) -> dict[str, Any]:
    """What of a payload a wait can match: the plain values at its top."""
    plain = msgspec.to_builtins(payload) if isinstance(payload, msgspec.Struct) else payload
    if not isinstance(plain, dict):
        return {}
    return {name: value for name, value in plain.items() if isinstance(name, str) and isinstance(value, _SCALARS)}
