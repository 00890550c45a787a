"""Sagas: what an instance did is undone when it fails, the last step first, whatever happens to the process."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

import z0
from tests.proofs import Proof
from tests.workflow_world import Account, amounts, balance, crash_at_every_commit, end_of, events_of, outcome, said
from z0.testing import VirtualClock, crash, temporary_runtime

ACTORS: list[type[z0.Actor]] = [Account]


class Script:
    """What the workflows of a test do."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.failing: set[str] = set()
        self.refund_fails = 0


class Saga(z0.Workflow):
    """Takes the steps of its payload, each with a handler; fails where the script says."""

    env: Script
    retries = z0.Retries(limit=0)

    async def run(self, event: z0.Event[list[str]], step: z0.Step) -> str:
        for name in event.payload:

            def act(name: str = name) -> str:
                self.env.done.append(name)
                if name in self.env.failing:
                    raise ValueError(name)
                return name.upper()

            def undo(context: z0.RollbackContext, name: str = name) -> None:
                self.env.done.append(("undo", name, context.output, str(context.error), context.attempt))
                if f"undo {name}" in self.env.failing:
                    raise KeyError(name)

            await step.do(name, act, rollback=undo)
        return "done"


class GoesOn(Saga):
    rollback_continues = True


class Waiting(Saga):
    async def run(self, event: z0.Event[list[str]], step: z0.Step) -> str:
        await super().run(event, step)
        await step.sleep("long", "30 days")
        return "slept"


ALL = [Saga, GoesOn, Waiting]


def undone(script: Script) -> list[str]:
    return [each[1] for each in script.done if isinstance(each, tuple)]


async def test_a_failed_instance_undoes_its_steps_the_last_first_beginning_with_the_one_that_failed() -> None:
    script = Script()
    script.failing = {"c"}
    async with temporary_runtime(memory=True, actors=ALL, env=script) as runtime:
        instance = await runtime.workflows.create(Saga, ["a", "b", "c", "d"])
        with pytest.raises(ValueError, match="c"):
            await instance.result()
        assert script.done == [
            "a", "b", "c",
            ("undo", "c", None, "c", 1), ("undo", "b", "B", "c", 1), ("undo", "a", "A", "c", 1),
        ]  # fmt: skip
        status = await instance.status()
        assert status.status == "errored"
        assert status.rollback is not None
        assert (status.rollback.outcome, status.rollback.error) == ("complete", None)
        assert status.rollback.undone == ["do:c#1", "do:b#1", "do:a#1"]
        events = await events_of(instance)
        assert events[-5:] == ["rollback_step_completed"] * 3 + ["rollback_completed", "workflow_errored"]


async def test_nothing_is_undone_when_it_succeeds_or_is_terminated_plainly(clock: VirtualClock) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=ALL, env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Saga, ["a"])
        assert await instance.result() == "done"
        waiting = await runtime.workflows.create(Waiting, ["b"])
        await clock.settle()
        await waiting.terminate()
        await clock.settle()
        assert script.done == ["a", "b"]
        assert (await instance.status()).rollback is None
        assert await end_of(waiting) == "terminated"


async def test_a_handler_may_take_nothing_and_only_steps_with_one_are_undone() -> None:
    done = []

    class Plain(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            await step.do("a", lambda: 1, rollback=lambda: done.append("a"))
            await step.do("b", lambda: 2)

            @step.do("c", rollback=lambda: done.append("c"))
            def c() -> int:
                return 3

            await c()
            raise ValueError("end")

    async with temporary_runtime(memory=True, actors=[Plain]) as runtime:
        with pytest.raises(ValueError, match="end"):
            await (await runtime.workflows.create(Plain)).result()
        assert done == ["c", "a"]


@pytest.mark.parametrize("in_memory", [True, False])
async def test_terminating_with_a_rollback_undoes_what_was_done(clock: VirtualClock, in_memory: bool) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=ALL, env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Waiting, ["a", "b"], id="one")
        await clock.advance("1 second" if in_memory else "1 hour")
        assert (len(runtime.node.hosts) > 0) is in_memory
        await instance.terminate(rollback=True)
        await clock.settle()
        assert undone(script) == ["b", "a"]
        status = await instance.status()
        assert status.status == "terminated"
        assert status.rollback is not None
        assert status.rollback.outcome == "complete"
        with pytest.raises(z0.WrongStatus):
            await instance.terminate(rollback=True)
        with pytest.raises(z0.InstanceFailed, match="terminated"):
            await instance.result()


