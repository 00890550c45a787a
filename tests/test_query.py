"""Every filter of a query means what it says, whatever the facts hold, and finds by index what is indexed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import z0
from z0.actors.clock import EPOCH
from z0.actors.names import file_path
from z0.actors.reader import Reader
from z0.ledger import query
from z0.testing import VirtualClock, temporary_runtime

START = VirtualClock().now_us()


class Book(z0.Entity):
    """Takes any fact."""

    accepts = {"*"}


class Ticking(VirtualClock):
    """Each reading is a microsecond later."""

    us = START - 1

    def now_us(self) -> int:
        self.us += 1
        return self.us


# The model: what a filter means, in plain Python

STRINGS = (
    "tenant_id",
    "source_id",
    "from_entity",
    "to_entity",
    "currency",
    "external_source",
    "external_id",
    "trace_id",
)


def at_path(data: Any, path: str) -> Any:
    for part in path.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data


def same_json(stored: Any, wanted: Any) -> bool:
    """Numbers are equal by value; a bool is no number, and an array is no text."""
    if isinstance(stored, bool) or isinstance(wanted, bool):
        return stored is wanted
    return type(stored) in (int, float, str, type(None)) and bool(stored == wanted)


def passes(fact: z0.Fact, which: dict[str, Any]) -> bool:
    for name, wanted in which.items():
        if name == "data":
            ok = all(same_json(at_path(fact.data, path), value) for path, value in wanted.items())
        elif name == "since":
            ok = fact.timestamp >= wanted
        elif name == "until":
            ok = fact.timestamp < wanted
        elif name == "after_seq":
            ok = fact.seq > wanted
        elif isinstance(wanted, (list, tuple, set)):
            ok = getattr(fact, name) in wanted
        else:
            ok = getattr(fact, name) == wanted
        if not ok:
            return False
    return True


def answer(facts: list[z0.Fact], asked: dict[str, Any]) -> list[z0.Fact]:
    which = {name: value for name, value in asked.items() if name not in ("limit", "reverse")}
    found = [fact for fact in facts if passes(fact, which)]
    if asked.get("reverse"):
        found.reverse()
    return found[: asked.get("limit")]


words = st.sampled_from(["a", "b", "A", "ä", "a\0b", "%", "_", "'", "--"])
parts = st.just("a") | st.sampled_from(
    ["a", "b", "A", "ä", " ", "'", "$", "[0]", "#", "*", "a[0]", "0", "--", "\n", "\x7f", "(", "𝄞"]
)
numbers = st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]) | st.sampled_from(
    [0.1 + 0.2, 5e-324, 1e308, -0.0]
)
scalars = st.none() | st.booleans() | numbers | words | st.sampled_from(["1", "true", "null", "[1]", '{"a":1}', ""])
leaves = scalars | st.sampled_from([[1], [], {}, {"a": 1}])
objects = st.dictionaries(parts, leaves | st.dictionaries(parts, leaves, max_size=2), max_size=3)
fields = st.fixed_dictionaries(
    {"type": words},
    optional={
        **dict.fromkeys(STRINGS[1:], words),
        "subtype": words,
        "data": objects,
        "amount": st.integers(-5, 5),
        "idempotency_key": words,
    },
)
several = st.lists(words, max_size=3) | st.sets(words, max_size=3) | st.tuples(words, words)
paths = st.lists(parts, min_size=1, max_size=2).map(".".join)
moments = st.integers(START - 2, START + 20)
filters: dict[str, st.SearchStrategy[Any]] = {
    "type": words | several,
    "subtype": words | several | st.none(),
    **dict.fromkeys(STRINGS[1:], words | st.none()),
    "tenant_id": st.sampled_from(["default", "other"]),
    "idempotency_key": words | st.none(),
    "data": st.dictionaries(paths, scalars, min_size=1, max_size=2),
    "since": moments,
    "until": moments,
    "after_seq": st.integers(-1, 20),
    "limit": st.none() | st.integers(0, 20),
    "reverse": st.booleans(),
}
chosen = st.lists(st.just("data") | st.sampled_from(sorted(filters)), max_size=3, unique=True)
questions = chosen.flatmap(lambda names: st.fixed_dictionaries({name: filters[name] for name in names}))


@settings(max_examples=100, deadline=None)
@given(st.lists(fields, min_size=3, max_size=12), st.lists(questions, min_size=8, max_size=8))
async def test_a_query_gives_what_its_filters_say(given_: list[dict[str, Any]], several: list[dict[str, Any]]) -> None:
    async with temporary_runtime(memory=True, clock=Ticking()) as runtime:
        book = runtime.get(Book, "b")
        for wanted in given_:
            try:
                await book.append(**wanted)
            except z0.IdempotencyConflict:
                continue
        facts = await book.query_facts()
        for asked in several:
            assert await book.query_facts(**asked) == answer(facts, asked)
            which = {name: value for name, value in asked.items() if name not in ("limit", "reverse")}
            found = answer(facts, which)
            assert await book.count_facts(**which) == len(found)
            if len({fact.currency for fact in found if fact.amount is not None}) < 2:
                assert await book.sum_facts(**which) == sum(fact.amount or 0 for fact in found)


# The same by example, so that each rule has a name


@pytest.fixture
async def book() -> AsyncIterator[Book]:
    async with temporary_runtime(memory=True, clock=Ticking()) as runtime:
        yield runtime.get(Book, "b")


async def seqs(book: Book, **asked: Any) -> list[int]:
    return [fact.seq for fact in await book.query_facts(**asked)]


async def test_limit_and_reverse_take_the_first_or_the_last(book: Book) -> None:
    await book.append_many([{"type": "x"}] * 5)
    assert await seqs(book) == await seqs(book, limit=None) == [1, 2, 3, 4, 5]
    assert await seqs(book, limit=2) == [1, 2]
    assert await seqs(book, limit=2, reverse=True) == [5, 4]
    assert await seqs(book, limit=0) == []
    assert await seqs(book, limit=99, after_seq=3) == [4, 5]
    assert await seqs(book, after_seq=3, reverse=True, limit=1) == [5]


async def test_since_is_inclusive_and_until_exclusive(book: Book) -> None:
    second, fourth = [fact.timestamp for fact in await book.append_many([{"type": "x"}] * 5)][1:4:2]
    assert await seqs(book, since=second, until=fourth) == [2, 3]
    since, until = EPOCH + timedelta(microseconds=second), EPOCH + timedelta(microseconds=fourth)
    assert await seqs(book, since=since, until=until) == [2, 3]
    elsewhere = since.astimezone(timezone(timedelta(hours=-9)))
    assert await seqs(book, since=elsewhere) == [2, 3, 4, 5]
    assert await seqs(book, since=fourth, until=second) == []


async def test_none_finds_what_is_absent_and_in_data_what_is_null(book: Book) -> None:
    await book.append_many(
        [{"type": "x"}, {"type": "x", "source_id": "s", "data": {"n": None}}, {"type": "x", "data": {"n": 0}}]
    )
    assert await seqs(book, source_id=None) == [1, 3]
    assert await seqs(book, data={"n": None}) == [1, 2]
    assert await seqs(book, data={"n.deeper": None}) == [1, 2, 3]


async def test_values_in_data_are_compared_with_their_type(book: Book) -> None:
    values: list[Any] = [True, 1, 1.0, "1", "true", [1], "[1]", False, 0]
    await book.append_many([{"type": "x", "data": {"v": value}} for value in values])
    found = {repr(value): await seqs(book, data={"v": value}) for value in (True, False, 1, 1.0, 0, "1", "[1]")}
    assert found == {
        "True": [1], "False": [8], "1": [2, 3], "1.0": [2, 3], "0": [9], "'1'": [4], "'[1]'": [7],
    }  # fmt: skip


async def test_a_path_with_dots_walks_into_objects_only(book: Book) -> None:
    for data in ({"a": {"b": 1}}, {"a.b": 1}, {"a": [{"b": 1}]}, {"a": {"b": {"c": 1}}}):
        await book.append("x", data=data)
    assert await seqs(book, data={"a.b": 1}) == [1]
    assert await seqs(book, data={"a.b.c": 1}) == [4]
    assert await seqs(book, data={"a.0.b": 1}) == await seqs(book, data={"a[0].b": 1}) == []


async def test_no_types_at_all_find_nothing(book: Book) -> None:
    await book.append("x")
    assert await seqs(book, type=[]) == await seqs(book, subtype=set()) == []


BAD: list[dict[str, Any]] = [
    {"colour": "red"}, {"Type": "x"}, {"seq": 1}, {"amount": 1}, {"type ": "x"}, {"hash": b""}, {"entity_id": "b"},
    {"type": 1}, {"type": b"x"}, {"type": ["x", 1]}, {"type": ["x", None]}, {"type": {"x": 1}}, {"subtype": [None]},
    {"source_id": 5}, {"source_id": ["a", "b"]}, {"external_id": b"x"}, {"tenant_id": 1}, {"idempotency_key": 1.5},
    {"data": []}, {"data": "x"}, {"data": None}, {"data": {"a": [1]}}, {"data": {"a": {}}}, {"data": {"a": b"x"}},
    {"data": {"": 1}}, {"data": {".": 1}}, {"data": {"a.": 1}}, {"data": {"a..b": 1}}, {"data": {1: 1}},
    {"data": {'"': 1}}, {"data": {"\\": 1}}, {"data": {"a\0": 1}}, {"data": {None: 1}},
    {"since": datetime(2026, 1, 1)}, {"since": "2026-01-01"}, {"since": 1.5}, {"since": True}, {"since": None},
    {"until": datetime(2026, 1, 1).date()}, {"until": None},
    {"after_seq": "1"}, {"after_seq": 1.0}, {"after_seq": True}, {"after_seq": None},
    {"limit": -1}, {"limit": "1"}, {"limit": 1.0}, {"limit": True},
]  # fmt: skip


@pytest.mark.parametrize("asked", BAD, ids=repr)
async def test_a_filter_that_means_nothing_is_refused(book: Book, asked: dict[str, Any]) -> None:
    with pytest.raises(z0.InvalidQuery) as caught:
        await book.query_facts(**asked)
    assert isinstance(caught.value, ValueError)
    if "limit" not in asked:
        with pytest.raises(z0.InvalidQuery):
            await book.count_facts(**asked)
        with pytest.raises(z0.InvalidQuery):
            await book.sum_facts(**asked)
    assert await seqs(book) == []


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": 2**63}, {"after_seq": 2**70}, {"after_seq": -(2**70)}, {"since": 2**63}, {"until": -(2**70)},
        {"data": {"a": 2**63}}, {"data": {"a": -(2**80)}}, {"type": "\ud800"}, {"type": ["x", "\ud800"]},
        {"source_id": "a\udfff"}, {"data": {"a": "\ud800"}}, {"data": {"\ud800": 1}},
    ],
    ids=ascii,
)  # fmt: skip
async def test_what_sqlite_cannot_hold_finds_nothing_or_is_refused(book: Book, asked: dict[str, Any]) -> None:
    with suppress(z0.InvalidQuery):
        assert await seqs(book, **asked) == []
    assert (await book.append("x")).seq == 1


@pytest.mark.parametrize("asked", [{"limit": 1}, {"reverse": True}])
async def test_counting_and_adding_have_no_limit_to_give(book: Book, asked: dict[str, Any]) -> None:
    with pytest.raises(z0.InvalidQuery):
        await book.count_facts(**asked)
    with pytest.raises(z0.InvalidQuery):
        await book.sum_facts(**asked)


# Paths that try to get out of their quotes

ESCAPES = [
    "a') OR 1=1 --", "a') = 1 OR json_extract(data, '$.a", "a' OR 'a' = 'a", "$.a", "$", "a'", "''",
    "a') UNION SELECT 1 --", "a'; DROP TABLE facts; --", "a[0]",
    "a[#-1]", "*", "a.*", "?", "?1", ":a", "@a", "a\n--", "a /*", "a*/", "%s", "{}",
]  # fmt: skip


@pytest.mark.parametrize("path", ESCAPES)
async def test_a_path_is_only_ever_a_path(book: Book, path: str) -> None:
    await book.append("x", data={"a": 1, "b": [1]})
    inner: Any = 2
    for part in reversed(path.split(".")):
        inner = {part: inner}
    await book.append("x", data=inner)
    assert await seqs(book, data={path: 1}) == []
    assert await seqs(book, data={path: 2}) == [2]
    assert await seqs(book, data={path: True}) == []
    assert await seqs(book, data={path: None}) == [1]
    assert await book.sum_facts(f"data.{path}") == 2
    assert (await book.verify()).facts == 2


@pytest.mark.parametrize("path", [*ESCAPES, 'a"b', "a\\", "\0"])
async def test_a_declared_path_is_only_ever_a_path(path: str) -> None:
    declare = {"accepts": {"*"}, "indexes": (f"data.{path}",)}
    try:
        cls: type[Book] = type("Indexed", (z0.Entity,), declare)
    except z0.InvalidQuery:
        return
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        book = runtime.get(cls, "b")
        await book.append("x", data={path: 1})
        assert await seqs(book) == [1]
        assert await runtime.evict(cls, "b")
        with reader(runtime, cls, "b") as file:
            (index,) = declared_indexes(file)
            assert index.startswith(f"z0_by_data.{path}")


@pytest.mark.parametrize(
    "field", ["colour", "seq", "data", "hash", "type, seq", "type) --", "", "data.", "Type", "data..a"]
)
def test_an_index_that_cannot_be_is_refused_with_the_class(field: str) -> None:
    with pytest.raises(z0.InvalidQuery):
        type("Wrong", (z0.Entity,), {"indexes": (field,)})


# Declared indexes

FIELDS = ("source_id", "type", "data.invoice_id", "data.customer.country", "data.it's")


class Indexed(z0.Entity):
    """An entity with indexes of each sort."""

    namespace = "Book"
    accepts = {"*"}
    indexes = FIELDS


@contextmanager
def reader(runtime: z0.Runtime, cls: type[z0.Entity], name: str) -> Iterator[Reader]:
    """A read-only connection to the file of an evicted entity."""
    with Reader(runtime.path / file_path("default", cls.namespace or cls.__name__, name)) as file:
        yield file


def declared_indexes(file: Reader) -> set[str]:
    rows = file.rows("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
    return {name for (name,) in rows} - {"z0_by_idempotency_key"}


def plan(file: Reader, asked: dict[str, Any]) -> str:
    """How SQLite answers the query."""
    sql, bindings = query.select(asked)
    return " ".join(str(row[3]) for row in file.rows(f"EXPLAIN QUERY PLAN {sql}", *bindings))


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({"source_id": "s"}, "z0_by_source_id"),
        ({"source_id": None}, "z0_by_source_id"),
        ({"source_id": "s", "reverse": True, "limit": 3}, "z0_by_source_id"),
        ({"type": ["a", "b"]}, "z0_by_type"),
        ({"data": {"invoice_id": "i"}}, "z0_by_data.invoice_id"),
        ({"data": {"invoice_id": 5}, "after_seq": 3}, "z0_by_data.invoice_id"),
        ({"data": {"invoice_id": None}}, "z0_by_data.invoice_id"),
        ({"data": {"customer.country": "CH"}}, "z0_by_data.customer.country"),
        ({"data": {"it's": "x"}}, "z0_by_data.it's"),
        ({"idempotency_key": "k"}, "z0_by_idempotency_key"),
        ({"after_seq": 3}, "INTEGER PRIMARY KEY"),
    ],
    ids=str,
)
async def test_what_is_indexed_is_found_by_its_index(asked: dict[str, Any], index: str) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        book = runtime.get(Indexed, "b")
        await book.append_many([{"type": "x", "source_id": "s", "data": {"invoice_id": n}} for n in range(20)])
        assert await runtime.evict(Indexed, "b")
        with reader(runtime, Indexed, "b") as file:
            assert declared_indexes(file) == {f"z0_by_{field}" for field in FIELDS}
            assert f"USING INDEX {index}" in plan(file, asked) or f"USING {index}" in plan(file, asked)


async def test_without_an_index_the_answer_is_the_same() -> None:
    asked: list[dict[str, Any]] = [{"source_id": "s"}, {"data": {"invoice_id": 3}}, {"data": {"invoice_id": None}}]
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        for tenant, fields in (("plain", ()), ("indexed", FIELDS)):
            cls: type[Book] = type("Book", (z0.Entity,), {"accepts": {"*"}, "namespace": tenant, "indexes": fields})
            book = runtime.get(cls, "b")
            for n in range(6):
                await book.append("x", source_id="st"[n % 2], data={"invoice_id": n} if n % 3 else None)
            assert [await seqs(book, **each) for each in asked] == [[1, 3, 5], [], [1, 4]]


async def test_indexes_follow_the_class_from_run_to_run(tmp_path: Path) -> None:
    async def indexes_with(*fields: str) -> set[str]:
        cls: type[Book] = type("Book", (z0.Entity,), {"accepts": {"*"}, "indexes": fields})
        async with z0.Runtime(tmp_path, clock=VirtualClock()) as runtime:
            book = runtime.get(cls, "b")
            seq = (await book.append("x", source_id="s", data={"n": 1})).seq
            assert await seqs(book, source_id="s") == await seqs(book, data={"n": 1}) == list(range(1, seq + 1))
            assert await runtime.evict(cls, "b")
            with reader(runtime, cls, "b") as file:
                return declared_indexes(file)

    assert await indexes_with() == set()
    assert await indexes_with("source_id", "data.n") == {"z0_by_source_id", "z0_by_data.n"}
    assert await indexes_with("data.n", "type") == {"z0_by_data.n", "z0_by_type"}
    assert await indexes_with("data.n", "type") == {"z0_by_data.n", "z0_by_type"}
    assert await indexes_with() == set()


async def test_fields_that_differ_in_case_have_an_index_each() -> None:
    cls: type[Book] = type("Book", (z0.Entity,), {"accepts": {"*"}, "indexes": ("data.id", "data.ID")})
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        await runtime.get(cls, "b").append("x", data={"id": 1, "ID": 2})
        assert await runtime.evict(cls, "b")
        with reader(runtime, cls, "b") as file:
            assert len(declared_indexes(file)) == 2
            for field in ("id", "ID"):
                assert "USING INDEX" in plan(file, {"data": {field: 1}})


def test_a_moment_is_aware() -> None:
    assert query.microseconds(datetime(2026, 1, 1, tzinfo=UTC), "since") == START
    with pytest.raises(z0.InvalidQuery, match="naive"):
        query.microseconds(datetime(2026, 1, 1), "since")
