"""The ledger keeps what was appended: once, in order, all or nothing, and nobody changes it afterwards."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import z0
from z0.actors.names import file_path
from z0.testing import VirtualClock, crash, temporary_runtime

INT64_MAX = 2**63 - 1


class Total(z0.Projection):
    """Sum of the amounts; refuses facts of type "refused", half-way."""

    amount: int = 0

    def apply(self, fact: z0.Fact) -> None:
        self.amount += fact.amount or 0
        if fact.type == "refused":
            raise ValueError("refused by the projection")


class Account(z0.Entity):
    """Outsiders deposit; the rest is decided inside."""

    accepts = {"deposit"}
    total: Total

    @z0.idempotent("key")
    async def charge(self, amount: int, *, key: str) -> z0.Fact:
        if self.total.amount < amount:
            raise ArithmeticError("not enough")
        return self.ledger.append("charge", amount=-amount, idempotency_key=key, data={"why": ["charged"]})

    @z0.idempotent("key")
    async def slow_charge(self, amount: int, *, key: str) -> z0.Fact:
        await asyncio.sleep(0)
        return self.ledger.append("charge", amount=-amount)

    async def post(self, type: str, **fields: Any) -> z0.Fact:
        return self.ledger.append(type, **fields)

    async def post_many(self, facts: list[dict[str, Any]]) -> list[z0.Fact]:
        return self.ledger.append_many(facts)

    async def post_and_fail(self, amount: int, key: str | None = None) -> None:
        self.ledger.append("deposit", amount=amount, idempotency_key=key)
        raise LookupError("changed my mind")

    async def post_twice_and_fail(self, amount: int) -> None:
        self.ledger.append("deposit", amount=amount)
        self.ledger.append("deposit", amount=amount)
        raise LookupError("changed my mind")

    async def post_put_and_fail(self, amount: int) -> None:
        self.ledger.append("deposit", amount=amount)
        self.storage.put("amount", amount)
        raise LookupError("changed my mind")

    async def post_what_cannot_be_sent(self, amount: int) -> object:
        self.ledger.append("deposit", amount=amount)
        return object()

    async def wait_and_fail(self, amount: int) -> None:
        self.ledger.append("deposit", amount=amount)
        await asyncio.sleep(0)
        self.ledger.append("deposit", amount=amount)
        raise LookupError("changed my mind")

    async def wait_and_post(self, amount: int) -> z0.Fact:
        await asyncio.sleep(0)
        return self.ledger.append("deposit", amount=amount)

    async def look(self) -> tuple[int, bytes, int]:
        return self.ledger.head, self.ledger.hash, self.total.amount

    async def call_a_message_on_self(self, message: str) -> None:
        await getattr(self, message)()

    async def run_sql(self, sql: str) -> list[tuple[Any, ...]]:
        return self.storage.sql(sql).all()

    async def read_inside(self) -> tuple[Any, ...]:
        return (
            self.ledger.query(type="deposit"),
            self.ledger.get(1),
            self.ledger.count(type="deposit"),
            self.ledger.sum(),
            self.ledger.verify(),
            self.ledger.projection("total"),
        )


class Plain(z0.Entity):
    """Any fact, and no projection."""

    accepts = {"*"}


class Hands(VirtualClock):
    """A clock whose hands can be turned back."""

    us = 1_800_000_000_000_000

    def now_us(self) -> int:
        return self.us


@pytest.fixture
async def runtime() -> AsyncIterator[z0.Runtime]:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        yield runtime


@pytest.fixture
async def account(runtime: z0.Runtime) -> Account:
    return runtime.get(Account, "a")


async def holds(account: Account, *amounts: int) -> None:
    """Make sure that these are the account's facts, in every way that one can ask."""
    facts = await account.query_facts()
    assert [fact.amount for fact in facts] == list(amounts)
    assert [fact.seq for fact in facts] == list(range(1, len(amounts) + 1))
    assert await account.count_facts() == len(amounts)
    assert await account.sum_facts() == sum(amounts)
    verified = await account.verify()
    assert await account.look() == (len(amounts), verified.head, sum(amounts))
    assert verified.facts == len(amounts)


