"""The journal holds whatever the memory knows: nothing that fails later takes an entry back."""

from __future__ import annotations

from typing import Any

import pytest

import z0
from z0.testing import VirtualClock, crash, temporary_runtime


class Raising(z0.Workflow):
    """Raises in the very segment that ended a step."""

    async def run(self, event: z0.Event[str], step: z0.Step) -> Any:
        match event.payload:
            case "step":
                await step.do("charge", lambda: self.env.append("charged"))
            case "value":
                step.now()
            case "sleep":
                await step.sleep_until("past", step.now())
            case "failed":
                await step.do("charge", self.fail, retries=z0.Retries(limit=1, delay=0))
            case "patch":
                step.patched("new")
        if "repaired" not in self.env:
            raise ValueError("no")
        return await step.do("after", lambda: "done")

    def fail(self) -> None:
        self.env.append("tried")
        if "repaired" not in self.env:
            raise ValueError("no")


@pytest.mark.parametrize("kind", ["step", "value", "sleep", "failed", "patch"])
async def test_a_body_that_raises_at_once_takes_no_entry_back(kind: str, clock: VirtualClock) -> None:
    env: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=[Raising], env=env) as runtime:
        instance = await runtime.workflows.create(Raising, kind, id="x")
        await clock.advance("1 second")
        entries = await instance.journal()
        assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
        assert entries[-1].event == "workflow_errored"
        if kind == "failed":
            assert [each.attempt for each in (await instance.step("charge")).attempts] == [1, 2]
        env.append("repaired")
        await instance.retry()
        await clock.settle()
        await crash(runtime)
        async with z0.Runtime(runtime.path, clock=clock, actors=[Raising], env=env) as again:
            same = again.workflows.get(Raising, "x")
            assert await same.result("1 second") == "done"
            assert env.count("charged") == (kind == "step")
