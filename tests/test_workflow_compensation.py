"""Sagas where it is hard: a body that has not replayed all, code that has changed, limits, waits of a dead body."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import z0
from z0.testing import VirtualClock, crash
from z0.workflows.status import RollbackStatus

Disturb = Callable[[z0.Instance[Any]], Awaitable[Any]]


class Script:
    """What the workflows of a test do."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.changed = False
        self.slow = False

    def undo(self, name: str) -> Callable[[], None]:
        return lambda: self.done.append(f"undo {name}")


class Order(z0.Workflow):
    """Does two things that can be undone, waits for an event, and goes on for long."""

    env: Script
    retries = z0.Retries(limit=0)
    on_divergence = "pause"

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
    clock: VirtualClock, z0_path: Path, disturb: Disturb, after_a_crash: bool
) -> None:
    script = Script()
    async with z0.Runtime(z0_path, actors=[Order], env=script, clock=clock) as runtime:
        await runtime.workflows.create(Order, id="one")
        await clock.settle()
        if after_a_crash:
            await crash(runtime)
    async with z0.Runtime(z0_path, actors=[Order], env=script, clock=clock) as second:
        instance = second.workflows.get(Order, "one")
        await disturb(instance)
        await clock.settle()
        assert script.done == ["undo b", "undo a"]
        rollback = await rollback_of(instance)
        assert (rollback.outcome, rollback.undone) == ("complete", ["do:b#1", "do:a#1"])
        assert (await instance.status()).status == "terminated"


# When the code has changed


class Changing(Order):
    """Does its second thing under another name when the code has changed."""

    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        await step.do("a", lambda: 1, rollback=self.env.undo("a"))
        await step.do("b, renamed" if self.env.changed else "b", lambda: 2, rollback=self.env.undo("b"))
        await step.sleep("long", "30 days")


class Shortened(Order):
    """Does its second thing no more when the code has changed."""

    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        await step.do("a", lambda: 1, rollback=self.env.undo("a"))
        if not self.env.changed:
            await step.do("b", lambda: 2, rollback=self.env.undo("b"))
            await step.sleep("long", "30 days")


class Forgetful(Order):
    """Does not know how to undo its second thing when the code has changed."""

    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        await step.do("a", lambda: 1, rollback=self.env.undo("a"))
        await step.do("b", lambda: 2, rollback=None if self.env.changed else self.env.undo("b"))
        await step.sleep("long", "30 days")


class Abridged(Order):
    """As `Forgetful`, of a step that fails in the end, and was tried before."""

    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        await step.do("a", lambda: 1, rollback=self.env.undo("a"))
        undo = None if self.env.changed else self.env.undo("b")
        await step.do("b", self.fails, retries=z0.Retries(limit=1, delay="30 days"), rollback=undo)

    def fails(self) -> None:
        raise ValueError("b")


