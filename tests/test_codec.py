"""Values cross between actor and caller without shared mutable state; spans are read in one way."""

from __future__ import annotations

import enum
import threading
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import z0
from z0.actors import codec
from z0.actors.clock import seconds
from z0.actors.codec import share


class Colour(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    tags: Any = ()


class Open(msgspec.Struct):
    items: list[int]
    name: str = ""


class Frozen(msgspec.Struct, frozen=True):
    value: Any = None


class Tagged(str):
    __slots__ = ()


@dataclass
class Box:
    items: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sealed:
    items: Any


Legacy = namedtuple("Legacy", ["items"])

IMMUTABLE = [
    None,
    True,
    7,
    2**200,
    1.5,
    "text",
    b"bytes",
    1j,
    datetime(2026, 1, 1, tzinfo=UTC),
    date(2026, 1, 1),
    time(1, 2),
    timedelta(1),
    UTC,
    Decimal("1.10"),
    UUID(int=7),
    Colour.RED,
    int,
    PurePosixPath("a/b"),
    Tagged("x"),
    (),
    (1, "a", (2, None)),
    frozenset({1, 2}),
    Point(1, (2, 3)),
    Frozen((1, 2)),
]


@pytest.mark.parametrize("value", IMMUTABLE, ids=repr)
def test_an_immutable_value_passes_as_it_is(value: object) -> None:
    assert share(value) is value


MUTABLE = [
    [1, 2],
    [],
    {"a": 1},
    {},
    {1, 2},
    bytearray(b"abc"),
    Open([1, 2]),
    Open([], name="x"),
    Box([1]),
]


@pytest.mark.parametrize("value", MUTABLE, ids=repr)
def test_a_mutable_value_is_copied_and_keeps_its_type(value: object) -> None:
    copy = share(value)
    assert copy is not value
    assert copy == value
    assert type(copy) is type(value)


@pytest.mark.parametrize(
    ("value", "inner"),
    [
        (([1], 2), lambda value: value[0]),
        ({"a": {"b": [1]}}, lambda value: value["a"]["b"]),
        ([[[1]]], lambda value: value[0][0]),
        (Point(1, [2]), lambda value: value.tags),
        (Legacy([1]), lambda value: value.items),
        (Open([1]), lambda value: value.items),
        (Frozen([1]), lambda value: value.value),
        (Frozen(Frozen([1])), lambda value: value.value.value),
        (Box([1]), lambda value: value.items),
        (Sealed([1]), lambda value: value.items),
        ([Open([1])], lambda value: value[0].items),
        ({"k": ({"x": [1]},)}, lambda value: value["k"][0]["x"]),
    ],
    ids=lambda value: None if callable(value) else repr(value),
)
def test_what_is_mutable_deep_inside_is_copied_too(value: Any, inner: Any) -> None:
    copy = share(value)
    assert copy == value
    inner(copy).append(99)
    assert inner(value) != inner(copy)


def test_a_tuple_stays_a_tuple_when_something_in_it_is_copied() -> None:
    copy = share((1, [2]))
    assert type(copy) is tuple
    assert type(share(Point(1, [2]))) is Point


class Hooked:
    def __z0_share__(self) -> str:
        return "its own copy"


def test_a_class_may_say_how_it_is_shared() -> None:
    assert share([Hooked()]) == ["its own copy"]


class Plain:
    pass


@pytest.mark.parametrize(
    "value",
    [Plain(), lambda: None, open, threading.Lock(), iter(()), ValueError("x"), defaultdict(list), OrderedDict()],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"deep": [(value,)]}], ids=["bare", "inside"])
def test_anything_else_is_refused_by_the_name_of_its_type(value: object, wrap: Any) -> None:
    with pytest.raises(z0.InvalidMessage, match=type(value).__qualname__) as caught:
        share(wrap(value))
    assert "Runtime(env=...)" in str(caught.value)
    assert not caught.value.retryable


