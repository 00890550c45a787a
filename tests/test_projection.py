"""Projections are what the facts say: up to date inside, kept by snapshots, and never believed above the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import z0
from z0.actors.clock import EPOCH
from z0.actors.names import file_path
from z0.actors.reader import Reader
from z0.testing import VirtualClock, crash, temporary_runtime


class Sum(z0.Projection):
    """Sum of the amounts; notes what it was given, and refuses negative ones half-way."""

    folded: ClassVar[list[int]] = []
    amount: int = 0

    def apply(self, fact: z0.Fact) -> None:
        self.folded.append(fact.seq)
        self.amount += fact.amount or 0
        if (fact.amount or 0) < 0:
            raise ValueError("negative")


class Types(z0.Projection):
    """How many facts there are of each type."""

    counts: dict[str, int] = {}

    def apply(self, fact: z0.Fact) -> None:
        self.counts[fact.type] = self.counts.get(fact.type, 0) + 1


class Purse(z0.Entity):
    """Two projections, of which the second may refuse a fact that the first has taken in."""

    accepts = {"*"}
    types: Types
    sum: Sum

    async def look(self) -> tuple[dict[str, int], int]:
        return dict(self.types.counts), self.sum.amount

    async def append_and_look(self, amounts: list[int]) -> list[int]:
        seen = []
        for amount in amounts:
            self.ledger.append("x", amount=amount)
            seen.append(self.sum.amount)
        return seen

    async def append_after_sql(self, amount: int) -> None:
        self.storage.sql("CREATE TABLE IF NOT EXISTS t(x)")
        self.storage.sql("INSERT INTO t VALUES(?)", amount)
        self.ledger.append("x", amount=amount)

    async def rows(self) -> list[int]:
        return [x for (x,) in self.storage.sql("SELECT x FROM t")]

    async def append_what_is_allowed(self, amounts: list[int]) -> int:
        for amount in amounts:
            try:
                self.ledger.append("x", amount=amount)
            except ValueError:
                self.storage.put("refused", self.storage.get("refused", 0) + 1)
        return int(self.storage.get("refused", 0))

    async def append_and_fail(self, amount: int) -> None:
        self.ledger.append("x", amount=amount)
        raise LookupError

    async def rebuild(self) -> None:
        self.ledger.rebuild()


@pytest.fixture
async def runtime() -> AsyncIterator[z0.Runtime]:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        yield runtime


@pytest.fixture
async def purse(runtime: z0.Runtime) -> Purse:
    return runtime.get(Purse, "p")


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seqs that Sum is given from now on."""
    seqs: list[int] = []
    monkeypatch.setattr(Sum, "folded", seqs)
    return seqs


async def holds(purse: Purse, *amounts: int) -> None:
    """Make sure that ledger and projections hold exactly these amounts, as facts of type "x"."""
    assert [fact.amount for fact in await purse.query_facts()] == list(amounts)
    counts = {"x": len(amounts)} if amounts else {}
    assert await purse.look() == (counts, sum(amounts))
    assert await purse.projection("types") == Types(counts)
    assert await purse.projection("sum") == Sum(sum(amounts))
    assert (await purse.verify()).facts == len(amounts)


def snapshots(runtime: z0.Runtime, cls: type[z0.Entity], name: str) -> dict[str, tuple[int, int, Any]]:
    """Version, seq and state of each snapshot in the file."""
    path = runtime.path / file_path("default", cls.namespace or cls.__name__, name)
    with Reader(path) as file:
        rows = file.rows("SELECT projection, version, seq, state FROM z0_snapshots")
    return {name: (version, seq, msgspec.msgpack.decode(state)) for name, version, seq, state in rows}


def entity(namespace: str = "E", **kinds: type[z0.Projection]) -> type[Purse]:
    """An entity class with these projections."""
    attributes = {"accepts": {"*"}, "namespace": namespace, "projections": kinds}
    return type("E", (z0.Entity,), attributes)


# Declaring


async def test_a_projection_is_up_to_date_inside_a_message(purse: Purse) -> None:
    assert await purse.append_and_look([1, 2, 3]) == [1, 3, 6]
    await holds(purse, 1, 2, 3)


