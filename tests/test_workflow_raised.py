"""A body whose own code raises before it has come by its journal: today's code is wrong, not the instance."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import z0
from tests.scripted_workflow import Body, Paused, Scripted, running
from z0.testing import VirtualClock, crash


def order(undone: list[str], bug: bool) -> Body:
    """Two steps that can be undone, a night, and a third; today's code has a bug behind the first."""

    async def body(step: z0.Step) -> str:
        await step.do("charge", lambda: 1, rollback=lambda: undone.append("charge"))
        if bug:
            raise KeyError("price")
        await step.do("ship", lambda: 2, rollback=lambda: undone.append("ship"))
        await step.sleep("night", "1 day")
        return "delivered"

    return body


@pytest.mark.parametrize("cls", [Scripted, Paused])
async def test_a_bug_of_today_undoes_nothing_and_goes_when_the_code_is_brought_back(
    data: Path, clock: VirtualClock, cls: type[z0.Workflow]
) -> None:
    undone: list[str] = []
    async with running(data, clock, order(undone, bug=False), cls):
        pass
    async with running(data, clock, order(undone, bug=True), cls) as (_, instance):
        await clock.advance("2 days")
        status = await instance.status()
        assert status.status == ("paused" if cls is Paused else "errored")
        assert status.error is not None
        assert status.error.type.endswith(":NonDeterminismError")
        assert "do:ship#1" in status.error.message
        assert "KeyError: 'price'" in status.error.message
    async with running(data, clock, order(undone, bug=False), cls) as (_, instance):
        if cls is Scripted:
            await instance.retry()
        await clock.advance("1 hour")
        assert await instance.result("1 second") == "delivered"
    assert undone == []


async def test_what_a_body_raises_when_it_has_come_by_all_is_undone_as_ever(data: Path, clock: VirtualClock) -> None:
    undone: list[str] = []

    async def body(step: z0.Step) -> None:
        await step.do("charge", lambda: 1, rollback=lambda: undone.append("charge"))
        await step.sleep("night", "1 day")
        raise KeyError("price")

    async with running(data, clock, body) as (_, instance):
        await clock.advance("2 days")
        assert (await instance.status()).error.type == "builtins:KeyError"  # type: ignore[union-attr]
    assert undone == ["charge"]


async def test_siblings_that_have_yet_to_ask_for_what_the_journal_has_are_waited_for(
    data: Path, clock: VirtualClock
) -> None:
    async def body(step: z0.Step) -> Any:
        async def raises() -> None:
            await step.do("first", lambda: 1)
            await step.sleep("while", "1 hour")
            raise KeyError("price")

        async def goes_on() -> None:
            for _ in range(30):
                await step.do("work", lambda: 1)
                await asyncio.sleep(0)
            await step.sleep("long", "1 day")

        await asyncio.gather(raises(), goes_on())

    async with running(data, clock, body) as (runtime, _):
        await clock.advance("1 minute")
        await crash(runtime)
    async with running(data, clock, body) as (_, instance):
        await clock.advance("2 hours")
        status = await instance.status()
        assert status.error is not None
        assert status.error.type == "builtins:KeyError"