async def deposit(account: Account, *amounts: int) -> list[z0.Fact]:
    return [await account.append("deposit", amount=amount) for amount in amounts]


# Appending


async def test_a_fact_appended_outside_is_the_fact_that_is_read(account: Account) -> None:
    fact = await account.append("deposit", amount=5, currency="EUR", source_id="s", data={"n": 1})
    assert (fact.id, fact.seq, fact.type, fact.amount, fact.tenant_id, fact.entity_id) == (
        "Account/a@1", 1, "deposit", 5, "default", "a",
    )  # fmt: skip
    assert fact.timestamp == VirtualClock().now_us()
    assert len(fact.hash) == 32
    assert await account.query_facts() == [fact]
    assert await account.get_fact(1) == await account.get_fact("Account/a@1") == fact


async def test_inside_and_outside_write_the_same(runtime: z0.Runtime) -> None:
    fields: dict[str, Any] = {"amount": 5, "idempotency_key": "k", "data": {"n": 1}}
    one = await runtime.tenant("t1").get(Account, "a").append("deposit", **fields)
    other = await runtime.tenant("t2").get(Account, "a").post("deposit", **fields)
    same = {name: getattr(one, name) for name in one.__struct_fields__ if name not in ("tenant_id", "hash")}
    assert same == {name: getattr(other, name) for name in same}


async def test_inside_and_outside_read_the_same(account: Account) -> None:
    await deposit(account, 5, 7)
    assert await account.read_inside() == (
        await account.query_facts(type="deposit"),
        await account.get_fact(1),
        await account.count_facts(type="deposit"),
        await account.sum_facts(),
        await account.verify(),
        await account.projection("total"),
    )


async def test_facts_are_numbered_from_one_without_holes(account: Account) -> None:
    facts = await asyncio.gather(*[account.append("deposit", amount=n) for n in range(50)])
    assert sorted(fact.seq for fact in facts) == list(range(1, 51))
    assert [fact.seq for fact in await account.query_facts()] == list(range(1, 51))


async def test_facts_outlive_the_actor_and_the_runtime(tmp_path: Path) -> None:
    async with z0.Runtime(tmp_path, clock=VirtualClock()) as runtime:
        account = runtime.get(Account, "a")
        first = await deposit(account, 5)
        assert await runtime.evict(Account, "a")
        second = await deposit(account, 7)
    async with z0.Runtime(tmp_path, clock=VirtualClock()) as runtime:
        account = runtime.get(Account, "a")
        assert await account.query_facts() == first + second
        await deposit(account, 9)
        await holds(account, 5, 7, 9)


@pytest.mark.parametrize(
    "message",
    ["append", "append_many", "query_facts", "get_fact", "count_facts", "sum_facts", "projection", "verify"],
)
async def test_inside_the_messages_for_callers_name_what_to_use_instead(account: Account, message: str) -> None:
    with pytest.raises(TypeError, match=r"inside use .*ledger\."):
        await account.call_a_message_on_self(message)


# What outsiders may append


async def test_outsiders_append_only_what_the_entity_accepts(account: Account) -> None:
    with pytest.raises(z0.FactNotAccepted, match=r"Account/a does not accept 'charge'.*accepts: deposit") as caught:
        await account.append("charge", amount=1)
    assert isinstance(caught.value, z0.InvalidFact)
    assert caught.value.field == "type"
    with pytest.raises(z0.FactNotAccepted):
        await account.append_many([{"type": "deposit", "amount": 1}, {"type": "charge", "amount": 1}])
    await holds(account)
    assert (await account.post("charge", amount=1)).seq == 1


async def test_outsiders_append_nothing_by_default_and_anything_with_a_star(runtime: z0.Runtime) -> None:
    class Closed(z0.Entity):
        pass

    class Open(z0.Entity):
        accepts = ("*",)

    with pytest.raises(z0.FactNotAccepted, match="accepts: none"):
        await runtime.get(Closed, "a").append("deposit")
    assert (await runtime.get(Open, "a").append("whatever")).seq == 1