async def test_annotations_of_a_local_class_are_understood(runtime: z0.Runtime) -> None:
    class Largest(z0.Projection):
        amount: int = 0

        def apply(self, fact: z0.Fact) -> None:
            self.amount = max(self.amount, fact.amount or 0)

    class Local(z0.Entity):
        accepts = {"*"}
        largest: Largest
        limit: int
        nothing: Missing  # type: ignore[name-defined]  # noqa: F821

        async def look(self) -> int:
            return self.largest.amount

    local = runtime.get(Local, "a")
    for amount in (3, 5, 4):
        await local.append("x", amount=amount)
    assert await local.look() == 5
    assert await local.projection("largest") == Largest(5)
    assert list(Local._z0_projections) == ["largest"]


async def test_a_mapping_declares_what_annotations_cannot_say(runtime: z0.Runtime) -> None:
    def make() -> type[z0.Projection]:
        class Hidden(z0.Projection):
            seq: int = 0

            def apply(self, fact: z0.Fact) -> None:
                self.seq = fact.seq

        return Hidden

    hidden = make()

    class Mapped(z0.Entity):
        accepts = {"*"}
        projections = {"last": hidden}
        sum: Sum

        async def look(self) -> int:
            return int(self.last.seq)  # type: ignore[attr-defined]

    mapped = runtime.get(Mapped, "a")
    await mapped.append_many([{"type": "x"}] * 3)
    assert await mapped.look() == 3
    assert await mapped.projection("last") == hidden(3)
    assert await mapped.projection("sum") == Sum(0)


async def test_a_subclass_keeps_and_adds_projections(runtime: z0.Runtime) -> None:
    class Child(Purse):
        balance: z0.Balance

    child = runtime.get(Child, "c")
    await child.append("x", amount=2)
    assert await child.look() == ({"x": 1}, 2)
    assert await child.projection("balance") == z0.Balance({"": 2})
    assert "balance" not in Purse._z0_projections


class NoDefault(z0.Projection):
    amount: int


class Unstorable(z0.Projection):
    thing: object = len


@pytest.mark.parametrize("wrong", [int, Sum(), "Sum", NoDefault, Unstorable, msgspec.Struct], ids=repr)
def test_what_cannot_be_a_projection_is_refused_with_the_class(wrong: Any) -> None:
    with pytest.raises(TypeError, match="thing"):
        entity(thing=wrong)


async def test_an_unknown_projection_is_named_with_those_there_are(purse: Purse) -> None:
    with pytest.raises(z0.InvalidQuery, match=r"no projection 'total'; it has: types, sum"):
        await purse.projection("total")


async def test_replies_are_copies(purse: Purse) -> None:
    await purse.append("x", amount=1)
    taken = await purse.projection("types")
    taken.counts["x"] = 99
    assert await purse.projection("types") == Types({"x": 1})
    await purse.append("x", amount=1)
    assert taken.counts == {"x": 99}
    await holds(purse, 1, 1)


async def test_a_balance_is_kept_per_currency(runtime: z0.Runtime) -> None:
    class Wallet(z0.Entity):
        accepts = {"*"}
        balance: z0.Balance

    wallet = runtime.get(Wallet, "w")
    for amount, currency in [(5, "EUR"), (7, "CHF"), (-2, "EUR"), (3, None), (None, "USD")]:
        await wallet.append("x", amount=amount, currency=currency)
    assert await wallet.projection("balance") == z0.Balance({"EUR": 3, "CHF": 7, "": 3})
    assert await wallet.projection("balance", seq=2) == z0.Balance({"EUR": 5, "CHF": 7})


# Snapshots


async def test_a_snapshot_is_written_every_so_many_facts_and_at_eviction(folded: list[int]) -> None:
    limits = z0.Limits(snapshot_facts=10)
    async with temporary_runtime(memory=True, clock=VirtualClock(), limits=limits) as runtime:
        purse = runtime.get(Purse, "p")
        for _ in range(9):
            await purse.append("x", amount=1)
        assert snapshots(runtime, Purse, "p") == {}
        await purse.append_many([{"type": "x", "amount": 1}] * 16)
        assert snapshots(runtime, Purse, "p") == {
            "types": (1, 20, {"counts": {"x": 20}}),
            "sum": (1, 20, {"amount": 20}),
        }
        assert await runtime.evict(Purse, "p")
        assert snapshots(runtime, Purse, "p")["sum"] == (1, 25, {"amount": 25})
        folded.clear()
        await holds(purse, *[1] * 25)
        assert folded == []


