"""Tasks side by side that share the names of their steps: where a replay might mix them up, it is said at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

import z0
from z0.testing import VirtualClock, temporary_runtime


class Orders(z0.Workflow):
    """Two orders at once, the first of which is the slower."""

    async def run(self, event: z0.Event[str], step: z0.Step) -> Any:
        found: Any
        match event.payload:
            case "tasks":
                found = await asyncio.gather(self.order(step, "a", "bill"), self.order(step, "b", "bill"))
            case "names apart":
                found = await asyncio.gather(self.order(step, "a", "bill a"), self.order(step, "b", "bill b"))
            case "branches":
                found = await step.all([self.order(step, "a", "bill"), self.order(step, "b", "bill")])
            case "one by one":
                found = [await self.order(step, name, "bill") for name in "ab"]
            case "first steps":
                found = await asyncio.gather(*(step.do("price", lambda name=name: name) for name in "ab"))
            case _:
                await asyncio.gather(self.order(step, "a", "bill"), step.sleep("1 minute"))
                found = [await step.do("bill", lambda: "body")]
        return list(found)

    async def order(self, step: z0.Step, name: str, bill: str) -> str:
        await step.do("price", lambda: self.clock.sleep(2 if name == "a" else 1))
        return await step.do(bill, lambda: f"bill of {name}")


def warnings_of(caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    return (each.getMessage() for each in caplog.records if each.levelno == logging.WARNING)


async def test_tasks_that_come_to_steps_of_one_name_in_no_sure_order_are_told_of_once(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with temporary_runtime(memory=True, actors=[Orders], clock=clock) as runtime:
        for id in ("one", "two"):
            instance = await runtime.workflows.create(Orders, "tasks", id=id)
            await clock.advance("1 minute")
            assert await instance.result() == ["bill of a", "bill of b"]
    (told,) = warnings_of(caplog)
    assert told.startswith("Orders 'one': tasks side by side take steps named 'bill' behind other steps")
    assert "step.all" in told


@pytest.mark.parametrize("how", ["names apart", "branches", "one by one", "first steps", "the body afterwards"])
async def test_steps_of_one_name_whose_order_is_sure_are_worth_no_word(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    async with temporary_runtime(memory=True, actors=[Orders], clock=clock) as runtime:
        instance = await runtime.workflows.create(Orders, how)
        await clock.advance("1 hour")
        assert (await instance.status()).status == "complete"
    assert list(warnings_of(caplog)) == []
