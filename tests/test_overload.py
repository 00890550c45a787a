"""Overload: what is too much is refused at once, what is taken is answered in time, and it passes without a trace.

Where time is the claim and virtual time will do, the clock is virtual and the figures are exact. Real time is
measured within one process and one run, as ratios, with room for a busy machine.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import z0
from tests.proofs import Proof
from z0.actors.gates import pass_once
from z0.actors.mailbox import Message
from z0.testing import VirtualClock, temporary_runtime

SERVICE = 0.001
MAILBOX = 100


def at(part: float, values: list[float]) -> float:
    """The value that this part of them does not exceed; of none, none is small enough."""
    return math.inf if not values else sorted(values)[min(len(values) - 1, int(len(values) * part))]


def living() -> int:
    """How many messages are in memory."""
    gc.collect()
    return sum(isinstance(it, Message) for it in gc.get_objects())


class Desk(z0.Actor):
    """Serves one after the other, in a millisecond each."""

    async def serve(self) -> None:
        async with self.block():
            await self.clock.sleep(SERVICE)

    async def compute(self) -> None:
        end = time.perf_counter_ns() + 200_000
        while time.perf_counter_ns() < end:
            pass
        self.storage.put("k", 1)

    async def put(self) -> None:
        self.storage.put("k", 1)

    async def end(self, how: str) -> None:
        self.storage.put("end", how)
        raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[how]

    async def end_slowly(self, how: str) -> None:
        await asyncio.sleep(0)
        await self.end(how)

    async def kept(self) -> dict[str, Any]:
        return self.storage.list()


class Flood:
    """Sends without waiting for answers, and writes down what became of each message, and when."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.waited: list[float] = []
        self.refused: list[float] = []

    def send(self, message: Any, now: Any) -> None:
        task = asyncio.create_task(self._one(message, now))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _one(self, message: Any, now: Any) -> None:
        began = now()
        try:
            await message()
        except z0.Overloaded:
            self.refused.append(now() - began)
        else:
            self.waited.append(now() - began)


async def twice_the_capacity(seconds: float, mailbox: int = MAILBOX) -> Flood:
    """Send an actor twice what it can serve, and check how it fares."""
    clock, flood, before = VirtualClock(), Flood(), living()
    limits = z0.Limits(mailbox_messages=mailbox, blocked_seconds=0)
    async with temporary_runtime(memory=True, clock=clock, limits=limits) as runtime:
        desk = runtime.get(Desk, "a")
        await asyncio.gather(asyncio.create_task(desk.serve()), clock.advance(SERVICE))
        for _ in range(int(seconds / SERVICE)):
            flood.send(desk.serve, clock.monotonic)
            flood.send(desk.serve, clock.monotonic)
            await clock.advance(SERVICE)
            assert len(flood.tasks) <= MAILBOX
        assert len(flood.waited) >= 0.99 * seconds / SERVICE
        assert set(flood.refused) == {0.0}
        assert max(flood.waited) <= (MAILBOX + 1) * SERVICE
        await clock.advance(MAILBOX * SERVICE)  # what was taken is answered
        assert not flood.tasks
        late = Flood()
        late.send(desk.serve, clock.monotonic)
        await clock.advance(2 * SERVICE)
        assert late.waited == pytest.approx([SERVICE])  # as if nothing had been
        assert (runtime.node.load.bytes, max(before, living())) == (0, before)  # others may have left some
    return flood


@pytest.mark.proof
async def test_at_twice_the_capacity_the_actor_serves_all_it_can_and_the_rest_is_refused_at_once(proof: Proof) -> None:
    flood = await twice_the_capacity(2 if proof.amount == "quick" else proof.of(30))
    proof.count("messages answered", len(flood.waited))
    proof.count("refused", len(flood.refused))


async def test_a_mailbox_without_its_bound_is_caught() -> None:
    with pytest.raises(AssertionError):
        await twice_the_capacity(1, mailbox=100 * MAILBOX)


ATTEMPTS = 5  # for a machine that is busy with something else just then


class Flooded(NamedTuple):
    """What a flood did to an actor."""

    goodput: float
    """As a part of what it answers callers who wait."""
    refusal: float
    answer: float
    recovery: float


async def flooded(seconds: float) -> Flooded:
    """Send an actor twice what it can compute, for so long; times as not exceeded by 99 of 100."""
    before = living()
    async with temporary_runtime(limits=z0.Limits(mailbox_messages=MAILBOX)) as runtime:
        desk, now = runtime.get(Desk, "a"), time.perf_counter
        peak = await peak_of(desk, seconds / 2)
        flood, began, sent = Flood(), now(), 0
        while (passed := now() - began) < seconds:
            due = int(2 * peak * passed) - sent
            sent += due
            for _ in range(due):
                flood.send(desk.compute, now)
            await pass_once()
        ended = now()
        while flood.tasks:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.001)
        goodput = len(flood.waited) / (now() - began) / peak
        assert (runtime.node.load.bytes, max(before, living())) == (0, before)  # others may have left some
        return Flooded(goodput, at(0.99, flood.refused), at(0.99, flood.waited), now() - ended)


