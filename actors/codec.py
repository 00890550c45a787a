"""Values: how they are stored, and how they cross between actor and caller without shared mutable state. Pure."""

from __future__ import annotations

import copy
import dataclasses
import enum
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from pathlib import PurePath
from typing import Any
from uuid import UUID

import msgspec

from .errors import InvalidMessage, InvalidValue
from .extensions import PLAIN, pack, unpack
from .readable import why_unreadable

_encode = msgspec.msgpack.Encoder().encode
_canonical = msgspec.msgpack.Encoder(order="deterministic").encode
_canonical_json = msgspec.json.Encoder(order="deterministic").encode

ATOMS = frozenset(
    {type(None), bool, int, float, str, bytes, complex, datetime, date, time, timedelta, timezone, Decimal, UUID}
    | {msgspec.UnsetType}
)
"""Immutable types whose values pass as they are."""


decode = msgspec.msgpack.Decoder(ext_hook=unpack).decode
"""The value of stored bytes, exactly; structs, dataclasses and enums come back as dicts and plain values."""


def encode(value: Any) -> bytes:
    """A value as it is stored: msgpack, with the extensions of `extensions`. Raises InvalidValue."""
    try:
        return _encode(value if type(value) in PLAIN else pack(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidValue(
            f"a {type(value).__name__} cannot be stored: {error}; store plain data (msgspec values, 64-bit integers)"
        ) from error


def decode_as(stored: bytes, kind: Any, what: str) -> Any:
    """The stored value as the type that it is declared to be. Raises InvalidValue; `what` is named in it."""
    try:
        value = decode(stored)
    except Exception as error:
        raise damaged(what, error) from error
    try:
        return value if kind is Any else msgspec.convert(value, kind)
    except Exception as error:
        why = why_unreadable(kind) if isinstance(error, msgspec.ValidationError) else str(error)
        if why is not None:
            raise InvalidValue(f"{what} cannot be read as {name_of(kind)}: {why}; declare another type") from error
        raise InvalidValue(
            f"{what} is no {name_of(kind)}: {error}; read it as the type that it was stored as"
        ) from error


def name_of(kind: Any) -> str:
    """What a type is called, for messages to people."""
    return "None" if kind is type(None) else getattr(kind, "__qualname__", str(kind))


def damaged(what: str, error: Exception) -> InvalidValue:
    """The error for stored bytes that `decode` cannot read, whatever it raised."""
    reason = f"{type(error).__name__}: {error}"
    return InvalidValue(f"{what} is damaged, or was not written by z0 ({reason}); replace or delete it")


def digest(value: object) -> bytes:
    """32 bytes that are equal for equal values, whatever the order of their keys. Raises InvalidValue."""
    try:
        return blake2b(_canonical(value), digest_size=32).digest()
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidValue(f"a value cannot be compared by its hash: {error}; send msgspec values") from error


def same_json(one: object, other: object) -> bool:
    """Whether two JSON values are the same, types included: 1, 1.0 and true are not, the order of keys is none."""
    return one == other and _canonical_json(one) == _canonical_json(other)


def share(value: Any) -> Any:
    """The value, or a copy of what is mutable in it: nothing that either side can change under the other.

    Immutable values, tuples and frozensets of them included, pass as they are; lists, dicts, sets, bytearrays,
    structs and dataclasses are copied, deeply. Raises InvalidMessage for anything else.
    """
    kind = type(value)
    if kind in ATOMS:
        return value
    try:
        return copier(kind)(value)  # type: ignore[arg-type]  # a class is hashable, whatever its metaclass says
    except RecursionError:
        raise _too_deep() from None


def _too_deep() -> InvalidMessage:
    return InvalidMessage("a value that is nested too deeply, or in a circle, cannot travel in a message; flatten it")


@lru_cache(maxsize=1024)
def copier(kind: Any) -> Callable[[Any], Any]:
    """How values of this type are shared."""
    own = getattr(kind, "__z0_share__", None)
    if own is not None:
        return own  # type: ignore[no-any-return]
    for base, function in _COPIERS.items():
        if kind is base:
            return function
    if issubclass(kind, (enum.Enum, type, PurePath, *ATOMS)):
        return _itself
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _copy_named_tuple
    if issubclass(kind, msgspec.Struct):
        return _copy_struct
    if dataclasses.is_dataclass(kind):
        return _copy_dataclass
    raise InvalidMessage(
        f"a {kind.__module__}.{kind.__qualname__} cannot travel in a message; send plain data "
        "(msgspec values), and give clients and settings to actors as Runtime(env=...)"
    )


def size(value: Any) -> int:
    """About how many bytes the value holds; for bounds, not for accounts."""
    kind = type(value)
    if kind is str or kind is bytes or kind is bytearray:
        return 48 + len(value)
    if kind is dict:
        return 64 + sum(size(key) + size(item) for key, item in value.items())
    if kind in (list, tuple, set, frozenset):
        return 56 + sum(map(size, value))
    if isinstance(value, msgspec.Struct):
        return 48 + sum(size(getattr(value, name)) for name in value.__struct_fields__)
    return 32


def weigh(*values: Any) -> int:
    """As `size`, quickly where msgspec can encode the values. Raises InvalidMessage for what is nested too deeply."""
    try:
        return len(_encode(values))
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass
    try:
        return size(values)
    except RecursionError:
        raise _too_deep() from None


def _itself(value: Any) -> Any:
    return value


def _copy_list(value: list[Any]) -> list[Any]:
    return [item if type(item) in ATOMS else share(item) for item in value]


def _copy_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    return {
        key if type(key) in ATOMS else share(key): item if type(item) in ATOMS else share(item)
        for key, item in value.items()
    }


def _copy_tuple(value: tuple[Any, ...]) -> tuple[Any, ...]:
    items = [share(item) for item in value]
    same = all(new is old for new, old in zip(items, value, strict=True))
    return value if same else tuple(items)


def _copy_named_tuple(value: Any) -> Any:
    items = _copy_tuple(tuple(value))
    return value if all(new is old for new, old in zip(items, value, strict=True)) else type(value)(*items)


def _copy_frozenset(value: frozenset[Any]) -> frozenset[Any]:
    items = {id(item): share(item) for item in value}
    same = all(id(new) == old for old, new in items.items())
    return value if same else frozenset(items.values())


def _copy_set(value: set[Any]) -> set[Any]:
    return {share(item) for item in value}


def _copy_struct(value: msgspec.Struct) -> msgspec.Struct:
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    shared = {name: share(item) for name, item in fields.items()}
    if value.__struct_config__.frozen and all(shared[name] is fields[name] for name in fields):
        return value
    new = copy.copy(value)
    for name, item in shared.items():
        msgspec.structs.force_setattr(new, name, item)
    return new


def _copy_dataclass(value: Any) -> Any:
    new = copy.copy(value)
    for field in dataclasses.fields(value):
        object.__setattr__(new, field.name, share(getattr(value, field.name)))
    return new


_COPIERS: dict[type, Callable[[Any], Any]] = {
    list: _copy_list,
    dict: _copy_dict,
    tuple: _copy_tuple,
    frozenset: _copy_frozenset,
    set: _copy_set,
    bytearray: bytearray,
}
