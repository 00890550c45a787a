"""Limits: exactly at one is fine, past it the error says which and what to do; big results go to files of their own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import z0
from tests.scripted_workflow import Scripted, running
from z0.testing import VirtualClock, crash

MIB = 1024 * 1024


class Small(Scripted):
    steps_max = 10
    result_bytes = 1_000
    blob_bytes = 5_000
    execution_max = "1 hour"


def blobs_of(data: Path) -> list[Path]:
    return list(data.rglob("*.blobs/*"))


def steps(number: int) -> Any:
    async def body(step: z0.Step) -> int:
        for each in range(number):
            await step.do("x", lambda each=each: each)
            await step.sleep("s", "1 second")
        return number

    return body


async def test_as_many_steps_as_the_limit_are_fine_one_more_fails_and_sleeps_do_not_count(
    data: Path, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(data / "1", clock, steps(10), Small) as (_, instance):
        await clock.advance("1 minute")
        assert await instance.result("1 second") == 10
        assert (await instance.status()).warnings == ["10 of 10 are used (steps_max): past that it fails"]
    assert sum("8 of 10" in record.message for record in caplog.records) == 1
    async with running(data / "2", clock, steps(11), Small) as (_, instance):
        await clock.advance("1 minute")
        with pytest.raises(z0.LimitExceeded, match=r"10 steps, and may take 10 \(steps_max\); .*child workflows"):
            await instance.result("1 second")


async def test_the_step_limit_counts_over_restarts_and_is_the_default_of_1000(data: Path, clock: VirtualClock) -> None:
    async with running(data, clock, steps(11), Small):
        await clock.advance("3 seconds")
    async with running(data, clock, steps(11), Small) as (_, instance):
        await clock.advance("1 minute")
        with pytest.raises(z0.LimitExceeded):
            await instance.result("1 second")
        assert sum(entry.event == "step_completed" for entry in await instance.journal()) == 10
    assert Scripted.steps_max == 1_000


async def test_a_result_at_a_mebibyte_is_in_the_journal_and_a_bigger_one_in_a_file(
    data: Path, clock: VirtualClock
) -> None:
    seen: list[list[int]] = []

    async def body(step: z0.Step) -> None:
        at = await step.do("at", lambda: b"x" * (MIB - 5))
        over = await step.do("over", lambda: {"bytes": b"y" * (2 * MIB)})
        again = await step.do("again", lambda: {"bytes": b"y" * (2 * MIB)})
        assert over == again
        seen.append([len(at), len(over["bytes"])])
        await step.sleep("s", "1 day")

    async with running(data, clock, body) as (runtime, instance):
        blobs = blobs_of(data)
        assert len(blobs) == 1, "the same content is kept once"
        assert blobs[0].stat().st_size > 2 * MIB
        assert all(len(entry.value or b"") <= MIB for entry in await instance.journal())
        await crash(runtime)
    async with running(data, clock, body) as (_, instance):
        await clock.advance("2 days")
        await instance.result("1 second")
    assert seen == [[MIB - 5, 2 * MIB]] * 3


async def test_a_file_of_a_result_that_is_gone_or_damaged_is_noticed(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> None:
        await step.do("big", lambda: b"y" * 3_000)
        await step.sleep("s", "1 day")

    async with running(data, clock, body, Small):
        pass
    (blob,) = blobs_of(data)
    blob.write_bytes(b"something else")
    async with running(data, clock, body, Small) as (_, instance):
        await clock.advance("2 days")
        with pytest.raises(z0.InvalidValue, match="is damaged"):
            await instance.result("1 second")


async def test_a_result_past_the_cap_fails_the_step_and_not_before_its_last_attempt_only(
    data: Path, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[int] = []

    async def body(step: z0.Step) -> None:
        await step.do("near", lambda: b"y" * 4_900)
        await step.do("big", big)

    def big() -> bytes:
        ran.append(1)
        return b"y" * 6_000

    async with running(data, clock, body, Small) as (_, instance):
        with pytest.raises(z0.LimitExceeded, match=r"'big' has 6,003 bytes, more than 5,000 \(blob_bytes\); keep it"):
            await instance.result("1 second")
        assert (await instance.status()).step == "do:big#1"
    assert ran == [1]
    assert any("blob_bytes" in record.message for record in caplog.records)


async def test_an_output_or_a_payload_that_is_too_big_is_refused_clearly(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> bytes:
        return b"x" * 2_000

    async with running(data, clock, body, Small) as (runtime, instance):
        with pytest.raises(z0.LimitExceeded, match="result_bytes"):
            await instance.result("1 second")
        with pytest.raises(z0.LimitExceeded, match="result_bytes"):
            await runtime.workflows.create(Small, b"x" * 2_000, id="two")
        with pytest.raises(z0.InstanceNotFound):
            await runtime.workflows.get(Small, "two").status()


async def test_only_time_that_attempts_take_counts_as_execution(
    data: Path, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def nap(context: z0.StepContext) -> None:
        await clock.sleep("5 minutes")
        await context.sleep("nested", "10 days")
        await clock.sleep("5 minutes")

    async def body(step: z0.Step) -> str:
        for _ in range(9):
            await step.do("x", nap, timeout=None)
            await step.sleep("s", "20 days")
        return "never"

    async with running(data, clock, body, Small) as (_, instance):
        await clock.advance("1 year")
        with pytest.raises(z0.LimitExceeded, match="execution_max"):
            await instance.result("1 second")
        completed = [each for each in await instance.journal() if each.event == "step_completed"]
        assert (await instance.status()).warnings != []
    assert len(completed) == 6


async def test_the_profile_of_cloudflare_has_its_numbers_where_the_class_does_not_say_otherwise() -> None:
    class Theirs(z0.Workflow, profile="cloudflare"):
        pass

    class Mine(z0.Workflow):
        profile = "cloudflare"
        steps_max = 25_000

    for cls in (Theirs, Mine):
        assert (cls.retries.limit, cls.retries.delay, cls.retries.max_delay) == (5, "10 seconds", None)
        assert cls.execution_max is None
    assert (Theirs.steps_max, Mine.steps_max) == (10_000, 25_000)
    with pytest.raises(ValueError, match="profile='other'"):
        type("Other", (z0.Workflow,), {"profile": "other"})
    with pytest.raises(ValueError, match="on_divergence"):
        type("Other", (z0.Workflow,), {"on_divergence": "warn"})


async def test_the_profile_of_cloudflare_retries_as_it_does(data: Path, clock: VirtualClock) -> None:
    at: list[float] = []

    class Theirs(Scripted, profile="cloudflare"):
        pass

    def fails() -> None:
        at.append(clock.monotonic())
        raise ValueError("no")

    async with running(data, clock, lambda step: step.do("x", fails), Theirs) as (_, instance):
        await clock.advance("1 day")
        with pytest.raises(ValueError, match="no"):
            await instance.result("1 second")
    assert at == [0, 10, 30, 70, 150, 310]


async def test_a_sensitive_result_is_hidden_from_readers_and_real_for_the_body(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> int:
        secret = await step.do("secret", lambda: "hunter2", sensitive=True)
        return len(secret)

    async with running(data, clock, body) as (_, instance):
        assert await instance.result("1 second") == 7
        journal = await instance.journal()
    assert not any(b"hunter2" in (entry.value or b"") for entry in journal)
    assert sum(b"[REDACTED]" in (entry.value or b"") for entry in journal) == 1


async def test_the_warning_of_a_limit_is_logged(
    data: Path, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with running(data, clock, steps(8), Small) as (_, instance):
        await clock.advance("1 minute")
        assert await instance.result("1 second") == 8
    assert any("steps_max" in record.message for record in caplog.records)