@pytest.mark.proof
async def test_a_flood_costs_the_answers_little_and_a_refusal_next_to_nothing(proof: Proof) -> None:
    for attempt in range(ATTEMPTS):
        found = await flooded(0.5 if proof.amount == "quick" else 10.0)
        if found.goodput > 0.6 and found.refusal < 0.005 and found.recovery < 2:
            break
        assert attempt < ATTEMPTS - 1, found
    proof.count("percent of the peak while flooded", round(100 * found.goodput))
    proof.count("µs for a refusal (p99)", round(found.refusal * 1e6))
    proof.count("ms for an answer (p99)", round(found.answer * 1e3))
    proof.count("ms to recover", round(found.recovery * 1e3))


async def peak_of(desk: Desk, seconds: float) -> float:
    """How many messages a second callers get answered who wait for each answer."""
    began, answered = time.perf_counter(), 0

    async def caller() -> None:
        nonlocal answered
        while time.perf_counter() < began + seconds:
            await desk.compute()
            answered += 1

    await asyncio.gather(*(caller() for _ in range(100)))
    return answered / (time.perf_counter() - began)


HOT_CALLERS = 64


@pytest.mark.proof
async def test_a_hot_actor_holds_others_up_for_a_round_or_two_of_its_callers_and_no_longer(proof: Proof) -> None:
    others = 300 if proof.amount == "quick" else proof.of(10_000)
    chance, hot_answers, rounds = random.Random(0), 0, []
    times: dict[bool, list[float]] = {False: [], True: []}
    async with temporary_runtime(memory=True, limits=z0.Limits(idle_seconds=3_600)) as runtime:
        for number in range(others):
            await runtime.get(Desk, f"{number}").put()
        hot = runtime.get(Desk, "hot")

        async def hammer() -> None:
            nonlocal hot_answers
            while True:
                await hot.put()
                hot_answers += 1

        for beside_hot in (False, True) * 3:  # interleaved: what the machine does meanwhile falls on both
            hammering = [asyncio.create_task(hammer()) for _ in range(HOT_CALLERS * beside_hot)]
            await asyncio.sleep(0.01)
            for _ in range(60):
                other = runtime.get(Desk, f"{chance.randrange(max(0, others - 1_000), others)}")  # in memory
                before, began = hot_answers, time.perf_counter()
                await other.put()
                times[beside_hot].append(time.perf_counter() - began)
                rounds.append((hot_answers - before) / HOT_CALLERS)
                await pass_once()
            for each in hammering:
                each.cancel()
            await asyncio.gather(*hammering, return_exceptions=True)
    assert hot_answers > 60 * 3
    assert at(0.95, rounds) <= 4, "its callers have their turns, and so have those of others"
    proof.count("actors", others)
    for beside_hot, name in (False, "alone"), (True, "beside the hot one"):
        proof.count(f"µs {name} (p50)", round(at(0.5, times[beside_hot]) * 1e6))
        proof.count(f"µs {name} (p99)", round(at(0.99, times[beside_hot]) * 1e6))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.proof
async def test_many_actors_cost_the_files_and_the_memory_of_those_that_are_open(proof: Proof) -> None:
    touched, files = (800, 50) if proof.amount == "quick" else (proof.of(20_000), 1_000)
    async with temporary_runtime(memory=True, limits=z0.Limits(open_files=files)) as runtime:
        base, times, halfway = descriptors(), [], 0
        for number in range(touched):
            began = time.perf_counter()
            await runtime.get(Desk, f"{number}").put()
            times.append(time.perf_counter() - began)
            if number % files == 0:
                assert descriptors() - base <= 3 * files + 20
                assert len(runtime.node.hosts) <= files
            if number == touched // 2:
                halfway = resident_bytes()
        grown = resident_bytes() - halfway
        assert grown < 2_000 * touched / 2 + 8 * 1024 * 1024, "an evicted actor costs its row in the catalogue"
    proof.count("actors", touched)
    proof.count("KiB more for the second half of them", grown // 1024)
    proof.count("µs to open one and evict another (p50)", round(at(0.5, times) * 1e6))
    proof.count("µs to open one and evict another (p99)", round(at(0.99, times) * 1e6))


@pytest.mark.parametrize("how", ["SystemExit", "KeyboardInterrupt"])
@pytest.mark.parametrize("message", ["end", "end_slowly"])
def test_a_handler_that_ends_the_program_ends_it_and_loses_nothing(tmp_path: Path, how: str, message: str) -> None:
    async def program() -> None:
        async with z0.Runtime(tmp_path / "data") as runtime:
            await runtime.get(Desk, "a").put()
            await getattr(runtime.get(Desk, "a"), message)(how)

    async def afterwards() -> dict[str, Any]:
        async with z0.Runtime(tmp_path / "data") as runtime:
            return await runtime.get(Desk, "a").kept()

    with pytest.raises((SystemExit, KeyboardInterrupt)):
        asyncio.run(program())
    gc.collect()  # the task that ended the program tells asyncio so when it goes
    assert list(tmp_path.rglob("*-wal")) == []  # it was closed well
    assert asyncio.run(afterwards()) == {"k": 1}