def test_accepted_types_are_a_set_and_not_a_string() -> None:
    with pytest.raises(TypeError, match="a set of fact types"):
        type("Wrong", (z0.Entity,), {"accepts": "deposit"})


# Idempotency keys


async def test_the_same_key_again_returns_the_first_fact_and_writes_nothing(runtime: z0.Runtime) -> None:
    account = runtime.get(Account, "a")
    first = await account.append("deposit", amount=5, idempotency_key="k", data={"n": [1]})
    for _ in range(3):
        assert await account.append("deposit", amount=5, idempotency_key="k", data={"n": [1]}) == first
    assert await runtime.evict(Account, "a")
    assert await account.append("deposit", amount=5, idempotency_key="k", data={"n": (1,)}) == first
    assert (await account.append("deposit", amount=6, idempotency_key="other")).seq == 2
    await holds(account, 5, 6)


async def test_one_key_makes_one_fact_among_many_callers_of_one_turn(account: Account) -> None:
    facts = await asyncio.gather(*[account.append("deposit", amount=5, idempotency_key="k") for _ in range(20)])
    assert {fact.seq for fact in facts} == {1}
    await holds(account, 5)


async def test_a_key_is_found_before_any_refusal(account: Account) -> None:
    first = await account.post("charge", amount=-5, idempotency_key="k")
    await deposit(account, 7)
    assert await account.append("charge", amount=-5, idempotency_key="k") == first  # not accepted from outside
    assert await account.post("charge", amount=-5, idempotency_key="k", expected_seq=0) == first  # the head is 2
    assert await account.append_many([{"type": "charge", "amount": -5, "idempotency_key": "k"}]) == [first]
    with pytest.raises(z0.IdempotencyConflict):
        await account.append("charge", amount=-6, idempotency_key="k", expected_seq=0)
    with pytest.raises(z0.FactNotAccepted):
        await account.append("charge", amount=-5, idempotency_key="new")
    with pytest.raises(z0.ConcurrencyConflict):
        await account.append("deposit", amount=5, idempotency_key="new", expected_seq=0)
    await holds(account, -5, 7)


CONTENT: dict[str, Any] = {
    "type": "deposit", "subtype": "a", "source_id": "a", "from_entity": "a", "to_entity": "a", "amount": 1,
    "currency": "EUR", "external_source": "a", "external_id": "a", "data": {"n": 1},
}  # fmt: skip


@pytest.mark.parametrize("field", CONTENT)
@pytest.mark.parametrize("gone", [False, True], ids=["changed", "gone"])
@pytest.mark.parametrize("repeats", [0, 1])
async def test_a_key_with_other_content_conflicts(account: Account, field: str, gone: bool, repeats: int) -> None:
    for _ in range(1 + repeats):
        first = await account.post(**CONTENT, idempotency_key="k")
    other = {"data": {"n": 2}, "amount": 2}.get(field, "b")
    if gone and field != "type":
        other = None
    with pytest.raises(z0.IdempotencyConflict) as caught:
        await account.post(**{**CONTENT, field: other}, idempotency_key="k")
    assert (caught.value.key, caught.value.retryable) == ("k", False)
    assert caught.value.what.endswith(f": {field}")
    assert first.id in str(caught.value)
    await holds(account, 1)


async def test_time_trace_and_config_are_no_content(runtime: z0.Runtime) -> None:
    account = runtime.get(Account, "a")
    first = await account.post(**CONTENT, idempotency_key="k", trace_id="a", config_id="a", config_version=1)
    clock = runtime.node.clock
    assert isinstance(clock, VirtualClock)
    await clock.advance("1 second")
    again = await account.post(**CONTENT, idempotency_key="k", trace_id="b", config_id="b", config_version=2)
    assert again == first == await account.post(**CONTENT, idempotency_key="k")


async def test_facts_without_a_key_are_never_repeats(account: Account) -> None:
    await deposit(account, 5, 5, 5)
    await holds(account, 5, 5, 5)


