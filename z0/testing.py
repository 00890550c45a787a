"""For tests of programs that use z0: a clock that you move, runtimes that clean up, crashes and faults.

    async with temporary_runtime(clock=VirtualClock()) as runtime:
        ...
        await clock.advance("10 minutes")     # timers fire in order; returns when all is quiet

Needs nothing beyond the core dependencies.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from z0.actors.clock import Span, datetime_of, seconds, seeded, to_us, us_of
from z0.actors.gates import pass_once
from z0.disk import SimulatedDisk, simulated_disk
from z0.faults import Fault, Point, fault
from z0.mocks import Mock, mock_step
from z0.replay import Replayed, replay
from z0.runtime import Runtime

__all__ = [
    "Fault", "Mock", "Point", "Replayed", "SimulatedDisk", "VirtualClock", "crash", "fault", "mock_step", "replay",
    "simulated_disk", "temporary_runtime",
]  # fmt: skip

_MEMORY = "/dev/shm"
_PASSES_PER_LOOK = 4
_QUIET_PASSES = 64  # loop iterations without work after which nothing is left to run
_LOOK_SECONDS = 0.001  # how soon we ask again who is busy, should nobody tell us


class VirtualClock:
    """A clock that stands still until `advance`. One clock may serve several runtimes, one after another or at once."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC), *, seed: int = 0) -> None:
        """`start` is aware; `seed` decides what `random` gives."""
        self._passed_us = 0
        self._wall_us = us_of(start)  # at the time that stands at 0 passed
        self._timers: list[_Timer] = []
        self._order = itertools.count()
        self._watched: list[tuple[Callable[[], bool], Callable[[], int]]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self.random = seeded(seed)
        """The next of a fixed row of numbers, at least 0 and less than 1."""

    def now(self) -> datetime:
        """The virtual time, aware, UTC."""
        return datetime_of(self.now_us())

    def now_us(self) -> int:
        """The virtual time in microseconds since the epoch."""
        return self._wall_us + self._passed_us

    def monotonic(self) -> float:
        """Virtual seconds since the start."""
        return self._passed_us / 1e6

    async def sleep(self, span: Span) -> None:
        """Return when the clock has been moved that far."""
        woken = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        timer = self.call_later(span, wake)
        try:
            await woken
        finally:
            timer.cancel()

    def call_later(self, span: Span, callback: Callable[[], object]) -> _Timer:
        """Call back when the clock has been moved that far."""
        return self._add(self._passed_us + to_us(seconds(span)), None, callback)

    def call_at(self, when_us: int, callback: Callable[[], object]) -> _Timer:
        """Call back when the virtual time is at least `when_us`."""
        return self._add(max(self._passed_us, when_us - self._wall_us), when_us, callback)

    def _add(self, due: int, when_us: int | None, callback: Callable[[], object]) -> _Timer:
        timer = _Timer(due, next(self._order), when_us, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def jump(self, span: Span, *, backwards: bool = False) -> None:
        """Set the wall clock forward, or back, as an operator or NTP would: no time passes."""
        self._wall_us += to_us(seconds(span)) * (-1 if backwards else 1)
        for timer in self._timers:
            if timer.when_us is not None:
                timer.due = max(self._passed_us, timer.when_us - self._wall_us)
        heapq.heapify(self._timers)

    def watch(self, busy: Callable[[], bool], done: Callable[[], int]) -> Callable[[], object]:
        """Do not let time pass while `busy()`, or while `done()` goes up.

        What is returned is to be called, on the event loop, when it is worth asking again.
        """
        self._watched.append((busy, done))
        return self._look_again

    async def patience(self, span: Span) -> None:
        """Return when all is quiet: what waits for time to pass would wait for ever."""
        await self.settle()

    async def advance(self, span: Span) -> None:
        """Move the time, firing what falls due deadline by deadline, and return when all is quiet."""
        await self.settle()
        target = self._passed_us + to_us(seconds(span))
        while self._timers and self._timers[0].due <= target:
            timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self._passed_us = max(self._passed_us, timer.due)
                timer.callback()
                await self.settle()
        self._passed_us = max(self._passed_us, target)  # somebody else may have moved it further meanwhile
        await self.settle()

    async def settle(self) -> None:
        """Return when nothing is left to run at this time, threads included."""
        quiet = waited = done = 0
        ready = getattr(asyncio.get_running_loop(), "_ready", None)  # asyncio's own loop lets us see what is next
        while quiet < _QUIET_PASSES:
            step = _PASSES_PER_LOOK
            for _ in range(_PASSES_PER_LOOK):
                await pass_once()
                if ready is not None and not ready:
                    step = _QUIET_PASSES
                    break
            before, done = done, sum(count() for _, count in self._watched)
            if done != before:  # somebody who never waits for a thread
                quiet = waited = 0
            elif not any(busy() for busy, _ in self._watched):
                quiet, waited = quiet + step, 0
            elif waited < _QUIET_PASSES:  # it may be the loop that has to get on
                quiet, waited = 0, waited + step
            else:
                quiet = waited = 0
                await self._progress()

    async def _progress(self) -> None:
        """Return when somebody who is watched has got on, or may have."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiting.append(waiter)
        patience = loop.call_later(_LOOK_SECONDS, self._look_again)
        try:
            await waiter
        finally:
            patience.cancel()

    def _look_again(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


class _Timer:
    __slots__ = ("callback", "cancelled", "due", "order", "when_us")

    def __init__(self, due: int, order: int, when_us: int | None, callback: Callable[[], object]) -> None:
        self.due = due
        self.order = order
        self.when_us = when_us  # by the wall clock; None: after a span
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        self.callback = bool  # let go of what the other one holds

    def __lt__(self, other: _Timer) -> bool:
        return (self.due, self.order) < (other.due, other.order)


async def crash(runtime: Runtime) -> None:
    """Drop the runtime's memory as a kill would, and keep what was committed; the directory is free at once.

    Callers that wait get ActorReset, or CommitUnknown when a part of their message was committed; one whose COMMIT a
    thread had begun is answered. Leaving the runtime's `async with` afterwards does nothing. It may come at any
    time: while actors open or close, while the runtime closes, or again.
    """
    await runtime.node.crash()


def _new_folder(memory: bool) -> Path:
    parent = _MEMORY if memory and os.path.isdir(_MEMORY) else None
    return Path(tempfile.mkdtemp(prefix="z0-", dir=parent))


@asynccontextmanager
async def temporary_runtime(*, memory: bool = False, **options: Any) -> AsyncIterator[Runtime]:
    """A runtime on a new directory that is removed afterwards; `options` are those of Runtime.

    `memory`: on a RAM disk where the machine has one, so nothing is ever written to a device.
    """
    path = _new_folder(memory)
    try:
        async with Runtime(path / "data", **options) as runtime:
            yield runtime
    finally:
        shutil.rmtree(path, ignore_errors=True)
