"""Values: what is stored comes back exactly as it was, or as the type that it was declared to be."""

from __future__ import annotations

import dataclasses
import enum
import math
import sqlite3
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import z0
from z0.actors import codec
from z0.actors.extensions import DEPTH_MAX
from z0.testing import VirtualClock, temporary_runtime

offsets = st.integers(-86_000, 86_000).map(lambda seconds: timezone(timedelta(seconds=seconds)))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
plain = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | texts | st.binary()
atoms = (
    plain
    | st.dates()
    | st.times(timezones=st.none() | offsets)
    | st.timedeltas()
    | st.datetimes(timezones=st.none() | st.just(UTC) | offsets)
    | st.decimals(allow_nan=False)
    | st.uuids()
)
hashables = st.recursive(atoms, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4)
values = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(hashables, max_size=3)
        | st.frozensets(hashables, max_size=3)
        | st.dictionaries(hashables, inner, max_size=3)
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other) or bool(one != other):
        return False
    if isinstance(one, (list, tuple)):
        return all(map(same, one, other))
    if isinstance(one, dict):
        return all(same(a, b) and same(one[a], other[b]) for a, b in zip(one, other, strict=True))
    if isinstance(one, (set, frozenset)):
        return all(any(same(a, b) for b in other) for a in one)  # equal sets: each has one counterpart
    if isinstance(one, (datetime, time)):
        return bool(one.utcoffset() == other.utcoffset())
    return repr(one) == repr(other)


@given(values)
def test_every_value_comes_back_exactly(value: Any) -> None:
    assert same(codec.decode(codec.encode(value)), value)


@given(values)
def test_what_an_earlier_version_stored_still_decodes(value: Any) -> None:
    try:
        before = msgspec.msgpack.encode(value)
        seen = msgspec.msgpack.decode(before)
    except (TypeError, ValueError, OverflowError):
        return
    assert codec.decode(before) == seen


@pytest.mark.parametrize(
    "value",
    [Decimal("1.10"), Decimal("NaN"), Decimal("-0E+7"), -0.0, math.nan, UUID(int=0), datetime.min, date.max, (), set()],
    ids=repr,
)
def test_the_odd_ones_come_back_too(value: Any) -> None:
    back = codec.decode(codec.encode([value]))[0]
    assert (type(back), repr(back)) == (type(value), repr(value))


def test_a_time_zone_is_kept_as_its_offset() -> None:
    value = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    back = codec.decode(codec.encode(value))
    assert (back, back.utcoffset()) == (value, timedelta(hours=2))


class Colour(enum.Enum):
    RED = "red"


class Line(msgspec.Struct, frozen=True, rename="camel", tag=True):
    unit_price: Decimal
    tags: frozenset[str] = frozenset()
    note: str | msgspec.UnsetType = msgspec.UNSET


class Cart(msgspec.Struct):
    lines: tuple[Line, ...]
    due: date
    owner: UUID
    by_day: dict[date, int]


@dataclasses.dataclass
class Box:
    colour: Colour
    span: timedelta


@attrs.define
class Parcel:
    weight: Decimal
    marks: set[str]
    _seal: date
    stamped: datetime = attrs.field(init=False)


CART = Cart((Line(Decimal("1.10"), frozenset({"new"})),), date(2026, 11, 22), UUID(int=7), {date(2026, 1, 1): 3})
BOX = Box(Colour.RED, timedelta(seconds=1.5))


class Shelf(z0.Actor):
    async def put(self, number: int) -> None:
        self.storage.put(f"k{number}", [CART, BOX, OrderedDict(b=1), {"not": "a cart"}][number])

    async def check(self) -> None:
        storage = self.storage
        cart: Cart | None = storage.get("k0", type=Cart)
        assert cart == CART
        assert storage.get("k1", type=Box) == BOX
        assert storage.get(["k0", "none"], type=Cart) == {"k0": CART}
        assert storage.list(prefix="k0", type=Cart) == {"k0": CART}
        assert storage.get("none", type=Cart) is None
        assert storage.get("none", 5, type=Cart) == 5
        assert storage.get("k1") == {"colour": "red", "span": timedelta(seconds=1.5)}
        assert storage.get("k0")["lines"] == (
            {"type": "Line", "unitPrice": Decimal("1.10"), "tags": frozenset({"new"})},
        )
        assert storage.get("k2") == {"b": 1}
        for wrong in (lambda: storage.get("k3", type=Cart), lambda: storage.list(type=Cart)):
            with pytest.raises(z0.InvalidValue, match=r"the value of key 'k\d' is no Cart: .*lines"):
                wrong()

    @z0.idempotent("key")
    async def buy(self, key: str) -> Any:
        return (Decimal("1.10"), {1, 2}, date(2026, 11, 22))

    @z0.idempotent("key")
    async def cart(self, key: str) -> Cart:
        return CART


