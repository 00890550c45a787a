"""A program that ends on the way fails none of its instances: whatever is cancelled with its loop, the next goes on."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

import z0
from tests.scripted_workflow import running
from z0.testing import VirtualClock

IDS = ["steps", "inside", "all", "gather", "sleeps", "waits", "tries"]
undone: list[str] = []
going_on = False


class Order(z0.Workflow):
    """Is somewhere else in each of its instances when the program ends."""

    retries = z0.Retries(limit=3, delay="1 hour")

    async def run(self, event: z0.Event[Any], step: z0.Step) -> str:
        await step.do("reserve", lambda: 1, rollback=lambda: undone.append(self.id))
        match self.id:
            case "steps":
                await step.do("slow", self.slow)
            case "inside":
                await step.do("outer", self.outer)
            case "all":
                await step.all([step.do("slow", self.slow), step.sleep("s", "2 seconds")])
            case "gather":
                await asyncio.gather(step.do("slow", self.slow), step.sleep("s", "2 seconds"))
            case "sleeps":
                await step.sleep("s", "2 seconds")
            case "waits":
                await step.wait_for_event("go", type="go", timeout=None)
            case "tries":
                await step.do("try", self.once)
        return "done"

    async def slow(self) -> None:
        if not going_on:
            await asyncio.Event().wait()

    async def outer(self, context: z0.StepContext) -> None:
        await context.do("slow", self.slow)

    def once(self) -> None:
        if not going_on:
            raise ValueError("not yet")


@pytest.mark.parametrize("how", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_program_ends_no_instance(tmp_path: Path, how: type[BaseException]) -> None:
    global going_on
    going_on = False
    undone.clear()

    async def program() -> None:
        async def ends() -> None:
            raise how

        clock = VirtualClock()
        async with z0.Runtime(tmp_path / "data", actors=[Order], clock=clock) as runtime:
            for id in IDS:
                await runtime.workflows.create(Order, id=id)
            await clock.settle()
            await asyncio.create_task(ends())

    async def afterwards() -> dict[str, str]:
        clock = VirtualClock()
        async with z0.Runtime(tmp_path / "data", actors=[Order], clock=clock) as runtime:
            clock.jump("365 days")
            await runtime.workflows.get(Order, "waits").send_event("go")
            await clock.advance("2 hours")
            return {info.id: info.status for info in await runtime.workflows.list(Order)}

    with pytest.raises(how):
        asyncio.run(program())
    going_on = True
    assert asyncio.run(afterwards()) == dict.fromkeys(IDS, "complete")
    assert undone == []


async def test_an_exit_in_a_branch_is_an_error_like_others(tmp_path: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> list[str]:
        async def leaves() -> None:
            raise SystemExit(7)

        found = await step.all([leaves(), step.do("stays", lambda: "here")], tolerate=1)
        return [str(each) for each in found]

    async with running(tmp_path / "data", clock, body) as (_, instance):
        assert await instance.result("1 second") == ["SystemExit: 7", "here"]


async def test_a_branch_that_is_cancelled_from_inside_is_tolerated_as_any_that_fails(
    tmp_path: Path, clock: VirtualClock
) -> None:
    async def body(step: z0.Step) -> list[str]:
        async def gives_up() -> None:
            raise asyncio.CancelledError

        found = await step.all([gives_up(), step.do("stays", lambda: "here")], tolerate=1)
        return [type(each).__name__ for each in found]

    async with running(tmp_path / "data", clock, body) as (_, instance):
        assert await instance.result("1 second") == ["RuntimeError", "str"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_tasks_that_a_program_has_begin_at_once_change_nothing(
    data: Path, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(step: z0.Step) -> Any:
        each = [step.do("one", lambda: asyncio.sleep(0, 1)), step.do("two", lambda: 2)]
        return [*await step.all(each), (await step.wait_for_event("x", type="x")).payload]

    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    for number in range(3):
        async with running(data, clock, body) as (runtime, one):
            another = await runtime.workflows.create(one.cls, id=f"another-{number}")
            for instance in (one, another):
                if not (await instance.status()).finished:
                    await instance.send_event("x", 3)
                assert await instance.result() == [1, 2, 3]
            await another.restart()
            assert await another.result() == [1, 2, 3]
    assert caplog.messages == []  # such as that a runtime closed before an instance came to rest
