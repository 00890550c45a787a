"""Whether any value that is stored can be read as a type: seen in the type alone. Pure."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from .extensions import EXACT

_FIELDS = (inspect.StructType, inspect.DataclassType, inspect.NamedTupleType, inspect.TypedDictType)
_ITEMS = (inspect.ListType, inspect.VarTupleType, inspect.SetType, inspect.FrozenSetType)
_NOT_HASHABLE = (
    inspect.StructType, inspect.DataclassType, inspect.TypedDictType, inspect.DictType, inspect.ListType,
    inspect.SetType,
)  # fmt: skip


def why_unreadable(kind: Any) -> str | None:
    """Why no value can be read as this type but an empty one, as [] is for `list[X]`; None: some can."""
    try:
        msgspec.convert(None, kind)
    except msgspec.ValidationError:
        pass
    except Exception as error:
        return str(error)
    try:
        info = inspect.type_info(kind)
    except Exception:  # it tells nothing of a type that msgspec reads: so do we
        return None
    return _why(info, {})


def _why(info: inspect.Type, known: dict[int, str | None], may_be_none: bool = False) -> str | None:
    """`known`: of classes with fields, which may have themselves in these; `may_be_none`: None counts as well."""
    if isinstance(info, inspect.Metadata):
        return _why(info.type, known, may_be_none)
    if isinstance(info, inspect.CustomType):
        return _why_not(info.cls)
    if isinstance(info, inspect.UnionType):
        kinds = [each for each in info.types if may_be_none or not isinstance(each, inspect.NoneType)]
        reasons = [_why(each, known) for each in kinds]
        return None if None in reasons else reasons[0]
    if isinstance(info, _FIELDS):
        if id(info) not in known:
            known[id(info)] = None
            known[id(info)] = _why_no_field(info, known)
        return known[id(info)]
    return next((why for why in _of_parts(info, known) if why is not None), None)


def _of_parts(info: inspect.Type, known: dict[int, str | None]) -> Iterator[str | None]:
    hashed: inspect.Type | None = None
    if isinstance(info, _ITEMS):
        yield _why(info.item_type, known)
        hashed = info.item_type if isinstance(info, (inspect.SetType, inspect.FrozenSetType)) else None
    elif isinstance(info, inspect.TupleType):
        yield from (_why(each, known) for each in info.item_types)
    elif isinstance(info, inspect.DictType):
        yield _why(info.key_type, known)
        yield _why(info.value_type, known)
        hashed = info.key_type
    if isinstance(hashed, _NOT_HASHABLE):
        yield "items of a set and keys of a dict come back as plain data, and must be hashable as such"


def _why_no_field(info: Any, known: dict[int, str | None]) -> str | None:
    for field in info.fields:
        if field.required or not isinstance(info, inspect.TypedDictType):
            why = _why(field.type, known, may_be_none=True)
            if why is not None:
                return f"field {field.name!r} of {info.cls.__qualname__}: {why}"
    return None


def _why_not(cls: type) -> str | None:
    """Of a class that msgspec does not know: a value is read as that when it is an instance."""
    if any(_is_one(kind, cls) for kind in EXACT):
        return None
    base = next((kind for kind in cls.__mro__ if kind in EXACT), None)
    if base is not None:
        if type(cls).__instancecheck__ not in (type.__instancecheck__, ABCMeta.__instancecheck__):
            return None  # it may call plain values its instances
        return f"values of type {cls.__qualname__} come back as {base.__name__}"
    return (
        f"a value of type {cls.__qualname__} cannot be stored: it is neither plain data nor a msgspec Struct, "
        "dataclass, attrs class, NamedTuple, TypedDict or Enum"
    )


def _is_one(kind: type, cls: type) -> bool:
    try:
        return issubclass(kind, cls)
    except TypeError:  # a protocol with attributes: that is seen in values only
        return True