async def test_a_crash_folds_only_what_came_after_the_last_snapshot(tmp_path: Path, folded: list[int]) -> None:
    limits = z0.Limits(snapshot_facts=10)
    async with z0.Runtime(tmp_path, clock=VirtualClock(), limits=limits) as runtime:
        await runtime.get(Purse, "p").append_many([{"type": "x", "amount": 1}] * 25)
        await crash(runtime)
    folded.clear()
    async with z0.Runtime(tmp_path, clock=VirtualClock(), limits=limits) as runtime:
        await holds(runtime.get(Purse, "p"), *[1] * 25)
        assert folded == [21, 22, 23, 24, 25]


async def test_a_snapshot_taken_back_with_its_fact_is_not_used() -> None:
    limits = z0.Limits(snapshot_facts=3)
    async with temporary_runtime(memory=True, clock=VirtualClock(), limits=limits) as runtime:
        purse = runtime.get(Purse, "p")
        await purse.append_many([{"type": "x", "amount": 1}] * 2)
        with pytest.raises(LookupError):
            await purse.append_and_fail(100)
        with pytest.raises(ValueError, match="negative"):
            await purse.append("x", amount=-1)
        assert snapshots(runtime, Purse, "p") == {}
        await holds(purse, 1, 1)
        await purse.append("x", amount=1)
        assert snapshots(runtime, Purse, "p")["sum"] == (1, 3, {"amount": 3})


async def test_another_version_is_rebuilt_from_the_ledger(tmp_path: Path) -> None:
    class Doubled(z0.Projection):
        version = 2
        amount: int = 0

        def apply(self, fact: z0.Fact) -> None:
            self.amount += 2 * (fact.amount or 0)

    for kind, amount in ((Sum, 6), (Doubled, 12), (Doubled, 12), (Sum, 6)):
        async with z0.Runtime(tmp_path, clock=VirtualClock()) as runtime:
            cls = entity(sum=kind)
            book = runtime.get(cls, "e")
            if not await book.count_facts():
                await book.append_many([{"type": "x", "amount": n} for n in (1, 2, 3)])
            assert (await book.projection("sum")).amount == amount
            assert await runtime.evict(cls, "e")
            assert snapshots(runtime, cls, "e") == {"sum": (kind.version, 3, {"amount": amount})}


async def test_other_fields_without_another_version_are_rebuilt_too(tmp_path: Path) -> None:
    class Texts(z0.Projection):
        amount: str = ""

        def apply(self, fact: z0.Fact) -> None:
            self.amount += str(fact.amount)

    for kind, amount in ((Sum, 6), (Texts, "123")):
        async with z0.Runtime(tmp_path, clock=VirtualClock()) as runtime:
            book = runtime.get(entity(sum=kind), "e")
            if not await book.count_facts():
                await book.append_many([{"type": "x", "amount": n} for n in (1, 2, 3)])
            assert (await book.projection("sum")).amount == amount


async def test_a_new_projection_is_folded_from_the_first_fact(tmp_path: Path) -> None:
    for kinds in ({"sum": Sum}, {"sum": Sum, "types": Types}, {"types": Types}):
        async with z0.Runtime(tmp_path, clock=VirtualClock()) as runtime:
            book = runtime.get(entity(**kinds), "e")
            seq = (await book.append("x", amount=1)).seq
            expected = {"sum": Sum(seq), "types": Types({"x": seq})}
            for name in kinds:
                assert await book.projection(name) == expected[name]


async def test_a_rebuild_folds_everything_anew(purse: Purse, folded: list[int]) -> None:
    await purse.append_many([{"type": "x", "amount": 1}] * 3)
    folded.clear()
    await purse.rebuild()
    assert folded == [1, 2, 3]
    await holds(purse, 1, 1, 1)