# Optimistic concurrency


async def test_an_append_may_say_which_head_it_has_seen(account: Account) -> None:
    assert (await account.append("deposit", amount=1, expected_seq=0)).seq == 1
    assert (await account.append("deposit", amount=2, expected_seq=1)).seq == 2
    for stale in (0, 1, 3, 2**64):
        with pytest.raises(z0.ConcurrencyConflict) as caught:
            await account.append("deposit", amount=3, expected_seq=stale)
        assert (caught.value.expected_seq, caught.value.head, caught.value.retryable) == (stale, 2, False)
    await holds(account, 1, 2)


async def test_of_those_who_saw_the_same_head_one_wins(account: Account) -> None:
    await deposit(account, 1)
    outcomes = await asyncio.gather(
        *[account.append("deposit", amount=2, expected_seq=1) for _ in range(10)], return_exceptions=True
    )
    assert sum(isinstance(outcome, z0.Fact) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, z0.ConcurrencyConflict) for outcome in outcomes) == 9
    await holds(account, 1, 2)


# Several at once


async def test_several_facts_are_appended_in_their_order(account: Account) -> None:
    facts = await account.append_many([{"type": "deposit", "amount": n} for n in range(5)])
    assert facts == await account.query_facts()
    await holds(account, 0, 1, 2, 3, 4)
    assert await account.append_many([]) == []


@pytest.mark.parametrize(
    ("last", "error"),
    [
        ({"type": "deposit", "amount": 1.5}, z0.InvalidFact),
        ({"type": "charge", "amount": 1}, z0.FactNotAccepted),
        ({"type": "deposit", "amount": 1, "expected_seq": 0}, z0.ConcurrencyConflict),
        ({"type": "deposit", "amount": 2, "idempotency_key": "used"}, z0.IdempotencyConflict),
        ({"type": "deposit", "amount": 2, "idempotency_key": "new"}, z0.IdempotencyConflict),
    ],
)
async def test_several_facts_are_appended_all_or_none(
    account: Account, last: dict[str, Any], error: type[Exception]
) -> None:
    await account.append("deposit", amount=1, idempotency_key="used")
    many = [{"type": "deposit", "amount": 5, "idempotency_key": "new"}, {"type": "deposit", "amount": 6}, last]
    with pytest.raises(error):
        await account.append_many(many)
    await holds(account, 1)
    assert (await account.append("deposit", amount=9, idempotency_key="new")).seq == 2
    await holds(account, 1, 9)


async def test_several_facts_may_hold_repeats(account: Account) -> None:
    many = [{"type": "deposit", "amount": 1, "idempotency_key": key} for key in "aba"]
    facts = await account.append_many(many)
    assert [fact.seq for fact in facts] == [1, 2, 1]
    assert await account.append_many(many) == facts
    await holds(account, 1, 1)


async def test_expected_seq_counts_within_several_facts(account: Account) -> None:
    await account.append_many([{"type": "deposit", "amount": n, "expected_seq": n} for n in range(3)])
    await holds(account, 0, 1, 2)


# Reading


async def test_a_fact_is_found_by_seq_or_by_id(runtime: z0.Runtime) -> None:
    account = runtime.get(Account, "a")
    facts = await deposit(account, 1, 2, 3)
    assert [await account.get_fact(seq) for seq in (1, 2, 3)] == facts
    assert [await account.get_fact(fact.id) for fact in facts] == facts
    elsewhere = await deposit(runtime.get(Account, "b"), 1)
    for nothing in (0, 4, -1, "", "1", "@1", "Account/a@", "Account/a@0", "Account/a@x", "Account/a@-1", "a@1"):
        assert await account.get_fact(nothing) is None
    assert await account.get_fact(elsewhere[0].id) is None


@pytest.mark.parametrize("nothing", ["Account/a@²", "Account/a@٣", "Account/a@01", "Account/a@99999999999999999999"])
async def test_an_id_is_taken_to_the_letter(account: Account, nothing: str) -> None:
    await deposit(account, 1, 2, 3)
    assert await account.get_fact(nothing) is None