async def test_structs_come_back_as_the_type_asked_for_and_else_as_dicts() -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        shelf = runtime.get(Shelf, "a")
        for number in range(4):
            await shelf.put(number)
        await shelf.check()


async def test_a_repeated_reply_is_as_the_first() -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        shelf = runtime.get(Shelf, "a")
        for _ in range(2):
            assert same(await shelf.buy(key="k"), (Decimal("1.10"), {1, 2}, date(2026, 11, 22)))
        assert [await shelf.cart(key="c") for _ in range(2)] == [CART, CART]


def test_an_attrs_object_comes_back_exactly_as_a_dataclass_does() -> None:
    parcel = Parcel(Decimal("1.10"), {"fragile"}, date(2026, 11, 22))
    back = codec.decode(codec.encode([parcel]))[0]
    assert same(back, {"weight": Decimal("1.10"), "marks": {"fragile"}, "_seal": date(2026, 11, 22)})
    parcel.stamped = datetime(2026, 11, 23)
    assert codec.decode_as(codec.encode(parcel), Parcel, "the parcel") == parcel


def test_an_attrs_object_that_an_earlier_version_stored_still_decodes() -> None:
    parcel = Parcel(Decimal("1.10"), {"fragile"}, date(2026, 11, 22))
    parcel.stamped = datetime(2026, 11, 23, tzinfo=UTC)
    stored = msgspec.msgpack.encode(msgspec.to_builtins(parcel) | {"_seal": "2026-11-22"})
    assert codec.decode_as(stored, Parcel, "the parcel") == parcel


def nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = (value,)
    return value


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**63) - 1,
        {"deep": [2**70]},
        object(),
        1j,
        {object()},
        "\ud800",
        time(12, tzinfo=ZoneInfo("Europe/Berlin")),
        {Line(Decimal(1)): 1},
        {Line(Decimal(1))},
        frozenset([(Line(Decimal(1)),)]),
        {(Line(Decimal(1)),): 1},
        {Colour.RED: 1, Colour.RED.value: 2},
        {Colour.RED, Colour.RED.value},
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(microseconds=1))),
        msgspec.msgpack.Ext(1, b""),
        nested(0, DEPTH_MAX + 1),
        CIRCLE,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_stored_is_refused_with_the_reason(value: Any) -> None:
    with pytest.raises(z0.InvalidValue, match=r"cannot be stored: .+; store plain data"):
        codec.encode(value)


def test_values_may_be_nested_deeply() -> None:
    value = nested(0, DEPTH_MAX)
    assert codec.decode(codec.encode(value)) == value


def test_extensions_of_others_stay_as_they_are() -> None:
    value = msgspec.msgpack.Ext(99, b"theirs")
    assert codec.decode(codec.encode([value])) == [value]


class Damaged(z0.Actor):
    async def put(self, value: Any) -> None:
        self.storage.put("k", value)

    async def plain(self) -> Any:
        return self.storage.get("k")

    async def all_of_them(self) -> Any:
        return self.storage.list()

    async def typed(self) -> Any:
        return self.storage.get("k", type=int)


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\x92\x01",
        b"\xc1",
        "text",
        *(msgspec.msgpack.encode(msgspec.msgpack.Ext(code, b"\xff?")) for code in range(1, 11)),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(2, b"\x91\x90")),
        b"\x91" * 10_000,
    ],
)
async def test_a_damaged_value_is_named_and_can_be_replaced(stored: Any) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        actor = runtime.get(Damaged, "a")
        await actor.put(1)
        await runtime.evict(Damaged, "a")
        with sqlite3.connect(runtime.path / "default" / "Damaged" / "a.sqlite") as file:
            file.execute("UPDATE z0_kv SET value = ?", (stored,))
        file.close()
        for read in actor.plain, actor.all_of_them, actor.typed:
            with pytest.raises(z0.InvalidValue, match=r"the value of key 'k' is damaged.*replace or delete it"):
                await read()
        await actor.put(2)
        assert await actor.plain() == 2


def test_sets_are_compared_whatever_order_they_are_printed_in() -> None:
    midnight = time(0, 0)
    assert same({frozenset({None, midnight}), frozenset({None})}, {frozenset({None}), frozenset({midnight, None})})
    assert not same({1, "a"}, {1.0, "a"})
    assert not same({frozenset({1})}, {frozenset({True})})
