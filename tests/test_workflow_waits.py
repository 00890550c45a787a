"""Sleeps and events: fixed once, kept through kills, first in, first out."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

import z0
from tests.scripted_workflow import Scripted, running
from z0.testing import VirtualClock, crash


class Paid(msgspec.Struct):
    order: int
    amount: int = 0


# C. Sleeps


async def test_a_sleep_survives_a_kill_and_ends_at_its_first_deadline(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> float:
        await step.sleep("night", "8 hours")
        return clock.monotonic()

    async with running(data, clock, body) as (runtime, _):
        await clock.advance("3 hours")
        await crash(runtime)
    await clock.advance("1 hour")
    async with running(data, clock, body) as (_, instance):
        status = await instance.status()
        assert (status.status, status.wake_at) == ("waiting", datetime(2026, 1, 1, 8, tzinfo=UTC))
        assert status.waiting_for == ["sleep:night#1: sleep until 2026-01-01 08:00:00 UTC"]
        await clock.advance("4 hours")
        assert await instance.result("1 second") == 8 * 3600


async def test_a_changed_duration_does_not_move_a_sleep_that_has_begun(data: Path, clock: VirtualClock) -> None:
    spans = ["8 hours", "1 minute"]

    async def body(step: z0.Step) -> float:
        await step.sleep("night", spans[0])
        return clock.monotonic()

    async with running(data, clock, body):
        pass
    spans.pop(0)
    async with running(data, clock, body) as (_, instance):
        await clock.advance("8 hours")
        assert await instance.result("1 second") == 8 * 3600


async def test_sleeping_until_a_time_that_has_passed_goes_on_at_once_and_again_on_replay(
    data: Path, clock: VirtualClock
) -> None:
    seen: list[float] = []

    async def body(step: z0.Step) -> None:
        await step.sleep_until("past", datetime(2020, 1, 1, tzinfo=UTC))
        await step.sleep_until("soon", datetime(2026, 1, 1, 1, tzinfo=UTC))
        seen.append(clock.monotonic())
        await step.sleep("more", "1 day")

    async with running(data, clock, body):
        await clock.advance("2 hours")
    async with running(data, clock, body) as (_, instance):
        await clock.advance("2 days")
        assert (await instance.status()).status == "complete"
    assert seen == [3600, 25 * 3600]


async def test_sleeps_of_any_unit_end_when_they_should(data: Path, clock: VirtualClock) -> None:
    spans: list[Any] = ["250 ms", 2, "3 minutes", timedelta(hours=1), "1 day", "2 weeks", "1 month", "1 year", 0]

    async def body(step: z0.Step) -> list[float]:
        at = []
        for span in spans:
            await step.sleep("s", span)
            at.append((step.now() - datetime(2026, 1, 1, tzinfo=UTC)).total_seconds())
        return at

    async with running(data, clock, body) as (_, instance):
        await clock.advance("500 days")
        at = await instance.result("1 second")
    waits = [0.25, 2, 180, 3600, 86_400, 14 * 86_400, 30 * 86_400, 365 * 86_400, 0]
    assert at == [sum(waits[: n + 1]) for n in range(len(waits))]


async def test_a_thirty_day_workflow_of_many_sleeps_at_once_takes_no_time(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> int:
        return len(await asyncio.gather(*(step.sleep(f"s{n}", f"{n % 30 + 1} days") for n in range(200))))

    async with running(data, clock, body) as (runtime, instance):
        await clock.advance("1 minute")
        assert not runtime.node.hosts
        await clock.advance("30 days")
        assert await instance.result("1 second") == 200


async def test_a_sleep_longer_than_a_year_is_refused(data: Path, clock: VirtualClock) -> None:
    for wait in (
        lambda step: step.sleep("s", "366 days"),
        lambda step: step.sleep_until("s", datetime(2030, 1, 1, tzinfo=UTC)),
        lambda step: step.wait_for_event("w", type="t", timeout="366 days"),
    ):
        async with running(data / wait.__code__.co_names[0], clock, wait) as (_, instance):
            with pytest.raises(z0.LimitExceeded, match="sleep_max"):
                await instance.result("1 second")


async def test_a_time_without_a_zone_is_refused(data: Path, clock: VirtualClock) -> None:
    async with running(data, clock, lambda step: step.sleep_until("s", datetime(2030, 1, 1))) as (_, instance):
        with pytest.raises(ValueError, match="time zone"):
            await instance.result("1 second")


async def test_what_a_finished_instance_still_slept_for_does_not_wake_it(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> str:
        asyncio.create_task(step.sleep("forgotten", "1 hour"))  # noqa: RUF006
        await step.sleep("short", "1 minute")
        return "done"

    async with running(data, clock, body) as (runtime, instance):
        await clock.advance("5 minutes")
        assert await instance.result("1 second") == "done"
        entries = len(await instance.journal())
        await clock.advance("1 minute")
        assert not runtime.node.hosts
        await clock.advance("1 day")
        assert not runtime.node.hosts
        assert len(await instance.journal()) == entries


async def test_a_backoff_ends_although_the_clock_was_set_back_while_the_process_was_down(
    data: Path, clock: VirtualClock
) -> None:
    attempts: list[int] = []

    async def work(context: z0.StepContext) -> str:
        attempts.append(context.attempt)
        if context.attempt == 1:
            raise ValueError("no")
        await clock.sleep("1 minute")
        return "done"

    async def body(step: z0.Step) -> str:
        return await step.do("x", work, retries=z0.Retries(delay="1 hour"))

    async with running(data, clock, body) as (runtime, _):
        await clock.advance("3630 seconds")  # its second attempt is under way
        assert attempts == [1, 2]
        await crash(runtime)
    clock.jump("50 minutes", backwards=True)
    async with running(data, clock, body) as (_, instance):
        assert (await instance.status()).wake_at == datetime(2026, 1, 1, 1, tzinfo=UTC)
        await clock.advance("2 hours")
        status = await instance.status()
        assert (status.status, status.output) == ("complete", "done")
    assert attempts == [1, 2, 2]


# D. Events


def wait(**options: Any) -> Callable[[z0.Step], Any]:
    async def body(step: z0.Step) -> Any:
        return await step.wait_for_event("payment", type="paid", **options)

    return body


async def test_an_event_resumes_an_instance_that_waits_in_memory_or_out_of_it(data: Path, clock: VirtualClock) -> None:
    for away in (False, True):
        async with running(data / str(away), clock, wait()) as (runtime, instance):
            if away:
                await clock.advance("1 hour")
                assert not runtime.node.hosts
            assert await instance.send_event("paid", {"order": 7}, id="e1")
            event = await instance.result("1 second")
            event.pop("scheduled_time")
            assert event == {"payload": {"order": 7}, "type": "paid", "timestamp": clock.now(), "id": "e1"}


async def test_an_event_that_was_sent_while_the_process_was_down_is_not_needed_to_resume_it(
    data: Path, clock: VirtualClock
) -> None:
    async with running(data, clock, wait()) as (runtime, instance):
        await instance.send_event("paid", 1)
        await crash(runtime)
    async with running(data, clock, wait()) as (_, instance):
        assert (await instance.result("1 second"))["payload"] == 1


async def test_early_events_are_kept_and_taken_first_in_first_out_for_each_type(
    data: Path, clock: VirtualClock
) -> None:
    async def body(step: z0.Step) -> list[int]:
        await step.sleep("late", "1 hour")
        taken = [await step.wait_for_event("w", type="a") for _ in range(12)]
        other = await step.wait_for_event("w", type="b")
        return [each.payload for each in (*taken, other)]

    async with running(data, clock, body) as (_, instance):
        await instance.send_event("b", 100)
        for number in range(12):
            await instance.send_event("a", number)
        await clock.advance("2 hours")
        assert await instance.result("1 second") == [*range(12), 100]


async def test_waits_for_one_type_get_its_events_in_the_order_in_which_they_began(
    data: Path, clock: VirtualClock
) -> None:
    async def body(step: z0.Step) -> list[int]:
        events = await asyncio.gather(*(step.wait_for_event(f"w{n}", type="a") for n in range(3)))
        return [event.payload for event in events]

    async with running(data, clock, body) as (_, instance):
        await clock.advance("1 minute")
        for number in range(3):
            await instance.send_event("a", number)
        assert await instance.result("1 second") == [0, 1, 2]


async def test_a_wait_that_is_over_raises_and_the_next_one_gets_the_next_event(data: Path, clock: VirtualClock) -> None:
    seen: list[Any] = []

    async def body(step: z0.Step) -> Any:
        try:
            await step.wait_for_event("first", type="paid", timeout="1 hour")
        except z0.EventTimeout as error:
            seen.append((error.step, error.type))
        return await step.wait_for_event("second", type="paid", timeout=None)

    async with running(data, clock, body) as (_, instance):
        await clock.advance("2 hours")
        assert (await instance.status()).waiting_for == ["wait:second#1: event 'paid'"]
        await instance.send_event("paid", 5)
        assert (await instance.result("1 second"))["payload"] == 5
    assert seen == [("first", "paid")] * len(seen)
    assert seen


async def test_a_timeout_that_is_not_caught_fails_the_instance(data: Path, clock: VirtualClock) -> None:
    async with running(data, clock, wait()) as (_, instance):
        await clock.advance("25 hours")
        with pytest.raises(z0.EventTimeout):
            await instance.result("1 second")
        with pytest.raises(z0.WrongStatus, match="errored"):
            await instance.send_event("paid")


async def test_the_same_event_again_does_nothing_also_after_a_restart(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> list[Any]:
        first = await step.wait_for_event("w", type="a")
        second = await step.wait_for_event("w", type="a")
        return [first.payload, second.payload]

    async with running(data, clock, body) as (_, instance):
        assert await instance.send_event("a", 1, id="e")
        assert not await instance.send_event("a", 2, id="e")
        assert await asyncio.gather(*(instance.send_event("a", 3, id="f") for _ in range(3))) == [True, False, False]
        assert await instance.result("1 second") == [1, 3]
    async with running(data, clock, body) as (_, instance):
        assert not await instance.send_event("a", 2, id="e")


async def test_an_event_that_does_not_match_stays_for_another_wait(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> list[Any]:
        two = await step.wait_for_event("two", type="paid", match={"order": 2}, payload=Paid)
        rest = await step.wait_for_event("rest", type="paid", payload=Paid)
        return [two.payload, rest.payload]

    async with running(data, clock, body) as (_, instance):
        await instance.send_event("paid", Paid(1, 10))
        await clock.advance("1 minute")
        await instance.send_event("paid", {"order": True})
        assert (await instance.status()).status == "waiting"
        await instance.send_event("paid", Paid(2, 20))
        assert await instance.result("1 second") == [{"order": 2, "amount": 20}, {"order": 1, "amount": 10}]


async def test_a_wait_in_a_failed_attempt_takes_no_event_from_the_next(data: Path, clock: VirtualClock) -> None:
    async def outer(context: z0.StepContext) -> Any:
        if context.attempt == 1:
            await asyncio.gather(context.wait_for_event("w", type="a"), context.do("fails", fails))
        return (await context.wait_for_event("again", type="a")).payload

    def fails() -> None:
        raise ValueError("inner")

    async def body(step: z0.Step) -> Any:
        return await step.do("outer", outer)

    async with running(data, clock, body) as (runtime, instance):
        await clock.advance("1 minute")
        assert [each.partition(": ")[0] for each in (await instance.status()).waiting_for] == [
            "do:outer#1/wait:again#1"
        ]
        await clock.advance("1 hour")
        assert not runtime.node.hosts
        await instance.send_event("a", 1)
        assert await instance.result("1 second") == 1


@pytest.mark.parametrize("type", ["", "a b", "-a", "x" * 101, "é"])
async def test_impossible_types_of_events_are_refused(type: str, data: Path, clock: VirtualClock) -> None:
    async with running(data, clock, wait()) as (_, instance):
        with pytest.raises(z0.InvalidName):
            await instance.send_event(type)


async def test_what_cannot_be_an_event_is_refused(data: Path, clock: VirtualClock) -> None:
    async with running(data, clock, wait()) as (_, instance):
        with pytest.raises(z0.LimitExceeded, match="result_bytes"):
            await instance.send_event("paid", b"x" * 1_100_000)
        with pytest.raises(z0.InvalidName):
            await instance.send_event("paid", id="")
        with pytest.raises(z0.InvalidValue):
            await instance.send_event("paid", object())
        assert (await instance.status()).status == "waiting"


class Size(enum.Enum):
    SMALL = "s"


@dataclasses.dataclass
class Sent:
    order: int
    size: Size = Size.SMALL


class Plain(msgspec.Struct, omit_defaults=True):
    order: int
    size: Size = Size.SMALL
    note: str | msgspec.UnsetType = msgspec.UNSET


class Short(msgspec.Struct, array_like=True):
    order: int
    size: Size = Size.SMALL


class Tagged(msgspec.Struct, tag="paid", rename={"order": "orderId"}):
    order: int
    key: UUID = UUID(int=5)


@pytest.mark.parametrize(
    ("payload", "match"),
    [
        ({"order": 7, "size": Size.SMALL}, {"order": 7, "size": "s"}),
        (Sent(7), {"order": 7, "size": "s"}),
        (Plain(7), {"order": 7, "size": "s"}),
        (Short(7), {"order": 7, "size": "s"}),
        (Tagged(7), {"orderId": 7, "type": "paid", "key": str(UUID(int=5))}),
    ],
    ids=repr,
)
async def test_an_event_is_matched_by_its_fields_whatever_its_payload_is(
    data: Path, clock: VirtualClock, payload: Any, match: dict[str, Any]
) -> None:
    async def body(step: z0.Step) -> str:
        await step.wait_for_event("w", type="a", match=match, timeout=None)
        return "matched"

    async with running(data, clock, body) as (_, instance):
        await instance.send_event("a", {**match, next(iter(match)): 8})
        await instance.send_event("a", payload)
        assert await instance.result("1 second") == "matched"


async def test_a_match_that_could_not_be_kept_is_refused(data: Path, clock: VirtualClock) -> None:
    async with running(data, clock, wait(match={"at": datetime(2026, 1, 1, tzinfo=UTC)})) as (_, instance):
        with pytest.raises(TypeError, match="'at' is a datetime"):
            await instance.result("1 second")


async def test_an_instance_that_is_not_there_gets_no_events_and_is_not_made_by_asking(
    data: Path, clock: VirtualClock
) -> None:
    async with running(data, clock, wait()) as (runtime, _):
        nobody = runtime.workflows.get(Scripted, "nobody")
        for ask in (lambda: nobody.send_event("paid"), nobody.status, nobody.result, nobody.journal, nobody.retry):
            with pytest.raises(z0.InstanceNotFound):
                await ask()
        assert not await runtime.list(Scripted, prefix="nobody")


async def test_ids_of_instances_are_random_unless_given_and_follow_the_rules(data: Path, clock: VirtualClock) -> None:
    async with running(data, clock, wait()) as (runtime, _):
        made = [await runtime.workflows.create(Scripted) for _ in range(3)]
        assert len({each.id for each in made}) == 3
        with pytest.raises(z0.InstanceExists):
            await runtime.workflows.create(Scripted, id="one")
        for id in ("", "-a", "a b", "x" * 101, "a/b"):
            with pytest.raises(z0.InvalidName):
                await runtime.workflows.create(Scripted, id=id)


async def test_status_tells_what_an_instance_came_to(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> Any:
        event = await step.wait_for_event("w", type="a")
        if event.payload is None:
            raise ValueError("nothing")
        return event.payload

    async with running(data, clock, body) as (runtime, one):
        assert (await one.status()).status == "waiting"
        await one.send_event("a", 5)
        assert await one.result() == 5
        status = await one.status()
        assert (status.status, status.output, status.error) == ("complete", 5, None)
        two = await runtime.workflows.create(Scripted, id="two")
        await two.send_event("a", None)
        with pytest.raises(ValueError, match="nothing"):
            await two.result()
        three = await runtime.workflows.create(Scripted, id="three")
        await three.terminate()
        with pytest.raises(z0.InstanceFailed, match="terminated"):
            await three.result()
