"""What managing, hooks, forks and replays promise in passing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import z0
from z0.cli import main
from z0.replay import replay
from z0.testing import VirtualClock, temporary_runtime

told: list[str] = []


class Flaky(z0.Workflow):
    retries = z0.Retries(limit=0)

    async def run(self, event: z0.Event[Any], step: z0.Step) -> None:
        await step.do("fail", self.fail)

    def fail(self) -> None:
        self.env.append(self.id)
        raise ValueError("boom")


async def test_as_many_failed_instances_are_retried_as_the_report_names(clock: VirtualClock) -> None:
    ran: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=[Flaky], env=ran) as runtime:
        for n in range(3):
            await runtime.workflows.create(Flaky, id=f"f{n}")
        await clock.settle()
        for limit, ids in ((0, []), (1, ["f0"]), (2, ["f0", "f1"])):
            del ran[:]
            for dry_run in (True, False):
                found = await runtime.workflows.retry_failed(Flaky, error="boom", limit=limit, dry_run=dry_run)
                assert [each.id for each in found] == ids
            await clock.settle()
            assert sorted(ran) == ids


async def test_limits_below_zero_are_refused(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Flaky], env=[]) as runtime:
        flows = runtime.workflows
        for asked in (
            lambda: flows.list(Flaky, limit=-1),
            lambda: flows.retry_failed(Flaky, limit=-1),
            lambda: flows.purge(Flaky, unused_for="1 day", limit=-1),
        ):
            with pytest.raises(ValueError, match="limit=-1"):
                await asked()
        with pytest.raises(TypeError, match="give a list of ids"):
            await flows.bulk(Flaky, "delete", "f1")


@pytest.mark.parametrize("name", ["Workflow", "Base"])
@pytest.mark.parametrize("sync", [True, False])
async def test_the_hook_of_a_class_is_called_once_whatever_its_class_is_called_and_whether_it_waits_or_not(
    clock: VirtualClock, name: str, sync: bool
) -> None:
    called: list[str] = []

    def hook(self: Any, status: z0.InstanceStatus) -> None:
        called.append(status.id)

    async def waiting_hook(self: Any, status: z0.InstanceStatus) -> None:
        called.append(status.id)

    hook.__qualname__ = waiting_hook.__qualname__ = f"{name}.on_failure"
    base: Any = type(name, (Flaky,), {"on_failure": hook if sync else waiting_hook, "namespace": "Hooked"})
    async with temporary_runtime(memory=True, clock=clock, actors=[base], env=[]) as runtime:
        await runtime.workflows.create(base, id="x")
        await clock.advance("2 hours")
    assert called == ["x"]


class Daily(z0.Workflow):
    schedules = (z0.Schedule(cron="0 1 * * *"),)

    async def run(self, event: z0.Event[Any], step: z0.Step) -> str:
        day = f"{event.scheduled_time:%d %H} {event.timestamp:%d %H:%M}"
        await step.do(f"fetch {day}", lambda: 1)
        await step.wait_for_event("go", type="go")
        return day


async def test_a_scheduled_instance_is_replayed_and_forked_with_the_times_that_it_had(
    z0_path: Path, clock: VirtualClock
) -> None:
    async with z0.Runtime(z0_path, clock=clock, actors=[Daily]) as runtime:
        await clock.advance("2 hours")
        (info,) = await runtime.workflows.list(Daily)
        instance = runtime.workflows.get(Daily, info.id)
        await clock.advance("5 hours")
        twin = await instance.fork("go", "twin")
        await clock.settle()
        for each in (instance, twin):
            await each.send_event("go")
            assert await each.result("1 second") == "01 01 01 01:00"
    for id in (info.id, "twin"):
        found = await replay(z0_path / "default" / "Daily" / f"{id}.sqlite", Daily)
        assert found.problem is None


async def test_a_replay_begins_nothing_that_the_class_has_on_a_schedule(
    z0_path: Path, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with z0.Runtime(z0_path, clock=clock, actors=[Daily]) as runtime:
        await runtime.workflows.create(Daily, id="x")
        await clock.settle()
    known: list[Any] = []

    class Watched(z0.Runtime):
        def __init__(self, *given: Any, actors: Any, **options: Any) -> None:
            known.extend(actors)
            super().__init__(*given, actors=actors, **options)

    monkeypatch.setattr("z0.replay.Runtime", Watched)
    await replay(z0_path / "default" / "Daily" / "x.sqlite", Daily)
    assert [cls.schedules for cls in known] == [()]
    assert len(Daily.schedules) == 1


async def test_a_backfill_of_what_is_to_come_is_refused(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Daily]) as runtime:
        schedules = runtime.workflows.schedules(Daily)
        (info,) = await schedules.list()
        now = clock.now()
        with pytest.raises(ValueError, match="a time that has passed"):
            await schedules.backfill(info.name, now - timedelta(days=1), now + timedelta(days=1))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: z0.singleton(mode="newest"), "'skip' or 'cancel'"),  # type: ignore[arg-type]
        (lambda: z0.Concurrency(limit=True), "a whole number"),
        (lambda: z0.Concurrency(limit=1.5), "a whole number"),  # type: ignore[arg-type]
        (lambda: z0.Concurrency(limit="x"), "a whole number"),  # type: ignore[arg-type]
        (lambda: z0.Concurrency(limit=1, key=5), "a path in the payload"),  # type: ignore[arg-type]
    ],
)
def test_rules_that_cannot_be_are_refused_when_they_are_written(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize("given", [{"alerts": [5]}, {"alerts": "x"}, {"on_failure": 5}])
def test_sinks_and_hooks_that_cannot_be_called_are_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="cannot be called"):
        z0.Runtime(tmp_path / "data", **given)


def quits() -> None:
    raise SystemExit


@pytest.mark.parametrize(
    "words",
    [
        ["replay", "data/default/Flaky/x.sqlite", f"{__name__}:Flaky", "--env", f"{__name__}:quits"],
        ["workflows", "pause", "data", "Flaky/x", "--runtime", f"{__name__}:quits"],
        ["workflows", "create", "data", "Flaky", "--id", "", "--actors", f"{__name__}:Flaky"],
    ],
)
def test_what_the_program_ends_or_leaves_empty_is_an_error_of_the_command(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    async def prepare() -> None:
        async with z0.Runtime("data", actors=[Flaky], env=[]) as runtime:
            await runtime.workflows.create(Flaky, id="x")

    asyncio.run(prepare())
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
