"""Many instances of workflows: listed, counted, created, repaired, removed, kept for a while."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import z0
from z0.actors.files import Files
from z0.testing import VirtualClock, crash, fault, temporary_runtime
from z0.workflows.bulk import VERBS, Verb


class Sleepy(z0.Workflow):
    """Sleeps, or does what its payload says."""

    async def run(self, event: z0.Event[Any], step: z0.Step) -> Any:
        match event.payload:
            case "fail":
                await step.do("charge", self.fail, retries=z0.Retries(limit=1))
            case "sleep":
                await step.sleep("night", "8 hours")
            case "wait":
                await step.wait_for_event("paid", type="paid", timeout="1 day")
        return event.payload

    def fail(self) -> None:
        if self.env is None or not self.env.get("repaired"):
            raise ValueError(f"no money for {self.id}")


class Kept(Sleepy):
    retention = z0.Retention(success="7 days", error="30 days")


def runtime_on(path: Path, clock: VirtualClock, **options: Any) -> z0.Runtime:
    return z0.Runtime(path, actors=[Sleepy, Kept], clock=clock, **options)


async def test_instances_are_listed_by_status_and_prefix_page_by_page(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        workflows = runtime.workflows
        for n in range(5):
            await workflows.create(Sleepy, "sleep", id=f"a{n}")
            await workflows.create(Sleepy, "done", id=f"b{n}")
        await workflows.create(Sleepy, "fail", id="c")
        await clock.advance("1 minute")  # everything has left the memory
        assert not runtime.node.hosts
        assert [each.id for each in await workflows.list(Sleepy, status="waiting")] == [f"a{n}" for n in range(5)]
        assert [each.id for each in await workflows.list(Sleepy, limit=3)] == ["a0", "a1", "a2"]
        assert [each.id for each in await workflows.list(Sleepy, after="b2", limit=3)] == ["b3", "b4", "c"]
        assert [each.id for each in await workflows.list(Sleepy, status="complete", prefix="b3")] == ["b3"]
        assert await workflows.counts(Sleepy) == {"waiting": 5, "complete": 5, "errored": 1}
        assert await workflows.count("Sleepy", status="errored") == 1
        assert not runtime.node.hosts  # nobody was opened for that
        assert (await workflows.list(Sleepy, limit=1))[0].wake_at is not None


async def test_a_list_knows_instances_in_memory_as_they_are(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        instance = await runtime.workflows.create(Sleepy, "wait", id="x")
        await clock.advance("1 minute")
        await instance.send_event("paid")
        await instance.result("1 second")
        assert await runtime.workflows.counts(Sleepy) == {"complete": 1}
        assert [each.id for each in await runtime.workflows.list(Sleepy, status="waiting")] == []
        assert [each.status for each in await runtime.workflows.list(Sleepy, status="complete")] == ["complete"]


async def test_a_list_after_a_crash_asks_whom_the_catalogue_does_not_know(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        await runtime.workflows.create(Sleepy, "done", id="x")
        await runtime.workflows.create(Sleepy, "sleep", id="y")
        await clock.settle()
        await crash(runtime)
        async with runtime_on(runtime.path, clock) as again:
            assert await again.workflows.count(Sleepy) == 2
            assert [each.id for each in await again.workflows.list(Sleepy, status="complete")] == ["x"]
            await clock.settle()
            assert await again.workflows.counts(Sleepy) == {"complete": 1, "waiting": 1}


async def test_a_catalogue_that_is_made_anew_knows_every_status(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        for payload in ("done", "sleep", "fail"):
            await runtime.workflows.create(Sleepy, payload, id=payload)
        await clock.advance("1 minute")
        await runtime.close()
        (runtime.path / "catalog.sqlite").unlink()
        async with runtime_on(runtime.path, clock) as again:
            assert await again.workflows.counts(Sleepy) == {"complete": 1, "waiting": 1, "errored": 1}
            assert not again.node.hosts


async def test_a_catalogue_of_the_second_schema_is_upgraded(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        await runtime.workflows.create(Sleepy, "done", id="x")
        await runtime.close()
        with sqlite3.connect(runtime.path / "catalog.sqlite") as file:
            file.executescript(
                "DROP INDEX actors_status; ALTER TABLE actors DROP COLUMN status; DROP TABLE removals;"
                "UPDATE z0_meta SET value = 2 WHERE key = 'schema';"
            )
        file.close()
        async with runtime_on(runtime.path, clock) as again:
            assert await again.workflows.counts(Sleepy) == {"complete": 1}


async def test_a_batch_reports_each_instance_that_was_not_created(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        await runtime.workflows.create(Sleepy, "done", id="old")
        report = await runtime.workflows.create_batch(
            Sleepy,
            [
                {"id": "a"},
                {"id": "old"},
                {"id": "a"},
                {"id": "no good!"},
                {"payload": object(), "id": "b"},
                {"id": "c"},
            ],
        )
        assert report.created == ["a", "c"]
        codes = [(error.index, error.code) for error in report.errors]
        assert codes == [(1, "exists"), (2, "duplicate"), (3, "invalid"), (4, "invalid")]
        assert await runtime.workflows.count(Sleepy) == 3


async def test_creating_an_instance_that_exists_gives_that_one_when_asked_to(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        first = await runtime.workflows.create(Sleepy, "first", id="x")
        with pytest.raises(z0.InstanceExists):
            await runtime.workflows.create(Sleepy, "second", id="x")
        same = await runtime.workflows.create(Sleepy, "second", id="x", on_conflict="existing")
        assert await same.result("1 second") == await first.result("1 second") == "first"


async def test_failed_instances_are_retried_in_bulk_with_a_report(clock: VirtualClock) -> None:
    env: dict[str, bool] = {}
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy], env=env) as runtime:
        for n in range(3):
            await runtime.workflows.create(Sleepy, "fail", id=f"f{n}")
        await clock.advance("1 minute")
        dry = await runtime.workflows.retry_failed(Sleepy, dry_run=True)
        assert [(each.id, each.message) for each in dry] == [
            (f"f{n}", f"ValueError: no money for f{n}") for n in range(3)
        ]
        assert await runtime.workflows.count(Sleepy, status="errored") == 3
        env["repaired"] = True
        assert [each.id for each in await runtime.workflows.retry_failed(Sleepy, error="for f1")] == ["f1"]
        await clock.settle()
        assert await runtime.workflows.counts(Sleepy) == {"errored": 2, "complete": 1}
        assert all(each.done for each in await runtime.workflows.retry_failed(Sleepy))
        await clock.settle()
        assert await runtime.workflows.counts(Sleepy) == {"complete": 3}
        ended = await runtime.workflows.bulk(Sleepy, "terminate", ["f0", "none"])
        assert [(each.done, "complete" in each.message or "exist" in each.message) for each in ended] == [
            (False, True)
        ] * 2


async def test_one_whose_file_is_damaged_is_reported_and_the_others_are_retried(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy], env={}) as runtime:
        await runtime.workflows.create_batch(Sleepy, [{"id": f"f{n}", "payload": "fail"} for n in range(5)])
        await clock.advance("1 minute")
        await runtime.close()
        (damaged,) = runtime.path.glob("default/*/f3.sqlite")
        damaged.write_bytes(b"garbage" * 1_000)
        async with runtime_on(runtime.path, clock, env={"repaired": True}) as again:
            dry = await again.workflows.retry_failed(Sleepy, dry_run=True)
            report = await again.workflows.retry_failed(Sleepy)
            for found in (dry, report):
                assert [each.id for each in found if not each.done] == ["f3"]
                assert "f3.sqlite" in found[3].message
            await clock.settle()
            assert await again.workflows.counts(Sleepy) == {"complete": 4, "errored": 1}
            ended = await again.workflows.bulk(Sleepy, "delete", ["f0", "no id!", "f3", "f1"])
            assert [each.done for each in ended] == [True, False, False, True]


async def test_one_whose_status_only_its_damaged_file_knows_is_left_out_of_lists(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        for id in ("x", "y"):
            await runtime.workflows.create(Sleepy, "done", id=id)
        await clock.settle()
        await crash(runtime)
        (damaged,) = runtime.path.glob("default/*/x.sqlite")
        damaged.write_bytes(b"garbage" * 1_000)
        async with runtime_on(runtime.path, clock) as again:
            assert [each.id for each in await again.workflows.list(Sleepy, status="complete")] == ["y"]
            assert await again.workflows.counts(Sleepy) == {"complete": 1}
        assert any("left out of a list" in record.message and "x.sqlite" in record.message for record in caplog.records)


async def test_a_fault_of_the_storage_is_reported_for_its_instance_and_stops_no_other(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        workflows, batch = runtime.workflows, [{"id": f"{n:02}", "payload": "sleep"} for n in range(40)]
        with fault(runtime, "register", nth=5):
            made = await workflows.create_batch(Sleepy, batch)
        (failed,) = made.errors
        assert (failed.code, len(made.created)) == ("failed", 39)
        assert "fault 'register'" in failed.message
        assert (await workflows.create_batch(Sleepy, batch)).created == [failed.id]
        await clock.settle()
        with fault(runtime, "storage", actor=runtime.get(Sleepy, "03")):
            report = await workflows.bulk(Sleepy, "terminate", [each["id"] for each in batch])
        assert [each.id for each in report if not each.done] == ["03"]
        await workflows.get(Sleepy, "03").wait_for_status("waiting")
        assert await workflows.counts(Sleepy) == {"terminated": 39, "waiting": 1}


async def test_a_runtime_that_closes_ends_what_is_done_to_many(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        workflows, batch = runtime.workflows, [{"id": f"{n:02}", "payload": "sleep"} for n in range(80)]
        await workflows.create_batch(Sleepy, batch)
        await clock.settle()
        await runtime.close()
        with pytest.raises(z0.RuntimeClosed):
            await workflows.bulk(Sleepy, "terminate", [each["id"] for each in batch])
        with pytest.raises(z0.RuntimeClosed):
            await workflows.create_batch(Sleepy, [{"id": "new"}])


async def test_a_word_that_is_none_of_those_that_are_known_is_refused(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        workflows: Any = runtime.workflows
        instance = await workflows.create(Sleepy, "wait", id="x")
        for asked in (
            workflows.list(Sleepy, status="failed"),
            workflows.count(Sleepy, status="failed"),
            workflows.purge(Sleepy, unused_for="1 day", status="failed"),
            instance.wait_for_status("complete", "failed"),
        ):
            with pytest.raises(ValueError, match=r"no instance has status 'failed'; there are: queued, .*abandoned"):
                await asked
        with pytest.raises(ValueError, match="on_conflict='ignore': give 'raise' or 'existing'"):
            await workflows.create(Sleepy, id="y", on_conflict="ignore")


class Debounced(Sleepy):
    debounce = z0.Debounce(wait="1 minute", key="customer")


ID_RULE = "letters, digits, '_' or '-', not first '-'"


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda of: of.get(Sleepy, 5), f"instance id 5 is not 1 to 100 {ID_RULE}"),
        (lambda of: of.get(Sleepy, "a b"), f"instance id 'a b' is not 1 to 100 {ID_RULE}"),
        (lambda of: of.get("Bill", "x"), "workflow 'Bill' is not known; name its class in Runtime(actors=[...])"),
        (lambda of: of.get(None, "x"), "None is not a subclass of z0.Workflow, nor the name of one"),
        (lambda of: of.get(z0.Entity, "x"), "Entity is not a subclass of z0.Workflow, nor the name of one"),
        (lambda of: z0.Schedule(cron="0 9 * * *", name="a b"), f"schedule name 'a b' is not 1 to 80 {ID_RULE}"),
        (
            lambda of: of.create(Debounced, {}),
            "the payload has no 'customer', by which its class debounces; or give key=...",
        ),
    ],
)
async def test_what_is_wrong_is_said_and_nothing_that_is_not(ask: Any, says: str, clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy, Debounced]) as runtime:
        with pytest.raises((TypeError, ValueError)) as caught:  # noqa: PT012
            asked = ask(runtime.workflows)
            await asked
        assert str(caught.value) == says


async def test_what_cannot_be_done_to_many_is_refused_before_anything_is(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        workflows: Any = runtime.workflows
        await workflows.create(Sleepy, "sleep", id="x")
        with pytest.raises(TypeError, match="reason"):
            await workflows.bulk(Sleepy, "abandon", ["x"])
        with pytest.raises(ValueError, match="not something to do"):
            await workflows.bulk(Sleepy, "explode", ["x"])
        with pytest.raises(z0.InvalidName):
            await workflows.create_batch("None", [{}])
        report = await workflows.create_batch(Sleepy, [5, {"when": 1}])
        assert [error.code for error in report.errors] == ["invalid", "invalid"]


async def test_a_deleted_instance_leaves_nothing_behind_and_its_id_is_free(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        instance = await runtime.workflows.create(Sleepy, "sleep", id="x")
        await clock.settle()
        await instance.delete()
        assert list(runtime.path.glob("*/*/*")) == []
        assert await runtime.workflows.list(Sleepy) == []
        with pytest.raises(z0.InstanceNotFound):
            await instance.status()
        with pytest.raises(z0.InstanceNotFound):
            await instance.delete()
        await runtime.workflows.create(Sleepy, "anew", id="x")
        assert await instance.result("1 second") == "anew"
        await clock.advance("1 day")  # the alarm of the former one is gone with it


async def test_an_instance_that_sleeps_out_of_memory_is_deleted_too(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        instance = await runtime.workflows.create(Sleepy, "sleep", id="x")
        await clock.advance("1 hour")
        assert not runtime.node.hosts
        await asyncio.gather(instance.delete(), instance.delete(), return_exceptions=True)
        assert list(runtime.path.glob("*/*/*")) == []
        await clock.advance("1 day")
        assert await runtime.workflows.list(Sleepy) == []


class Suicidal(z0.Workflow):
    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        node = self._z0_host.node
        await step.do("before", lambda: None)
        node.spawn(z0.Workflows(node, "default").get(Suicidal, self.id).delete())
        await step.sleep("soon", "1 second")
        self.env.append("after")


async def test_code_after_an_instance_has_deleted_itself_does_not_run(clock: VirtualClock) -> None:
    after: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=[Suicidal], env=after) as runtime:
        await runtime.workflows.create(Suicidal, id="x")
        await clock.advance("1 minute")
        assert after == []
        assert await runtime.workflows.list(Suicidal) == []


@pytest.mark.parametrize("step", ["noted", "unlinked"])
async def test_a_removal_that_a_crash_cuts_off_is_finished_at_the_next_opening(
    step: str, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        instance = await runtime.workflows.create(Sleepy, "sleep", id="x")
        await runtime.workflows.create(Sleepy, "sleep", id="y")
        await clock.settle()
        from z0.actors import removal

        real = removal._unlink

        def unlink(files: Files, path: Path) -> None:
            if step == "unlinked":
                real(files, path)
            raise RuntimeError("killed")

        monkeypatch.setattr(removal, "_unlink", unlink)
        with pytest.raises(z0.ActorReset):
            await instance.delete()
        monkeypatch.setattr(removal, "_unlink", real)
        await crash(runtime)
        async with runtime_on(runtime.path, clock) as again:
            assert [each.id for each in await again.workflows.list(Sleepy)] == ["y"]
            assert [path.stem for path in again.path.glob("*/*/*.sqlite")] == ["y"]


async def test_finished_instances_are_removed_when_their_time_is_over(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Kept]) as runtime:
        for payload in ("done", "fail", "sleep"):
            await runtime.workflows.create(Kept, payload, id=payload)
        await clock.advance("6 days")
        assert await runtime.workflows.count(Kept) == 3
        await clock.advance("35 hours")
        assert [each.id for each in await runtime.workflows.list(Kept)] == ["fail"]
        await clock.advance("24 days")
        assert await runtime.workflows.list(Kept) == []
        assert list(runtime.path.glob("*/*/*")) == []


async def test_an_instance_that_was_retried_outlives_the_retention_of_its_failure(clock: VirtualClock) -> None:
    env: dict[str, bool] = {}
    async with temporary_runtime(memory=True, clock=clock, actors=[Kept], env=env) as runtime:
        instance = await runtime.workflows.create(Kept, "fail", id="x")
        await clock.advance("29 days")
        env["repaired"] = True
        await instance.retry()
        await clock.advance("2 days")
        assert (await instance.status()).status == "complete"
        await clock.advance("6 days")
        assert await runtime.workflows.list(Kept) == []


@pytest.mark.parametrize("point", ["crash-before-commit", "crash-after-commit"])
async def test_an_instance_whose_removal_a_crash_comes_before_is_removed_after_it(
    point: Any, clock: VirtualClock
) -> None:
    for nth in range(1, 10):
        async with temporary_runtime(memory=True, clock=clock, actors=[Kept]) as runtime:
            await runtime.workflows.create(Kept, "done", id="x")
            await clock.advance("6 days")
            with fault(runtime, point, nth=nth) as struck:
                await clock.advance("2 days")
            await crash(runtime)
            async with runtime_on(runtime.path, clock) as again:
                await clock.advance("2 hours")
                assert await again.workflows.list(Kept) == []
                assert list(again.path.glob("*/*/*")) == []
        if not struck.hits:
            break
    assert 1 < nth < 9


async def test_a_status_is_waited_for_until_it_cannot_come_any_more(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        instance = await runtime.workflows.create(Sleepy, "wait", id="x")
        assert (await instance.wait_for_status("waiting")).waiting_for
        completes = asyncio.create_task(instance.wait_for_status("complete"))
        fails = asyncio.create_task(instance.wait_for_status("errored", "terminated"))
        await clock.settle()
        assert not completes.done()
        await instance.send_event("paid")
        assert (await completes).output == "wait"
        with pytest.raises(z0.WrongStatus, match="complete"):
            await fails


async def test_a_file_that_is_copied_to_another_directory_goes_on_there(clock: VirtualClock, tmp_path: Path) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        await runtime.workflows.create(Sleepy, "sleep", id="x")
        await clock.advance("1 hour")
        shutil.copytree(runtime.path / "default", tmp_path / "default")
    async with runtime_on(tmp_path, clock) as there:
        instance = there.workflows.get(Sleepy, "x")
        assert (await instance.status()).status == "waiting"
        await clock.advance("7 hours")
        assert await instance.result("1 second") == "sleep"


async def test_a_hundred_days_of_waiting_take_no_time(clock: VirtualClock) -> None:
    class Patient(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> int:
            for _ in range(100):
                await step.sleep("day", "1 day")
            return 100

    async with temporary_runtime(memory=True, clock=clock, actors=[Patient]) as runtime:
        instance = await runtime.workflows.create(Patient, id="x")
        await clock.advance("100 days")
        assert await instance.result("1 second") == 100


async def test_old_instances_are_purged_by_hand(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        for n in range(3):
            await runtime.workflows.create(Sleepy, "done", id=f"x{n}")
        await runtime.workflows.create(Sleepy, "wait", id="waits")
        await clock.advance("2 hours")
        assert await runtime.workflows.purge(Sleepy, unused_for="1 day") == 0
        assert await runtime.workflows.purge(Sleepy, unused_for="1 hour", limit=2) == 2
        assert [each.id for each in await runtime.workflows.list(Sleepy)] == ["waits", "x2"]


async def test_instances_of_tenants_are_apart(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy]) as runtime:
        await runtime.tenant("t1").workflows.create(Sleepy, "done", id="x")
        await runtime.workflows.create(Sleepy, "sleep", id="x")
        await clock.settle()
        assert await runtime.tenant("t1").workflows.counts(Sleepy) == {"complete": 1}
        assert await runtime.workflows.counts(Sleepy) == {"waiting": 1}
        await runtime.tenant("t1").workflows.get(Sleepy, "x").delete()
        assert await runtime.workflows.counts(Sleepy) == {"waiting": 1}


STATES = ("waiting", "paused", "complete", "errored", "rolled-back", "terminated", "abandoned")


class Undone(Sleepy):
    async def run(self, event: z0.Event[Any], step: z0.Step) -> Any:
        await step.do("reserve", lambda: 1, rollback=lambda: None)
        raise ValueError("no money")


async def in_all_states(workflows: z0.Workflows, clock: VirtualClock) -> list[tuple[type[Sleepy], str]]:
    payloads = {"errored": "fail", "abandoned": "fail", "complete": "done"}
    found: list[tuple[type[Sleepy], str]] = []
    for id in STATES:
        cls = Undone if id == "rolled-back" else Sleepy
        await workflows.create(cls, payloads.get(id, "sleep"), id=id)
        found.append((cls, id))
    await clock.advance("1 minute")
    await workflows.get(Sleepy, "paused").pause()
    await workflows.get(Sleepy, "terminated").terminate()
    await workflows.get(Sleepy, "abandoned").abandon("by hand")
    return found


@pytest.mark.parametrize("verb", VERBS)
async def test_a_dry_run_promises_what_is_done_then_and_nothing_else(clock: VirtualClock, verb: Verb) -> None:
    arguments: dict[str, Any] = {"reason": "by hand"} if verb == "abandon" else {}
    async with temporary_runtime(memory=True, clock=clock, actors=[Sleepy, Undone]) as runtime:
        for cls, id in await in_all_states(runtime.workflows, clock):
            before = await runtime.workflows.get(cls, id).journal()
            (dry,) = await runtime.workflows.bulk(cls, verb, [id], dry_run=True, **arguments)
            assert await runtime.workflows.get(cls, id).journal() == before
            (real,) = await runtime.workflows.bulk(cls, verb, [id], **arguments)
            assert (id, dry.done) == (id, real.done), (dry.message, real.message)
