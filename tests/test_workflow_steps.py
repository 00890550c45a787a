"""Steps: each runs once, its result and its error come back exactly, and attempts end when they should."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest

import z0
from tests.scripted_workflow import Body, Scripted
from z0.testing import VirtualClock, crash, temporary_runtime


class Declined(Exception):
    def __init__(self, code: int, *, account: str) -> None:
        super().__init__(code)
        self.account = account


class Point(msgspec.Struct, frozen=True):
    x: int
    y: Decimal


@dataclasses.dataclass
class Line:
    ends: tuple[int, int]
    label: str


class Account(z0.Entity):
    accepts = {"*"}


def counted(calls: list[int], value: Any) -> Any:
    calls.append(1)
    return value


async def outcome_of(body: Body, clock: VirtualClock, wait: str = "1 day") -> Any:
    """What a body comes to, under its own runtime."""
    async with temporary_runtime(memory=True, clock=clock, actors=[Scripted], env={"body": body}) as runtime:
        instance = await runtime.workflows.create(Scripted, id="one")
        await clock.advance(wait)
        return await instance.result("1 second")


async def twice(body: Body, clock: VirtualClock, tmp_path: Any) -> tuple[Any, Any]:
    """What a body comes to when it ends with a wait, and again when all before the wait is replayed."""
    seen: list[Any] = []

    async def watched(step: z0.Step) -> None:
        try:
            seen.append(await body(step))
        except Exception as error:
            seen.append(error)
        await step.sleep("night", "8 hours")

    for _ in range(2):
        async with z0.Runtime(tmp_path / "data", clock=clock, actors=[Scripted], env={"body": watched}) as runtime:
            if not seen:
                await runtime.workflows.create(Scripted, id="one")
            await clock.advance("5 hours")
    assert len(seen) == 2, "the body did not run twice"
    return seen[0], seen[1]


# A. Steps and what comes back


async def test_a_completed_step_is_skipped_on_replay_and_its_stored_value_returned(
    clock: VirtualClock, tmp_path: Any
) -> None:
    calls: list[int] = []
    first, again = await twice(lambda step: step.do("count", lambda: counted(calls, {"n": [1]})), clock, tmp_path)
    assert (first, again) == ({"n": [1]}, {"n": [1]})
    assert calls == [1]


async def test_a_failed_step_raises_the_same_error_on_replay_and_is_not_run_again(
    clock: VirtualClock, tmp_path: Any
) -> None:
    calls: list[int] = []

    def decline() -> None:
        calls.append(1)
        try:
            raise KeyError("no such card")
        except KeyError as error:
            raise Declined(51, account="acct_1") from error

    first, again = await twice(lambda step: step.do("pay", decline, retries=z0.Retries(limit=1)), clock, tmp_path)
    for error in (first, again):
        assert type(error) is Declined
        assert (error.args, error.account, str(error)) == ((51,), "acct_1", "51")
        assert type(error.__cause__) is KeyError
        assert error.__cause__.args == ("no such card",)
    assert len(calls) == 2


async def test_an_error_of_a_step_that_the_body_catches_does_not_fail_the_instance(clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> str:
        try:
            await step.do("fails", lambda: 1 // 0, retries=z0.Retries(limit=0))
        except ZeroDivisionError as error:
            return f"caught {error}"
        return "nothing to catch"

    assert await outcome_of(body, clock) == "caught integer division or modulo by zero"


async def test_a_step_that_returns_none_is_not_run_again(clock: VirtualClock, tmp_path: Any) -> None:
    calls: list[int] = []
    assert await twice(lambda step: step.do("note", lambda: calls.append(1)), clock, tmp_path) == (None, None)
    assert calls == [1]


EXACT: list[Any] = [
    (1, "two", 3.5, None, True, b"four"),
    {"set": {1, 2}, "frozen": frozenset({"a"}), ("a", 1): Decimal("1.10")},
    [datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), datetime(2026, 1, 2)],
    (date(2026, 1, 2), timedelta(days=-1, microseconds=3)),
    UUID(int=7),
    2**63 - 1,
    float("inf"),
    "\ud83d\ude00 \u0000".encode("utf-16", "surrogatepass"),
    [],
    {},
]  # fmt: skip


@pytest.mark.parametrize("value", EXACT, ids=repr)
async def test_plain_values_come_back_exactly_on_the_first_run_and_on_replay(
    value: Any, clock: VirtualClock, tmp_path: Any
) -> None:
    for back in await twice(lambda step: step.do("value", lambda: value), clock, tmp_path):
        assert back == value
        assert type(back) is type(value)


async def test_facts_come_back_as_facts_without_an_annotation(clock: VirtualClock, tmp_path: Any) -> None:
    async def body(step: z0.Step) -> Any:
        assert isinstance(step, z0.Step)
        account = step.run.engine.workflow.get(Account, "acct_1")
        return await step.do("charge", lambda: account.append("charge", amount=-5, data={"order": [1]}))

    first, again = await twice(body, clock, tmp_path)
    assert type(first) is z0.Fact
    assert first == again
    assert (first.amount, first.data, len(first.hash)) == (-5, {"order": [1]}, 32)


async def test_structs_and_dataclasses_come_back_as_the_callback_is_annotated(
    clock: VirtualClock, tmp_path: Any
) -> None:
    def shapes() -> tuple[list[Point], Line]:
        return [Point(1, Decimal("2.50"))], Line((1, 2), "l")

    for back in await twice(lambda step: step.do("shapes", shapes), clock, tmp_path):
        assert back == ([Point(1, Decimal("2.50"))], Line((1, 2), "l"))


async def test_a_result_is_the_same_on_the_first_run_as_on_replay_also_where_its_annotation_converts_it(
    clock: VirtualClock, tmp_path: Any
) -> None:
    def number() -> float:
        return 1

    first, again = await twice(lambda step: step.do("number", number), clock, tmp_path)
    assert type(first) is type(again) is float


async def test_the_body_gets_a_copy_of_what_a_callback_returned(clock: VirtualClock) -> None:
    kept: list[int] = [1]

    async def body(step: z0.Step) -> Any:
        got = await step.do("list", lambda: kept)
        kept.append(2)
        return got

    assert await outcome_of(body, clock) == [1]


async def test_the_same_name_in_a_loop_is_a_step_of_its_own_each_time_and_counts(clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> Any:
        return [await step.do("page", lambda context: (context.name, context.count)) for _ in range(3)]

    assert await outcome_of(body, clock) == [("page", 1), ("page", 2), ("page", 3)]


@pytest.mark.parametrize("name", ["a/b", "do:x#1", "100%", "日本", " ", "x" * 256])
async def test_odd_names_of_steps_work(name: str, clock: VirtualClock, tmp_path: Any) -> None:
    async def nested(context: z0.StepContext) -> int:
        return await context.do(name, lambda: 4)

    assert await twice(lambda step: step.do(name, nested), clock, tmp_path) == (4, 4)


@pytest.mark.parametrize("name", ["", "x" * 257, "a\nb", "a\x00"])
async def test_impossible_names_of_steps_are_refused(name: str, clock: VirtualClock) -> None:
    with pytest.raises(z0.InvalidName):
        await outcome_of(lambda step: step.do(name, lambda: 1), clock)


@pytest.mark.parametrize(
    "make",
    [
        lambda step: step.do("x", lambda: 1, timeout=0),
        lambda step: step.do("x", lambda: 1, timeout="soon"),
        lambda step: step.do("x", lambda: 1, retries=z0.Retries(limit=-1)),
        lambda step: step.do("x", lambda: 1, retries=z0.Retries(limit=10_001)),
        lambda step: step.do("x", lambda: 1, retries=z0.Retries(delay="-1 second")),
        lambda step: step.do("x", lambda: 1, retries=z0.Retries(backoff="never")),  # type: ignore[arg-type]
        lambda step: step.do("x", lambda: 1, retries=z0.Retries(jitter=2)),
    ],
)
async def test_settings_that_cannot_be_are_refused(make: Body, clock: VirtualClock) -> None:
    with pytest.raises(ValueError, match=r"give|span|timeout"):
        await outcome_of(make, clock)


async def test_no_retries_and_no_delay_are_accepted_and_an_unknown_setting_is_not(clock: VirtualClock) -> None:
    settings = z0.Retries(limit=0, delay=0)
    assert await outcome_of(lambda step: step.do("x", lambda: 1, retries=settings), clock) == 1
    with pytest.raises(TypeError, match="retry"):
        await outcome_of(lambda step: step.do("x", lambda: 1, retry=3), VirtualClock())  # type: ignore[call-overload]


async def test_a_result_that_cannot_be_stored_fails_the_step_at_once_and_clearly(clock: VirtualClock) -> None:
    calls: list[int] = []
    with pytest.raises(z0.InvalidValue, match="cannot be stored"):
        await outcome_of(lambda step: step.do("x", lambda: counted(calls, object())), clock)
    assert calls == [1]


async def test_the_decorator_makes_a_function_whose_call_takes_the_step(clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> Any:
        @step.do("twice")
        async def double() -> int:
            return 4

        return await double() + await double()

    assert await outcome_of(body, clock) == 8


async def test_a_function_that_a_step_decorates_keeps_its_name_and_is_called_without_arguments(
    clock: VirtualClock,
) -> None:
    async def body(step: z0.Step) -> Any:
        @step.do("greet")
        async def greet(context: z0.StepContext) -> str:
            """Say it."""
            return f"{context.name} {context.attempt}"

        said = await greet()
        for given, named in ((["you"], {}), ([], {"context": "you"})):
            with pytest.raises(TypeError, match=r"without arguments.*: step\.do\('greet', lambda: function\("):
                await cast(Any, greet)(*given, **named)
        return [said, greet.__name__, greet.__doc__, str(inspect.signature(greet))]

    assert await outcome_of(body, clock) == ["greet 1", "greet", "Say it.", "()"]


async def test_an_awaitable_that_a_plain_callback_returns_is_awaited(clock: VirtualClock) -> None:
    async def later() -> int:
        return 7

    assert await outcome_of(lambda step: step.do("x", lambda: later()), clock) == 7


async def test_a_result_is_durable_before_the_next_callback_begins(clock: VirtualClock, tmp_path: Any) -> None:
    seen: list[int] = []
    async with z0.Runtime(tmp_path / "data", clock=clock) as runtime:

        async def body(step: z0.Step) -> None:
            for number in range(3):
                await step.do("x", lambda: seen.append(committed(tmp_path)))
                await step.do("y", lambda number=number: number)

        runtime.node.env = {"body": body}
        await (await runtime.workflows.create(Scripted, id="one")).result()
    assert seen == [2, 4, 6]


def committed(path: Any) -> int:
    """How many rows of the journal are on the device, as another process would see it."""
    import apsw

    file = next(path.rglob("one.sqlite"))
    reader = apsw.Connection(f"file:{file}?mode=ro", flags=apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READONLY)
    try:
        return int(next(reader.execute("SELECT count(*) FROM z0_journal"))[0])
    finally:
        reader.close()


async def test_a_body_that_fails_right_after_a_step_keeps_the_step(clock: VirtualClock, tmp_path: Any) -> None:
    calls: list[int] = []
    fails = [True]

    async def body(step: z0.Step) -> Any:
        value = await step.do("x", lambda: counted(calls, 2026))
        at = step.now()
        if fails:
            raise ValueError("a mistake in the body")
        return value, at

    async with z0.Runtime(tmp_path / "data", clock=clock, actors=[Scripted], env={"body": body}) as runtime:
        instance = await runtime.workflows.create(Scripted, id="one")
        with pytest.raises(ValueError, match="a mistake"):
            await instance.result()
        seqs = [entry.seq for entry in await instance.journal()]
        assert seqs == list(range(1, len(seqs) + 1))
    fails.clear()
    async with z0.Runtime(tmp_path / "data", clock=clock, actors=[Scripted], env={"body": body}) as runtime:
        instance = runtime.workflows.get(Scripted, "one")
        await instance.retry()
        assert (await instance.result())[0] == 2026
    assert calls == [1]


async def test_one_instance_asked_for_many_times_at_once_runs_once(clock: VirtualClock) -> None:
    calls: list[int] = []

    async def body(step: z0.Step) -> Any:
        return await step.do("x", lambda: counted(calls, None))

    async with temporary_runtime(memory=True, clock=clock, env={"body": body}) as runtime:
        made = await asyncio.gather(
            *(runtime.workflows.create(Scripted, id="one") for _ in range(5)), return_exceptions=True
        )
        await runtime.workflows.get(Scripted, "one").result()
    assert sum(isinstance(each, z0.InstanceExists) for each in made) == 4
    assert calls == [1]


# B. Retries, errors, timeouts


async def test_attempts_are_counted_from_one_and_wait_the_delay_that_grows(clock: VirtualClock) -> None:
    at: list[tuple[int, float]] = []

    def fails(context: z0.StepContext) -> str:
        at.append((context.attempt, clock.monotonic()))
        if context.attempt < 4:
            raise ValueError
        return "done"

    assert await outcome_of(lambda step: step.do("x", fails), clock) == "done"
    assert at == [(1, 0.0), (2, 1.0), (3, 3.0), (4, 7.0)]


@pytest.mark.parametrize(
    ("retries", "waits"),
    [
        (z0.Retries(limit=3, delay="2 seconds", backoff="linear"), [2, 4, 6]),
        (z0.Retries(limit=3, delay="2 seconds", backoff="constant"), [2, 2, 2]),
        (z0.Retries(limit=3, delay="2 minutes", max_delay="3 minutes"), [120, 180, 180]),
        (z0.Retries(limit=3, delay="2 minutes", max_delay=None), [120, 240, 480]),
        (z0.Retries(limit=2, delay=lambda attempt, error: 10 * attempt, backoff="constant"), [10, 20]),
    ],
)
async def test_retries_wait_as_they_are_set(retries: z0.Retries, waits: list[int], clock: VirtualClock) -> None:
    at: list[float] = []

    def fails() -> None:
        at.append(clock.monotonic())
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await outcome_of(lambda step: step.do("x", fails, retries=retries), clock)
    assert [later - earlier for earlier, later in pairwise(at)] == waits


async def test_the_settings_of_a_step_are_visible_and_cannot_be_changed(clock: VirtualClock) -> None:
    def look(context: z0.StepContext) -> Any:
        with pytest.raises(AttributeError):
            context.config.limit = 0  # type: ignore[misc]
        return context.config.limit, context.config.delay, context.config.timeout

    assert await outcome_of(lambda step: step.do("x", look), clock) == (3, 1.0, 600.0)


async def test_settings_are_fixed_when_a_step_is_first_tried(clock: VirtualClock, tmp_path: Any) -> None:
    calls: list[int] = []
    limits = [5, 0]

    def fails() -> None:
        calls.append(1)
        raise ValueError("no")

    async def body(step: z0.Step) -> None:
        await step.do("x", fails, retries=z0.Retries(limit=limits[0], delay="1 hour", backoff="constant"))

    async with z0.Runtime(tmp_path / "data", clock=clock, actors=[Scripted], env={"body": body}) as runtime:
        await runtime.workflows.create(Scripted, id="one")
        await clock.advance("30 minutes")
    limits.pop(0)
    async with z0.Runtime(tmp_path / "data", clock=clock, actors=[Scripted], env={"body": body}) as runtime:
        await clock.advance("6 hours")
        assert (await runtime.workflows.get(Scripted, "one").status()).status == "errored"
    assert len(calls) == 6


async def test_a_non_retryable_error_ends_the_attempts_and_keeps_its_message_exactly(clock: VirtualClock) -> None:
    calls: list[int] = []

    def fails() -> None:
        calls.append(1)
        raise z0.NonRetryableError("card  expired\n(at 10:00)")

    with pytest.raises(z0.NonRetryableError) as caught:
        await outcome_of(lambda step: step.do("x", fails), clock)
    assert str(caught.value) == "card  expired\n(at 10:00)"
    assert calls == [1]


@pytest.mark.parametrize("retry_on", [(KeyError,), lambda error: isinstance(error, KeyError)])
async def test_only_errors_that_are_worth_it_are_tried_again(retry_on: Any, clock: VirtualClock) -> None:
    calls: list[int] = []

    def fails() -> None:
        calls.append(1)
        raise KeyError("first") if len(calls) == 1 else ValueError("second")

    with pytest.raises(ValueError, match="second"):
        await outcome_of(lambda step: step.do("x", fails, retries=z0.Retries(retry_on=retry_on)), clock)
    assert len(calls) == 2


async def test_a_delay_function_may_be_a_coroutine_function_and_sees_the_error(clock: VirtualClock) -> None:
    seen: list[Any] = []

    async def delay(attempt: int, error: Exception) -> str:
        seen.append((attempt, str(error)))
        return "1 minute"

    with pytest.raises(ValueError, match="no"):
        await outcome_of(
            lambda step: step.do("x", raising(ValueError("no")), retries=z0.Retries(limit=1, delay=delay)), clock
        )
    assert seen == [(1, "no")]


async def test_a_delay_function_that_fails_or_takes_too_long_fails_the_step(clock: VirtualClock) -> None:
    async def never(attempt: int, error: Exception) -> int:
        await clock.sleep("1 hour")
        return 1

    def broken(attempt: int, error: Exception) -> int:
        raise LookupError("no delay for this")

    def senseless(attempt: int, error: Exception) -> Any:
        return "soon"

    for delay, kind in ((broken, LookupError), (never, z0.LimitExceeded), (senseless, ValueError)):
        calls: list[int] = []
        fails = raising(KeyError("no"), calls)
        with pytest.raises(kind) as caught:
            await outcome_of(partial(do, fails, z0.Retries(delay=delay)), VirtualClock())
        assert type(caught.value.__cause__) is KeyError
        assert calls == [1]


async def do(fn: Callable[..., Any], retries: z0.Retries, step: z0.Step) -> Any:
    return await step.do("x", fn, retries=retries)


def raising(error: Exception, calls: list[int] | None = None) -> Callable[[], None]:
    def fails() -> None:
        if calls is not None:
            calls.append(1)
        raise error

    return fails


async def test_an_error_may_say_when_to_try_again(clock: VirtualClock) -> None:
    class Busy(Exception):
        retry_after = "90 seconds"

    at: list[float] = []

    def fails() -> str:
        at.append(clock.monotonic())
        if len(at) == 1:
            raise Busy
        return "done"

    assert await outcome_of(lambda step: step.do("x", fails), clock) == "done"
    assert at == [0, 90]


async def test_a_timeout_cancels_the_attempt_and_is_tried_again_and_kept(clock: VirtualClock, tmp_path: Any) -> None:
    seen: list[str] = []

    async def slow() -> None:
        try:
            await clock.sleep("1 hour")
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def body(step: z0.Step) -> None:
        await step.do("x", slow, timeout="1 minute", retries=z0.Retries(limit=1))

    first, again = await twice(body, clock, tmp_path)
    for error in (first, again):
        assert type(error) is z0.StepTimeout
        assert (error.step, error.seconds) == ("x", 60)
    assert seen == ["cancelled", "cancelled"]


async def test_a_result_that_comes_after_the_timeout_is_journaled_as_ignored(clock: VirtualClock) -> None:
    async def stubborn() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await clock.sleep("1 hour")
        return "late"

    async def body(step: z0.Step) -> Any:
        try:
            return await step.do("x", stubborn, timeout="1 minute", retries=z0.Retries(limit=0))
        except z0.StepTimeout:
            await step.sleep("the body can wait after that", "1 minute")
            return "timed out"

    async with temporary_runtime(memory=True, clock=clock, env={"body": body}) as runtime:
        instance = await runtime.workflows.create(Scripted, id="one")
        await clock.advance("1 hour")
        assert await instance.result("1 second") == "timed out"
        events = [entry.event for entry in await instance.journal()]
    assert events[2:4] == ["attempt_ignored", "step_errored"]


async def test_an_error_of_the_cleanup_does_not_hide_the_timeout(clock: VirtualClock) -> None:
    async def broken() -> None:
        try:
            await clock.sleep("1 hour")
        finally:
            raise ValueError("while cleaning up")

    with pytest.raises(z0.StepTimeout) as caught:
        await outcome_of(lambda step: step.do("x", broken, timeout=1, retries=z0.Retries(limit=0)), clock)
    assert type(caught.value.__cause__) is ValueError


async def test_time_asleep_in_a_step_counts_neither_in_its_timeout_nor_as_an_attempt(clock: VirtualClock) -> None:
    attempts: list[int] = []

    async def settle(context: z0.StepContext) -> str:
        attempts.append(context.attempt)
        await clock.sleep("20 seconds")
        await context.sleep("settle", "24 hours")
        await clock.sleep("20 seconds")
        await asyncio.gather(context.sleep("a", "1 hour"), context.sleep("b", "2 hours"))
        return "settled"

    assert await outcome_of(lambda step: step.do("x", settle, timeout="50 seconds"), clock, "2 days") == "settled"
    assert set(attempts) == {1}


async def test_a_timeout_strikes_after_a_nested_sleep_as_well(clock: VirtualClock) -> None:
    async def slow(context: z0.StepContext) -> None:
        await context.sleep("short", "2 seconds")
        await clock.sleep("1 hour")

    with pytest.raises(z0.StepTimeout):
        await outcome_of(lambda step: step.do("x", slow, timeout=60, retries=z0.Retries(limit=0)), clock)


async def test_an_instance_that_sleeps_inside_a_step_in_parallel_leaves_the_memory(clock: VirtualClock) -> None:
    async def settle(context: z0.StepContext) -> Any:
        return await asyncio.gather(context.sleep("a", "1 hour"), context.sleep("b", "2 hours"))

    async def body(step: z0.Step) -> Any:
        return await step.do("x", settle)

    async with temporary_runtime(memory=True, clock=clock, env={"body": body}) as runtime:
        instance = await runtime.workflows.create(Scripted, id="one")
        await clock.advance("1 minute")
        assert not runtime.node.hosts
        await clock.advance("3 hours")
        assert await instance.result() == [None, None]


async def test_steps_inside_a_step_are_passed_by_its_next_attempt(clock: VirtualClock) -> None:
    ran: list[str] = []

    async def outer(context: z0.StepContext) -> str:
        await context.do("inner", lambda: ran.append("inner"))
        if context.attempt < 3:
            raise ValueError("outer")
        return "done"

    assert await outcome_of(lambda step: step.do("x", outer), clock) == "done"
    assert ran == ["inner"]


async def test_an_attempt_may_take_other_steps_than_the_one_before_also_after_a_restart(
    clock: VirtualClock, tmp_path: Any
) -> None:
    async def outer(context: z0.StepContext) -> str:
        if context.attempt == 1:
            await context.do("primary", lambda: 1)
            raise ValueError("primary is down")
        await context.sleep("settle", "3 hours")
        return await context.do("secondary", lambda: "from secondary")

    async def body(step: z0.Step) -> str:
        value: str = await step.do("x", outer)
        return value + await step.do("after", lambda: "!")

    for _ in range(2):
        async with z0.Runtime(tmp_path / "data", clock=clock, actors=[Scripted], env={"body": body}) as runtime:
            instance = runtime.workflows.get(Scripted, "one")
            if not _:
                await runtime.workflows.create(Scripted, id="one")
            await clock.advance("2 hours")
    assert (await finished(tmp_path, body, clock)) == "from secondary!"
    del instance


async def finished(tmp_path: Any, body: Body, clock: VirtualClock) -> Any:
    async with z0.Runtime(tmp_path / "data", clock=clock, actors=[Scripted], env={"body": body}) as runtime:
        await clock.advance("1 day")
        return await runtime.workflows.get(Scripted, "one").result("1 second")


async def test_an_attempt_that_must_not_be_made_twice_is_not_when_a_crash_cuts_it_off(
    clock: VirtualClock, tmp_path: Any
) -> None:
    attempts: list[int] = []

    async def pay(context: z0.StepContext) -> str:
        attempts.append(context.attempt)
        await clock.sleep("1 hour")
        return "paid"

    async def body(step: z0.Step) -> str:
        try:
            return await step.do("pay", pay, at_most_once=True, retries=z0.Retries(limit=0))
        except z0.StepInterrupted as error:
            return f"attempt {error.attempt} of {error.step} is unknown"

    runtime = z0.Runtime(tmp_path / "data", clock=clock, actors=[Scripted], env={"body": body})
    async with runtime:
        await runtime.workflows.create(Scripted, id="one")
        await clock.advance("1 minute")
        await crash(runtime)
    assert await finished(tmp_path, body, clock) == "attempt 1 of pay is unknown"
    assert attempts == [1]


async def test_an_interrupted_attempt_counts_as_one_that_failed_when_there_are_retries(
    clock: VirtualClock, tmp_path: Any
) -> None:
    attempts: list[int] = []

    async def pay(context: z0.StepContext) -> str:
        attempts.append(context.attempt)
        await clock.sleep("1 minute")
        return "paid"

    async def body(step: z0.Step) -> str:
        return await step.do("pay", pay, at_most_once=True)

    runtime = z0.Runtime(tmp_path / "data", clock=clock, actors=[Scripted], env={"body": body})
    async with runtime:
        await runtime.workflows.create(Scripted, id="one")
        await clock.advance("1 second")
        await crash(runtime)
    assert await finished(tmp_path, body, clock) == "paid"
    assert attempts == [1, 2]


async def test_a_step_at_most_once_refuses_to_sleep_inside(clock: VirtualClock) -> None:
    with pytest.raises(z0.NonRetryableError, match="sleep between steps"):
        await outcome_of(
            lambda step: step.do("x", lambda context: context.sleep("s", "1 hour"), at_most_once=True), clock
        )


async def test_a_crash_in_a_backoff_resumes_the_same_backoff(clock: VirtualClock, tmp_path: Any) -> None:
    at: list[float] = []

    async def body(step: z0.Step) -> Any:
        return await step.do("x", fails, retries=z0.Retries(limit=1, delay="2 hours"))

    def fails() -> str:
        at.append(clock.monotonic() / 3600)
        if len(at) == 1:
            raise ValueError("no")
        return "done"

    runtime = z0.Runtime(tmp_path / "data", clock=clock, actors=[Scripted], env={"body": body})
    async with runtime:
        await runtime.workflows.create(Scripted, id="one")
        await clock.advance("1 hour")
        await crash(runtime)
    assert await finished(tmp_path, body, clock) == "done"
    assert at == [0, 2]


async def test_what_a_failed_attempt_wrote_is_taken_back_and_what_a_step_before_it_wrote_is_kept(
    clock: VirtualClock,
) -> None:
    class Keeper(z0.Workflow):
        async def run(self, event: z0.Event[Any], step: z0.Step) -> Any:
            await step.do("keeps", lambda: self.ledger.append("kept"))

            def fails() -> None:
                self.ledger.append("lost")
                raise ValueError("no")

            await step.do("fails", fails, retries=z0.Retries(limit=2))

    async with temporary_runtime(memory=True, clock=clock) as runtime:
        instance = await runtime.workflows.create(Keeper, id="one")
        await clock.advance("1 hour")
        with pytest.raises(ValueError, match="no"):
            await instance.result()
        facts = await runtime.get(Keeper, "one").query_facts()
    assert [fact.type for fact in facts] == ["kept"]


async def test_a_callback_that_is_cancelled_from_inside_has_failed(clock: VirtualClock) -> None:
    async def odd() -> None:
        task = asyncio.ensure_future(clock.sleep("1 hour"))
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    with pytest.raises(RuntimeError, match="cancelled from inside"):
        await outcome_of(lambda step: step.do("x", odd), clock)


async def test_status_tells_of_an_error_its_type_message_traceback_and_step(clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> None:
        try:
            await step.do("pay", raising(Declined(51, account="a")), retries=z0.Retries(limit=0))
        except Declined as error:
            raise RuntimeError("the order cannot be paid") from error

    async with temporary_runtime(memory=True, clock=clock, env={"body": body}) as runtime:
        instance = await runtime.workflows.create(Scripted, id="one")
        with pytest.raises(RuntimeError, match="cannot be paid"):
            await instance.result()
        status = await instance.status()
    assert status.status == "errored"
    assert status.step == "do:pay#1"
    assert status.error is not None
    assert status.error.cause is not None
    assert (status.error.type, status.error.message) == ("builtins:RuntimeError", "the order cannot be paid")
    assert status.error.cause.type.endswith(":Declined")
    assert "raising" in (status.error.cause.traceback or "") or "fails" in (status.error.cause.traceback or "")


async def test_retry_tries_the_failing_step_again_also_when_the_body_wrapped_its_error(clock: VirtualClock) -> None:
    down = [True]
    ran: list[str] = []

    async def inner(context: z0.StepContext) -> str:
        return await context.do("deep", deep, retries=z0.Retries(limit=0))

    def deep() -> str:
        ran.append("deep")
        if down:
            raise ValueError("down")
        return "up"

    async def body(step: z0.Step) -> Any:
        await step.do("before", lambda: ran.append("before"))
        try:
            return await step.do("outer", inner, retries=z0.Retries(limit=0))
        except ValueError as error:
            raise RuntimeError("wrapped") from error

    async with temporary_runtime(memory=True, clock=clock, env={"body": body}) as runtime:
        instance = await runtime.workflows.create(Scripted, id="one")
        with pytest.raises(RuntimeError, match="wrapped"):
            await instance.result()
        down.clear()
        await instance.retry()
        assert await instance.result() == "up"
    assert ran == ["before", "deep", "deep"]


async def test_an_error_whose_class_is_gone_comes_back_as_step_failed(clock: VirtualClock, tmp_path: Any) -> None:
    def local() -> None:
        class Gone(Exception):
            pass

        raise Gone("of a function")

    first, again = await twice(lambda step: step.do("x", local, retries=z0.Retries(limit=0)), clock, tmp_path)
    for error in (first, again):
        assert type(error) is z0.StepFailed
        assert error.message == "of a function"


async def test_a_callback_that_takes_steps_of_the_body_is_told_to_use_its_own_context(clock: VirtualClock) -> None:
    for body in (
        lambda step: step.do("x", lambda: step.do("y", lambda: 1)),
        lambda step: step.do("x", lambda: step.now()),
        lambda step: step.do("x", lambda context: context.do("y", lambda: context.sleep("z", 1))),
    ):
        with pytest.raises(z0.NonRetryableError, match="use the context"):
            await outcome_of(body, VirtualClock())
