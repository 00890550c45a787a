"""Steps whose callbacks a test replaces."""

from __future__ import annotations

from typing import Any

import pytest

import z0
from z0.testing import VirtualClock, mock_step, temporary_runtime


class Mocked(z0.Workflow):
    retries = z0.Retries(limit=2, delay="1 minute", backoff="constant")

    async def run(self, event: z0.Event[None], step: z0.Step) -> list[Any]:
        async def outer(context: z0.StepContext) -> list[Any]:
            return [await context.do("inner", lambda: "real") for _ in range(2)]

        return [await step.do("outer", outer), await step.do("other", lambda: "real", rollback=lambda: None)]


class Unlike(Mocked):
    pass


async def test_a_mocked_step_returns_or_raises_what_the_test_says_and_others_are_real(
    z0_runtimes: Any, z0_clock: VirtualClock
) -> None:
    async with z0_runtimes(actors=[Mocked, Unlike]) as runtime:

        async def result(cls: type[z0.Workflow]) -> Any:
            instance: z0.Instance[Any] = await runtime.workflows.create(cls)
            await z0_clock.advance("10 minutes")
            return await instance.result("1 second")

        with mock_step(runtime, "inner", returns="mock") as inner, mock_step(runtime, "other", returns=7, times=1):
            assert await result(Mocked) == [["mock", "mock"], 7]
            assert await result(Mocked) == [["mock", "mock"], "real"]
        assert inner.calls == 4
        with mock_step(runtime, "outer/inner#2", returns="mock", workflow=Mocked):
            assert await result(Mocked) == [["real", "mock"], "real"]
        with mock_step(runtime, "other", raises=z0.StepTimeout("other", 60), workflow=Unlike) as other:
            with pytest.raises(z0.StepTimeout):
                await result(Unlike)
            assert other.calls == 3
            assert await result(Mocked) == [["real", "real"], "real"]
        assert await result(Mocked) == [["real", "real"], "real"]
        for wrong in ({"times": 0}, {"returns": 1, "raises": ValueError()}):
            with pytest.raises(ValueError, match=r"leave a mock out|either returns or raises"):
                mock_step(runtime, "x", **wrong).__enter__()


async def test_a_mock_of_one_runtime_is_none_of_another(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock) as one, temporary_runtime(memory=True, clock=clock) as other:
        with mock_step(one, "other", returns="mock"):
            results = [await (await each.workflows.create(Mocked)).result() for each in (one, other)]
    assert [result[1] for result in results] == ["mock", "real"]