async def test_no_fact_has_a_number_beyond_64_bits(account: Account) -> None:
    await deposit(account, 1)
    assert await account.get_fact(2**70) is None
    assert await account.get_fact(-(2**70)) is None


async def test_sums_are_exact_beyond_64_bits(runtime: z0.Runtime) -> None:
    plain = runtime.get(Plain, "p")
    amounts = [INT64_MAX, INT64_MAX, INT64_MAX, -1, -(2**63), 7]
    await plain.append_many([{"type": "x", "amount": amount} for amount in amounts])
    assert await plain.sum_facts() == sum(amounts)
    await plain.append_many([{"type": "x", "amount": -(2**63)} for _ in range(7)])
    assert await plain.sum_facts() == sum(amounts) - 7 * 2**63


async def test_sums_never_mix_currencies(account: Account) -> None:
    facts = [("EUR", 5), ("EUR", 6), ("CHF", 7), (None, 8), ("USD", None)]
    await account.append_many([{"type": "deposit", "currency": currency, "amount": n} for currency, n in facts])
    with pytest.raises(z0.InvalidQuery, match="several currencies"):
        await account.sum_facts()
    sums = [await account.sum_facts(currency=currency) for currency in ("EUR", "CHF", None, "USD", "XXX")]
    assert sums == [11, 7, 8, 0, 0]


async def test_sums_of_data_are_of_integers_only(account: Account) -> None:
    several: list[dict[str, Any] | None] = [{"n": 5}, {"n": -7, "in": {"n": 1}}, {"in": {"n": 2**62}}, {"in": {}}, None]
    for data in several:
        await account.append("deposit", data=data)
    assert await account.sum_facts("data.n") == -2
    assert await account.sum_facts("data.in.n") == 2**62 + 1
    assert await account.sum_facts("data.nothing") == 0


@pytest.mark.parametrize("value", [1.5, 1.0, "5", True, [1], {"x": 1}, 2**63], ids=repr)
async def test_sums_of_anything_else_are_refused(account: Account, value: object) -> None:
    await account.append("deposit", data={"n": value})
    with pytest.raises(z0.InvalidQuery, match="not an integer"):
        await account.sum_facts("data.n")


@pytest.mark.parametrize("field", ["seq", "type", "data", "data.", "Amount", "amount; --", "", 'data."'])
async def test_sums_are_of_amount_or_of_data(account: Account, field: str) -> None:
    with pytest.raises(z0.InvalidQuery):
        await account.sum_facts(field)


async def test_an_empty_ledger_answers_everything(account: Account) -> None:
    await holds(account)
    assert await account.get_fact(1) is None
    assert (await account.verify()).facts == 0


# Time


async def test_timestamps_never_go_back(tmp_path: Path) -> None:
    clock = Hands()
    async with z0.Runtime(tmp_path, clock=clock) as runtime:
        account = runtime.get(Account, "a")
        stamps = []
        for us in (clock.us, clock.us - 1, clock.us - 3_600_000_000, clock.us + 5, clock.us):
            clock.us = us
            stamps += [fact.timestamp for fact in await deposit(account, 1)]
    clock.us -= 86_400_000_000
    async with z0.Runtime(tmp_path, clock=clock) as runtime:
        stamps += [fact.timestamp for fact in await deposit(runtime.get(Account, "a"), 1)]
    assert [stamp - stamps[0] for stamp in stamps] == [0, 0, 0, 5, 5, 5]


async def test_a_fact_that_was_taken_back_takes_its_time_back(tmp_path: Path) -> None:
    clock = Hands()
    async with z0.Runtime(tmp_path, clock=clock) as runtime:
        account = runtime.get(Account, "a")
        start = (await deposit(account, 1))[0].timestamp
        clock.us += 1_000
        with pytest.raises(LookupError):
            await account.post_and_fail(1)
        clock.us -= 900
        assert (await deposit(account, 1))[0].timestamp == start + 100


