"""Sagas where it is hard: a run that has not replayed all, code that has changed, limits, what a dead body waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import z0
from z0.testing import VirtualClock, crash, temporary_runtime
from z0.workflows.status import RollbackStatus

Disturb = Callable[[z0.Instance[Any]], Awaitable[Any]]


class Script:
    """What the workflows of a test do."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.changed = False

    def undo(self, name: str) -> Callable[[], None]:
        return lambda: self.done.append(f"undo {name}")


class Order(z0.Workflow):
    """Does two things that can be undone, waits for an event, and goes on for long."""

    env: Script
    retries = z0.Retries(limit=0)

    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        await step.do("a", lambda: 1, rollback=self.env.undo("a"))
        await step.do("b", lambda: 2, rollback=self.env.undo("b"))
        await step.wait_for_event("go", type="go", timeout=None)
        await step.sleep("long", "30 days")


async def rollback_of(instance: z0.Instance[Any]) -> RollbackStatus:
    rollback = (await instance.status()).rollback
    assert rollback is not None
    return rollback


# While the body is being replayed


async def _alone(instance: z0.Instance[Any]) -> None:
    await instance.terminate(rollback=True)


async def _beside_an_event(instance: z0.Instance[Any]) -> None:
    await asyncio.gather(instance.send_event("go"), instance.terminate(rollback=True))


async def _behind_a_restart(instance: z0.Instance[Any]) -> None:
    await asyncio.gather(instance.restart(from_step="go"), instance.terminate(rollback=True))


async def _behind_a_resumption(instance: z0.Instance[Any]) -> None:
    await asyncio.gather(instance.pause(), instance.resume(), instance.terminate(rollback=True))


@pytest.mark.parametrize("disturb", [_alone, _beside_an_event, _behind_a_restart, _behind_a_resumption])
@pytest.mark.parametrize("after_a_crash", [True, False])
async def test_what_is_terminated_while_its_body_is_replayed_undoes_all_that_was_done(
    clock: VirtualClock, disturb: Disturb, after_a_crash: bool
) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=[Order], env=script, clock=clock) as runtime:
        path = runtime.node.path
        await runtime.workflows.create(Order, id="one")
        await clock.settle()
        await (crash(runtime) if after_a_crash else runtime.close())
        async with z0.Runtime(path, actors=[Order], env=script, clock=clock) as second:
            instance = second.workflows.get(Order, "one")
            await disturb(instance)
            await clock.settle()
            assert script.done == ["undo b", "undo a"]
            rollback = await rollback_of(instance)
            assert (rollback.outcome, rollback.undone) == ("complete", ["do:b#1", "do:a#1"])
            assert (await instance.status()).status == "terminated"