async def test_undoing_stops_at_the_first_handler_that_fails_and_goes_on_from_there_when_told(
    clock: VirtualClock,
) -> None:
    script = Script()
    script.failing = {"c", "undo b"}
    async with temporary_runtime(memory=True, actors=ALL, env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Saga, ["a", "b", "c"])
        await clock.settle()
        assert undone(script) == ["c", "b"]
        status = await instance.status()
        assert status.status == "errored"
        assert status.rollback is not None
        assert (status.rollback.outcome, status.rollback.failed) == ("failed", ["do:b#1"])
        assert status.rollback.error is not None
        assert status.rollback.error.type == "builtins:KeyError"
        with pytest.raises(z0.WrongStatus, match="restart"):
            await instance.retry()
        script.failing.clear()
        await instance.rollback()
        await clock.settle()
        assert undone(script) == ["c", "b", "b", "a"]
        again = await instance.status()
        assert again.rollback is not None
        assert (again.status, again.rollback.outcome) == ("errored", "complete")
        assert (again.error and again.error.type) == "builtins:ValueError"
        with pytest.raises(z0.WrongStatus):
            await instance.rollback()
        await instance.restart()
        assert await instance.result() == "done"
        assert (await instance.status()).rollback is None


async def test_undoing_goes_on_past_a_handler_that_fails_where_the_class_says_so(clock: VirtualClock) -> None:
    script = Script()
    script.failing = {"c", "undo b", "undo c"}
    async with temporary_runtime(memory=True, actors=ALL, env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(GoesOn, ["a", "b", "c"])
        await clock.settle()
        assert undone(script) == ["c", "b", "a"]
        rollback = (await instance.status()).rollback
        assert rollback is not None
        assert (rollback.outcome, rollback.failed, rollback.undone) == ("failed", ["do:c#1", "do:b#1"], ["do:a#1"])


async def test_a_handler_has_retries_of_its_own_and_sleeps_between_them(clock: VirtualClock) -> None:
    attempts: list[int] = []

    class Stubborn(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            def refund(context: z0.RollbackContext) -> None:
                attempts.append(context.attempt)
                if context.attempt < 3:
                    raise ConnectionError

            retries = z0.Retries(limit=5, delay="2 hours", max_delay="1 day")
            await step.do("pay", lambda: 1, rollback=z0.Rollback(refund, retries=retries))
            raise ValueError("end")

    async with temporary_runtime(memory=True, actors=[Stubborn], clock=clock) as runtime:
        instance = await runtime.workflows.create(Stubborn)
        await clock.advance("1 hour")
        assert attempts == [1]
        status = await instance.status()
        assert status.rollback is not None
        assert (status.status, status.rollback.outcome, status.wake_at) == (
            "waiting", "running", z0_time(clock, "1 hour"),
        )  # fmt: skip
        await clock.advance("1 hour")
        await clock.advance("4 hours")
        assert attempts == [1, 2, 3]
        assert await end_of(instance) == "errored"


def z0_time(clock: VirtualClock, span: str) -> object:
    from datetime import timedelta

    return clock.now() + timedelta(hours=float(span.split()[0]))


async def test_parallel_steps_are_undone_in_reverse_order_of_their_beginnings(clock: VirtualClock) -> None:
    done: list[tuple[str, object]] = []

    class Parallel(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            def undo(name: str) -> Any:
                return lambda context: done.append((name, context.output))

            async def slow() -> str:
                await self.clock.sleep("1 hour")
                return "slow"

            async def fails() -> None:
                await self.clock.sleep("1 minute")
                raise z0.NonRetryableError("enough")

            await step.all(
                [
                    step.do("slow", slow, rollback=undo("slow")),
                    step.do("quick", lambda: "quick", rollback=undo("quick")),
                    step.do("fails", fails, rollback=undo("fails")),
                    step.do("last", lambda: "last", rollback=undo("last")),
                ]
            )

    async with temporary_runtime(memory=True, actors=[Parallel], clock=clock) as runtime:
        instance = await runtime.workflows.create(Parallel)
        await clock.advance("2 minutes")
        assert await end_of(instance) == "errored"
        assert done == [("fails", None), ("last", "last"), ("quick", "quick"), ("slow", None)]
        await clock.advance("2 hours")
        assert len(done) == 4


async def test_a_nested_step_has_no_rollback_of_its_own() -> None:
    class Nested(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            async def outer(context: z0.StepContext) -> None:
                await context.do("inner", lambda: 1, rollback=lambda: None)

            await step.do("outer", outer, retries=z0.Retries(limit=0))

    async with temporary_runtime(memory=True, actors=[Nested]) as runtime:
        with pytest.raises(TypeError, match="whose own rollback= is to undo it"):
            await (await runtime.workflows.create(Nested)).result()


async def test_a_handler_that_today_has_gone_fails_the_rollback_before_anything_is_undone(clock: VirtualClock) -> None:
    script = Script()

    class Changing(Saga):
        namespace = "Changing"

    class Changed(z0.Workflow):
        namespace = "Changing"
        env: Script

        async def run(self, event: z0.Event[list[str]], step: z0.Step) -> None:
            await step.do("a", lambda: "A")
            await step.do("b", lambda: "B", rollback=lambda: self.env.done.append("undo b"))
            await step.sleep("long", "1 day")

    class Slow(Changing):
        async def run(self, event: z0.Event[list[str]], step: z0.Step) -> str:
            await super().run(event, step)
            await step.sleep("long", "1 day")
            return ""

    script.failing = {"c"}
    async with temporary_runtime(memory=True, actors=[Changing], env=script, clock=clock) as runtime:
        path = runtime.node.path
        script.failing |= {"undo c"}
        instance = await runtime.workflows.create(Changing, ["a", "b", "c"], id="one")
        await clock.settle()
        assert undone(script) == ["c"]
        await crash(runtime)
        async with z0.Runtime(path, actors=[Changed], env=script, clock=clock) as second:
            instance_again = second.workflows.get(Changed, "one")
            await instance_again.rollback()
            await clock.settle()
            rollback = (await instance_again.status()).rollback
            assert rollback is not None
            assert rollback.outcome == "failed"
            assert rollback.error is not None
            assert rollback.error.type.endswith("NonDeterminismError")
            assert undone(script) == ["c"]
            del instance


@pytest.mark.proof
async def test_an_undo_pattern_with_try_and_except_survives_a_crash(proof: Proof) -> None:
    class Try(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> str:
            account = self.get(Account, "a")
            await step.do("debit", lambda: account.move(-5))
            try:
                await step.do("fails", fail, retries=z0.Retries(limit=1, delay="1 minute"))
            except ValueError:
                await step.do("credit", lambda: account.move(5))
            finally:
                await step.do("log", lambda: account.append("log"))
            return "undone"

    def fail() -> None:
        raise ValueError

    async def drive(runtime: z0.Runtime, clock: VirtualClock) -> None:
        await said(runtime.workflows.create(Try, id="one"))

    async def check(runtime: z0.Runtime, clock: VirtualClock) -> None:
        assert await outcome(runtime.workflows.get(Try, "one")) == "undone"
        assert await amounts(runtime, "a") == [-5, 5, None]

    assert await crash_at_every_commit(proof, [Try, *ACTORS], drive, check) > 3


class Transfer(z0.Workflow):
    """From a to b, with a fee that nobody can pay when the amount is large; handlers put all back."""

    async def run(self, event: z0.Event[int], step: z0.Step) -> str:
        amount = event.payload
        a, b = self.get(Account, "a"), self.get(Account, "b")
        await step.do("debit", lambda: a.move(-amount), rollback=lambda: a.move(amount))

        async def undo_credit(context: z0.RollbackContext) -> None:
            if context.output is not None:
                await b.move(-context.output)

        await step.do("credit", lambda: b.move(amount), rollback=undo_credit)
        await step.sleep("settle", "1 day")

        def fee() -> None:
            if amount > 100:
                raise z0.NonRetryableError("no money for the fee")
            self.ledger.append("fee", amount=1, currency="EUR")

        await step.do("fee", fee, rollback=lambda: None)
        return "moved"


@pytest.mark.proof
@pytest.mark.parametrize(("amount", "end", "moves"), [(7, "complete", 1), (700, "errored", 2)])
async def test_a_transfer_that_is_cut_off_at_any_commit_moves_all_or_nothing_once(
    proof: Proof, amount: int, end: str, moves: int
) -> None:
    async def drive(runtime: z0.Runtime, clock: VirtualClock) -> None:
        await said(runtime.workflows.create(Transfer, amount, id="one"))

    async def check(runtime: z0.Runtime, clock: VirtualClock) -> None:
        instance = runtime.workflows.get(Transfer, "one")
        status = await instance.status()
        assert status.status == end
        assert (status.rollback is not None) == (end == "errored")
        assert await balance(runtime, "a") + await balance(runtime, "b") == 0
        assert await amounts(runtime, "a") == [-amount, amount][:moves]
        assert await amounts(runtime, "b") == [amount, -amount][:moves]
        assert await instance._stub.count_facts() == (1 if end == "complete" else 0)

    assert await crash_at_every_commit(proof, [Transfer, *ACTORS], drive, check) > 3


@pytest.mark.proof
async def test_a_termination_with_rollback_that_is_cut_off_at_any_commit_puts_all_back_once(proof: Proof) -> None:
    async def drive(runtime: z0.Runtime, clock: VirtualClock) -> None:
        await said(runtime.workflows.create(Transfer, 5, id="one"))
        await clock.advance("1 hour")
        await said(runtime.workflows.get(Transfer, "one").terminate(rollback=True))

    async def check(runtime: z0.Runtime, clock: VirtualClock) -> None:
        assert await end_of(runtime.workflows.get(Transfer, "one")) == "terminated"
        assert await amounts(runtime, "a") == [-5, 5]
        assert await amounts(runtime, "b") == [5, -5]

    assert await crash_at_every_commit(proof, [Transfer, *ACTORS], drive, check) > 3


async def test_steps_that_are_undone_in_another_order_or_not_at_all_would_be_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def drive(runtime: z0.Runtime, clock: VirtualClock) -> None:
        await said(runtime.workflows.create(Transfer, 700, id="one"))

    async def check(runtime: z0.Runtime, clock: VirtualClock) -> None:
        assert await end_of(runtime.workflows.get(Transfer, "one")) == "errored"
        assert await balance(runtime, "a") + await balance(runtime, "b") == 0
        assert await balance(runtime, "a") == 0

    async def forgets(workflow: z0.Workflow) -> tuple[dict[str, Any], None]:
        return {}, None

    monkeypatch.setattr("z0.workflows.saga._recall", forgets)  # handlers are not found again after a crash
    with pytest.raises(AssertionError):
        await crash_at_every_commit(Proof("full"), [Transfer, *ACTORS], drive, check)


class Wide(z0.Workflow):
    """Books in branches, some of which lose, and fails in the end."""

    retries = z0.Retries(limit=0)

    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        account = self.get(Account, "a")

        def book(amount: int) -> Any:
            return step.do(f"book {amount}", lambda: account.move(amount), rollback=lambda: account.move(-amount))

        async def slowly(amount: int) -> None:
            await book(amount)
            await step.sleep("rest", "3 days")
            await book(amount + 1)

        def full() -> None:
            raise z0.NonRetryableError("full")

        assert step.now()
        await step.race([slowly(10), step.sleep("limit", "1 day")])
        with suppress(z0.NonRetryableError):
            await step.all([book(30), slowly(40), step.do("full", full, rollback=lambda: account.move(0))])
        await step.do("last", full, rollback=lambda: account.append("log"))


@pytest.mark.proof
async def test_branches_that_are_undone_and_cut_off_at_any_commit_are_all_undone_once(proof: Proof) -> None:
    async def drive(runtime: z0.Runtime, clock: VirtualClock) -> None:
        await said(runtime.workflows.create(Wide, id="one"))

    async def check(runtime: z0.Runtime, clock: VirtualClock) -> None:
        status = await runtime.workflows.get(Wide, "one").status()
        assert status.status == "errored"
        assert status.rollback is not None
        assert (status.rollback.outcome, status.rollback.error) == ("complete", None)
        account = [each for each in await amounts(runtime, "a") if each is not None]
        booked = {each for each in account if each > 0}
        assert booked >= {10}
        assert booked <= {10, 30, 40}
        assert account.count(0) == 1
        for amount in booked:
            assert account.count(amount) == account.count(-amount) == 1
        assert len(await amounts(runtime, "a")) == len(account) + 1
        assert status.rollback.undone[0] == "do:last#1"

    assert await crash_at_every_commit(proof, [Wide, *ACTORS], drive, check) > 5
