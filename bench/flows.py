"""The workflows of the cases, and the hand that moves one of them.

A body of `Steps` is told by a step of its own how many steps to take next, so that one instance can take its turn
beside other contenders: its file is then as warm as theirs. What it measures, it leaves with the hand.
"""

from __future__ import annotations

import asyncio
from array import array

import z0

from .measure import Stopwatch, Stretch, now_ns


def nothing() -> int:
    """What a step does: what is measured is the step."""
    return 1


class Hand:
    """Moves the bodies of one runtime, each known by its instance's id."""

    def __init__(self) -> None:
        """No body waits yet."""
        self.samples = array("q")
        self._orders: dict[str, asyncio.Future[int]] = {}
        self._done: dict[str, asyncio.Future[None]] = {}

    async def steps(self, id: str, count: int) -> None:
        """Have that body take so many steps, and return when they are durable."""
        future = asyncio.get_running_loop().create_future()
        self._done[id] = future
        self._order(id).set_result(count)
        await future

    async def order(self, id: str) -> int:
        """How many steps that body is to take next; 0: none any more."""
        future = self._order(id)
        count = await future
        del self._orders[id]
        return count

    def done(self, id: str) -> None:
        """That body has taken them."""
        self._done.pop(id).set_result(None)

    def dismiss(self, id: str) -> None:
        """Have that body end."""
        self._order(id).set_result(0)

    def _order(self, id: str) -> asyncio.Future[int]:
        future = self._orders.get(id)
        if future is None:
            future = self._orders[id] = asyncio.get_running_loop().create_future()
        return future


class Steps(z0.Workflow):
    """Takes as many steps as it is told to, again and again."""

    namespace = "bench-steps"
    steps_max = None
    timeout = None

    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        """Sample i is the time from asking for a step to having its result, the commit of the one before included."""
        hand: Hand = self.env
        id = self.id
        while count := await step.do("order", lambda: hand.order(id)):
            append = hand.samples.append
            for _ in range(count):
                start = now_ns()
                await step.do("step", nothing)
                append(now_ns() - start)
            await step.do("done", lambda: hand.done(id))


class Short(z0.Workflow):
    """Takes so many steps, and ends."""

    namespace = "bench-short"

    async def run(self, event: z0.Event[int], step: z0.Step) -> int:
        """How many results there are."""
        return sum([await step.do("step", nothing) for _ in range(event.payload)])


class Sleeper(z0.Workflow):
    """Sleeps for as long as it is told to, and ends."""

    namespace = "bench-sleeper"

    async def run(self, event: z0.Event[str], step: z0.Step) -> None:
        """One sleep."""
        await step.sleep("night", event.payload)


class Reached:
    """Learns when a body takes the first step that its journal does not have."""

    def __init__(self) -> None:
        """Not yet."""
        self.when: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def now(self) -> None:
        """It is there."""
        if not self.when.done():
            self.when.set_result(now_ns())


class Long(z0.Workflow):
    """Takes so many steps, then one more for every event."""

    namespace = "bench-long"
    steps_max = None
    timeout = None
    env: Reached

    async def run(self, event: z0.Event[int], step: z0.Step) -> None:
        """It waits without end."""
        for _ in range(event.payload):
            await step.do("step", nothing)
        while True:
            await step.wait_for_event("go", type="go", timeout=None)
            await step.do("reached", self.env.now)


async def steps_stretch(hand: Hand, ids: list[str], count: int) -> Stretch:
    """Have all these bodies take so many steps each, side by side."""
    hand.samples = array("q")
    with Stopwatch() as watch:
        await asyncio.gather(*(hand.steps(id, count) for id in ids))
    return watch.stretch(hand.samples)
