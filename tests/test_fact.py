"""What a fact may say: every field is checked before anything is written, and what is kept comes back."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import z0
from z0.ledger.fact import DATA_BYTES_MAX, Draft, draft
from z0.testing import VirtualClock, temporary_runtime

WORDS = ("type", "subtype", "currency")
REFERENCES = (
    "source_id", "from_entity", "to_entity", "config_id", "trace_id", "external_source", "external_id",
    "idempotency_key",
)  # fmt: skip
INT64 = 2**63

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text().filter(lambda key: key != "idempotency_key"), json_values, max_size=5)


class Book(z0.Entity):
    """Takes any fact."""

    accepts = {"*"}


class Colour(enum.StrEnum):
    RED = "red"


class Count(enum.IntEnum):
    FIVE = 5


@pytest.fixture
async def book() -> AsyncIterator[Book]:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        yield runtime.get(Book, "b")


async def refusal(book: Book, fields: dict[str, Any]) -> z0.InvalidFact:
    """The error for these fields, after making sure that nothing of them stays, nor is in the way."""
    await book.append("before")
    with pytest.raises(z0.InvalidFact) as caught:
        await book.append(**{"type": "x", **fields})
    with pytest.raises((z0.InvalidFact, z0.InvalidMessage)) as many:  # what is no data at all cannot even be sent
        await book.append_many([{"type": "good"}, {"type": "x", **fields}])
    assert getattr(many.value, "field", caught.value.field) == caught.value.field
    assert (await book.append("after")).seq == 2
    assert [fact.type for fact in await book.query_facts()] == ["before", "after"]
    assert (await book.verify()).facts == 2
    return caught.value


@pytest.mark.parametrize("field", WORDS)
@pytest.mark.parametrize("value", ["", "x" * 129, 5, True, 1.5, b"x", ["x"], {"x": 1}, Decimal(1)], ids=repr)
async def test_a_word_is_a_string_of_1_to_128_characters(book: Book, field: str, value: object) -> None:
    error = await refusal(book, {field: value})
    assert error.field == field
    assert field in str(error)


@pytest.mark.parametrize("field", REFERENCES)
@pytest.mark.parametrize("value", ["", "x" * 513, 5, True, b"x", ["x"]], ids=lambda value: repr(value)[:9])
async def test_a_reference_is_a_string_of_1_to_512_characters(book: Book, field: str, value: object) -> None:
    assert (await refusal(book, {field: value})).field == field


@pytest.mark.parametrize("field", [*WORDS, *REFERENCES])
async def test_text_that_utf8_cannot_hold_is_refused_by_the_name_of_its_field(book: Book, field: str) -> None:
    assert (await refusal(book, {field: "a\ud800"})).field == field


@pytest.mark.parametrize(
    "value",
    [5.0, 0.0, 1e3, math.nan, math.inf, True, False, "5", "", b"5", Decimal(5), [5], INT64, -INT64 - 1, 10**30],
    ids=repr,
)
async def test_an_amount_is_an_int64_and_never_a_float_or_a_bool(book: Book, value: object) -> None:
    error = await refusal(book, {"amount": value})
    assert error.field == "amount"
    assert "minor units" in str(error)


@pytest.mark.parametrize("value", [1.0, True, "1", INT64, -INT64 - 1], ids=repr)
async def test_a_config_version_is_an_int64(book: Book, value: object) -> None:
    assert (await refusal(book, {"config_version": value})).field == "config_version"


@pytest.mark.parametrize("value", [-1, 1.0, True, "1"], ids=repr)
async def test_an_expected_seq_is_a_number_of_facts(book: Book, value: object) -> None:
    assert (await refusal(book, {"expected_seq": value})).field == "expected_seq"


async def test_the_type_is_the_one_field_that_must_be_given(book: Book) -> None:
    with pytest.raises(z0.InvalidFact) as caught:
        await book.append_many([{"amount": 5}])
    assert caught.value.field == "type"
    assert (await refusal(book, {"type": None})).field == "type"


@pytest.mark.parametrize("field", ["id", "seq", "timestamp", "tenant_id", "entity_id", "hash"])
async def test_what_the_ledger_sets_cannot_be_given(book: Book, field: str) -> None:
    error = await refusal(book, {field: 1})
    assert error.field == field
    assert "set by the ledger" in str(error)


@pytest.mark.parametrize("value", [None, "", "{}"], ids=repr)
async def test_how_data_is_stored_cannot_be_given(book: Book, value: object) -> None:
    assert (await refusal(book, {"text": value})).field == "text"


@pytest.mark.parametrize("field", ["colour", "Amount", "amount ", "a.b", "größe", "__class__", ""])
async def test_a_field_that_does_not_exist_is_named(book: Book, field: str) -> None:
    error = await refusal(book, {field: "x"})
    assert error.field == field
    assert "put it into data" in str(error)


async def test_a_refusal_is_a_value_error_that_no_retry_can_help(book: Book) -> None:
    error = await refusal(book, {"amount": 1.5})
    assert isinstance(error, z0.Z0Error)
    assert isinstance(error, ValueError)
    assert not error.retryable


async def test_the_bounds_themselves_are_within(book: Book) -> None:
    fields = {
        **dict.fromkeys(WORDS, "ü" * 128),
        **dict.fromkeys(REFERENCES, "𝄞" * 512),
        "amount": -INT64,
        "config_version": INT64 - 1,
    }
    fact = await book.append(**fields)  # type: ignore[arg-type]
    assert {name: getattr(fact, name) for name in fields} == fields
    assert await book.get_fact(1) == fact
    assert (await book.append("x", amount=INT64 - 1)).amount == INT64 - 1


async def test_what_is_not_given_is_none_and_none_is_not_given(book: Book) -> None:
    optional = [name for name in Draft.__struct_fields__ if name not in ("type", "text", "expected_seq")]
    for fact in (await book.append("x"), await book.append("x", **dict.fromkeys(optional), expected_seq=None)):
        assert [getattr(fact, name) for name in optional] == [None] * len(optional)


async def test_text_is_kept_as_it_is(book: Book) -> None:
    for text in (" ", "a\0b", "\n", "ﬁ", "e\u0301", "DROP TABLE facts; --", "'", "𝄞"):
        fact = await book.append(text, external_id=text, data={text: text})
        assert (fact.type, fact.external_id, fact.data) == (text, text, {text: text})
        assert await book.get_fact(fact.seq) == fact


async def test_enumerations_are_kept_as_plain_values(book: Book) -> None:
    fact = await book.append(Colour.RED, amount=Count.FIVE, data={"colour": Colour.RED, "count": Count.FIVE})
    assert fact.data == {"colour": "red", "count": 5}
    assert await book.get_fact(1) == fact
    assert (fact.type, fact.amount) == ("red", 5)


async def test_a_call_that_python_would_refuse_is_a_type_error(book: Book) -> None:
    with pytest.raises(TypeError):
        await getattr(book, "append")("deposit", 5)  # noqa: B009 (a call that no type checker would pass)
    with pytest.raises(TypeError):
        await book.append("deposit", **{"type": "charge"})  # type: ignore[arg-type]
    assert await book.count_facts() == 0


@given(st.one_of(st.integers(), st.integers(-INT64 - 2, INT64 + 2), st.floats(), st.booleans(), st.text()))
def test_an_amount_is_kept_exactly_or_refused(value: object) -> None:
    if type(value) is int and -INT64 <= value < INT64:
        assert draft({"type": "x", "amount": value}).amount == value
    else:
        with pytest.raises(z0.InvalidFact) as caught:
            draft({"type": "x", "amount": value})
        assert caught.value.field == "amount"


@given(
    st.dictionaries(
        st.text(max_size=5).filter(lambda name: "`" not in name),
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    )
)
def test_whatever_is_given_is_taken_or_refused(fields: dict[str, Any]) -> None:
    try:
        new = draft(fields)
    except z0.InvalidFact as error:
        refused = error.field
    else:
        assert {name: getattr(new, name) for name in fields} == fields
        return
    assert refused in {*fields, "type"}


# Data


@settings(max_examples=40, deadline=None)
@given(st.lists(json_objects, min_size=1, max_size=8))
async def test_data_comes_back_as_it_was_given(objects: list[dict[str, Any]]) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        book = runtime.get(Book, "b")
        written = await book.append_many([{"type": "x", "data": data} for data in objects])
        assert [fact.data for fact in written] == objects
        read = await book.query_facts()
        assert repr([fact.data for fact in read]) == repr([fact.data for fact in written])  # 1 is not 1.0 or True
        assert await book.count_facts(data={"in none of them": None}) == len(objects)  # SQLite reads it as well
        assert (await book.verify()).facts == len(objects)


async def test_data_is_stored_as_json_text(book: Book) -> None:
    data = {"ä": [1, 2.5, None, True, {"x": "y"}], "big": 2**80}
    new = draft({"type": "x", "data": data})
    assert json.loads(str(new.text)) == data


@pytest.mark.parametrize(
    "data",
    [
        [], ["a"], "{}", 5, True, b"{}", (("a", 1),),
        {"x": math.nan}, {"x": math.inf}, {"x": [-math.inf]}, {"x": b"y"}, {"x": bytearray(b"y")}, {"x": {1, 2}},
        {"x": frozenset()}, {"x": Decimal(1)}, {"x": datetime(2026, 1, 1, tzinfo=UTC)}, {"x": object()},
        {"x": msgspec.UNSET}, {"x": Draft("x")}, {"x": 1j}, {"x": len}, {1: "x"}, {"x": {1: 2}}, {None: 1}, {True: 1},
        {("a",): 1}, {b"x": 1}, {"x": "\ud800"}, {"\udfff": 1}, {"x": ["\ud800"]},
    ],
    ids=lambda value: ascii(value).partition(" at 0x")[0][:30],
)  # fmt: skip
async def test_data_that_json_cannot_bring_back_is_refused(book: Book, data: object) -> None:
    assert (await refusal(book, {"data": data})).field == "data"


async def test_data_that_never_ends_is_refused(book: Book) -> None:
    data: dict[str, Any] = {}
    data["self"] = data
    await book.append("x")
    with pytest.raises(z0.InvalidFact) as caught:
        await book.append("x", data=data)
    assert caught.value.field == "data"
    assert await book.count_facts() == 1


@pytest.mark.parametrize("depth", [50, 500, 999, 1_001, 3_000, 20_000])
async def test_data_is_nested_no_deeper_than_it_can_be_read(book: Book, depth: int) -> None:
    await book.append("x")
    data: dict[str, Any] = {}
    for _ in range(depth):
        data = {"a": data}
    with suppress(z0.InvalidFact):
        await book.append("x", data=data)
    assert await book.count_facts(data={"b": None}) == await book.count_facts()


async def test_tuples_in_data_become_arrays(book: Book) -> None:
    fact = await book.append("x", data={"at": (1, (2, 3)), "all": [{"in": ("a",)}]})
    assert fact.data == {"at": [1, [2, 3]], "all": [{"in": ["a"]}]}
    assert await book.get_fact(1) == fact


async def test_data_is_at_most_one_mebibyte_of_json(book: Book) -> None:
    room = DATA_BYTES_MAX - len('{"x":""}')
    assert (await book.append("x", data={"x": "a" * room})).seq == 1
    with pytest.raises(z0.InvalidFact, match="1048577 bytes") as caught:
        await book.append("x", data={"x": "a" * (room + 1)})
    assert caught.value.field == "data"
    with pytest.raises(z0.InvalidFact):
        await book.append("x", data={"x": "ä" * (room // 2 + 1)})
    assert await book.count_facts() == 1


async def test_empty_data_is_kept_apart_from_none(book: Book) -> None:
    await book.append_many([{"type": "x", "data": {}}, {"type": "x", "data": None}])
    assert [fact.data for fact in await book.query_facts()] == [{}, None]


async def test_nobody_shares_data_with_the_ledger(book: Book) -> None:
    given_: dict[str, Any] = {"list": [1]}
    fact = await book.append("x", data=given_)
    given_["list"].append(2)
    fact.data["list"].append(3)  # type: ignore[index]
    again = await book.get_fact(1)
    assert again.data == {"list": [1]}  # type: ignore[union-attr]
    again.data["list"].append(4)  # type: ignore[union-attr]
    assert (await book.query_facts())[0].data == {"list": [1]}


# The key in data


async def test_a_key_in_data_is_the_idempotency_key(book: Book) -> None:
    fact = await book.append("x", data={"idempotency_key": "k", "n": 1})
    assert (fact.idempotency_key, fact.data) == ("k", {"idempotency_key": "k", "n": 1})
    assert await book.append("x", data={"idempotency_key": "k", "n": 1}) == fact
    assert await book.append("x", data={"idempotency_key": "k", "n": 1}, idempotency_key="k") == fact
    with pytest.raises(z0.IdempotencyConflict):
        await book.append("x", data={"idempotency_key": "k", "n": 2})
    assert (await book.append("x", data={"idempotency_key": None})).idempotency_key is None


@pytest.mark.parametrize("key", ["", "x" * 513, 5, True, ["k"], {"k": 1}], ids=lambda value: repr(value)[:9])
async def test_a_key_in_data_is_checked_as_a_key(book: Book, key: object) -> None:
    assert (await refusal(book, {"data": {"idempotency_key": key}})).field == "data.idempotency_key"


async def test_two_different_keys_are_refused(book: Book) -> None:
    fields = {"idempotency_key": "a", "data": {"idempotency_key": "b"}}
    assert (await refusal(book, fields)).field == "idempotency_key"


# Several, and the fact itself


@pytest.mark.parametrize("facts", [["deposit"], [None], [5], [{"type": "x"}, ("type", "y")]], ids=repr)
async def test_several_facts_are_given_as_dicts(book: Book, facts: Sequence[Any]) -> None:
    with pytest.raises(z0.InvalidFact) as caught:
        await book.append_many(facts)
    assert caught.value.field == "facts"
    assert await book.count_facts() == 0


async def test_a_fact_cannot_be_changed(book: Book) -> None:
    fact = await book.append("x", amount=1)
    with pytest.raises(AttributeError):
        fact.amount = 2  # type: ignore[misc]


@pytest.mark.parametrize("name", ["a", "a/b", "a@1", "100%", "ü", "%2F", "a b", "\n", "@", "a/b@2@3"])
async def test_an_id_names_one_fact_of_one_entity(name: str) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        book = runtime.get(Book, name)
        first, second = await book.append("x"), await book.append("y")
        assert (first.entity_id, first.id != second.id) == (name, True)
        assert await book.get_fact(second.id) == second
        assert second.id.isascii()
        assert second.id.count("/") == second.id.count("@") == 1
        assert await runtime.get(Book, f"{name}x").get_fact(second.id) is None
