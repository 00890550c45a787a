"""Branches within branches and tasks: they are judged, replayed and cut off as those of the body itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

import z0
from tests.proofs import Proof
from tests.workflow_world import Account, amounts, crash_at_every_commit, outcome, said
from z0.testing import VirtualClock, crash, fault, replay, temporary_runtime
from z0.workflows.progress import is_stuck, one_of
from z0.workflows.run import Run


class Nested(z0.Workflow):
    """Has a race, and an `all` that fails, wherever its payload says."""

    retries = z0.Retries(limit=0)

    async def run(self, event: z0.Event[str], step: z0.Step) -> list[Any]:
        account = self.get(Account, "a")

        async def pays(amount: int, days: int) -> int:
            await step.sleep(f"{days} days")
            return int(await step.do("pay", lambda: account.move(amount)))

        def bad() -> None:
            raise ValueError("bad")

        async def race() -> int:
            return int(await step.race([pays(1, 5), pays(10, 1)], name="inner"))

        async def fails() -> str:
            try:
                await step.all([step.do("bad", bad), pays(100, 9)], name="failing")
            except ValueError as error:
                return str(error)
            return "no error"

        results = await self.beside(event.payload, step, race, fails)
        await step.sleep("pause", "1 hour")
        return list(results)

    async def beside(self, how: str, step: z0.Step, race: Any, fails: Any) -> Any:
        match how:
            case "all":
                return await step.all([race(), fails()])
            case "gather":
                return await asyncio.gather(race(), fails())
            case "race":
                return [await step.race([each(), step.sleep("9 days")]) for each in (race, fails)]
            case _:
                return [await asyncio.create_task(each()) for each in (race, fails)]


@pytest.mark.proof
@pytest.mark.parametrize("how", ["all", "gather", "race", "task"])
async def test_a_race_and_a_failing_all_do_in_any_branch_and_task_what_they_do_in_the_body(
    how: str, proof: Proof
) -> None:
    async def drive(runtime: z0.Runtime, clock: VirtualClock) -> None:
        await said(runtime.workflows.create(Nested, how, id="one"))

    async def check(runtime: z0.Runtime, clock: VirtualClock) -> None:
        assert await outcome(runtime.workflows.get(Nested, "one")) == [10, "bad"]
        assert await amounts(runtime, "a") == [10]

    assert await crash_at_every_commit(proof, [Nested, Account], drive, check) > 3


async def test_what_a_step_returns_is_the_same_in_a_task_as_in_the_body_whatever_it_is() -> None:
    class Odd(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> list[str]:
            def make() -> Any:  # it can be stored and read again, although no message may carry it
                return msgspec.msgpack.Ext(50, b"x")

            alone = await step.do("alone", make)
            (beside,) = await asyncio.gather(step.do("beside", make))
            return [f"{each.code} {each.data!r}" for each in (alone, beside)]

    async with temporary_runtime(memory=True, actors=[Odd]) as runtime:
        assert await (await runtime.workflows.create(Odd)).result() == ["50 b'x'", "50 b'x'"]


class Few(z0.Workflow):
    """Two of three branches at once; the second fails when the third has begun."""

    retries = z0.Retries(limit=0)

    async def run(self, event: z0.Event[bool], step: z0.Step) -> Any:
        async def branch(number: int) -> None:
            await step.do(f"a{number}", lambda: number, rollback=lambda: None)
            await step.sleep(f"{number + 1} minutes")
            await step.do(f"b{number}", self.bad if number == 1 else lambda: number)

        async def all() -> None:
            await step.all([branch(number) for number in range(4)], concurrency=2)

        try:
            await (step.all([all()]) if event.payload else all())
        except ValueError as error:
            if not event.payload:
                raise
            return str(error)

    def bad(self) -> None:
        raise ValueError("bad")


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_a_crash_between_a_failure_and_what_all_makes_of_it_is_no_change_of_the_code(
    tmp_path: Path, clock: VirtualClock, nth: int, nested: bool
) -> None:
    async with z0.Runtime(tmp_path / "data", actors=[Few], clock=clock) as runtime:
        await runtime.workflows.create(Few, nested, id="one")
        await clock.advance("100 seconds")  # the third branch has begun, and the second is about to fail
        with fault(runtime, "crash-after-commit", actor=runtime.get(Few, "one"), nth=nth) as set_:
            await clock.advance("30 seconds")
        assert set_.hits
        await crash(runtime)
    file = tmp_path / "data/default/Few/one.sqlite"
    assert (await replay(file, Few)).problem is None
    async with z0.Runtime(tmp_path / "data", actors=[Few], clock=clock) as runtime:
        await clock.advance("10 minutes")
        status = await runtime.workflows.get(Few, "one").status()
        if nested:
            assert (status.status, status.output) == ("complete", "bad")
        else:
            assert status.error is not None
            assert status.error.text == "ValueError: bad"
            assert status.rollback is not None
            assert len(status.rollback.undone) == 3


class Beside(z0.Workflow):
    """A race is won while another branch is in the middle of a step with steps of its own."""

    async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
        async def nested(context: z0.StepContext) -> None:
            await context.do("inner", lambda: None)
            await context.sleep("9 days")

        async def wins() -> Any:
            await step.sleep("1 minute")
            return await step.do("win", lambda: "won")

        return await step.race([wins(), step.do("around", nested)])


@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_nothing_is_judged_while_another_branch_is_still_on_its_way_through_the_journal(
    tmp_path: Path, clock: VirtualClock, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with z0.Runtime(tmp_path, actors=[Beside], clock=clock) as runtime:
        await runtime.workflows.create(Beside, id="one")
        await clock.advance("59 seconds")
        with fault(runtime, "crash-after-commit", actor=runtime.get(Beside, "one"), nth=nth) as set_:
            await clock.advance("30 seconds")
        assert set_.hits
        await crash(runtime)
    durable = Run.durable

    async def slow(run: Run) -> None:
        for _ in range(30):  # as long as a commit may take
            await asyncio.sleep(0)
        await durable(run)

    monkeypatch.setattr(Run, "durable", slow)
    async with z0.Runtime(tmp_path, actors=[Beside], clock=clock) as runtime:
        await clock.advance("1 minute")
        assert await runtime.workflows.get(Beside, "one").result("1 second") == "won"


async def test_who_waits_for_one_of_several_can_go_on_as_soon_as_one_has_ended() -> None:
    ours = asyncio.get_running_loop().create_future()

    async def waits() -> None:
        await ours

    async def ends() -> None:
        await asyncio.sleep(0)

    stays, goes = asyncio.create_task(waits()), asyncio.create_task(ends())
    found: list[bool | None] = []
    goes.add_done_callback(lambda _: found.append(is_stuck(body, [ours])))  # before the body hears of it
    body = asyncio.create_task(one_of([stays, goes]))
    await body
    assert found == [False]
    stays.cancel()
