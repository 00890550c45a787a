"""Any interleaving of messages, alarms, faults, cancellation, eviction, crashes and restarts ends as a model says.

The model is plain Python: what was acknowledged is there, what failed is not, what was cut off is there wholly or
not at all, and every alarm that was set runs once, neither early nor lost. Actors are looked at now and then only,
for looking opens them.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

import z0
from tests.proofs import Proof
from z0.actors.writes import Writes
from z0.testing import Point, VirtualClock, _new_folder, crash, fault

T = TypeVar("T")
NAMES = st.sampled_from(["a", "b", "c"])
ALARMS = st.sampled_from([None, "n", "fails", "'; 🙂"])
RECURRING, EVERY = "recurs", timedelta(minutes=10)
ALL_ALARMS = (None, "n", "fails", "'; 🙂", RECURRING)
FAULTS: st.SearchStrategy[Point] = st.sampled_from(
    ["commit-lost", "commit-kept", "storage", "open", "register", "close", "checkpoint"]
)
LATE = timedelta(minutes=2)  # until then a run that fails three times has ended well
KEYS = st.sampled_from([f"k{n}" for n in range(6)])
SPANS = st.sampled_from([1, 5, 11, 60, 3600])


class Oops(Exception):
    pass


class Sum(z0.Projection):
    amount: int = 0

    def apply(self, fact: z0.Fact) -> None:
        self.amount += fact.amount or 0


def count_migration(storage: Any) -> None:
    storage.put("migrated", storage.get("migrated", 0) + 1)


class Book(z0.Entity):
    """Does a little of everything."""

    namespace = "Book"
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
        await self.get(type(self), name).add(amount)

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

    async def arm_often(self, after: int) -> None:
        self.storage.set_alarm(after, RECURRING, every=EVERY)

    async def note(self, note: int) -> None:
        self.storage.put("note", note, allow_unconfirmed=True)

    async def wipe(self, fail: bool) -> None:
        self.storage.delete_all()
        if fail:
            raise Oops

    async def alarm(self, info: z0.AlarmInfo) -> None:
        assert self.clock.now() >= info.scheduled_time
        if info.name == "fails" and info.retry_count < 3:
            raise Oops
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
            "note": self.storage.get("note", 0),
            "migrated": self.storage.get("migrated", 0),
            "alarms": {name: self.storage.get_alarm(name) for name in ALL_ALARMS},
            "fired": dict(fired),
        }


BOOKS = [type(f"Book{n}", (Book,), {"migrations": [count_migration] * n}) for n in range(3)]
"""The class as it was, and as it is after one migration and two."""


class Model:
    """What one book should hold."""

    def __init__(self) -> None:
        self.total = self.sum = self.note = 0
        self.keys: dict[str, int] = {}
        self.alarms: dict[str | None, datetime] = {}
        self.fired: Counter[tuple[str | None, str]] = Counter()

    def add(self, amount: int) -> None:
        self.total += amount
        self.sum += amount

    def pass_time(self, now: datetime, jumped: bool = False) -> None:
        for name in list(self.alarms):
            late = LATE if name == "fails" else timedelta()
            while name in self.alarms and self.alarms[name] + late <= now:
                due = self.alarms.pop(name)
                self.fired[name, due.isoformat()] += 1
                if name == RECURRING:
                    self.alarms[name] = due + EVERY * ((now - due) // EVERY + 1 if jumped else 1)

    def state(self, migrated: int) -> dict[str, Any]:
        return {
            "total": self.total,
            "sum": self.sum,
            "note": self.note,
            "migrated": migrated,
            "alarms": {name: self.alarms.get(name) for name in ALL_ALARMS},
            "fired": dict(self.fired),
        }

    def retrying(self, now: datetime) -> bool:
        """Whether the alarm that fails has run or not, as its delays wanted."""
        return "fails" in self.alarms and self.alarms["fails"] <= now


class Machine(RuleBasedStateMachine):
    """The runtime beside its model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = _new_folder(True)
        self.clock = VirtualClock()
        self.model = {name: Model() for name in ("a", "b", "c")}
        self.version = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def open(self) -> None:
        async def opened() -> z0.Runtime:
            limits = z0.Limits(open_files=2, checkpoint_pages=20)
            actors = [BOOKS[self.version]]
            self.runtime = z0.Runtime(self.folder / "data", actors=actors, clock=self.clock, limits=limits)
            await self.runtime.open()
            await self.clock.settle()
            return self.runtime

        self.run(opened())

    def book(self, name: str) -> Book:
        return self.runtime.get(BOOKS[self.version], name)

    def awake(self, name: str) -> dict[str, Any]:
        """The actor's state, after what it is late with."""
        self.run(self.book(name).state())
        self.run(self.clock.advance(0))
        return self.run(self.book(name).state())

    # Messages

    @rule(name=NAMES, amount=st.integers(-5, 5))
    def add(self, name: str, amount: int) -> None:
        self.model[name].add(amount)
        assert self.run(self.book(name).add(amount)) == self.model[name].total

    @rule(name=NAMES, amount=st.integers(-5, 5))
    def add_alone(self, name: str, amount: int) -> None:
        self.run(self.book(name).add_alone(amount))
        self.model[name].add(2 * amount)

    @rule(name=NAMES, amount=st.integers(-5, 5), slowly=st.booleans())
    def a_failing_segment_leaves_nothing(self, name: str, amount: int, slowly: bool) -> None:
        book = self.book(name)
        with pytest.raises(Oops):
            self.run(book.add_slowly_and_fail(amount) if slowly else book.add_and_fail(amount))
        self.model[name].add(amount if slowly else 0)

    @rule(name=NAMES, amounts=st.lists(st.integers(-3, 3), max_size=6))
    def many_at_once(self, name: str, amounts: list[int]) -> None:
        async def burst() -> None:
            book = self.book(name)
            calls = [
                [book.add, book.add_slowly, book.note, book.add_alone, book.add_and_fail][n % 5](amount)
                for n, amount in enumerate(amounts)
            ]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [isinstance(result, Oops) for result in results] == [n % 5 == 4 for n in range(len(amounts))]

        self.run(burst())
        self.model[name].add(sum(amount * [1, 2, 0, 2, 0][n % 5] for n, amount in enumerate(amounts)))
        for note in amounts[2::5]:
            self.model[name].note = note

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
            model.add(amount)
            model.__dict__[f"reply {key}"] = model.total
        assert reply == model.__dict__[f"reply {key}"]

    @rule(sender=NAMES, receiver=NAMES, amount=st.integers(1, 5))
    def pass_on(self, sender: str, receiver: str, amount: int) -> None:
        self.run(self.book(sender).pass_on(receiver, amount))
        self.model[sender].add(-amount)
        self.model[receiver].add(amount)

    @rule(name=NAMES, note=st.integers(1, 9))
    def note(self, name: str, note: int) -> None:
        self.run(self.book(name).note(note))
        self.model[name].note = note

    @rule(name=NAMES, note=st.integers(1, 9), amount=st.integers(0, 2), passes=st.integers(0, 3))
    def a_crash_may_cost_what_nobody_waited_for(self, name: str, note: int, amount: int, passes: int) -> None:
        async def crashed() -> None:
            book = self.book(name)
            if amount:
                await asyncio.gather(book.note(note), book.add(amount))
            else:
                await book.note(note)
            for _ in range(passes):
                await asyncio.sleep(0)
            await crash(self.runtime)

        self.run(crashed())
        self.open()
        model = self.model[name]
        model.add(amount)
        found = self.run(self.book(name).state())["note"]
        assert found == note or (not amount and found == model.note)
        model.note = found

    @rule(name=NAMES, fail=st.booleans())
    def delete_all(self, name: str, fail: bool) -> None:
        self.awake(name)
        if fail:
            with pytest.raises(Oops):
                self.run(self.book(name).wipe(True))
            return
        if self.model[name].retrying(self.clock.now()):
            return
        self.run(self.book(name).wipe(False))
        self.model[name].total = self.model[name].note = 0
        self.model[name].alarms.clear()

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
        self.model[name].add(total - self.model[name].total)

    # Alarms and time

    def settled(self, name: str) -> bool:
        """Whether it is known which alarms of the actor are set."""
        self.awake(name)
        return not self.model[name].retrying(self.clock.now())

    @rule(name=NAMES, after=SPANS)
    def arm_often(self, name: str, after: int) -> None:
        self.awake(name)
        self.run(self.book(name).arm_often(after))
        self.model[name].alarms[RECURRING] = self.clock.now() + timedelta(seconds=after)

    @rule(name=NAMES, alarm=ALARMS, after=SPANS, point=FAULTS)
    def arm_in_vain_perhaps(self, name: str, alarm: str | None, after: int, point: Point) -> None:
        if not self.settled(name):
            return

        async def arm() -> object:
            book = self.book(name)
            with fault(self.runtime, point, actor=book):
                if point in ("open", "close", "register"):
                    await self.runtime.evict(BOOKS[self.version], name)
                return (await asyncio.gather(book.arm(alarm, after), return_exceptions=True))[0]

        result, before = self.run(arm()), self.model[name].alarms.get(alarm)
        now = self.clock.now() + timedelta(seconds=after)
        found = self.run(self.book(name).state())["alarms"][alarm]
        if isinstance(result, z0.CommitUnknown):
            assert found in (now, before)
        else:
            assert result is None or isinstance(result, z0.ActorReset)
            assert found == (now if result is None else before)
        if found is not None:
            self.model[name].alarms[alarm] = found

    @rule(name=NAMES, alarm=ALARMS, after=SPANS)
    def arm(self, name: str, alarm: str | None, after: int) -> None:
        if not self.settled(name):
            return
        self.run(self.book(name).arm(alarm, after))
        self.model[name].alarms[alarm] = self.clock.now() + timedelta(seconds=after)

    @rule(name=NAMES, alarm=ALARMS)
    def an_alarm_of_a_failed_message_is_not_set(self, name: str, alarm: str | None) -> None:
        with pytest.raises(Oops):
            self.run(self.book(name).arm_and_fail(alarm, 2))

    @rule(name=NAMES, alarm=ALARMS)
    def disarm(self, name: str, alarm: str | None) -> None:
        if not self.settled(name):
            return
        self.run(self.book(name).disarm(alarm))
        self.model[name].alarms.pop(alarm, None)

    @rule(after=SPANS)
    def time_passes(self, after: int | timedelta) -> None:
        self.run(self.clock.advance(after))
        for model in self.model.values():
            model.pass_time(self.clock.now())

    @rule(after=SPANS, backwards=st.booleans())
    def the_wall_clock_is_set(self, after: int, backwards: bool) -> None:
        for name in self.model:
            if not self.settled(name):
                return
        self.clock.jump(after, backwards=backwards)
        self.run(self.clock.advance(0))
        for model in self.model.values():
            model.pass_time(self.clock.now(), jumped=True)
        self.time_passes(LATE)  # what fails at first has its retries

    # Life

    @rule(name=NAMES)
    def evict(self, name: str) -> None:
        self.run(self.runtime.evict(BOOKS[self.version], name))

    @rule(name=NAMES)
    def evict_badly(self, name: str) -> None:
        async def evict() -> None:
            with fault(self.runtime, "close", actor=self.book(name)):
                await self.runtime.evict(BOOKS[self.version], name)

        self.run(evict())

    @rule(upgrade=st.booleans())
    def restart(self, upgrade: bool) -> None:
        self.run(self.runtime.close())
        self.version = min(self.version + upgrade, len(BOOKS) - 1)
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
        self.check_sum(name, amounts, results)

    @rule(name=NAMES, amounts=st.lists(st.integers(1, 3), min_size=1, max_size=4), point=FAULTS, late=st.booleans())
    def a_fault_keeps_what_was_acknowledged(self, name: str, amounts: list[int], point: Point, late: bool) -> None:
        async def struck() -> list[Any]:
            book = self.book(name)
            with fault(self.runtime, point, actor=book):
                if point in ("open", "close", "register"):
                    await self.runtime.evict(BOOKS[self.version], name)
                return await asyncio.gather(*map(book.add, amounts), return_exceptions=True)

        results = self.run(struck())
        if late:  # it is opened for its alarms only
            for result in results:
                assert isinstance(result, int | z0.ActorReset | z0.CommitUnknown), result
            self.run(self.clock.advance(5))
            for model in self.model.values():
                model.pass_time(self.clock.now())
        self.check_sum(name, amounts, results)

    def check_sum(self, name: str, amounts: list[int], results: list[Any]) -> None:
        """What was acknowledged is there, what was not for certain is not, of messages that came together."""
        total = self.run(self.book(name).state())["total"]
        certain = sum(amount for amount, result in zip(amounts, results, strict=True) if isinstance(result, int))
        possible = certain + sum(
            amount for amount, result in zip(amounts, results, strict=True) if isinstance(result, z0.CommitUnknown)
        )
        assert certain <= total - self.model[name].total <= possible
        self.model[name].add(total - self.model[name].total)

    @rule(name=NAMES)
    def the_model_is_right(self, name: str) -> None:
        model, found = self.model[name], self.awake(name)
        expected = model.state(self.version)
        if model.retrying(self.clock.now()):
            for state in found, expected:
                state["alarms"].pop("fails")
                state["fired"] = {which: n for which, n in state["fired"].items() if which[0] != "fails"}
        assert found == expected, name

    def teardown(self) -> None:
        if hasattr(self, "runtime"):
            self.run(self.clock.advance("2 hours"))
            for model in self.model.values():
                model.pass_time(self.clock.now())
            for name in self.model:
                self.the_model_is_right(name)
            self.run(self.runtime.close())
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def search(examples: int, steps: int, **options: Any) -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            **options,
        ),
    )


@pytest.mark.proof
def test_any_interleaving_ends_as_the_model_says(proof: Proof) -> None:
    examples, steps = (20, 30) if proof.amount == "quick" else (proof.of(300), 50)
    search(examples, steps, derandomize=proof.amount != "torture")  # else the same in each run: a failure stays one
    proof.count("interleavings", examples)


def test_a_failing_segment_that_leaves_its_writes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writes, "undo", Writes.keep)
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        search(20, 30, derandomize=True, phases=[Phase.generate])