@pytest.mark.timeout(10)
async def test_a_state_too_large_to_be_stored_costs_a_fold_and_nothing_else() -> None:
    limits = z0.Limits(snapshot_facts=4)
    async with temporary_runtime(memory=True, clock=VirtualClock(), limits=limits) as runtime:
        purse = runtime.get(Purse, "p")
        amounts = [2**63 - 1] * 5
        for amount in amounts:
            await purse.append("x", amount=amount)
        await holds(purse, *amounts)
        assert await runtime.evict(Purse, "p")
        await holds(purse, *amounts)


# An apply that raises on a new fact refuses it


async def test_a_refused_fact_leaves_nothing_behind(purse: Purse) -> None:
    await purse.append("x", amount=5)
    for _ in range(3):
        with pytest.raises(ValueError, match="negative"):
            await purse.append("x", amount=-1, idempotency_key="k")
        await holds(purse, 5)
    await purse.append("x", amount=1, idempotency_key="k")
    await holds(purse, 5, 1)


async def test_a_refused_fact_takes_none_of_its_turn_with_it(purse: Purse) -> None:
    amounts = [1, -2, 3, -4, -5, 6]
    outcomes = await asyncio.gather(*[purse.append("x", amount=n) for n in amounts], return_exceptions=True)
    assert [isinstance(outcome, ValueError) for outcome in outcomes] == [n < 0 for n in amounts]
    await holds(purse, 1, 3, 6)


async def test_a_refused_fact_takes_the_sql_of_its_message_with_it(purse: Purse) -> None:
    await purse.append_after_sql(1)
    outcomes = await asyncio.gather(*[purse.append_after_sql(n) for n in (2, -3, 4, -5)], return_exceptions=True)
    assert [isinstance(outcome, ValueError) for outcome in outcomes] == [False, True, False, True]
    await holds(purse, 1, 2, 4)
    assert await purse.rows() == [1, 2, 4]


async def test_one_refused_fact_refuses_the_several_it_came_with(purse: Purse) -> None:
    await purse.append("x", amount=1)
    with pytest.raises(ValueError, match="negative"):
        await purse.append_many([{"type": "x", "amount": n} for n in (2, 3, -4, 5)])
    await holds(purse, 1)


async def test_a_message_may_go_on_after_a_refused_fact(purse: Purse) -> None:
    assert await purse.append_what_is_allowed([1, -2, 3, -4, -5, 6]) == 3
    await holds(purse, 1, 3, 6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(-2, 5), max_size=4), max_size=6), st.integers(1, 5))
async def test_whatever_is_refused_projections_are_a_fold_of_the_ledger(turns: list[list[int]], every: int) -> None:
    limits = z0.Limits(snapshot_facts=every)
    async with temporary_runtime(memory=True, clock=VirtualClock(), limits=limits) as runtime:
        purse = runtime.get(Purse, "p")
        for number, amounts in enumerate(turns):
            calls = [purse.append("x", amount=n) for n in amounts]
            await asyncio.gather(*calls, purse.append_what_is_allowed(amounts), return_exceptions=True)
            if number % 2:
                assert await runtime.evict(Purse, "p")
        await holds(purse, *[n for amounts in turns for n in [each for each in amounts if each >= 0] * 2])


# An apply that raises on an old fact breaks that projection, and nothing else


class Picky(z0.Projection):
    """Fails at the second fact, unless it is mended."""

    version = 2
    mended: ClassVar[bool] = False
    amount: int = 0

    def apply(self, fact: z0.Fact) -> None:
        if fact.seq == 2 and not self.mended:
            raise KeyError("cannot read this")
        self.amount += 1


class Broken(z0.Entity):
    """One projection fails on a fact that is there already."""

    namespace = "E"
    accepts = {"*"}
    sum: Sum
    picky: Picky

    async def look(self) -> int:
        return self.picky.amount

    async def look_at_the_other(self) -> int:
        return self.sum.amount

    async def rebuild(self) -> None:
        self.ledger.rebuild("picky")


@pytest.fixture
async def broken(tmp_path: Path) -> AsyncIterator[Broken]:
    async with z0.Runtime(tmp_path, clock=VirtualClock()) as runtime:
        await runtime.get(entity(sum=Sum), "e").append_many([{"type": "x", "amount": 1}] * 3)
    async with z0.Runtime(tmp_path, clock=VirtualClock()) as runtime:
        yield runtime.get(Broken, "e")