# Roll-back


async def test_a_message_that_raises_leaves_nothing_behind(account: Account) -> None:
    await deposit(account, 1)
    with pytest.raises(LookupError, match="changed my mind"):
        await account.post_and_fail(5, "k")
    await holds(account, 1)
    other = await account.append("deposit", amount=7, idempotency_key="k")  # the key is free, and so is the seq
    assert other.seq == 2
    await holds(account, 1, 7)


@pytest.mark.parametrize(
    "message", ["post_and_fail", "post_twice_and_fail", "post_put_and_fail", "post_what_cannot_be_sent"]
)
async def test_however_often_a_lone_caller_fails_nothing_stays(account: Account, message: str) -> None:
    for _ in range(20):
        await account.append("deposit", amount=1)
        with pytest.raises((LookupError, z0.InvalidMessage)):
            await getattr(account, message)(5)
    await holds(account, *[1] * 20)


async def test_what_a_message_wrote_before_it_waited_stands(account: Account) -> None:
    with pytest.raises(LookupError):
        await account.wait_and_fail(5)
    await holds(account, 5)


@pytest.mark.parametrize("failing", [{0}, {2}, {4}, {0, 1}, {1, 3}, {0, 2, 4}, {0, 1, 2, 3, 4}], ids=str)
async def test_messages_that_fail_take_none_of_their_turn_with_them(account: Account, failing: set[int]) -> None:
    await deposit(account, 100)
    messages = [account.post_and_fail(n) if n in failing else account.append("deposit", amount=n) for n in range(5)]
    outcomes = await asyncio.gather(*messages, return_exceptions=True)
    assert [isinstance(outcome, LookupError) for outcome in outcomes] == [n in failing for n in range(5)]
    kept = [outcome for outcome in outcomes if isinstance(outcome, z0.Fact)]
    assert (await account.query_facts())[1:] == kept
    await holds(account, 100, *[n for n in range(5) if n not in failing])


class Step(NamedTuple):
    """One thing that a message of the next test does; `mark` tells where it went."""

    what: str
    mark: str


class Desk(z0.Entity):
    """Does as it is told."""

    total: Total

    async def start(self) -> None:
        self.storage.sql("CREATE TABLE IF NOT EXISTS marks(mark)")

    def do(self, steps: list[Step], fail: bool) -> None:
        for what, mark in steps:
            if what == "append":
                self.ledger.append("x", amount=1, idempotency_key=mark)
            elif what == "many":
                self.ledger.append_many([{"type": "x", "amount": 1, "idempotency_key": mark}, {"type": "y"}])
            elif what == "refused":
                with pytest.raises(ValueError, match="refused"):
                    self.ledger.append("refused", amount=1, idempotency_key=mark)
            elif what == "sql":
                self.storage.sql("INSERT INTO marks VALUES(?)", mark)
            elif what == "put":
                self.storage.put(mark, 1)
        if fail:
            raise LookupError

    async def at_once(self, steps: list[Step], fail: bool) -> None:
        self.do(steps, fail)

    async def with_a_break(self, first: list[Step], steps: list[Step], fail: bool) -> None:
        self.do(first, False)
        await asyncio.sleep(0)
        self.do(steps, fail)

    async def marks(self) -> set[str]:
        keys = {str(fact.idempotency_key) for fact in self.ledger.query(type="x")}
        rows = {mark for (mark,) in self.storage.sql("SELECT mark FROM marks")}
        return keys | rows | set(self.storage.list())


class Script(NamedTuple):
    """One message: what it does at once, what after a break, and whether it then fails."""

    first: list[str] | None
    then: list[str]
    fail: bool


kinds = st.lists(st.sampled_from(["append", "many", "refused", "sql", "put"]), max_size=3)
scripts = st.builds(Script, st.none() | kinds, kinds, st.booleans())
messages = st.lists(scripts, min_size=1, max_size=1) | st.lists(scripts, min_size=1, max_size=5)
turns = st.tuples(messages, st.sampled_from(["go on", "check", "evict", "crash"]))


