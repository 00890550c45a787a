"""What workflows can do, done together: limits with restarts, forks and children; results in files; alerts."""

from __future__ import annotations

from typing import Any

import pytest

import z0
from z0.testing import VirtualClock, simulated_disk, temporary_runtime

pytestmark = pytest.mark.asyncio


class Script:
    """What the instances do, and have done."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.alerts: list[z0.Alert] = []
        self.deaf = False
        self.rounds = 0

    def hear(self, alert: z0.Alert) -> None:
        if self.deaf:
            raise OSError("nobody is there")
        self.alerts.append(alert)


class One(z0.Workflow):
    """One at a time."""

    concurrency = z0.Concurrency(limit=1)

    async def run(self, event: z0.Event[str], step: z0.Step) -> str:
        await step.do("first", lambda: "done", rollback=lambda: self.env.said.append(f"undone {self.id}"))
        await step.wait_for_event("go", type="go", timeout=None)
        return str(event.payload)


class Parent(z0.Workflow):
    async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
        return await step.workflow(One, "child", id="child")


class Rounds(z0.Workflow):
    concurrency = z0.Concurrency(limit=1)

    async def run(self, event: z0.Event[int], step: z0.Step) -> int:
        if event.payload == 0:
            await step.alert("begun", {"round": 0})
        await step.sleep("pause", "1 minute")
        if event.payload < 2:
            step.continue_as_new(event.payload + 1)
        return event.payload


class Big(z0.Workflow):
    result_bytes = 1_000

    async def run(self, event: z0.Event[None], step: z0.Step) -> int:
        big = await step.do("big", lambda: "x" * 5_000)
        hidden = await step.do("hidden", lambda: "secret", sensitive=True)
        await step.wait_for_event("go", type="go", timeout=None)
        return len(big) + len(hidden)


class Undone(z0.Workflow):
    result_bytes = 1_000
    retries = z0.Retries(limit=0)

    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        await step.do("big", lambda: "y" * 5_000, rollback=self.undo)
        await step.do("fail", self.fail)

    async def undo(self, context: z0.RollbackContext) -> None:
        self.env.said.append(str(len(context.output)))

    def fail(self) -> None:
        raise ValueError("no")


CLASSES = [One, Parent, Rounds, Big, Undone]


async def status(instance: z0.Instance[Any]) -> str:
    return str((await instance.status()).status)


async def test_a_restarted_instance_of_a_limited_class_queues_again(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, actors=CLASSES, env=Script(), clock=clock) as runtime:
        first = await runtime.workflows.create(One, "1", id="1")
        second = await runtime.workflows.create(One, "2", id="2")
        await clock.settle()
        assert (await status(first), await status(second)) == ("waiting", "queued")
        await first.restart()
        await clock.settle()
        assert (await status(first), await status(second)) == ("queued", "waiting")
        await second.send_event("go")
        await clock.settle()
        assert (await status(first), await second.result()) == ("waiting", "2")


async def test_a_fork_of_a_limited_class_waits_for_a_slot(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, actors=CLASSES, env=Script(), clock=clock) as runtime:
        first = await runtime.workflows.create(One, "1", id="1")
        await clock.settle()
        fork = await first.fork("go", "fork")
        await clock.settle()
        assert await status(fork) == "queued"
        await first.send_event("go")
        await clock.settle()
        assert await status(fork) == "waiting"
        await fork.send_event("go")
        assert await fork.result("1 second") == "1"


async def test_a_child_of_a_limited_class_waits_for_a_slot(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, actors=CLASSES, env=Script(), clock=clock) as runtime:
        first = await runtime.workflows.create(One, "1", id="1")
        await clock.settle()
        parent = await runtime.workflows.create(Parent)
        await clock.settle()
        child = runtime.workflows.get(One, "child")
        assert (await status(child), await status(parent)) == ("queued", "waiting")
        await first.send_event("go")
        await clock.settle()
        await child.send_event("go")
        assert await parent.result("1 second") == "child"


async def test_what_is_queued_again_is_rolled_back_without_a_slot(clock: VirtualClock) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=CLASSES, env=script, clock=clock) as runtime:
        first = await runtime.workflows.create(One, "1", id="1")
        second = await runtime.workflows.create(One, "2", id="2")
        await clock.settle()
        await first.restart("go")
        await clock.settle()
        assert (await status(first), await status(second)) == ("queued", "waiting")
        await first.terminate(rollback=True)
        await clock.settle()
        assert await status(first) == "terminated"
        assert script.said == ["undone 1"]


async def test_a_paused_instance_keeps_its_slot_when_it_has_one(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, actors=CLASSES, env=Script(), clock=clock) as runtime:
        first = await runtime.workflows.create(One, "1", id="1")
        second = await runtime.workflows.create(One, "2", id="2")
        third = await runtime.workflows.create(One, "3", id="3")
        await clock.settle()
        await first.pause()
        await second.pause()
        await clock.advance("1 hour")
        assert [await status(each) for each in (first, second, third)] == ["paused", "paused", "queued"]
        await first.resume()
        await first.send_event("go")
        await clock.settle()
        assert [await status(each) for each in (first, second, third)] == ["complete", "paused", "waiting"]
        await second.resume()
        await second.send_event("go")
        await third.send_event("go")
        assert await second.result("1 second") == "2"


async def test_what_continues_as_new_keeps_its_slot_and_what_it_owes(clock: VirtualClock) -> None:
    script = Script()
    script.deaf = True
    async with temporary_runtime(memory=True, actors=CLASSES, env=script, clock=clock, alerts=[script.hear]) as runtime:
        first = await runtime.workflows.create(Rounds, 0, id="1")
        second = await runtime.workflows.create(Rounds, 2, id="2")
        await clock.advance("90 seconds")
        assert (await first.status()).run == 2
        assert await status(second) == "queued"
        script.deaf = False
        await clock.advance("10 minutes")
        assert (await first.result(), await second.result()) == (2, 2)
        assert len({alert.id for alert in script.alerts}) == 1


async def test_results_in_files_are_shown_forked_undone_and_removed(clock: VirtualClock) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=CLASSES, env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Big, id="1")
        await clock.settle()
        assert (await instance.step("big")).output == "x" * 5_000
        assert (await instance.step("hidden")).output == "[REDACTED]"
        fork = await instance.fork("go", "2")
        assert [step.output for step in await fork.steps()][:2] == ["x" * 5_000, "[REDACTED]"]
        await instance.delete()
        assert not list(runtime.path.glob("*/Big/*.blobs"))
        await fork.send_event("go")
        assert await fork.result("1 second") == 5_006
        undone = await runtime.workflows.create(Undone)
        await clock.settle()
        assert await status(undone) == "errored"
        assert script.said == ["5000"]
        again = await runtime.workflows.create(Big, id="1")
        await clock.settle()
        assert (await again.step("big")).output == "x" * 5_000


async def test_a_removed_instance_is_gone_after_a_power_cut(tmp_path: Any) -> None:
    with simulated_disk(trace=True) as disk:
        async with disk.runtime(tmp_path / "data", actors=CLASSES, env=Script()) as runtime:
            instance = await runtime.workflows.create(Big, id="1")
            await instance.wait_for_status("waiting", timeout="20 seconds")
            await instance.delete()
            disk.mark("gone")
        seen = 0
        for image in disk.images(each=2):
            if "gone" not in image.marks:
                continue
            seen += 1
            folder = tmp_path / f"image{seen}"
            image.write(folder, of=tmp_path / "data")
            async with z0.Runtime(folder, actors=CLASSES, env=Script()) as runtime:
                assert await runtime.workflows.list(Big) == []
            assert not list(folder.glob("*/Big/*"))
        assert seen


async def test_an_instance_that_does_not_fit_its_code_goes_on_when_it_is_resumed(clock: VirtualClock) -> None:
    names = ["a"]

    class Changing(z0.Workflow):
        on_divergence = "pause"

        async def run(self, event: z0.Event[None], step: z0.Step) -> str:
            for name in names:
                await step.do(name, lambda: None)
            await step.sleep("pause", "1 hour")
            return "done"

    async with temporary_runtime(memory=True, actors=[Changing], clock=clock) as runtime:
        instance = await runtime.workflows.create(Changing)
        await clock.settle()
        assert await runtime.evict(Changing, instance.id)
        names[:] = ["b"]
        await clock.advance("2 hours")
        assert await status(instance) == "paused"
        names[:] = ["a"]
        await instance.resume()
        assert await instance.result("1 minute") == "done"


async def test_a_disk_that_fails_while_removals_are_finished_leaves_nothing_open(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise z0.StorageFailed("catalog.sqlite", "injected")

    async with z0.Runtime(tmp_path / "data", actors=CLASSES, env=Script()) as runtime:
        catalog = runtime.node.catalog
    with monkeypatch.context() as broken:
        broken.setattr(type(catalog), "removals", fail)
        with pytest.raises(z0.StorageFailed):
            await z0.Runtime(tmp_path / "data", actors=CLASSES, env=Script()).open()
    async with z0.Runtime(tmp_path / "data", actors=CLASSES, env=Script()):
        pass
    assert not (tmp_path / "data" / "catalog.sqlite-wal").exists()
