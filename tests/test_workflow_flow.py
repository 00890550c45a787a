"""How many instances run at once, who is next, and that no slot is ever lost."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import z0
from tests.proofs import Proof
from z0.testing import VirtualClock, crash, fault, temporary_runtime
from z0.workflows import errands, turnstile
from z0.workflows.flow import Concurrency, Member, fits, groups_of, next_members, taken
from z0.workflows.values import stored


class Job(z0.Workflow):
    """Notes when it begins, works for an hour, notes when it ends."""

    async def run(self, event: z0.Event[Any], step: z0.Step) -> None:
        await step.do("begin", lambda: self.env.append(f"+{self.id}"))
        if event.payload == "fail":
            await step.do("fail", self.fail, retries=z0.Retries(limit=0))
        await step.sleep("work", "1 hour")
        await step.do("end", lambda: self.env.append(f"-{self.id}"))

    def fail(self) -> None:
        raise ValueError("no")


class One(Job):
    concurrency = z0.Concurrency(limit=1)


class Two(Job):
    concurrency = z0.Concurrency(limit=2)


class ByCustomer(Job):
    concurrency = (z0.Concurrency(limit=3), z0.Concurrency(limit=1, key="customer.id"))


class Shared(Job):
    concurrency = z0.Concurrency(limit=1, per_tenant=False)


class Skipping(Job):
    concurrency = z0.singleton(key=lambda payload: payload["customer"])


class Replacing(Job):
    concurrency = z0.singleton(mode="cancel")


class Settled(z0.Workflow):
    debounce = z0.Debounce(wait="10 seconds", max_wait="1 minute", key="customer")

    async def run(self, event: z0.Event[Any], step: z0.Step) -> Any:
        return event.payload


CLASSES = [One, Two, ByCustomer, Shared, Skipping, Replacing, Settled, Job]


async def test_one_at_a_time_run_in_strict_order(clock: VirtualClock) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        for n in range(4):
            await runtime.workflows.create(One, id=f"{n}")
        await clock.advance("10 hours")
        assert done == ["+0", "-0", "+1", "-1", "+2", "-2", "+3", "-3"]
        assert await runtime.workflows.queue(One) == []


async def test_who_waits_in_the_queue_says_so_and_is_not_in_memory(clock: VirtualClock) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        for n in range(5):
            await runtime.workflows.create(Two, id=f"{n}")
        await clock.advance("1 minute")
        assert not runtime.node.hosts
        assert await runtime.workflows.counts(Two) == {"queued": 3, "waiting": 2}
        status = await runtime.workflows.get(Two, "4").status()
        assert (status.status, status.waiting_for) == ("queued", ["a slot (concurrency)"])
        assert [(each.id, each.state) for each in await runtime.workflows.queue(Two)] == [
            ("0", "running"), ("1", "running"), ("2", "waiting"), ("3", "waiting"), ("4", "waiting"),
        ]  # fmt: skip


async def test_the_highest_priority_leaves_the_queue_first(clock: VirtualClock) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        for id, priority in [("first", 0), ("low", -1), ("a", 0), ("high", 5), ("b", 0)]:
            await runtime.workflows.create(One, id=id, priority=priority)
        await clock.advance("10 hours")
        assert [each for each in done if each[0] == "+"] == ["+first", "+high", "+a", "+b", "+low"]


@pytest.mark.parametrize("wrong", ["high", 1.5, None, [1], True, 2**70])
async def test_a_priority_that_is_none_is_refused_and_nothing_is_created(wrong: Any, clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=[]) as runtime:
        with pytest.raises((TypeError, ValueError), match="priority="):
            await runtime.workflows.create(One, id="x", priority=wrong)
        assert await runtime.workflows.count(One) == 0
        for priority in (-(2**62), 2**62):
            await runtime.workflows.create(One, id=f"{priority:x}".replace("-", "m"), priority=priority)
        await clock.settle()
        assert [each.priority for each in await runtime.workflows.queue(One)] == [-(2**62), 2**62]


async def test_a_busy_key_does_not_hold_up_others(clock: VirtualClock) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        for id, customer in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")]:
            await runtime.workflows.create(ByCustomer, {"customer": {"id": customer}}, id=id)
        await runtime.workflows.create(ByCustomer, id="c1", key="c")
        await clock.settle()
        assert sorted(done) == ["+a1", "+b1", "+c1"]
        await clock.advance("61 minutes")
        assert done.index("+a2") > done.index("-a1")
        with pytest.raises(ValueError, match=r"customer\.id"):
            await runtime.workflows.create(ByCustomer, {"customer": 1})


async def test_tenants_are_counted_apart_unless_they_share(clock: VirtualClock) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        for tenant in ("t1", "t2"):
            await runtime.tenant(tenant).workflows.create(One, id=f"own-{tenant}")
            await runtime.tenant(tenant).workflows.create(Shared, id=f"shared-{tenant}")
        await clock.settle()
        assert sorted(done) == ["+own-t1", "+own-t2", "+shared-t1"]
        await clock.advance("2 hours")
        assert done.count("+shared-t2") == 1
        assert done.index("+shared-t2") > done.index("-shared-t1")


async def test_a_second_one_of_a_singleton_is_skipped_while_the_first_runs(clock: VirtualClock) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        for n in range(2):
            await runtime.workflows.create(Skipping, {"customer": 7}, id=f"{n}")
        await runtime.workflows.create(Skipping, {"customer": 8}, id="other")
        await clock.settle()
        assert sorted(done) == ["+0", "+other"]
        status = await runtime.workflows.get(Skipping, "1").status()
        assert status.status == "terminated"
        assert status.reason is not None
        assert "concurrency" in status.reason
        await clock.advance("2 hours")
        await runtime.workflows.create(Skipping, {"customer": 7}, id="next")
        await clock.settle()
        assert "+next" in done


async def test_a_new_one_of_a_singleton_takes_the_place_of_the_one_that_runs(clock: VirtualClock) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        for n in range(3):
            await runtime.workflows.create(Replacing, id=f"{n}")
            await clock.advance("1 minute")
        assert await runtime.workflows.counts(Replacing) == {"terminated": 2, "waiting": 1}
        await clock.advance("2 hours")
        assert done == ["+0", "+1", "+2", "-2"]


@pytest.mark.parametrize("at_once", [True, False])
async def test_of_many_that_take_each_others_place_the_newest_runs_and_all_others_end(
    at_once: bool, clock: VirtualClock
) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        workflows = runtime.workflows
        await workflows.create(Replacing, id="0")
        if at_once:
            await clock.settle()
            await asyncio.gather(*(workflows.create(Replacing, id=f"{n}") for n in range(1, 6)))
        else:
            for n in range(1, 6):
                await workflows.create(Replacing, id=f"{n}")
        await clock.settle()
        ((_, newest, state, _),) = await workflows.queue(Replacing)
        assert (newest == "5" or at_once, newest != "0", state) == (True, True, "running")
        assert await workflows.counts(Replacing) == {"terminated": 5, "waiting": 1}
        reason = (await workflows.get(Replacing, "0").status()).reason or ""
        assert "took its place (concurrency)" in reason
        await clock.advance("61 minutes")
        assert [each for each in done if each[0] == "-"] == [f"-{newest}"]


async def test_the_newest_of_a_key_wins_also_while_it_waits_for_a_slot_of_another_rule(clock: VirtualClock) -> None:
    class Both(Job):
        concurrency = (z0.Concurrency(limit=2), z0.singleton("k", mode="cancel"))

    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=[Both], env=done) as runtime:
        for id in ("a1", "b1", "c1", "c2", "c3", "b2"):
            await runtime.workflows.create(Both, {"k": id[0]}, id=id)
            await clock.settle()
        assert [(each.id, each.state) for each in await runtime.workflows.queue(Both)] == [
            ("a1", "running"), ("c3", "running"), ("b2", "waiting"),
        ]  # fmt: skip
        await clock.advance("2 hours")
        assert [each for each in done if each[0] == "-"] == ["-a1", "-c3", "-b2"]


async def test_a_slot_comes_back_however_an_instance_ends(clock: VirtualClock) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        failing = await runtime.workflows.create(One, "fail", id="fails")
        stopped = await runtime.workflows.create(One, id="stopped")
        queued = await runtime.workflows.create(One, id="queued")
        deleted = await runtime.workflows.create(One, id="deleted")
        await runtime.workflows.create(One, id="last")
        await clock.settle()
        assert (await failing.status()).status == "errored"
        await queued.terminate()
        await stopped.terminate()
        await clock.settle()
        await deleted.delete()
        await clock.settle()
        assert done == ["+fails", "+stopped", "+deleted", "+last"]


async def test_a_failed_instance_that_is_retried_takes_its_turn_in_the_queue(clock: VirtualClock) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        failing = await runtime.workflows.create(One, "fail", id="fails")
        await runtime.workflows.create(One, id="other")
        await clock.settle()
        await failing.retry()
        await clock.settle()
        assert (await failing.status()).status == "queued"
        await clock.advance("61 minutes")
        assert (await failing.status()).status == "errored"
        assert await runtime.workflows.queue(One) == []


class Breakable(z0.Workflow):
    def fail(self) -> None:
        if self.env.get("broken"):
            raise ValueError("no")


@pytest.mark.parametrize("cls", [Skipping, Replacing])
async def test_retrying_one_of_a_singleton_while_another_runs_is_refused_and_ends_neither(
    cls: Any, clock: VirtualClock
) -> None:
    class Fails(Breakable, cls):  # type: ignore[misc]
        async def run(self, event: z0.Event[Any], step: z0.Step) -> None:
            if self.id == "fails":
                await step.do("fail", self.fail, retries=z0.Retries(limit=0))
            await step.sleep("work", "1 hour")

    env = {"broken": True}
    async with temporary_runtime(memory=True, clock=clock, actors=[Fails], env=env) as runtime:
        failing = await runtime.workflows.create(Fails, {"customer": 7}, id="fails")
        await clock.settle()
        other = await runtime.workflows.create(Fails, {"customer": 7}, id="other")
        await clock.settle()
        env["broken"] = False
        for again in (failing.retry, failing.restart):
            with pytest.raises(z0.WrongStatus, match="1 of Fails run already"):
                await again()
        with pytest.raises(z0.StepNotFound):
            await failing.restart("none")
        await clock.settle()
        status = await failing.status()
        assert (status.status, status.error is None) == ("errored", False)
        await clock.advance("61 minutes")
        assert (await other.status()).status == "complete"
        results = await asyncio.gather(failing.retry(), failing.retry(), return_exceptions=True)
        assert [type(each) for each in results] == [type(None), z0.WrongStatus]
        await clock.settle()
        assert [(each.id, each.state) for each in await runtime.workflows.queue(Fails)] == [("fails", "running")]
        await clock.advance("61 minutes")
        assert (await failing.status()).status == "complete"
        assert await runtime.workflows.queue(Fails) == []


class Kid(z0.Workflow):
    concurrency = z0.singleton("k", mode="cancel")

    async def run(self, event: z0.Event[Any], step: z0.Step) -> str:
        await step.sleep("work", "1 hour")
        return self.id


class Family(z0.Workflow):
    async def run(self, event: z0.Event[Any], step: z0.Step) -> Any:
        return await step.workflow(Kid, {"k": 1}, id="kid")


async def test_a_parent_that_is_retried_does_not_have_its_child_end_a_newer_one(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Kid, Family]) as runtime:
        family = await runtime.workflows.create(Family, id="f")
        await clock.settle()
        newest = await runtime.workflows.create(Kid, {"k": 1}, id="newest")
        await clock.advance("1 second")
        assert (await family.status()).status == "errored"
        await family.retry()
        await clock.advance("1 second")
        assert (await newest.status()).status == "waiting"
        await clock.advance("2 hours")
        assert await newest.result("1 second") == "newest"
        status = await family.status()
        assert status.error is not None
        assert "1 of Kid run already" in status.error.message
        await family.retry()
        await clock.advance("2 hours")
        assert await family.result("1 second") == "kid"


async def test_of_many_of_a_singleton_that_are_retried_at_once_one_runs_and_the_others_say_why_not(
    clock: VirtualClock,
) -> None:
    class Fails(Breakable):
        concurrency = z0.singleton(key="customer")

        async def run(self, event: z0.Event[Any], step: z0.Step) -> None:
            await step.do("fail", self.fail, retries=z0.Retries(limit=0))
            await step.sleep("work", "1 hour")

    env = {"broken": True}
    async with temporary_runtime(memory=True, clock=clock, actors=[Fails], env=env) as runtime:
        for n in range(4):
            await runtime.workflows.create(Fails, {"customer": 7}, id=f"{n}")
            await clock.settle()
        assert await runtime.workflows.counts(Fails) == {"errored": 4}
        env["broken"] = False
        for left in range(3, -1, -1):
            report = await runtime.workflows.retry_failed(Fails)
            assert [each.done for each in report].count(True) == 1
            assert [
                each.message for each in report if not each.done and "1 of Fails run already" not in each.message
            ] == []
            await clock.advance("61 minutes")
            assert await runtime.workflows.counts(Fails) == (
                {"complete": 4 - left, "errored": left} if left else {"complete": 4}
            )


class Mended(Skipping):
    async def run(self, event: z0.Event[Any], step: z0.Step) -> None:
        await step.do("fail", self.fail_once, retries=z0.Retries(limit=0))
        await super().run(event, step)

    def fail_once(self) -> None:
        if not self.env:
            raise ValueError("no")


async def crash_while_retrying(point: Any, nth: int) -> bool:
    """Crash at that commit, go on, and see that the slot is held by one only, and not for ever."""
    clock, done = VirtualClock(), list[str]()
    async with temporary_runtime(memory=True, clock=clock, actors=[Mended], env=done) as runtime:
        failing = await runtime.workflows.create(Mended, {"customer": 7}, id="fails")
        await clock.settle()
        done.append("mended")
        with fault(runtime, point, nth=nth) as struck, suppress(z0.Z0Error):
            await failing.retry()
            await clock.settle()
        await crash(runtime)
        async with z0.Runtime(runtime.path, clock=clock, actors=[Mended], env=done) as again:
            await clock.advance("2 hours")
            await again.workflows.create(Mended, {"customer": 7}, id="next")
            await clock.advance("2 hours")
            counts = await again.workflows.counts(Mended)
            assert counts in ({"complete": 2}, {"complete": 1, "errored": 1}), done
            assert await again.workflows.queue(Mended) == []
    return bool(struck.hits)


@pytest.mark.parametrize("point", ["crash-before-commit", "crash-after-commit"])
async def test_wherever_a_crash_comes_while_one_is_retried_its_slot_is_not_lost(point: Any) -> None:
    for nth in range(1, 30):
        if not await crash_while_retrying(point, nth):
            break
    assert 3 < nth < 29


async def test_a_slot_that_was_kept_for_one_that_never_came_is_found_again(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=[]) as runtime:
        failing = await runtime.workflows.create(Skipping, {"customer": 7}, id="x")
        await failing.terminate()
        await clock.settle()
        stub = runtime.workflows._turnstile(Skipping)
        groups = groups_of([Skipping.concurrency], {"customer": 7}, None, "default")
        assert await stub.z0_reserve("default", "x", groups, 0, 1_000) is None
        assert await stub.z0_reserve("default", "x", groups, 0, 999) is None  # of before
        assert [each.state for each in await runtime.workflows.queue(Skipping)] == ["reserved"]
        await clock.advance("21 minutes")
        assert await runtime.workflows.queue(Skipping) == []


async def test_a_slot_that_was_kept_for_one_that_was_paused_meanwhile_is_given_when_it_is_resumed(
    clock: VirtualClock,
) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=[]) as runtime:
        failing = await runtime.workflows.create(Skipping, {"customer": 7}, id="x")
        await failing.terminate()
        await clock.settle()
        stub = runtime.workflows._turnstile(Skipping)
        groups = groups_of([Skipping.concurrency], {"customer": 7}, None, "default")
        assert await stub.z0_reserve("default", "x", groups, 0, 1_000) is None
        await stub.z0_join("default", "x", groups, 0, 1_001, keeps=True)
        await clock.settle()
        assert await runtime.workflows.queue(Skipping) == [], "it was told, and has ended already"


async def test_debounced_instances_become_one_with_the_last_payload(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        ids = set()
        for n in range(5):
            instance = await runtime.workflows.create(Settled, {"customer": "a", "n": n})
            ids.add(instance.id)
            await clock.advance("5 seconds")
        other = await runtime.workflows.create(Settled, {"customer": "b", "n": 99})
        assert len(ids) == 1
        assert await runtime.workflows.count(Settled) == 0
        await clock.advance("11 seconds")
        assert (await instance.result("1 second"))["n"] == 4
        assert (await other.result("1 second"))["n"] == 99
        assert await runtime.workflows.count(Settled) == 2


async def test_a_debounced_instance_says_that_it_waits_and_takes_no_id_that_is_taken(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        create = runtime.workflows.create
        instance = await create(Settled, {"customer": "a"}, id="mine")
        with pytest.raises(z0.InstanceNotFound, match="waits until its debounce is over"):
            await instance.status()
        with pytest.raises(z0.InstanceExists):  # it will
            await create(Settled, {"customer": "b"}, id="mine")
        assert (await create(Settled, {"customer": "a", "n": 1}, id="mine")).id == "mine"
        await clock.advance("11 seconds")
        assert await instance.result("1 second") == {"customer": "a", "n": 1}
        with pytest.raises(z0.InstanceExists):
            await create(Settled, {"customer": "a", "n": 2}, id="mine")
        same = await create(Settled, {"customer": "a", "n": 2}, id="mine", on_conflict="existing")
        assert same.id == "mine"
        await clock.advance("2 minutes")
        assert await runtime.workflows.count(Settled) == 1
        await instance.delete()
        again = await create(Settled, {"customer": "a", "n": 3}, id="mine")
        await clock.advance("11 seconds")
        assert (await again.result("1 second"))["n"] == 3


async def test_what_is_debounced_is_not_lost_when_another_takes_its_id_meanwhile(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        await runtime.workflows.create(Settled, {"customer": "a", "n": 1}, id="mine")
        stub = runtime.workflows.get(Settled, "mine")._stub
        await stub.z0_create(stored({"customer": "b"}, "", 1_000), {})
        await clock.advance("11 seconds")
        (other,) = [info.id for info in await runtime.workflows.list(Settled) if info.id != "mine"]
        assert await runtime.workflows.get(Settled, other).result("1 second") == {"customer": "a", "n": 1}
        assert f"begins as '{other}'" in caplog.text


class Asking(z0.Workflow):
    async def run(self, event: z0.Event[Any], step: z0.Step) -> Any:
        return await step.do("ask", self.ask, retries=z0.Retries(delay="1 minute"))

    async def ask(self, ctx: z0.StepContext) -> str:
        instance = await self.workflows.create(Settled, {"customer": "a"})
        if ctx.attempt < 3:
            raise ValueError("once more")
        return instance.id


async def test_a_step_that_asks_again_for_a_debounced_instance_gets_the_one_that_it_has_made(
    clock: VirtualClock,
) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[*CLASSES, Asking]) as runtime:
        asking = await runtime.workflows.create(Asking)
        await clock.advance("5 minutes")
        (made,) = await runtime.workflows.list(Settled)
        assert await asking.result("1 second") == made.id


@pytest.mark.parametrize("point", ["crash-before-commit", "crash-after-commit"])
async def test_wherever_a_crash_comes_what_is_debounced_begins_once(point: Any) -> None:
    for nth in range(1, 30):
        clock = VirtualClock()
        async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
            await runtime.workflows.create(Settled, {"customer": "a"})
            with fault(runtime, point, nth=nth) as struck:
                await clock.advance("11 seconds")
            await crash(runtime)
            async with z0.Runtime(runtime.path, clock=clock, actors=CLASSES) as again:
                await clock.advance("1 minute")
                assert await again.workflows.counts(Settled) == {"complete": 1}
        if not struck.hits:
            break
    assert 2 < nth < 29


async def test_debouncing_waits_no_longer_than_it_may(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        for n in range(20):
            await runtime.workflows.create(Settled, {"customer": "a", "n": n})
            await clock.advance("5 seconds")
        assert await runtime.workflows.count(Settled) == 1
        created = (await runtime.workflows.list(Settled))[0]
        assert (await runtime.workflows.get(Settled, created.id).result("1 second"))["n"] == 11


async def test_a_debounced_instance_is_created_however_long_that_fails(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        instance = await runtime.workflows.create(Settled, {"customer": "a"})
        with fault(runtime, "register", times=None) as struck:
            await clock.advance("3 hours")
        assert 10 < struck.hits < 60
        await clock.advance("20 minutes")
        assert await instance.result("1 second") == {"customer": "a"}


@pytest.mark.parametrize("how", ["given up", "gone"])
async def test_a_debounced_instance_outlives_the_alarm_that_was_to_create_it(
    how: str, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: turnstile.Turnstile) -> None:
        await clock.sleep("1 second")
        raise RuntimeError("a fault of ours")

    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        instance = await runtime.workflows.create(Settled, {"customer": "a"})
        if how == "given up":
            with monkeypatch.context() as patched:
                patched.setattr(turnstile.Turnstile, "_create_due", fails)
                await clock.advance("1 hour")
        else:
            await clock.settle()
            (host,) = [host for host in runtime.node.hosts.values() if host.address.namespace == turnstile.NAMESPACE]
            host.alarms.delete_all()
            await clock.advance("1 day")
            await runtime.workflows.queue(Settled)  # it is opened
        await clock.advance("15 minutes")
        assert await instance.result("1 second") == {"customer": "a"}


async def test_a_queue_survives_a_restart(clock: VirtualClock) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        for n in range(3):
            await runtime.workflows.create(One, id=f"{n}", priority=n)
        await runtime.workflows.create(Settled, {"customer": "a"}, id="soon")
        await clock.settle()
        await runtime.close()
        async with z0.Runtime(runtime.path, clock=clock, actors=CLASSES, env=done) as again:
            await clock.advance("5 hours")
            assert [each for each in done if each[0] == "-"] == ["-0", "-2", "-1"]
            assert await again.workflows.get(Settled, "soon").result("1 second") == {"customer": "a"}


async def crash_in_the_queue(point: Any, nth: int, paused: str | None = None) -> bool:
    """Crash at that commit, go on, and see that all had the slot, one at a time; whether it came to that commit."""
    clock, done = VirtualClock(), list[str]()
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        with fault(runtime, point, nth=nth) as struck, suppress(z0.Z0Error):
            for n in range(3):
                await runtime.workflows.create(One, id=f"{n}")
            if paused is not None:
                await runtime.workflows.get(One, paused).pause()
                await clock.advance("90 minutes")
                await runtime.workflows.get(One, paused).resume()
            await clock.advance("3 hours")
        await crash(runtime)
        async with z0.Runtime(runtime.path, clock=clock, actors=CLASSES, env=done) as again:
            await again.workflows.create_batch(One, [{"id": f"{n}"} for n in range(3)])
            with suppress(z0.WrongStatus):  # when it was not paused, or was resumed
                await again.workflows.get(One, paused or "0").resume()
            await clock.advance("8 hours")
            assert await again.workflows.counts(One) == {"complete": 3}, done
            assert await again.workflows.queue(One) == []
    running: set[str] = set()
    for each in done:
        running = running | {each[1:]} if each[0] == "+" else running - {each[1:]}
        assert len(running) <= 1, done
    return bool(struck.hits)


@pytest.mark.proof
@pytest.mark.parametrize("paused", [None, "1"])
@pytest.mark.parametrize("point", ["crash-before-commit", "crash-after-commit"])
async def test_wherever_a_crash_comes_no_slot_is_lost_and_none_is_given_twice(
    point: Any, paused: str | None, proof: Proof
) -> None:
    for nth in range(1, 100, 1 if proof.amount != "quick" else 8):
        proof.count("crashes")
        if not await crash_in_the_queue(point, nth, paused):
            break
    assert 10 < nth < 99


@pytest.mark.parametrize("broken", ["never given back", "given to all"])
async def test_slots_that_are_lost_or_given_twice_are_noticed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if broken == "given to all":
        monkeypatch.setattr(turnstile, "next_members", lambda waiting, rules, slots: list(waiting))
    else:
        monkeypatch.setitem(errands.ERRANDS, "give_slot_back", errands._on_failure)
        monkeypatch.setattr(turnstile.Turnstile, "_look", errands._on_failure)  # it fails as well
    with pytest.raises(AssertionError):
        await crash_in_the_queue("crash-after-commit", 1_000)


async def test_the_slot_of_an_instance_that_is_gone_is_found_again(clock: VirtualClock) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        await runtime.workflows.create(One, id="gone")
        await runtime.workflows.create(One, id="next")
        await clock.advance("1 minute")
        runtime.node.catalog.note("DELETE FROM actors WHERE name = 'gone'", ())
        (runtime.path / "default" / "One" / "gone.sqlite").unlink()
        await clock.advance("20 minutes")
        assert done == ["+gone", "+next"]


async def test_a_class_that_is_not_limited_any_more_lets_its_queue_go(clock: VirtualClock) -> None:
    class Limited(Job):
        namespace = "Free"
        concurrency = z0.Concurrency(limit=1)

    class Free(Job):
        pass

    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=[Limited], env=done) as runtime:
        for n in range(3):
            await runtime.workflows.create(Limited, id=f"{n}")
        await clock.advance("1 minute")
        await runtime.close()
        async with z0.Runtime(runtime.path, clock=clock, actors=[Free], env=done):
            await clock.advance("15 minutes")
            assert sorted(done) == ["+0", "+1", "+2"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: z0.Concurrency(limit=0),
        lambda: z0.Concurrency(limit=1, when_full="explode"),  # type: ignore[arg-type]
        lambda: z0.Debounce(wait="soon"),
    ],
)
def test_what_cannot_be_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"not a span|give"):
        make()


RULE = st.builds(Concurrency, limit=st.integers(1, 3), key=st.sampled_from([None, "k"]))
RULES = st.lists(RULE, min_size=1, max_size=3)


@given(RULES, st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.booleans()), max_size=12))
def test_no_group_is_ever_over_its_limit_and_nobody_waits_who_need_not(
    rules: list[Concurrency], asked: list[tuple[int, str, bool]]
) -> None:
    members: list[Member] = []
    for seq, (priority, key, leave) in enumerate(asked):
        groups = groups_of(rules, {"k": key}, None, "t")
        members.append(Member("t", str(seq), seq, groups, priority, "waiting"))
        if leave and (running := [each for each in members if each.state == "running"]):
            members.remove(running[0])
        waiting = sorted((each for each in members if each.state == "waiting"), key=lambda each: each.order)
        for each in next_members(waiting, rules, taken(members)):
            each.state = "running"
        slots = taken(members)
        assert all(count <= rules[number].limit for (number, _), count in slots.items())
        assert all(fits(each, rules, slots) is not None for each in members if each.state == "waiting")


async def test_a_queued_instance_that_is_paused_lets_the_next_one_in_and_queues_again_when_it_is_resumed(
    clock: VirtualClock,
) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        for id in "abcd":
            await runtime.workflows.create(One, id=id)
        paused = runtime.workflows.get(One, "b")
        await paused.pause()
        await clock.advance("90 minutes")
        assert done == ["+a", "-a", "+c"]
        assert [each.id for each in await runtime.workflows.queue(One)] == ["c", "d"]
        assert (await paused.status()).status == "paused"
        await paused.resume()
        await clock.settle()
        assert (await paused.status()).status == "queued"
        assert [each.id for each in await runtime.workflows.queue(One)] == ["c", "d", "b"]
        await clock.advance("10 hours")
        assert done == ["+a", "-a", "+c", "-c", "+d", "-d", "+b", "-b"]


async def test_a_queued_instance_that_is_resumed_before_its_turn_keeps_its_place(clock: VirtualClock) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        for id in "abc":
            await runtime.workflows.create(One, id=id)
        await clock.settle()
        await runtime.workflows.get(One, "b").pause()
        await clock.advance("30 minutes")
        await runtime.workflows.get(One, "b").resume()
        await clock.settle()
        assert [each.id for each in await runtime.workflows.queue(One)] == ["a", "b", "c"]
        await clock.advance("10 hours")
        assert done == ["+a", "-a", "+b", "-b", "+c", "-c"]


async def test_an_instance_that_is_paused_before_it_asks_for_a_slot_asks_when_it_is_resumed(
    clock: VirtualClock,
) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES, env=done) as runtime:
        instance = await runtime.workflows.create(One, id="a")
        await instance.pause()
        await clock.advance("1 hour")
        assert (done, await runtime.workflows.queue(One)) == ([], [])
        await instance.resume()
        await clock.advance("2 hours")
        assert done == ["+a", "-a"]
        ended = await runtime.workflows.create(One, id="b")
        await ended.pause()
        await ended.terminate(rollback=True)
        await clock.advance("1 hour")
        assert (done, await runtime.workflows.queue(One)) == (["+a", "-a"], [])
