"""Events: what an instance is told from outside, and what its body begins with. Pure."""

from __future__ import annotations

import dataclasses
import enum
import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec

from z0.actors.errors import InvalidName

T = TypeVar("T")
EVENT_TIMEOUT = "24 hours"
_TYPE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_ID_MAX = 256
_SCALARS = (str, int, float, bool, type(None))
_TEXTS = (enum.Enum, UUID, Decimal, date, time, timedelta, bytes)  # they match their value, or what msgspec writes


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


def check_match(match: object) -> None:
    """What a wait looks for in payloads. Raises TypeError."""
    if match is None:
        return
    if not isinstance(match, dict) or not all(isinstance(each, str) for each in match):
        raise TypeError(f"match={match!r}: give a dict of the payload's fields and their values")
    for name, value in match.items():
        if type(value) not in _SCALARS:
            raise TypeError(f"match: {name!r} is a {type(value).__name__}; match strings, numbers, bools and None")


def check_event_id(id: object) -> str:
    """The id of an event, as its sender gives it. Raises InvalidName."""
    if not isinstance(id, str) or not 0 < len(id) <= _ID_MAX:
        raise InvalidName(f"event id {id!r}", f"is not a string of 1 to {_ID_MAX} characters")
    return id


def fields_of(payload: Any) -> dict[str, Any]:
    """What of a payload a wait can match: the plain values at its top, by their names as they are stored."""
    if isinstance(payload, msgspec.Struct):
        fields = _of_struct(payload)
    elif dataclasses.is_dataclass(payload):
        fields = {field.name: getattr(payload, field.name) for field in dataclasses.fields(payload)}
    else:
        fields = payload if isinstance(payload, dict) else {}
    plain = {name: msgspec.to_builtins(value) if isinstance(value, _TEXTS) else value for name, value in fields.items()}
    return {name: value for name, value in plain.items() if isinstance(name, str) and isinstance(value, _SCALARS)}


def _of_struct(payload: msgspec.Struct) -> dict[str, Any]:
    """Its fields by name, also of one that is stored as an array."""
    config = payload.__struct_config__
    fields: dict[str, Any] = {} if config.tag is None else {config.tag_field or "type": config.tag}
    for name, stored in zip(payload.__struct_fields__, payload.__struct_encode_fields__, strict=True):
        fields[stored] = getattr(payload, name)
    return fields
