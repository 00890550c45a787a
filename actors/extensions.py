"""What msgpack cannot say by itself: msgpack extension types for the rest of Python's plain values. Pure.

| code | value | payload |
|---|---|---|
| 1, 2, 3 | tuple, set, frozenset | a msgpack array of the items |
| 4 | dict with a key that is no None, bool, int, float, str or bytes | an array: key, value, key, value... |
| 5, 6, 7 | date, time, datetime (naive, or with an offset other than UTC's) | ISO 8601 |
| 8 | timedelta | an array: days, seconds, microseconds |
| 9 | Decimal | its text |
| 10 | UUID | its 16 bytes |
| 11 | a fact of the ledger (`declare`) | a msgpack array of its fields |

A datetime in UTC is msgpack's own timestamp. A time zone is kept as its offset, `fold` is not kept. Structs,
dataclasses, attrs objects and enums become dicts and values: their type is known to whoever reads.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import msgspec

_TUPLE, _SET, _FROZENSET, _DICT, _DATE, _TIME, _DATETIME, _SPAN, _DECIMAL, _UUID = range(1, 11)

DEPTH_MAX = 100
"""How deeply values may be nested: whoever reads them needs stack for each level."""

PLAIN = frozenset({type(None), bool, int, float, str, bytes})
"""Types that msgpack says exactly."""

T = TypeVar("T")
_Ext = msgspec.msgpack.Ext

EXACT: set[type] = {
    *PLAIN, list, dict, tuple, set, frozenset, date, time, datetime, timedelta, Decimal, UUID, _Ext,
}  # fmt: skip
"""Types whose values come back as such, without being asked for; and those that are declared."""

_encode = msgspec.msgpack.Encoder().encode


def pack(value: Any, room: int = DEPTH_MAX) -> Any:
    """The value in terms that msgpack can say. Raises TypeError, ValueError for what cannot be said.

    `room`: how many more levels may follow.
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    packer = _PACKERS.get(kind)
    if packer is None:
        packer = _packer_of(kind)
    if not room:
        raise ValueError(f"nested more than {DEPTH_MAX} deep, or in a circle")
    return packer(value, room - 1)


def declare(code: int, kind: type[T], pack: Callable[[T], bytes], unpack: Callable[[memoryview], T]) -> None:
    """Have values of this type come back as such. For the module that defines the type, when it is loaded."""
    if code in _UNPACKERS:
        raise ValueError(f"extension code {code} is taken; use another")
    _PACKERS[kind] = lambda value, room: _Ext(code, pack(value))
    _UNPACKERS[code] = unpack
    EXACT.add(kind)


def refuse(kind: type, instead: str) -> None:
    """Have values of this type refused, saying what to store instead. For the module that defines the type."""

    def refused(value: Any, _room: int) -> Any:
        raise TypeError(f"{value!r} cannot be stored; store {instead}")

    _PACKERS[kind] = refused


def unpack(code: int, data: memoryview) -> Any:
    """The value of an extension; one that is not ours stays as it is."""
    unpacker = _UNPACKERS.get(code)
    return _Ext(code, bytes(data)) if unpacker is None else unpacker(data)


_decode = msgspec.msgpack.Decoder(ext_hook=unpack).decode

Packer = Callable[[Any, int], Any]


def _packer_of(kind: Any) -> Packer:
    for base, packer in _PACKERS.items():
        if issubclass(kind, base):
            return packer
    if dataclasses.is_dataclass(kind):
        return _pack_dataclass
    return _pack_attrs if hasattr(kind, "__attrs_attrs__") else _pack_other


def _pack_other(value: Any, room: int) -> Any:
    plain = msgspec.to_builtins(value)  # raises TypeError for what is not known to msgspec either
    if type(plain) is type(value):
        raise TypeError(f"values of type {type(value).__qualname__} are unsupported")
    return pack(plain, room)


def _pack_enum(value: enum.Enum, room: int) -> Any:
    return pack(value.value, room)


def _pack_list(value: Iterable[Any], room: int) -> list[Any]:
    return [item if type(item) in PLAIN else pack(item, room) for item in value]


def _pack_tuple(value: tuple[Any, ...], room: int) -> Any:
    return _Ext(_TUPLE, _encode(_pack_list(value, room)))


def _pack_set(code: int, value: Any, room: int) -> Any:
    return _Ext(code, _encode(_pack_hashed(value, room)))