@pytest.mark.parametrize(
    ("cls", "found"),
    [
        (Changing, "do:b, renamed#1"),
        (Shortened, "the end of run()"),
        (Forgetful, "no rollback handler of do:b#1"),
        (Abridged, "no rollback handler of do:b#1"),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
async def test_nothing_is_undone_when_the_code_does_not_come_by_all_that_was_done_until_it_is_back(
    clock: VirtualClock, z0_path: Path, cls: type[Order], found: str, in_memory: bool
) -> None:
    script = Script()
    async with z0.Runtime(z0_path, actors=[cls], env=script, clock=clock) as runtime:
        await runtime.workflows.create(cls, id="one")
        await clock.settle()
        if in_memory:
            await crash(runtime)  # so that its body runs at once
    script.changed = True
    async with z0.Runtime(z0_path, actors=[cls], env=script, clock=clock) as changed:
        instance = changed.workflows.get(cls, "one")
        if in_memory:
            await clock.advance("1 minute")
        await instance.terminate(rollback=True)
        await clock.settle()
        rollback = await rollback_of(instance)
        assert (rollback.outcome, rollback.undone, script.done) == ("failed", [], [])
        assert rollback.error is not None
        assert rollback.error.type.endswith("NonDeterminismError")
        assert f"the journal has do:b#1, but the code came to {found}" in rollback.error.message
        assert (await instance.status()).status == "terminated"
    script.changed = False
    async with z0.Runtime(z0_path, actors=[cls], env=script, clock=clock) as back:
        instance = back.workflows.get(cls, "one")
        await instance.rollback()
        await clock.settle()
        assert script.done == ["undo b", "undo a"]
        assert (await rollback_of(instance)).outcome == "complete"


class Kinds(Order):
    """Takes one step with a handler, in the way that its payload says, which the changed code cannot undo."""

    async def run(self, event: z0.Event[str], step: z0.Step) -> None:  # type: ignore[override]
        undo = None if self.env.changed else self.env.undo("b")
        match event.payload:
            case "plain":
                await step.do("b", lambda: 1, rollback=undo)
            case "within":
                await step.do("b", self.sleeps, rollback=undo)
            case "hanging":
                await step.do("b", self.hangs, at_most_once=True, rollback=undo)
            case "losing":
                await step.race([step.do("b", self.hangs, rollback=undo), step.do("quick", lambda: 1)])
        await step.sleep("long", "30 days")
        raise ValueError("end")

    async def sleeps(self, context: z0.StepContext) -> None:
        await context.sleep("inside", "30 days")

    async def hangs(self) -> None:
        await self.clock.sleep("30 days")


@pytest.mark.parametrize("kind", ["plain", "within", "hanging", "losing"])
async def test_the_journal_knows_of_each_step_with_a_handler_however_far_it_came(
    clock: VirtualClock, z0_path: Path, kind: str
) -> None:
    script = Script()
    async with z0.Runtime(z0_path, actors=[Kinds], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Kinds, kind, id="one")
        await clock.settle()
        if kind == "plain":
            await instance.fork("long", "two")
            await clock.settle()
        await crash(runtime)
    script.changed = True
    async with z0.Runtime(z0_path, actors=[Kinds], env=script, clock=clock) as changed:
        for id in ["one", "two"] if kind == "plain" else ["one"]:
            instance = changed.workflows.get(Kinds, id)
            await instance.terminate(rollback=True)
            await clock.settle()
            rollback = await rollback_of(instance)
            assert (rollback.outcome, script.done) == ("failed", [])
            assert rollback.error is not None
            assert "no rollback handler of" in rollback.error.message


async def test_an_instance_that_fails_undoes_nothing_when_the_code_has_forgotten_how_to_undo_a_part(
    clock: VirtualClock, z0_path: Path
) -> None:
    script = Script()
    async with z0.Runtime(z0_path, actors=[Kinds], env=script, clock=clock) as runtime:
        await runtime.workflows.create(Kinds, "plain", id="one")
        await clock.settle()
    script.changed = True
    async with z0.Runtime(z0_path, actors=[Kinds], env=script, clock=clock) as changed:
        instance = changed.workflows.get(Kinds, "one")
        await clock.advance("30 days")
        status = await instance.status()
        assert (status.status, status.error and status.error.message) == ("errored", "end")
        assert ((await rollback_of(instance)).outcome, script.done) == ("failed", [])


class Early(Order):
    """Fails before it comes by its second thing, when the code has changed."""

    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        await step.do("a", lambda: 1, rollback=self.env.undo("a"))
        if self.env.changed:
            raise ValueError("early")
        await step.do("b", lambda: 2, rollback=self.env.undo("b"))
        await step.sleep("long", "30 days")


async def test_an_instance_that_fails_before_it_has_come_by_all_that_it_did_undoes_nothing(
    clock: VirtualClock, z0_path: Path
) -> None:
    script = Script()
    async with z0.Runtime(z0_path, actors=[Early], env=script, clock=clock) as runtime:
        await runtime.workflows.create(Early, id="one")
        await clock.settle()
    script.changed = True
    async with z0.Runtime(z0_path, actors=[Early], env=script, clock=clock) as changed:
        instance = changed.workflows.get(Early, "one")
        await clock.advance("30 days")
        status = await instance.status()
        assert (status.status, status.rollback, script.done) == ("paused", None, [])
        assert "early" in (status.reason or "")


class Slow(Order):
    """Waits for other things than steps beside one that waits for long."""

    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        async def branch() -> None:
            await step.do("a", lambda: b"x" * 2_000_000, rollback=self.env.undo("a"))
            await self.clock.sleep("2 seconds")
            await step.do("b", lambda: 2, rollback=self.env.undo("b"))

        await asyncio.gather(step.sleep("long", "30 days"), branch())


async def test_a_body_that_waits_for_other_things_than_steps_is_given_the_time_to_come_by_all(
    clock: VirtualClock, z0_path: Path
) -> None:
    script = Script()
    async with z0.Runtime(z0_path, actors=[Slow], env=script, clock=clock) as runtime:
        await runtime.workflows.create(Slow, id="one")
        await clock.advance("1 minute")
    async with z0.Runtime(z0_path, actors=[Slow], env=script, clock=clock) as second:
        instance = second.workflows.get(Slow, "one")
        await instance.terminate(rollback=True)
        await clock.advance("1 minute")
        assert script.done == ["undo b", "undo a"]
        assert (await rollback_of(instance)).outcome == "complete"


async def test_a_runtime_that_closes_while_handlers_are_looked_for_leaves_the_rollback_to_the_next(
    clock: VirtualClock, z0_path: Path
) -> None:
    script = Script()
    async with z0.Runtime(z0_path, actors=[Slow], env=script, clock=clock) as runtime:
        await runtime.workflows.create(Slow, id="one")
        await clock.advance("1 minute")
    async with z0.Runtime(z0_path, actors=[Slow], env=script, clock=clock) as second:
        await second.workflows.get(Slow, "one").terminate(rollback=True)
        await clock.settle()
        assert script.done == []
    async with z0.Runtime(z0_path, actors=[Slow], env=script, clock=clock) as third:
        await clock.advance("1 minute")
        assert script.done == ["undo b", "undo a"]
        assert (await rollback_of(third.workflows.get(Slow, "one"))).outcome == "complete"


# What the body waited for


class Approved(Order):
    """Waits for a decision; undoing waits for another one."""

    async def run(self, event: z0.Event[bool], step: z0.Step) -> str:  # type: ignore[override]
        await step.do("charge", lambda: 1, rollback=self.refund)
        wait = step.wait_for_event("approval", type="decision", timeout="30 days")
        if event.payload:  # it fails beside the wait
            await asyncio.gather(wait, step.sleep("long", "20 days"), step.do("fails", self.fails))
        decision = await wait
        return str(await step.do("ship", lambda: decision.payload))

    def fails(self) -> None:
        raise ValueError("fails")

    async def refund(self, context: z0.RollbackContext) -> None:
        decision = await context.wait_for_event("approve refund", type="decision", timeout="1 day")
        self.env.done.append(f"refund approved by {decision.payload}")


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("after_a_crash", [True, False])
async def test_what_the_body_waited_for_takes_no_event_and_no_time_from_what_undoes_it(
    clock: VirtualClock, z0_path: Path, fails: bool, after_a_crash: bool
) -> None:
    script = Script()
    async with z0.Runtime(z0_path, actors=[Approved], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Approved, fails, id="one")
        await clock.settle()
        if not fails:
            await instance.terminate(rollback=True)
            await clock.settle()
        if after_a_crash:
            await crash(runtime)
    async with z0.Runtime(z0_path, actors=[Approved], env=script, clock=clock) as second:
        instance = second.workflows.get(Approved, "one")
        await clock.settle()
        status = await instance.status()
        assert [wait.partition(": ")[0] for wait in status.waiting_for] == [
            "rollback:do:charge%231#1/wait:approve refund#1"
        ]
        assert [(step.kind, step.status) for step in await instance.steps() if step.status != "complete"] == [
            ("wait", "given up"), *([("sleep", "given up"), ("do", "errored")] if fails else []),
            ("rollback", "running"), ("wait", "waiting"),
        ]  # fmt: skip
        await instance.send_event("decision", "bob")
        await clock.settle()
        assert script.done == ["refund approved by bob"]
        assert (await rollback_of(instance)).outcome == "complete"
        assert "given up" in {step.status for step in await instance.steps()}


async def test_a_wait_that_was_given_up_for_a_rollback_waits_again_after_a_restart_behind_it(
    clock: VirtualClock, z0_path: Path
) -> None:
    class Beside(z0.Workflow):
        """Waits beside a step that may fail, and that alone is undone."""

        retries = z0.Retries(limit=0)
        env: Script

        async def run(self, event: z0.Event[None], step: z0.Step) -> str:
            wait = step.wait_for_event("approval", type="decision", timeout="30 days")
            decision, _ = await asyncio.gather(wait, step.do("fails", self.fails, rollback=self.env.undo("fails")))
            return str(decision.payload)

        def fails(self) -> None:
            if not self.env.changed:
                raise ValueError("fails")

    script = Script()
    async with z0.Runtime(z0_path, actors=[Beside], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Beside, id="one")
        await clock.settle()
        assert (script.done, (await instance.status()).status) == (["undo fails"], "errored")
        script.changed = True
        await instance.restart(from_step="fails")
        await clock.settle()
        assert {step.name: step.status for step in await instance.steps()} == {
            "approval": "waiting", "fails": "complete",
        }  # fmt: skip
        await instance.send_event("decision", "bob")
        await clock.settle()
        assert await instance.result() == "bob"


# Limits


class Exhausted(Order):
    """Takes longer than it may."""

    execution_max = "1 hour"
    timeout = None

    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        await step.do("a", lambda: 1, rollback=self.undo_a)
        await step.do("takes long", self.takes_long)
        await step.do("c", lambda: 3)

    async def takes_long(self) -> None:
        await self.clock.sleep("2 hours")

    async def undo_a(self, context: z0.RollbackContext) -> None:
        await context.do("refund", self.env.undo("a"))


class Endless(Exhausted):
    """Takes more steps than it may."""

    execution_max = "1 year"
    steps_max = 3

    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        for number in range(10):
            await step.do("a" if number == 0 else "more", lambda: 1, rollback=None if number else self.undo_a)


@pytest.mark.parametrize("cls", [Exhausted, Endless])
async def test_an_instance_that_has_come_to_a_limit_is_undone_nevertheless(
    clock: VirtualClock, z0_path: Path, cls: type[Order]
) -> None:
    script = Script()
    async with z0.Runtime(z0_path, actors=[cls], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(cls, id="one")
        await clock.advance("3 hours")
        status = await instance.status()
        assert (status.status, status.error and status.error.type.rpartition(":")[2]) == ("errored", "LimitExceeded")
        assert ((await rollback_of(instance)).outcome, script.done) == ("complete", ["undo a"])


# Beginning anew behind what was undone


class Shop(Order):
    """Charges and ships; cannot ship until the script has changed."""

    async def run(self, event: z0.Event[None], step: z0.Step) -> str:  # type: ignore[override]
        await step.do("reserve", lambda: self.env.done.append("reserve"))
        await step.do("charge", lambda: self.env.done.append("charge"), rollback=self.refund)
        await step.do("pack", lambda: self.env.done.append("pack"), rollback=self.env.undo("pack"))
        await step.do("ship", self.ship)
        return "shipped"

    async def refund(self) -> None:
        if self.env.slow:
            await self.clock.sleep("1 hour")
        self.env.done.append("refund")

    def ship(self) -> None:
        if not self.env.changed:
            raise ValueError("no stock")
        self.env.done.append("ship")


async def test_nothing_begins_anew_behind_a_step_that_was_undone(clock: VirtualClock, z0_path: Path) -> None:
    script = Script()
    async with z0.Runtime(z0_path, actors=[Shop], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Shop, id="one")
        await clock.settle()
        assert script.done == ["reserve", "charge", "pack", "undo pack", "refund"]
        script.changed = True
        advice = "'charge', which comes before, was undone, so restart it from there, or from a step before it"
        with pytest.raises(z0.WrongStatus, match=f"restarting it from 'ship' is not possible; {advice}"):
            await instance.restart(from_step="ship")
        with pytest.raises(z0.WrongStatus, match="so fork it from there"):
            await instance.fork("pack", "two")
        script.done.clear()
        fork = await instance.fork("charge", "two")
        assert await fork.result() == "shipped"
        assert script.done == ["charge", "pack", "ship"]
        script.done.clear()
        await instance.restart(from_step="reserve")
        assert await instance.result() == "shipped"
        assert script.done == ["reserve", "charge", "pack", "ship"]
        await instance.restart(from_step="ship")
        assert await instance.result() == "shipped"


@pytest.mark.parametrize("terminated", [True, False])
async def test_nothing_begins_anew_behind_a_step_that_may_have_been_undone_in_part(
    clock: VirtualClock, z0_path: Path, terminated: bool
) -> None:
    script = Script()
    script.slow = True
    async with z0.Runtime(z0_path, actors=[Shop], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Shop, id="one")
        await clock.advance("1 minute")
        assert script.done[-1] == "undo pack"
        if terminated:  # while the handler runs
            await instance.terminate()
        script.changed = True
        with pytest.raises(z0.WrongStatus, match="'charge', which comes before, was undone"):
            await instance.restart(from_step="pack")
        await instance.restart(from_step="charge")
        assert await instance.result() == "shipped"


async def test_a_step_that_was_not_undone_since_one_before_could_not_be_may_be_restarted_from(
    clock: VirtualClock, z0_path: Path
) -> None:
    class Stuck(Shop):
        async def run(self, event: z0.Event[None], step: z0.Step) -> str:  # type: ignore[override]
            await step.do("charge", lambda: 1, rollback=self.env.undo("charge"))
            await step.do("ship", self.ship, rollback=self.cannot)
            return "shipped"

        def cannot(self) -> None:
            raise KeyError("cannot")

    script = Script()
    async with z0.Runtime(z0_path, actors=[Stuck], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Stuck, id="one")
        await clock.settle()
        assert ((await rollback_of(instance)).outcome, script.done) == ("failed", [])
        script.changed = True
        await instance.restart(from_step="ship")
        assert await instance.result() == "shipped"


# What it looks like


@pytest.mark.parametrize("handler", ["nope", 5, z0.Rollback("nope")])  # type: ignore[arg-type]
async def test_a_handler_that_cannot_be_called_is_refused_when_the_step_is_taken(
    clock: VirtualClock, z0_path: Path, handler: Any
) -> None:
    class Wrong(Order):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            await step.do("a", lambda: self.env.done.append("a"), rollback=handler)

    script = Script()
    async with z0.Runtime(z0_path, actors=[Wrong], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Wrong, id="one")
        with pytest.raises(TypeError, match=r"step 'a': rollback is .* which cannot be called"):
            await instance.result()
        assert script.done == []


async def test_events_of_a_rollback_have_the_names_of_the_steps_that_are_undone(
    clock: VirtualClock, z0_path: Path
) -> None:
    class Named(Order):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            await step.do("a/b", lambda: 1, rollback=self.env.undo("a/b"))
            await step.all([step.do("c", lambda: 2, rollback=self.refund)])
            raise ValueError("end")

        async def refund(self, context: z0.RollbackContext) -> None:
            await context.do("refund", lambda: 1)

    script = Script()
    async with z0.Runtime(z0_path, actors=[Named], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Named, id="one")
        await clock.settle()
        events = [event async for event in instance.events()]
        names = [event.step_name for event in events if event.type == "rollback_step_completed"]
        assert names == ["all/0/c", "a/b"]
        assert "all/0/c/refund" in {event.step_name for event in events if event.type == "step_completed"}
        names = [step.name for step in await instance.steps()]
        assert names == [
            "a/b", "all/0/c", "rollback:all:all%231%2F0%2Fdo:c%231#1", "all/0/c/refund", "rollback:do:a%252Fb%231#1",
        ]  # fmt: skip