def call(desk: Desk, script: Script, name: str, kept: set[str]) -> Coroutine[Any, Any, None]:
    """A message that does what the script says; `kept` gets the marks that it will leave."""
    first = [Step(what, f"{name}-first-{at}") for at, what in enumerate(script.first or ())]
    then = [Step(what, f"{name}-then-{at}") for at, what in enumerate(script.then)]
    stands = first + ([] if script.fail else then)
    kept |= {step.mark for step in stands if step.what != "refused"}
    if script.first is None:
        return desk.at_once(then, script.fail)
    return desk.with_a_break(first, then, script.fail)


async def outcomes_of(calls: list[Coroutine[Any, Any, None]]) -> list[type[BaseException] | None]:
    """The error of each call. A single one is awaited in the caller's own task."""
    if len(calls) > 1:
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        return [None if outcome is None else type(outcome) for outcome in outcomes]
    try:
        await calls[0]
    except LookupError as error:
        return [type(error)]
    return [None]


async def keeps(desk: Desk, kept: set[str]) -> None:
    assert await desk.marks() == kept
    facts = await desk.query_facts()
    assert [fact.seq for fact in facts] == list(range(1, len(facts) + 1))
    assert (await desk.verify()).facts == len(facts)
    assert await desk.projection("total") == Total(sum(fact.amount or 0 for fact in facts))


@settings(max_examples=60, deadline=None)
@given(st.lists(turns, max_size=8))
async def test_whatever_fails_the_rest_stands(script: list[Any]) -> None:
    kept: set[str] = set()
    limits = z0.Limits(snapshot_facts=4)
    async with temporary_runtime(memory=True, clock=VirtualClock(), limits=limits) as runtime:
        for number, (turn, after) in enumerate(script):
            desk = runtime.get(Desk, "d")
            for at in range(2):  # from its third turn on, a caller that stays alone does not wait for others
                await call(desk, Script(None, ["append"], False), f"{number}-before-{at}", kept)
            calls = [call(desk, message, f"{number}-{at}", kept) for at, message in enumerate(turn)]
            assert await outcomes_of(calls) == [LookupError if message.fail else None for message in turn]
            if after == "check":
                await keeps(desk, kept)
            elif after == "evict":
                assert await runtime.evict(Desk, "d")
            elif after == "crash":
                await crash(runtime)
                runtime = z0.Runtime(runtime.path, clock=VirtualClock(), limits=limits)
                await runtime.open()
        await keeps(runtime.get(Desk, "d"), kept)
        await runtime.close()


# Idempotent messages that reply with facts


async def test_a_retried_message_gets_its_first_fact_back(runtime: z0.Runtime) -> None:
    account = runtime.get(Account, "a")
    await deposit(account, 10)
    fact = await account.charge(8, key="k")
    assert isinstance(fact, z0.Fact)
    assert await account.charge(8, key="k") == fact  # although the money is gone by now
    assert await runtime.evict(Account, "a")
    again = await account.charge(8, key="k")
    assert (again, type(again), again.data) == (fact, z0.Fact, {"why": ["charged"]})
    with pytest.raises(z0.IdempotencyConflict):
        await account.charge(9, key="k")
    await holds(account, 10, -8)


async def test_a_message_that_raised_is_run_again(account: Account) -> None:
    with pytest.raises(ArithmeticError):
        await account.charge(8, key="k")
    await deposit(account, 10)
    assert (await account.charge(8, key="k")).seq == 2


async def test_one_key_runs_a_waiting_message_once(account: Account) -> None:
    facts = await asyncio.gather(*[account.slow_charge(3, key="k") for _ in range(5)])
    assert [fact.seq for fact in facts] == [1] * 5
    await holds(account, -3)


async def test_messages_that_wait_and_that_do_not_share_one_ledger(account: Account) -> None:
    calls = [account.wait_and_post(n) if n % 2 else account.append("deposit", amount=n) for n in range(20)]
    facts = await asyncio.gather(*calls)
    assert sorted(fact.seq for fact in facts) == list(range(1, 21))
    assert await account.query_facts() == sorted(facts, key=lambda fact: fact.seq)