def test_a_frozenset_is_no_disguise() -> None:
    with pytest.raises(z0.InvalidMessage, match="Plain"):
        share(frozenset({Plain()}))


@dataclass(unsafe_hash=True)
class Named:
    name: str


def test_what_is_mutable_in_a_frozenset_is_copied_although_the_copy_is_equal() -> None:
    value = frozenset({Named("a")})
    (copy,) = share(value)
    copy.name = "changed"
    assert [item.name for item in value] == ["a"]


def test_a_refusal_is_also_a_type_error() -> None:
    with pytest.raises(TypeError):
        share(object())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.tuples(inner, inner)
        | st.builds(Frozen, inner)
    ),
    max_leaves=12,
)


def mutables(value: Any) -> list[int]:
    """Identities of every mutable object in the value."""
    if isinstance(value, list):
        return [id(value)] + [each for item in value for each in mutables(item)]
    if isinstance(value, dict):
        return [id(value)] + [each for item in value.values() for each in mutables(item)]
    if isinstance(value, tuple):
        return [each for item in value for each in mutables(item)]
    return mutables(value.value) if isinstance(value, Frozen) else []


@given(values)
def test_a_shared_value_is_equal_and_has_no_mutable_object_in_common(value: object) -> None:
    copy = share(value)
    assert copy == value
    assert not set(mutables(value)) & set(mutables(copy))


@given(st.dictionaries(st.text(max_size=4), st.integers(-(2**63), 2**63 - 1), max_size=6), st.randoms())
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, int], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    assert codec.digest({key: value[key] for key in keys}) == codec.digest(value)
    assert len(codec.digest(value)) == 32


def test_different_values_have_different_digests() -> None:
    values = [None, 0, "0", b"0", [0], {"0": 0}, {"0": 1}, 0.5, [], {}]
    assert len({codec.digest(value) for value in values}) == len(values)


@given(values)
def test_a_size_is_at_least_the_bytes_that_the_value_holds(value: object) -> None:
    def held(value: Any) -> int:
        if isinstance(value, (str, bytes)):
            return len(value)
        if isinstance(value, dict):
            return sum(held(key) + held(item) for key, item in value.items())
        if isinstance(value, (list, tuple)):
            return sum(map(held, value))
        return held(value.value) if isinstance(value, Frozen) else 0

    assert codec.size(value) >= held(value)


# Spans


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (0, 0),
        (90, 90),
        (0.25, 0.25),
        (timedelta(minutes=2, milliseconds=5), 120.005),
        ("250 ms", 0.25),
        ("1 second", 1),
        ("2 seconds", 2),
        ("10 minutes", 600),
        ("1 minute", 60),
        ("24 hours", 86_400),
        ("1.5 hours", 5_400),
        ("30 days", 2_592_000),
        ("2 weeks", 1_209_600),
        ("1 month", 2_592_000),
        ("1 year", 31_536_000),
        ("10minutes", 600),
        ("  7   days ", 604_800),
    ],
    ids=repr,
)
def test_a_span_is_a_timedelta_seconds_or_a_number_with_a_unit(span: Any, expected: float) -> None:
    assert seconds(span) == pytest.approx(expected)


@pytest.mark.parametrize(
    "span",
    [
        "",
        "10",
        "minutes",
        "ten minutes",
        "-1 second",
        "1 fortnight",
        "1 mss",
        "1 m",
        "1 s",
        "1e3 seconds",
        "1 hour 30 minutes",
        "1 Minute",
        -1,
        -0.001,
        timedelta(seconds=-1),
        float("nan"),
        float("inf"),
        True,
        None,
        b"1 second",
        "9" * 400 + " years",
    ],
    ids=repr,
)
def test_anything_else_is_no_span(span: Any) -> None:
    with pytest.raises(ValueError, match="not a span"):
        seconds(span)


@given(st.timedeltas(timedelta(0), timedelta(days=36_500)))
def test_a_timedelta_is_its_seconds(span: timedelta) -> None:
    assert seconds(span) == span.total_seconds()