async def test_a_broken_projection_says_where_and_why(broken: Broken) -> None:
    for message in (broken.look(), broken.projection("picky"), broken.projection("picky", seq=3)):
        with pytest.raises(
            z0.ProjectionError, match=r"'picky' failed at fact 2: KeyError: 'cannot read this'"
        ) as caught:
            await message
        assert (caught.value.projection, caught.value.seq) == ("picky", 2)


async def test_each_caller_gets_an_error_of_its_own(broken: Broken) -> None:
    errors = await asyncio.gather(*[broken.projection("picky") for _ in range(3)], return_exceptions=True)
    assert len(set(map(id, errors))) == 3


async def test_a_broken_projection_breaks_nothing_else(broken: Broken) -> None:
    assert (await broken.append("x", amount=1)).seq == 4
    with pytest.raises(ValueError, match="negative"):
        await broken.append("x", amount=-1)
    assert await broken.look_at_the_other() == 4
    assert await broken.projection("sum") == Sum(4)
    assert await broken.projection("picky", seq=1) == Picky(1)
    assert (await broken.verify()).facts == 4
    with pytest.raises(z0.ProjectionError):
        await broken.look()


async def test_a_mended_projection_is_rebuilt(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    await broken.append("x", amount=1)
    await broken.rebuild()
    with pytest.raises(z0.ProjectionError):
        await broken.look()
    monkeypatch.setattr(Picky, "mended", True)
    await broken.rebuild()
    assert await broken.look() == 4
    await broken.append("x", amount=1)
    assert await broken.look() == 5


async def test_a_broken_projection_is_never_snapshotted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with z0.Runtime(tmp_path, clock=VirtualClock()) as runtime:
        await runtime.get(entity(sum=Sum), "e").append_many([{"type": "x", "amount": 1}] * 3)
    async with z0.Runtime(tmp_path, clock=VirtualClock()) as runtime:
        await runtime.get(Broken, "e").append("x", amount=1)
        assert await runtime.evict(Broken, "e")
        assert set(snapshots(runtime, Broken, "e")) == {"sum"}
        monkeypatch.setattr(Picky, "mended", True)
        assert await runtime.get(Broken, "e").look() == 4


# The past


async def test_a_projection_as_of_a_seq(purse: Purse) -> None:
    await purse.append_many([{"type": "x", "amount": n} for n in (1, 2, 3)])
    past = [(await purse.projection("sum", seq=seq)).amount for seq in range(5)]
    assert past == [0, 1, 3, 6, 6]
    await holds(purse, 1, 2, 3)


async def test_a_projection_as_of_a_time(runtime: z0.Runtime, purse: Purse) -> None:
    clock = runtime.node.clock
    assert isinstance(clock, VirtualClock)
    stamps = []
    for amount in (1, 2, 3):
        stamps.append((await purse.append("x", amount=amount)).timestamp)
        await clock.advance("1 second")
    microsecond = timedelta(microseconds=1)
    moment = EPOCH + stamps[1] * microsecond
    asked = [stamps[0] - 1, stamps[0], stamps[1] - 1, stamps[1], stamps[2], moment, moment - microsecond, clock.now()]
    past = [(await purse.projection("sum", time=time)).amount for time in asked]  # type: ignore[arg-type]
    assert past == [0, 1, 1, 3, 6, 3, 1, 6]


@pytest.mark.parametrize(
    "when",
    [
        {"time": datetime(2026, 1, 1)}, {"time": "2026"}, {"time": 1.5}, {"seq": "1"}, {"seq": 1.5}, {"seq": True},
        {"seq": [1]}, {"seq": 1, "time": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
    ids=str,
)  # fmt: skip
async def test_a_past_that_cannot_be_is_refused(purse: Purse, when: dict[str, Any]) -> None:
    await purse.append("x", amount=1)
    with pytest.raises(z0.InvalidQuery):
        await purse.projection("sum", **when)


async def test_a_seq_or_a_time_far_beyond_is_the_present(purse: Purse) -> None:
    await purse.append("x", amount=1)
    assert await purse.projection("sum", seq=2**63 - 1) == await purse.projection("sum", time=2**62) == Sum(1)
