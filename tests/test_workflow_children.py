"""Children: instances that others wait for, instances that steps create, and instances that go on as new ones."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

import z0
from tests.proofs import Proof
from tests.workflow_world import Account, amounts, crash_at_every_commit, end_of, events_of, outcome, said
from z0.testing import VirtualClock, crash, replay, temporary_runtime


class Refused(Exception):
    def __init__(self, amount: int) -> None:
        super().__init__(f"{amount} is refused")
        self.amount = amount


class Script:
    def __init__(self) -> None:
        self.refuse = False
        self.done: list[str] = []


class Child(z0.Workflow):
    env: Script
    retries = z0.Retries(limit=0)

    async def run(self, event: z0.Event[int], step: z0.Step) -> tuple[int, ...]:
        self.env.done.append(f"child of {event.payload}")
        await step.sleep("rest", "1 hour")

        def check() -> None:
            if self.env.refuse:
                raise Refused(event.payload)

        await step.do("check", check, rollback=lambda: self.env.done.append("child undone"))
        return event.payload, event.payload + 1


class Parent(z0.Workflow):
    env: Script

    async def run(self, event: z0.Event[int], step: z0.Step) -> Any:
        result = await step.workflow(Child, event.payload)
        return [*result, type(result).__name__]


class Catching(z0.Workflow):
    async def run(self, event: z0.Event[int], step: z0.Step) -> Any:
        try:
            return await step.workflow(Child, event.payload)
        except Refused as error:
            return f"caught {error.amount}: {error}"


ALL: list[type[z0.Actor]] = [Child, Parent, Catching]


async def children(runtime: z0.Runtime, cls: type[z0.Workflow] = Child) -> list[z0.Instance[Any]]:
    return [runtime.workflows.get(cls, info.name) for info in await runtime.list(cls)]


async def test_a_parent_leaves_the_memory_while_its_child_runs_and_gets_its_result_as_it_was(
    clock: VirtualClock,
) -> None:
    async with temporary_runtime(memory=True, actors=ALL, env=Script(), clock=clock) as runtime:
        instance = await runtime.workflows.create(Parent, 5, id="one")
        await clock.advance("30 minutes")
        assert not runtime.node.hosts
        (child,) = await children(runtime)
        assert child.id.startswith("one-")
        assert (await instance.status()).waiting_for == [f"workflow:Child#1: Child {child.id!r}"]
        await clock.advance("1 hour")
        assert await instance.result() == [5, 6, "tuple"]


async def test_what_fails_a_child_is_raised_in_the_parent_and_may_be_caught(clock: VirtualClock) -> None:
    script = Script()
    script.refuse = True
    async with temporary_runtime(memory=True, actors=ALL, env=script, clock=clock) as runtime:
        uncaught = await runtime.workflows.create(Parent, 5)
        caught = await runtime.workflows.create(Catching, 6)
        await clock.advance("2 hours")
        with pytest.raises(Refused, match="5 is refused") as failure:
            await uncaught.result()
        assert failure.value.amount == 5
        assert await caught.result() == "caught 6: 6 is refused"
        assert (await uncaught.status()).step == "workflow:Child#1"


async def test_retrying_a_parent_retries_the_child_that_failed_it(clock: VirtualClock) -> None:
    script = Script()
    script.refuse = True

    class Plain(z0.Workflow):
        namespace = "Child"
        env: Script
        retries = z0.Retries(limit=0)

        async def run(self, event: z0.Event[int], step: z0.Step) -> int:
            await step.do("once", lambda: self.env.done.append("once"))

            def check() -> None:
                if self.env.refuse:
                    raise Refused(event.payload)

            await step.do("check", check)
            return event.payload

    class Above(z0.Workflow):
        async def run(self, event: z0.Event[int], step: z0.Step) -> Any:
            return await step.workflow(Plain, event.payload)

    async with temporary_runtime(memory=True, actors=[Plain, Above], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Above, 5)
        await clock.settle()
        assert await end_of(instance) == "errored"
        await instance.retry()
        await clock.settle()
        assert await end_of(instance) == "errored"
        script.refuse = False
        await instance.retry()
        await clock.settle()
        assert await instance.result() == 5
        assert script.done == ["once"]
        assert len(await children(runtime, Plain)) == 1


class ByName(z0.Workflow):
    async def run(self, event: z0.Event[Any], step: z0.Step) -> Any:
        result = await step.workflow(event.payload, 5)
        return [*result, type(result).__name__]


async def test_a_child_may_be_named_instead_of_imported(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, actors=[Child, ByName], env=Script(), clock=clock) as runtime:
        instance = await runtime.workflows.create(ByName, "Child", id="x")
        await clock.advance("1 minute")
        assert (await instance.status()).waiting_for[0].startswith("workflow:Child#1: Child 'x-")
        await clock.advance("1 hour")
        assert await instance.result("1 second") == [5, 6, "tuple"]
        for wrong, says in ((5, "5 is not a subclass of z0.Workflow"), ("Kid", "workflow 'Kid' is not known")):
            failing = await runtime.workflows.create(ByName, wrong)
            await clock.settle()
            error = (await failing.status()).error
            assert error is not None
            assert says in error.message
        found = await replay(runtime.path / "default" / "ByName" / "x.sqlite", ByName)  # which does not know Child
        assert (found.same, found.ends) == (True, True)


async def test_a_child_of_another_id_is_a_conflict(clock: VirtualClock) -> None:
    class Named(z0.Workflow):
        async def run(self, event: z0.Event[int], step: z0.Step) -> Any:
            return await step.workflow(Child, event.payload, id="mine", name="the child")

    async with temporary_runtime(memory=True, actors=[*ALL, Named], env=Script(), clock=clock) as runtime:
        await runtime.workflows.create(Child, 1, id="mine")
        instance = await runtime.workflows.create(Named, 5)
        await clock.advance("2 hours")
        with pytest.raises(z0.InstanceExists):
            await instance.result()


@pytest.mark.parametrize("outlives", [False, True])
@pytest.mark.parametrize("rollback", [False, True])
async def test_terminating_a_parent_terminates_the_children_that_it_waits_for(
    clock: VirtualClock, outlives: bool, rollback: bool
) -> None:
    class Above(z0.Workflow):
        async def run(self, event: z0.Event[int], step: z0.Step) -> Any:
            return await step.workflow(Child, event.payload, outlives=outlives)

    class Topmost(z0.Workflow):
        async def run(self, event: z0.Event[int], step: z0.Step) -> Any:
            return await step.workflow(Above, event.payload)

    async with temporary_runtime(memory=True, actors=[*ALL, Above, Topmost], env=Script(), clock=clock) as runtime:
        instance = await runtime.workflows.create(Topmost, 5)
        await clock.advance("10 minutes")
        await instance.terminate(rollback=rollback)
        await clock.settle()
        (above,), (child,) = await children(runtime, Above), await children(runtime)
        assert await end_of(above) == "terminated"
        assert await end_of(child) == ("waiting" if outlives else "terminated")
        await clock.advance("2 hours")
        assert await end_of(instance) == "terminated"
        assert await end_of(child) == ("complete" if outlives else "terminated")


async def test_a_child_that_loses_a_race_is_terminated(clock: VirtualClock) -> None:
    class Racing(z0.Workflow):
        async def run(self, event: z0.Event[int], step: z0.Step) -> str:
            await step.race([step.workflow(Child, 1), step.sleep("limit", "10 minutes")])
            await step.sleep("rest", "1 day")
            return "done"

    async with temporary_runtime(memory=True, actors=[*ALL, Racing], env=Script(), clock=clock) as runtime:
        instance = await runtime.workflows.create(Racing, 5)
        await clock.advance("2 days")
        (child,) = await children(runtime)
        assert await end_of(child) == "terminated"
        assert await instance.result() == "done"


async def test_a_child_that_cannot_tell_its_parent_tells_it_later(clock: VirtualClock) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=ALL, env=script, clock=clock) as runtime:
        path = runtime.node.path
        await runtime.workflows.create(Parent, 5, id="one")
        await clock.advance("30 minutes")
        await crash(runtime)
        async with z0.Runtime(path, actors=[Child], env=script, clock=clock) as without:
            await clock.advance("2 hours")
            (child,) = await children(without)
            assert await end_of(child) == "complete"
            assert "parent_told" not in await events_of(child)
        async with z0.Runtime(path, actors=ALL, env=script, clock=clock) as second:
            await clock.advance("10 minutes")
            assert await second.workflows.get(Parent, "one").result() == [5, 6, "tuple"]


class Spawning(z0.Workflow):
    """Creates instances that it does not wait for."""

    retries = z0.Retries(limit=3, delay=0)

    async def run(self, event: z0.Event[None], step: z0.Step) -> list[str]:
        async def spawn(context: z0.StepContext) -> list[str]:
            ids = [(await self.workflows.create(Child, n)).id for n in range(2)]
            ids.append((await self.workflows.create(Child, 7, id="named")).id)
            if context.attempt < 3:
                raise ValueError
            return ids

        return list(await step.do("spawn", spawn))


async def test_an_instance_that_a_step_creates_is_created_once_however_often_the_step_runs(
    clock: VirtualClock,
) -> None:
    async with temporary_runtime(memory=True, actors=[*ALL, Spawning], env=Script(), clock=clock) as runtime:
        instance = await runtime.workflows.create(Spawning)
        await clock.settle()
        ids = await instance.result()
        assert sorted(ids) == sorted(child.id for child in await children(runtime))
        assert ids[2] == "named"
        await instance.restart()
        await clock.settle()
        assert await end_of(instance) == "errored"
        assert (await instance.status()).error is not None


class Endless(z0.Workflow):
    """Goes through pages, one in each run."""

    async def run(self, event: z0.Event[int], step: z0.Step) -> str:
        page = event.payload
        account = self.get(Account, "pages")
        await step.do("page", lambda: account.append("page", amount=page))
        await step.do("own", lambda: self.ledger.append("page", amount=page).seq)
        if page == 2:
            await step.wait_for_event("go", type="go", timeout=None)
        if page < 5:
            step.continue_as_new(page + 1)
        got = await step.wait_for_event("more", type="more", timeout=None)
        return f"{page} pages, {got.payload}"


async def test_continuing_as_new_keeps_id_facts_and_waiting_events_and_drops_the_history(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, actors=[Endless, Account], clock=clock) as runtime:
        instance = await runtime.workflows.create(Endless, 1, id="one")
        created = (await instance.status()).created
        await clock.advance("1 hour")
        await instance.send_event("more", "early", id="e1")
        await instance.send_event("go")
        await clock.settle()
        assert await instance.result() == "5 pages, early"
        assert await amounts(runtime, "pages") == [1, 2, 3, 4, 5]
        assert await instance._stub.count_facts() == 5
        status = await instance.status()
        assert (status.run, status.created, status.steps) == (5, created, 3)
        (continued,) = [entry for entry in await instance.journal() if entry.event == "workflow_continued"]
        path = runtime.node.hosts[instance._address].database.path
        await runtime.evict(Endless, "one")
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT min(seq) FROM z0_journal").fetchall() == [(continued.seq,)]
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute("DELETE FROM z0_journal")


async def test_a_parent_waits_for_a_child_through_all_its_runs(clock: VirtualClock) -> None:
    class Above(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> str:
            return str(await step.workflow(Endless, 3))

    async with temporary_runtime(memory=True, actors=[Endless, Account, Above], clock=clock) as runtime:
        instance = await runtime.workflows.create(Above)
        await clock.settle()
        (child,) = await children(runtime, Endless)
        await child.send_event("more", "x")
        await clock.settle()
        assert await instance.result() == "5 pages, x"


class Paying(z0.Workflow):
    retries = z0.Retries(limit=0)

    async def run(self, event: z0.Event[int], step: z0.Step) -> int:
        account = self.get(Account, "a")
        await step.do("pay", lambda: account.move(event.payload))
        await step.sleep("rest", "1 day")
        if event.payload == 100:
            raise Refused(event.payload)
        if event.payload < 4:
            step.continue_as_new(event.payload + 1)
        return event.payload


class Family(z0.Workflow):
    async def run(self, event: z0.Event[None], step: z0.Step) -> str:
        last = await step.workflow(Paying, 1)
        detached = await step.do("detached", spawn_paying(self))
        try:
            await step.workflow(Paying, 100)
        except Refused as error:
            return f"{last} {error} {detached is not None}"
        return "no error"


def spawn_paying(workflow: z0.Workflow) -> Any:
    async def spawn() -> str:
        return (await workflow.workflows.create(Paying, 1_000)).id

    return spawn


async def drive_family(runtime: z0.Runtime, clock: VirtualClock) -> None:
    await said(runtime.workflows.create(Family, id="one"))


async def check_family(runtime: z0.Runtime, clock: VirtualClock) -> None:
    assert await outcome(runtime.workflows.get(Family, "one")) == "4 100 is refused True"
    paid = await amounts(runtime, "a")
    assert sorted(map(int, map(str, paid))) == [1, 2, 3, 4, 100, 1_000]
    assert len(await runtime.list(Paying)) == 3


@pytest.mark.proof
async def test_a_family_that_is_cut_off_at_any_commit_comes_to_the_same_end(proof: Proof) -> None:
    assert await crash_at_every_commit(proof, [Family, Paying, Account], drive_family, check_family) > 8


async def test_a_child_that_does_not_go_on_telling_after_a_crash_would_be_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def start(self: z0.Workflow) -> None:
        if not self._z0_engine.rested:
            self._z0_engine.body.go_on()

    monkeypatch.setattr(z0.Workflow, "start", start)  # nothing is told on opening
    with pytest.raises(AssertionError):
        await crash_at_every_commit(Proof("full"), [Family, Paying, Account], drive_family, check_family)


@pytest.mark.proof
async def test_a_termination_that_is_cut_off_at_any_commit_reaches_the_children(proof: Proof) -> None:
    class Above(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            return await step.workflow(Paying, 7)

    async def drive(runtime: z0.Runtime, clock: VirtualClock) -> None:
        await said(runtime.workflows.create(Above, id="one"))
        await clock.advance("1 hour")
        await said(runtime.workflows.get(Above, "one").terminate())

    async def check(runtime: z0.Runtime, clock: VirtualClock) -> None:
        assert await end_of(runtime.workflows.get(Above, "one")) == "terminated"
        assert [await end_of(child) for child in await children(runtime, Paying)] in ([], ["terminated"])

    assert await crash_at_every_commit(proof, [Above, Paying, Account], drive, check) > 3


async def test_a_handle_that_a_step_returns_is_refused_with_what_to_return_instead(clock: VirtualClock) -> None:
    class Handing(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            await step.do("spawn", lambda: self.workflows.create(Child, 1))

    async with temporary_runtime(memory=True, actors=[*ALL, Handing], env=Script(), clock=clock) as runtime:
        instance = await runtime.workflows.create(Handing)
        await clock.advance("1 minute")
        with pytest.raises(z0.InvalidValue, match=r"cannot be stored; store its id: workflows\.get\(\)"):
            await instance.result("1 second")
        assert len(await children(runtime)) == 1
