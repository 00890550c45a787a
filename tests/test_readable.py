"""Types as which something can be read, and those as which nothing can: told without a value."""

from __future__ import annotations

import collections
import dataclasses
import enum
import numbers
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, Protocol, TypedDict, TypeVar, runtime_checkable
from uuid import UUID

import attrs
import msgspec
import pytest

import z0
from z0.actors import codec
from z0.actors.readable import why_unreadable

T = TypeVar("T")


class Plain:
    """No data."""


class Email(str):
    """Text, but of a type of its own."""


class Decides(type):
    """Says itself what its instances are."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, int) and instance > 0


class Positive(int, metaclass=Decides):
    """Plain numbers are instances of it."""


class Kind(enum.Enum):
    A = "a"


class Point(NamedTuple):
    x: int


class Named(TypedDict, total=False):
    name: str
    path: Path


class Payment(msgspec.Struct):
    id: UUID
    by: Plain | None = None
    note: str | msgspec.UnsetType = msgspec.UNSET


@attrs.frozen
class Parcel:
    weight: Decimal


@dataclasses.dataclass
class Tree:
    kids: list[Tree]
    twin: Tree | None = None


@dataclasses.dataclass
class Rotten:
    kids: list[Rotten]
    core: Plain


@dataclasses.dataclass
class Basket:
    lid: Tree
    apples: dict[str, tuple[Rotten, ...]]


@runtime_checkable
class Sized(Protocol):
    size: int


class Odd(Protocol):
    size: int


READ: list[tuple[Any, Any]] = [
    (Any, 1),
    (None, None),
    (object, 1),
    (T, 1),
    (int | str | None, "a"),
    (Literal["a", 1], 1),
    (Annotated[int, msgspec.Meta(title="cents")], 1),
    (NewType("Cents", int), 1),
    (Decimal, Decimal("1.10")),
    (datetime, datetime(2026, 1, 1, tzinfo=UTC)),
    (date, date(2026, 1, 1)),
    (time, time(1)),
    (timedelta, timedelta(1)),
    (UUID, UUID(int=1)),
    (bytes, b"a"),
    (bytearray, bytearray(b"a")),
    (Kind, Kind.A),
    (set[Kind], {Kind.A}),
    (frozenset[tuple[int, str]], frozenset({(1, "a")})),
    (dict[date, Point], {date(2026, 1, 1): Point(1)}),
    (Point, Point(1)),
    (Named, {"name": "a"}),
    (Payment, Payment(UUID(int=1))),
    (Parcel, Parcel(Decimal(1))),
    (Tree, Tree([Tree([])])),
    (z0.Fact | None, z0.Fact("id", 1, "charge")),
    (Sequence[int], [1]),
    (Iterable[int], [1]),
    (Mapping[str, Kind], {"a": Kind.A}),
    (Hashable, 1),
    (numbers.Number, 1),
    (Positive, 1),
    (msgspec.msgpack.Ext, msgspec.msgpack.Ext(99, b"")),
]


@pytest.mark.parametrize(("kind", "value"), READ, ids=[str(kind)[:60] for kind, _ in READ])
def test_what_can_be_read_as_a_type_is_no_reason_to_refuse_it(kind: Any, value: Any) -> None:
    assert why_unreadable(kind) is None
    assert codec.decode_as(codec.encode(value), kind, "the value") == value


def test_a_protocol_with_attributes_is_seen_in_values_only() -> None:
    assert why_unreadable(Sized) is None


NOT_READ = [
    (Plain, "a value of type Plain cannot be stored: it is neither plain data nor a"),
    (Email, "values of type Email come back as str"),
    (type("Instant", (datetime,), {}), "values of type Instant come back as datetime"),
    (collections.Counter[str], "values of type Counter come back as dict"),
    (collections.deque, "a value of type deque"),
    (Fraction, "a value of type Fraction"),
    (complex, "a value of type complex"),
    (timezone, "a value of type timezone"),
    (Odd, "@runtime_checkable"),
    (Plain | int, "not supported"),
    (Plain | None, "a value of type Plain"),
    (Annotated[Plain, 1], "a value of type Plain"),
    (Annotated[list[Path], msgspec.Meta(title="files")], "a value of type Path"),
    (tuple[int, Plain], "a value of type Plain"),
    (dict[str, list[Plain | None]], "a value of type Plain"),
    (dict[Plain, int], "a value of type Plain"),
    (Basket, "field 'apples' of Basket: field 'core' of Rotten: a value of type Plain"),
    (frozenset[Tree], "items of a set and keys of a dict come back as plain data, and must be hashable"),
    (dict[Parcel, int], "items of a set and keys of a dict come back as plain data, and must be hashable"),
]


@pytest.mark.parametrize(("kind", "why"), NOT_READ, ids=[str(kind)[:60] for kind, _ in NOT_READ])
def test_a_type_as_which_nothing_comes_back_is_told_with_the_reason(kind: Any, why: str) -> None:
    assert why in str(why_unreadable(kind))


def test_a_value_that_is_read_as_what_nothing_can_be_is_told_why_and_not_that_it_does_not_fit() -> None:
    stored = codec.encode(collections.OrderedDict(a=1))
    with pytest.raises(
        z0.InvalidValue, match="read as OrderedDict: values of type OrderedDict come back as dict; decl"
    ):
        codec.decode_as(stored, collections.OrderedDict, "the value")
