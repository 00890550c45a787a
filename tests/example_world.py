"""What the tests of the examples share: the world outside, whose sockets the virtual clock waits for, and crashes."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import z0
from tests.proofs import Proof
from tests.workflow_world import CUT_OFF, MEMORY, crash_everywhere
from unreliable import Fault, Service
from wire import Unavailable
from z0.testing import Point, VirtualClock, crash, fault

S = TypeVar("S", bound=Service)
FAULTS: dict[Fault, float] = {"fail": 1.0, "busy": 30.0, "hang": 11.0, "drop": 1.0}
"""Each way of failing, and how many seconds it costs: the time-out and the delay before the next attempt."""


class World(Generic[S]):
    """A service, what workflows reach it with, and what people are told. It outlives the runtimes."""

    def __init__(self, service: S, clock: VirtualClock, actors: Sequence[type[z0.Actor]]) -> None:
        self.service = service
        self.clock = clock
        self.client = service.client
        self.alerts: list[z0.Alert] = []
        self._actors = actors
        # Settling does not see sockets. A call is under way until it has ended, unless it will never be answered; and
        # when its caller has given up, the service is yet to notice.
        clock.watch(lambda: self.client.in_flight != self.service.hanging, int)

    def runtime(self, path: Path) -> z0.Runtime:
        return z0.Runtime(
            path, actors=self._actors, env=self.client, clock=self.clock, alerts=[self.alerts.append]
        )  # fmt: skip

    def told(self) -> list[str]:
        """The names of the alerts, each once: they come at least once."""
        return [name for _, name in dict.fromkeys((alert.id, alert.name) for alert in self.alerts)]


Making = Callable[[VirtualClock], AbstractAsyncContextManager[World[S]]]
Story = Callable[[z0.Runtime, World[S]], Awaitable[None]]


@asynccontextmanager
async def world_of(service: S, clock: VirtualClock, actors: Sequence[type[z0.Actor]]) -> AsyncIterator[World[S]]:
    async with service:
        yield World(service, clock, actors)


async def took(instance: z0.Instance[Any], step: str) -> float:
    """Virtual seconds from the creation of the instance to the end of its step, `step` being a key."""
    journal = await instance.journal()
    (end,) = [entry for entry in journal if entry.step == step and entry.event in ("step_completed", "step_errored")]
    return (end.at - journal[0].at) / 1e6


async def facts(entity: z0.Entity, *types: str) -> list[str]:
    """The types of the entity's facts, of those that are asked for, in order."""
    return [fact.type for fact in await entity.query_facts(type=types)]


async def check_steps_ended_once(instance: z0.Instance[Any]) -> None:
    """No step of any run has two results in the journal."""
    ends: set[tuple[int, str | None]] = set()
    run = 1
    for entry in await instance.journal():
        run += entry.event in ("workflow_continued", "workflow_restarted")
        if entry.event in ("step_completed", "rollback_step_completed"):
            end = (run, f"{entry.event} {entry.step}")
            assert end not in ends
            ends.add(end)


async def crash_at_every_commit(proof: Proof, making: Making[S], drive: Story[S], check: Story[S]) -> int:
    """Drive a story, cut it off at each commit in turn, drive it again on what was kept, and check; how many crashes.

    The world outside stays as it is meanwhile. The story must allow for being told twice.
    """
    return await crash_everywhere(proof, "crashes of examples", partial(_crash_once, making, drive, check))


async def _crash_once(making: Making[S], drive: Story[S], check: Story[S], point: Point, nth: int) -> bool:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        data = Path(folder) / "data"
        async with making(VirtualClock()) as world:
            struck = await _cut_off(data, world, drive, point, nth)
            async with world.runtime(data) as runtime:
                await drive(runtime, world)
                await world.clock.advance("2 days")
                try:
                    await check(runtime, world)
                except BaseException as error:
                    error.add_note(f"after {point}, nth={nth}")
                    raise
    return struck


async def _cut_off(data: Path, world: World[S], drive: Story[S], point: Point, nth: int) -> bool:
    async with world.runtime(data) as runtime:
        with fault(runtime, point, nth=nth) as set_:
            try:
                await drive(runtime, world)
                await world.clock.settle()
            except (*CUT_OFF, Unavailable):
                assert set_.hits
        if set_.hits:
            await crash(runtime)
        return bool(set_.hits)
