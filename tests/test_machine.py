"""Any interleaving of messages, alarms, failures, cancellation, eviction, crashes and restarts ends as a model says.

The model is plain Python: what was acknowledged is there, what failed is not, what was cut off is there wholly or
not at all, and every alarm that was set runs once, neither early nor lost.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import z0
from z0.testing import VirtualClock, _new_folder, crash

T = TypeVar("T")
NAMES = st.sampled_from(["a", "b", "c"])
ALARMS = st.sampled_from([None, "n"])
KEYS = st.sampled_from([f"k{n}" for n in range(6)])
SPANS = st.sampled_from([1, 5, 11, 60, 3600])


class Oops(Exception):
    pass


class Sum(z0.Projection):
    amount: int = 0

    def apply(self, fact: z0.Fact) -> None:
        self.amount += fact.amount or 0


class Book(z0.Entity):
    """Does a little of everything."""

    accepts = {"*"}
    sum: Sum

    async def add(self, amount: int) -> int:
        total: int = self.storage.get("total", 0) + amount
        self.storage.put("total", total)
        self.ledger.append("add", amount=amount)
        return total

    async def add_slowly(self, amount: int) -> int:
        await self.add(amount)
        await asyncio.sleep(0)
        return await self.add(amount)

    async def add_and_fail(self, amount: int) -> None:
        await self.add(amount)
        raise Oops

    async def add_slowly_and_fail(self, amount: int) -> None:
        await self.add(amount)
        await asyncio.sleep(0)
        await self.add(amount)
        raise Oops

    async def add_alone(self, amount: int) -> None:
        async with self.block():
            await self.add(amount)
            await asyncio.sleep(0)
            await self.add(amount)

    async def pass_on(self, name: str, amount: int) -> None:
        await self.add(-amount)
        await self.get(Book, name).add(amount)

    @z0.idempotent("key")
    async def add_once(self, amount: int, *, key: str) -> int:
        return await self.add(amount)

    async def arm(self, name: str | None, after: int) -> None:
        self.storage.set_alarm(after, name)

    async def arm_and_fail(self, name: str | None, after: int) -> None:
        self.storage.set_alarm(after, name)
        raise Oops

    async def disarm(self, name: str | None) -> None:
        self.storage.delete_alarm(name)

    async def alarm(self, info: z0.AlarmInfo) -> None:
        assert self.clock.now() >= info.scheduled_time
        self.ledger.append("fired", source_id=info.name, data={"at": info.scheduled_time.isoformat()})

    async def state(self) -> dict[str, Any]:
        facts = self.ledger.query()
        self.ledger.verify()
        fired = Counter((fact.source_id, (fact.data or {})["at"]) for fact in facts if fact.type == "fired")
        assert self.sum.amount == sum(fact.amount or 0 for fact in facts)
        assert [fact.seq for fact in facts] == list(range(1, len(facts) + 1))
        return {
            "total": self.storage.get("total", 0),
            "sum": self.sum.amount,
            "alarms": {name: self.storage.get_alarm(name) for name in (None, "n")},
            "fired": dict(fired),
        }


class Model:
    """What one book should hold."""

    def __init__(self) -> None:
        self.total = 0
        self.keys: dict[str, int] = {}
        self.alarms: dict[str | None, datetime] = {}
        self.fired: Counter[tuple[str | None, str]] = Counter()

    def pass_time(self, now: datetime) -> None:
        for name, due in list(self.alarms.items()):
            if due <= now:
                del self.alarms[name]
                self.fired[name, due.isoformat()] += 1

    def state(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "sum": self.total,
            "alarms": {name: self.alarms.get(name) for name in (None, "n")},
            "fired": dict(self.fired),
        }


class Machine(RuleBasedStateMachine):
    """The runtime beside its model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = _new_folder(True)
        self.clock = VirtualClock()
        self.model = {name: Model() for name in ("a", "b", "c")}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def open(self) -> None:
        async def opened() -> z0.Runtime:
            limits = z0.Limits(open_files=2, checkpoint_pages=20)
            self.runtime = z0.Runtime(self.folder / "data", actors=[Book], clock=self.clock, limits=limits)
            await self.runtime.open()
            await self.clock.settle()
            return self.runtime

        self.run(opened())

    def book(self, name: str) -> Book:
        return self.runtime.get(Book, name)

    # Messages

    @rule(name=NAMES, amount=st.integers(-5, 5))
    def add(self, name: str, amount: int) -> None:
        self.model[name].total += amount
        assert self.run(self.book(name).add(amount)) == self.model[name].total

    @rule(name=NAMES, amount=st.integers(-5, 5))
    def add_alone(self, name: str, amount: int) -> None:
        self.run(self.book(name).add_alone(amount))
        self.model[name].total += 2 * amount

    @rule(name=NAMES, amount=st.integers(-5, 5), slowly=st.booleans())
    def a_failing_segment_leaves_nothing(self, name: str, amount: int, slowly: bool) -> None:
        book = self.book(name)
        with pytest.raises(Oops):
            self.run(book.add_slowly_and_fail(amount) if slowly else book.add_and_fail(amount))
        self.model[name].total += amount if slowly else 0

    @rule(name=NAMES, amounts=st.lists(st.integers(-3, 3), max_size=6))
    def many_at_once(self, name: str, amounts: list[int]) -> None:
        async def burst() -> None:
            book = self.book(name)
            calls = [
                [book.add, book.add_slowly, book.add_alone, book.add_and_fail][n % 4](amount)
                for n, amount in enumerate(amounts)
            ]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [isinstance(result, Oops) for result in results] == [n % 4 == 3 for n in range(len(amounts))]

        self.run(burst())
        self.model[name].total += sum(amount * [1, 2, 2, 0][n % 4] for n, amount in enumerate(amounts))

    @rule(name=NAMES, key=KEYS, amount=st.integers(1, 2))
    def an_idempotent_message_happens_once(self, name: str, key: str, amount: int) -> None:
        model = self.model[name]
        known = model.keys.setdefault(key, amount)
        if known != amount:
            with pytest.raises(z0.IdempotencyConflict):
                self.run(self.book(name).add_once(amount, key=key))
            return
        before = f"reply {key}" in model.__dict__
        reply = self.run(self.book(name).add_once(amount, key=key))
        if not before:
            model.total += amount
            model.__dict__[f"reply {key}"] = model.total
        assert reply == model.__dict__[f"reply {key}"]

    @rule(sender=NAMES, receiver=NAMES, amount=st.integers(1, 5))
    def pass_on(self, sender: str, receiver: str, amount: int) -> None:
        self.run(self.book(sender).pass_on(receiver, amount))
        self.model[sender].total -= amount
        self.model[receiver].total += amount

    @rule(name=NAMES, amount=st.integers(1, 5), passes=st.integers(0, 4), slowly=st.booleans())
    def a_cancelled_call_happens_wholly_or_not_at_all(self, name: str, amount: int, passes: int, slowly: bool) -> None:
        async def cancelled() -> int:
            book = self.book(name)
            call = self.loop.create_task(book.add_slowly(amount) if slowly else book.add(amount))
            for _ in range(passes):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await self.clock.settle()
            state = await book.state()
            return int(state["total"])

        total = self.run(cancelled())
        whole = amount * (2 if slowly else 1)
        assert total - self.model[name].total in (0, whole)
        self.model[name].total = total

    # Alarms and time

    @rule(name=NAMES, alarm=ALARMS, after=SPANS)
    def arm(self, name: str, alarm: str | None, after: int) -> None:
        self.run(self.book(name).arm(alarm, after))
        self.model[name].alarms[alarm] = self.clock.now() + timedelta(seconds=after)

    @rule(name=NAMES, alarm=ALARMS)
    def an_alarm_of_a_failed_message_is_not_set(self, name: str, alarm: str | None) -> None:
        with pytest.raises(Oops):
            self.run(self.book(name).arm_and_fail(alarm, 2))

    @rule(name=NAMES, alarm=ALARMS)
    def disarm(self, name: str, alarm: str | None) -> None:
        self.run(self.book(name).disarm(alarm))
        self.model[name].alarms.pop(alarm, None)

    @rule(after=SPANS)
    def time_passes(self, after: int) -> None:
        self.run(self.clock.advance(after))
        for model in self.model.values():
            model.pass_time(self.clock.now())

    # Life

    @rule(name=NAMES)
    def evict(self, name: str) -> None:
        self.run(self.runtime.evict(Book, name))

    @rule()
    def restart(self) -> None:
        self.run(self.runtime.close())
        self.open()

    @rule()
    def crash(self) -> None:
        self.run(crash(self.runtime))
        self.open()

    @rule(name=NAMES, amounts=st.lists(st.integers(1, 3), min_size=1, max_size=4), passes=st.integers(0, 6))
    def a_crash_keeps_what_was_acknowledged(self, name: str, amounts: list[int], passes: int) -> None:
        async def crashed() -> list[Any]:
            book = self.book(name)
            calls = [self.loop.create_task(book.add(amount)) for amount in amounts]
            for _ in range(passes):
                await asyncio.sleep(0)
            await crash(self.runtime)
            return await asyncio.gather(*calls, return_exceptions=True)

        results = self.run(crashed())
        self.open()
        total = self.run(self.book(name).state())["total"]
        certain = sum(amount for amount, result in zip(amounts, results, strict=True) if isinstance(result, int))
        possible = certain + sum(
            amount for amount, result in zip(amounts, results, strict=True) if isinstance(result, z0.CommitUnknown)
        )
        assert certain <= total - self.model[name].total <= possible
        self.model[name].total = total

    @precondition(lambda self: hasattr(self, "runtime"))
    @invariant()
    def the_model_is_right(self) -> None:
        for name, model in self.model.items():
            assert self.run(self.book(name).state()) == model.state(), name

    def teardown(self) -> None:
        if hasattr(self, "runtime"):
            self.run(self.clock.advance("2 hours"))
            for model in self.model.values():
                model.pass_time(self.clock.now())
            self.the_model_is_right()
            self.run(self.runtime.close())
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def search(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_any_interleaving_ends_as_the_model_says() -> None:
    search(examples=20, steps=30)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_any_of_many_long_interleavings_ends_as_the_model_says() -> None:
    search(examples=200, steps=50)
