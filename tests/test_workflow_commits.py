"""How steps become durable: one commit each, at once where nobody else writes, and others are let run meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import z0
from z0.actors.errors import DatabaseFailure
from z0.actors.gates import Turn, pass_once
from z0.actors.host import Host
from z0.testing import VirtualClock, crash, temporary_runtime


class Counting(z0.Workflow):
    """Takes as many steps as it is told, each of which leaves a mark, and waits inside one more."""

    async def run(self, event: z0.Event[int], step: z0.Step) -> int:
        marks: list[int] = self.env
        for number in range(event.payload):
            await step.do("count", lambda number=number: marks.append(number))
        await step.wait_for_event("end", type="end", timeout=None)
        return event.payload


async def test_steps_that_nobody_writes_beside_are_commits_by_themselves_and_are_kept(clock: VirtualClock) -> None:
    marks: list[int] = []
    async with temporary_runtime(memory=True, clock=clock, actors=[Counting], env=marks) as runtime:
        instance = await runtime.workflows.create(Counting, 40, id="x")
        await instance.wait_for_status("waiting")
        metrics = runtime.node.metrics
        assert metrics.alone.count > 0
        assert metrics.alone.count + metrics.committed.count >= 40
        await crash(runtime)
        async with z0.Runtime(runtime.path, clock=clock, actors=[Counting], env=marks) as again:
            await again.workflows.get(Counting, "x").send_event("end")
            assert await again.workflows.get(Counting, "x").result() == 40
    assert marks == list(range(40))


async def test_a_body_of_many_steps_lets_others_run(clock: VirtualClock) -> None:
    passes = 0

    async def others() -> None:
        nonlocal passes
        while True:
            passes += 1
            await pass_once()

    async with temporary_runtime(memory=True, clock=clock, actors=[Counting], env=[]) as runtime:
        instance = await runtime.workflows.create(Counting, 10, id="warm")
        await instance.wait_for_status("waiting")
        beside = asyncio.create_task(others())
        await (await runtime.workflows.create(Counting, 200, id="x")).wait_for_status("waiting")
        beside.cancel()
    assert passes >= 200 // 5


async def test_the_commits_of_bodies_side_by_side_overlap(clock: VirtualClock) -> None:
    class Starting(z0.Workflow):
        async def run(self, event: z0.Event[Any], step: z0.Step) -> None:
            await step.do("start", self.env.wait)
            for _ in range(50):
                await step.do("step", lambda: 1)

    start = asyncio.Event()
    async with temporary_runtime(memory=True, clock=clock, actors=[Starting], env=start) as runtime:
        both = [await runtime.workflows.create(Starting, id=id) for id in ("x", "y")]
        before = runtime.node.metrics.threaded
        start.set()
        await asyncio.gather(*(instance.result() for instance in both))
        assert runtime.node.metrics.threaded > before


async def test_who_follows_an_instance_is_told_of_steps_that_were_commits_by_themselves() -> None:
    class Gated(z0.Workflow):
        async def run(self, event: z0.Event[Any], step: z0.Step) -> None:
            for _ in range(20):
                await step.do("quick", lambda: 1)
            await step.do("slow", self.env.wait)

    gate = asyncio.Event()
    async with temporary_runtime(memory=True, actors=[Gated], env=gate) as runtime:
        instance = await runtime.workflows.create(Gated, id="x")
        completed = 0
        async with asyncio.timeout(20):
            async for _ in instance.events(types=["step_completed"]):
                completed += 1
                if completed == 20:
                    break
        assert not gate.is_set()
        gate.set()
        await instance.result()


async def test_a_checkpoint_between_steps_is_waited_for(clock: VirtualClock) -> None:
    marks: list[int] = []
    limits = z0.Limits(checkpoint_pages=4)
    async with temporary_runtime(memory=True, clock=clock, actors=[Counting], env=marks, limits=limits) as runtime:
        instance = await runtime.workflows.create(Counting, 200, id="x")
        await instance.wait_for_status("waiting")
        assert runtime.node.metrics.checkpoints > 2
        assert len(await instance.steps()) == 201
    assert marks == list(range(200))


async def test_when_the_commit_of_a_step_fails_its_instance_goes_on_from_what_is_durable(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks: list[int] = []
    failed: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=[Counting], env=marks) as runtime:
        durability = runtime.node.durability
        commit = durability.commit

        def failing(host: Host, turn: Turn, dirty: int) -> None:
            if host.running and len(marks) > 20 and not failed:  # inside the body's own segment
                failed.append(host.address.name)
                host.database.rollback()
                host.committed(turn, DatabaseFailure("the disk is gone"))
            else:
                commit(host, turn, dirty)

        monkeypatch.setattr(durability, "commit", failing)
        instance = await runtime.workflows.create(Counting, 60, id="x")
        await clock.advance("1 minute")
        await instance.send_event("end")
        assert await instance.result("1 second") == 60
    assert failed == ["x"]
    assert sorted(set(marks)) == list(range(60))
    assert len(marks) == 61  # the step whose commit failed ran again, and no other