# Append-only


@contextmanager
def shell(runtime: z0.Runtime, name: str) -> Iterator[sqlite3.Connection]:
    """The file of an evicted account, in the SQLite of Python's own library."""
    path = runtime.path / file_path("default", "Account", name)
    with closing(sqlite3.connect(path)) as connection:
        yield connection


ROW = "type, timestamp, tenant_id, entity_id, hash"
VALUES = "'deposit', 1, 'default', 'a', x'00'"


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE facts SET amount = 9 WHERE seq = 1",
        "UPDATE facts SET seq = 9 WHERE seq = 2",
        "UPDATE OR REPLACE facts SET seq = 1 WHERE seq = 2",
        "DELETE FROM facts WHERE seq = 2",
        "DELETE FROM facts",
        f"INSERT OR REPLACE INTO facts(seq, {ROW}) VALUES(1, {VALUES})",
        f"REPLACE INTO facts(seq, {ROW}, idempotency_key) VALUES(3, {VALUES}, 'k1')",
        f"INSERT OR IGNORE INTO facts(seq, {ROW}, idempotency_key) VALUES(3, {VALUES}, 'k1')",
        f"INSERT INTO facts(seq, {ROW}) VALUES(2, {VALUES}) ON CONFLICT(seq) DO UPDATE SET amount = 9",
        f"INSERT INTO facts(seq, {ROW}) VALUES(4, {VALUES})",
        f"INSERT INTO facts(seq, {ROW}) VALUES(0, {VALUES})",
        f"INSERT INTO facts(seq, {ROW}) VALUES(-1, {VALUES})",
    ],
)
async def test_the_file_itself_refuses_to_forget(runtime: z0.Runtime, sql: str) -> None:
    account = runtime.get(Account, "a")
    for key in ("k1", "k2"):
        await account.append("deposit", amount=1, idempotency_key=key)
    facts = await account.query_facts()
    assert await runtime.evict(Account, "a")
    with shell(runtime, "a") as file, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        file.execute(sql)
    assert await account.query_facts() == facts
    await holds(account, 1, 1)


async def test_the_file_is_a_table_that_any_shell_reads(runtime: z0.Runtime) -> None:
    fact = await runtime.get(Account, "a").append("deposit", amount=5, currency="EUR", data={"n": "ü"})
    assert await runtime.evict(Account, "a")
    with shell(runtime, "a") as file:
        rows = file.execute("SELECT seq, type, amount, currency, data, data ->> 'n', hash FROM facts").fetchall()
    assert rows == [(1, "deposit", 5, "EUR", '{"n":"ü"}', "ü", fact.hash)]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM facts",
        "UPDATE facts SET amount = 1",
        f"INSERT INTO facts(seq, {ROW}) VALUES(2, {VALUES})",
        "DROP TABLE facts",
        "DROP TRIGGER z0_facts_no_update",
        "ALTER TABLE facts RENAME TO f",
        "CREATE TRIGGER t AFTER INSERT ON facts BEGIN SELECT 1; END",
        "CREATE INDEX i ON facts(amount)",
        "DELETE FROM z0_snapshots",
        'WITH f AS (SELECT 1) DELETE FROM "FACTS" WHERE seq IN f',
    ],
)
async def test_sql_inside_an_entity_reads_facts_and_never_writes_them(account: Account, sql: str) -> None:
    await deposit(account, 5)
    with pytest.raises(z0.QueryError):
        await account.run_sql(sql)
    assert await account.run_sql("SELECT sum(amount) FROM facts") == [(5,)]
    await holds(account, 5)


async def test_a_trigger_of_a_user_cannot_write_facts(account: Account) -> None:
    await deposit(account, 5)
    await account.run_sql("CREATE TABLE t(x)")
    with pytest.raises(z0.QueryError):
        await account.run_sql(
            "CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM facts; END; INSERT INTO t VALUES(1)"
        )
    await holds(account, 5)
