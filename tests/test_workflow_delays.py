"""How long a step waits for its next attempt: as long as it is told, but never so long that nothing comes of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import z0
from tests.scripted_workflow import running
from tests.workflow_world import end_of
from z0.testing import VirtualClock


class Busy(Exception):
    def __init__(self, retry_after: Any) -> None:
        super().__init__("busy")
        self.retry_after = retry_after


def fails_once_with(retry_after: Any) -> Callable[[z0.Step], Any]:
    async def body(step: z0.Step) -> int:
        def call(ctx: z0.StepContext) -> int:
            if ctx.attempt == 1:
                raise Busy(retry_after)
            return ctx.attempt

        return await step.do("call", call, retries=z0.Retries(delay="7 seconds"))

    return body


async def waits(data: Path, clock: VirtualClock, retry_after: Any) -> float:
    """Seconds from the first attempt to the second."""
    async with running(data, clock, fails_once_with(retry_after)) as (_, instance):
        wake = (await instance.status()).wake_at
        assert wake is not None
        wait = (wake - clock.now()).total_seconds()
        await clock.advance(wait)
        assert await instance.result("1 second") == 2
        return wait


@pytest.mark.parametrize("retry_after", [30, 30.0, "30", " 30 ", "30 seconds", timedelta(seconds=30)])
async def test_an_error_may_say_how_long_to_wait_also_as_http_does(
    data: Path, clock: VirtualClock, retry_after: Any
) -> None:
    assert await waits(data, clock, retry_after) == 30


async def test_an_error_may_say_when_to_come_back(data: Path, clock: VirtualClock) -> None:
    assert await waits(data, clock, clock.now() + timedelta(minutes=5)) == 300
    with pytest.raises(AssertionError):  # at once: there is nothing to wait for
        await waits(data / "past", clock, clock.now() - timedelta(minutes=5))


@pytest.mark.parametrize(
    "retry_after",
    [1764400000000, 1e18, 1e308, 10**400, "9" * 400, math.inf, math.nan, -5, True, [1], datetime(2026, 1, 1), "soon"],
    ids=lambda value: repr(value)[:20],
)
async def test_what_an_error_cannot_mean_is_named_in_the_log_and_the_step_waits_as_usual(
    data: Path, clock: VirtualClock, caplog: pytest.LogCaptureFixture, retry_after: Any
) -> None:
    with caplog.at_level(logging.WARNING, logger="z0.workflows"):
        assert await waits(data, clock, retry_after) == 7
    (record,) = caplog.records
    assert "Scripted 'one': step 'call' failed with retry_after=" in record.getMessage()
    assert repr(retry_after)[:100] in record.getMessage()


async def test_an_absurd_retry_after_neither_holds_the_step_up_nor_hides_its_error(
    data: Path, clock: VirtualClock
) -> None:
    async def body(step: z0.Step) -> str:
        def call() -> None:
            raise Busy(1764400000000)

        try:
            await step.do("call", call)
        except Busy as error:
            return f"{error} {error.retry_after}"
        return "no error"

    async with running(data, clock, body) as (_, instance):
        await clock.advance("1 minute")
        assert await instance.result("1 second") == "busy 1764400000000"


@pytest.mark.parametrize("delay", [1e12, 1e18, 1e308, timedelta.max])
async def test_no_delay_is_longer_than_a_year(data: Path, clock: VirtualClock, delay: Any) -> None:
    async def body(step: z0.Step) -> int:
        def call(ctx: z0.StepContext) -> int:
            if ctx.attempt == 1:
                raise ValueError
            return ctx.attempt

        async def both() -> list[Any]:
            return [z0.Retries(delay=delay, max_delay=None, jitter=1), z0.Retries(delay=lambda *_: delay)]

        return sum([await step.do("call", call, retries=retries) for retries in await both()])

    async with running(data, clock, body) as (_, instance):
        for _ in range(2):
            assert (await instance.status()).wake_at == clock.now() + timedelta(days=365)
            await clock.advance("365 days")
        assert await instance.result("1 second") == 4


@pytest.mark.parametrize("delay", [math.inf, math.nan, -1, 10**400, "soon"])
async def test_an_impossible_delay_of_a_function_fails_the_step_with_what_it_was_asked_about_as_the_cause(
    data: Path, clock: VirtualClock, delay: Any
) -> None:
    async def body(step: z0.Step) -> None:
        def call() -> None:
            raise KeyError("why")

        await step.do("call", call, retries=z0.Retries(delay=lambda *_: delay))

    async with running(data, clock, body) as (_, instance):
        assert await end_of(instance) == "errored"
        with pytest.raises((ValueError, OverflowError)) as caught:
            await instance.result()
        assert repr(caught.value.__cause__) == "KeyError('why')"