def _pack_hashed(values: Any, room: int) -> list[Any]:
    """Items of a set or keys of a dict. Raises TypeError for what could not be read again as such."""
    packed = _pack_list(values, room)
    if any(type(value) not in PLAIN for value in values):
        try:
            found = len(set(_decode(_encode(packed))))
        except TypeError:  # not hashable: structs and dataclasses come back as dicts
            found = 0
        if found != len(values):
            raise TypeError("items of a set and keys of a dict come back as plain data, and must differ as such")
    return packed


def _pack_dict(value: dict[Any, Any], room: int) -> Any:
    if all(type(key) in PLAIN for key in value):
        return {key: item if type(item) in PLAIN else pack(item, room) for key, item in value.items()}
    items = _pack_list(value.values(), room)
    return _Ext(_DICT, _encode([part for pair in zip(_pack_hashed(value, room), items, strict=True) for part in pair]))


def _pack_struct(value: msgspec.Struct, room: int) -> Any:
    config = value.__struct_config__
    fields: dict[str, Any] = {} if config.tag is None else {config.tag_field or "type": config.tag}
    for name, stored in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
        item = getattr(value, name)
        if item is not msgspec.UNSET:
            fields[stored] = pack(item, room)
    return list(fields.values()) if config.array_like else fields


def _pack_dataclass(value: Any, room: int) -> Any:
    return {field.name: pack(getattr(value, field.name), room) for field in dataclasses.fields(value)}


def _pack_attrs(value: Any, room: int) -> Any:
    names = [field.name for field in type(value).__attrs_attrs__]
    return {name: pack(getattr(value, name), room) for name in names if hasattr(value, name)}  # all but what is not set


def _pack_datetime(value: datetime, room: int) -> Any:
    if value.utcoffset() == timedelta(0):
        return value
    return _Ext(_DATETIME, _iso(value))


def _pack_time(value: time, room: int) -> Any:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise ValueError("a time of day with a time zone whose offset depends on the date; store a datetime")
    return _Ext(_TIME, _iso(value))


def _iso(value: datetime | time) -> bytes:
    offset = value.utcoffset()
    if offset is not None and offset.microseconds:  # Python itself reads some of these as UTC
        raise ValueError("an offset from UTC of a fraction of a second")
    return value.isoformat().encode()


def _pack_date(value: date, room: int) -> Any:
    return _Ext(_DATE, value.isoformat().encode())


def _pack_span(value: timedelta, room: int) -> Any:
    return _Ext(_SPAN, _encode((value.days, value.seconds, value.microseconds)))


def _pack_decimal(value: Decimal, room: int) -> Any:
    return _Ext(_DECIMAL, str(value).encode())


def _pack_uuid(value: UUID, room: int) -> Any:
    return _Ext(_UUID, value.bytes)


def _pack_ext(value: msgspec.msgpack.Ext, room: int) -> Any:
    if value.code in _UNPACKERS:
        raise ValueError(f"extension code {value.code} is z0's; use another")
    return value


def _itself(value: Any, room: int) -> Any:
    return value


_PACKERS: dict[type, Packer] = {  # the first that fits: subclasses before their bases
    enum.Enum: _pack_enum,
    list: _pack_list,
    dict: _pack_dict,
    tuple: _pack_tuple,
    set: partial(_pack_set, _SET),
    frozenset: partial(_pack_set, _FROZENSET),
    datetime: _pack_datetime,
    date: _pack_date,
    time: _pack_time,
    timedelta: _pack_span,
    Decimal: _pack_decimal,
    UUID: _pack_uuid,
    msgspec.Struct: _pack_struct,
    _Ext: _pack_ext,
    bytearray: _itself,
    memoryview: _itself,
}


def _text(data: memoryview) -> str:
    return str(data, "ascii")


def _unpack_dict(data: memoryview) -> dict[Any, Any]:
    flat = _decode(data)
    return dict(zip(flat[::2], flat[1::2], strict=True))


_UNPACKERS: dict[int, Callable[[memoryview], Any]] = {
    _TUPLE: lambda data: tuple(_decode(data)),
    _SET: lambda data: set(_decode(data)),
    _FROZENSET: lambda data: frozenset(_decode(data)),
    _DICT: _unpack_dict,
    _DATE: lambda data: date.fromisoformat(_text(data)),
    _TIME: lambda data: time.fromisoformat(_text(data)),
    _DATETIME: lambda data: datetime.fromisoformat(_text(data)),
    _SPAN: lambda data: timedelta(*_decode(data)),
    _DECIMAL: lambda data: Decimal(_text(data)),
    _UUID: lambda data: UUID(bytes=bytes(data)),
}
