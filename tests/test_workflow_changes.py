"""`z0 workflows retry`, `terminate`, ...: what a command does to its instance, to others, and what it leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import z0
from z0.cli import main
from z0.testing import VirtualClock, crash
from z0.workflows.services import services

CODE = ("--actors", f"{__name__}:Order", "--actors", f"{__name__}:Parent", "--actors", f"{__name__}:Queued")
HERE = f"{__name__}:opened"

did: list[str] = []
"""What bodies and the outside have done."""
going_on = asyncio.Event()


class Service:
    """Something outside, which only the program's own runtime has."""

    broken = False

    def post(self, what: str) -> str:
        if self.broken:
            raise ConnectionError("no route to host")
        did.append(what)
        return what


class Order(z0.Workflow):
    env: Service
    retries = z0.Retries(limit=1, delay="1 ms")

    async def run(self, event: z0.Event[str], step: z0.Step) -> str:
        did.append(f"body of {self.id}")
        undo = None if event.payload == "posts" else lambda: did.append(f"undone {self.id}")
        await step.do("reserve", lambda: 1, rollback=undo)
        if event.payload == "tells":
            await step.alert("told", self.id)
        if event.payload == "posts":
            await step.do("post", lambda: self.env.post(f"sent {self.id}"))
        if event.payload == "naps":
            await step.sleep("nap", "1 ms")
            await step.do("after", lambda: did.append(f"awake {self.id}"))
        if event.payload == "slow":
            await step.do("slow", going_on.wait)
            await step.do("after", lambda: 1)
        if event.payload == "beside":
            await asyncio.gather(step.sleep("night", "8 hours"), self.two(step))
        if event.payload == "sleeps":
            await step.sleep("night", "8 hours")
        await step.wait_for_event("end", type="end")
        return "ended"

    async def two(self, step: z0.Step) -> None:
        await step.do("slow", going_on.wait)
        await step.do("after", lambda: 1)


class Parent(z0.Workflow):
    async def run(self, event: z0.Event[Any], step: z0.Step) -> Any:
        return await step.workflow(Order, "waits", id=f"{self.id}-child")


class Queued(z0.Workflow):
    concurrency = z0.Concurrency(limit=1)

    async def run(self, event: z0.Event[Any], step: z0.Step) -> str:
        did.append(f"body of {self.id}")
        return "ended"


class Collected(z0.Workflow):
    debounce = z0.Debounce(wait="1 second")

    async def run(self, event: z0.Event[Any], step: z0.Step) -> None: ...


CLASSES = (Order, Parent, Queued)


def opened() -> z0.Runtime:
    """The program's own runtime."""
    return z0.Runtime("data", actors=CLASSES, env=Service(), alerts=[lambda alert: did.append(f"alert {alert.data}")])


async def opened_later() -> z0.Runtime:
    return opened()


@asynccontextmanager
async def opened_within() -> AsyncIterator[z0.Runtime]:
    yield opened()
    did.append("service closed")


def of_another_directory() -> z0.Runtime:
    return z0.Runtime("other", actors=CLASSES)


def no_runtime() -> str:
    return "data"


def broken() -> z0.Runtime:
    raise OSError("no password")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    did.clear()


def clock(ago: timedelta = timedelta()) -> VirtualClock:
    """By which commands, which go by the machine's clock, run so much later."""
    return VirtualClock(datetime.now(UTC) - ago)


def prepare(work: Callable[[z0.Runtime, VirtualClock], Awaitable[None]], ago: timedelta = timedelta()) -> None:
    async def run() -> None:
        time, service = clock(ago), Service()
        async with z0.Runtime("data", actors=CLASSES, env=service, clock=time) as runtime:
            await work(runtime, time)

    asyncio.run(run())
    did.clear()


async def fail(runtime: z0.Runtime, time: VirtualClock, *ids: str) -> None:
    """Have instances of these ids fail, at a service that works again afterwards."""
    Service.broken = True
    for id in ids:
        await runtime.workflows.create(Order, "posts", id=id)
    await time.advance(1)
    Service.broken = False


def next_runtime(seconds: float = 1.0) -> dict[str, str]:
    """Let the program run once more; the statuses of the instances then."""

    async def run() -> dict[str, str]:
        time = clock()
        told = lambda alert: did.append(f"alert {alert.data}")  # noqa: E731
        async with z0.Runtime("data", actors=CLASSES, env=Service(), clock=time, alerts=[told]) as runtime:
            await time.advance(seconds)
            found = [await runtime.workflows.list(cls) for cls in CLASSES]
        return {info.id: info.status for infos in found for info in infos}

    return asyncio.run(run())


def command(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0, how: tuple[str, ...] = CODE) -> str:
    assert main(["workflows", words[0], "data", *words[1:], *how]) == code, capsys.readouterr()
    captured = capsys.readouterr()
    return captured.out or captured.err


def events(id: str, workflow: str = "Order") -> list[str]:
    """All that its journal has."""
    from z0 import workflow_files

    return [entry.event for entry in workflow_files.journal(Path("data", "default", workflow, f"{id}.sqlite"))[1]]


def test_a_command_leaves_other_instances_alone_even_those_that_are_due(capsys: pytest.CaptureFixture[str]) -> None:
    async def work(runtime: z0.Runtime, time: VirtualClock) -> None:
        await runtime.workflows.create(Order, "waits", id="paused")
        await runtime.workflows.create(Order, "sleeps", id="due")
        await time.settle()
        await runtime.workflows.get(Order, "paused").pause()

    prepare(work, ago=timedelta(days=1))
    before = events("due")
    command(capsys, "resume", "Order/paused", "--wait", "0.2 seconds")
    assert events("due") == before
    assert did == ["body of paused"]
    assert events("paused").count("workflow_resumed") == 1
    assert next_runtime() == {"due": "waiting", "paused": "waiting"}
    assert "sleep_completed" in events("due")


def test_after_an_unclean_end_a_command_leaves_what_was_under_way_to_the_owner(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def run() -> None:
        time = clock(timedelta(hours=12))  # later than the night, earlier than the wait's end
        async with z0.Runtime("data", actors=CLASSES, env=Service(), clock=time) as runtime:
            await runtime.workflows.create(Order, "sleeps", id="due")
            await runtime.workflows.create(Order, "waits", id="other")
            await time.settle()
            await crash(runtime)

    asyncio.run(run())
    did.clear()
    before = events("due")
    command(capsys, "send-event", "Order/other", "end")
    assert (events("due"), did) == (before, [])
    assert next_runtime() == {"due": "waiting", "other": "complete"}
    assert sorted(did) == ["body of due", "body of other"]


@pytest.mark.parametrize("how", [CODE, ("--runtime", HERE), ("--runtime", f"{HERE}_later")])
def test_a_retry_is_written_down_and_the_next_runtime_goes_on_with_it(
    capsys: pytest.CaptureFixture[str], how: tuple[str, ...]
) -> None:
    async def work(runtime: z0.Runtime, time: VirtualClock) -> None:
        await fail(runtime, time, "failed")

    prepare(work)
    said = command(capsys, "retry", "Order/failed", how=how)
    assert said == "Order/failed is running; it goes on when its runtime runs next\n"
    assert (did, events("failed")[-1]) == ([], "workflow_retried")
    assert '"running"' in command(capsys, "ls", "--json", how=())
    assert next_runtime() == {"failed": "waiting"}
    assert did == ["body of failed", "sent failed"]


def test_with_the_runtime_of_the_program_a_retry_that_is_waited_for_has_its_env_and_its_alerts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def work(runtime: z0.Runtime, time: VirtualClock) -> None:
        await fail(runtime, time, "failed")
        await runtime.workflows.create(Order, "naps", id="paused")
        await runtime.workflows.get(Order, "paused").pause()

    prepare(work)
    mine = ("--runtime", HERE)
    said = command(capsys, "retry", "Order/failed", "--wait", "0.2 seconds", how=mine)
    assert said.startswith("Order/failed is waiting, waiting for wait:end#1: event 'end' until")
    assert said.endswith("; it has not ended within 0.2 seconds\n")
    assert did == ["body of failed", "sent failed"]
    did.clear()
    command(capsys, "create", "Order", "--id", "tells", "--payload", '"tells"', "--wait", "0.2 seconds", how=mine)
    assert did == ["body of tells", "alert tells"]
    did.clear()
    assert "is complete" in command(capsys, "create", "Queued", "--id", "q", "--wait", "5 seconds", how=mine)
    within = ("--runtime", f"{HERE}_within")
    assert "is paused" in command(capsys, "pause", "Order/tells", how=within)
    assert did == ["body of q", "service closed"]


def test_an_instance_that_is_waited_for_sleeps_and_wakes(capsys: pytest.CaptureFixture[str]) -> None:
    prepare(lambda runtime, time: time.settle())
    words = ("create", "Order", "--id", "new", "--payload", '"naps"')
    command(capsys, *words, "--wait", "0.3 seconds")
    assert did == ["body of new", "awake new"]
    said = command(capsys, "send-event", "Order/new", "end", "--wait", "5 seconds")
    assert said == "Order/new is complete\n"


def test_what_is_owed_outside_stays_owed_to_the_next_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    prepare(lambda runtime, time: time.settle())
    command(capsys, "create", "Order", "--id", "new", "--payload", '"tells"', "--wait", "0.2 seconds")
    assert (did, events("new")[-1]) == (["body of new"], "wait_started")
    assert next_runtime() == {"new": "waiting"}
    assert "alert new" in did


def test_an_instance_that_is_created_begins_in_the_next_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    prepare(lambda runtime, time: time.settle())
    for name in ("Order", "Queued"):
        command(capsys, "create", name, "--id", f"new-{name}", "--payload", '"waits"')
    assert did == []
    assert next_runtime() == {"new-Order": "waiting", "new-Queued": "complete"}


def test_a_rollback_is_announced_and_done_by_the_next_runtime_or_by_one_that_waits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def work(runtime: z0.Runtime, time: VirtualClock) -> None:
        for id in ("one", "two", "three"):
            await runtime.workflows.create(Order, "waits", id=id)

    prepare(work)
    said = command(capsys, "terminate", "Order/one", "--rollback")
    assert (said, did) == ("Order/one is running; it will be rolled back when its runtime runs next\n", [])
    said = command(capsys, "terminate", "Order/two", "--rollback", "--wait", "5 seconds")
    assert (said, did) == ("Order/two is terminated\n", ["body of two", "undone two"])
    assert command(capsys, "terminate", "Order/three", "--wait", "5 seconds") == "Order/three is terminated\n"
    did.clear()
    assert next_runtime() == {"one": "terminated", "two": "terminated", "three": "terminated"}
    assert did == ["body of one", "undone one"]


def test_the_children_of_what_was_terminated_hear_of_it_in_the_next_runtime(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def work(runtime: z0.Runtime, time: VirtualClock) -> None:
        await runtime.workflows.create(Parent, id="p")
        await time.settle()

    prepare(work)
    command(capsys, "terminate", "Parent/p")
    assert events("p-child")[-1] == "wait_started"
    assert next_runtime() == {"p": "terminated", "p-child": "terminated"}


@pytest.mark.parametrize("killed", [False, True])
async def test_what_a_command_has_written_is_gone_on_with_also_when_the_command_is_killed_then(killed: bool) -> None:
    time = clock()
    options: dict[str, Any] = {"actors": CLASSES, "env": Service(), "clock": time}
    async with z0.Runtime("data", **options) as runtime:
        await runtime.workflows.create(Parent, id="p")
        await runtime.workflows.create(Order, "waits", id="undone")
        Service.broken = True
        await runtime.workflows.create(Order, "posts", id="failed")
        await time.advance(20)
        Service.broken = False
    visit = z0.Runtime("data", **options)
    visit.node.only = frozenset()
    services(visit.node).performs_errands = False
    async with visit:
        await visit.workflows.get(Parent, "p").terminate()
        await visit.workflows.get(Order, "undone").terminate(rollback=True)
        await visit.workflows.get(Order, "failed").retry()
        await visit.workflows.create(Order, "posts", id="new")
        await visit.workflows.create(Queued, id="queued")
        await time.advance(1)
        assert len(visit.node.hosts) == 5
        if killed:
            await crash(visit)
    async with z0.Runtime("data", **options) as runtime:
        await time.advance(1)
        found = [info for cls in CLASSES for info in await runtime.workflows.list(cls)]
        assert {info.id: info.status for info in found} == {
            "p": "terminated", "p-child": "terminated", "undone": "terminated", "failed": "waiting", "new": "waiting",
            "queued": "complete",
        }  # fmt: skip


def test_what_is_debounced_is_told_to_come_later(capsys: pytest.CaptureFixture[str]) -> None:
    prepare(lambda runtime, time: time.settle())
    how = ("--actors", f"{__name__}:Collected")
    assert (
        command(capsys, "create", "Collected", how=how) == "one will be created when its runtime runs next (debounce)\n"
    )
    assert command(capsys, "create", "Collected", "--json", how=how) == "null\n"


def test_the_list_and_what_is_shown_of_one_instance_agree_when_the_owner_has_stopped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def work(runtime: z0.Runtime, time: VirtualClock) -> None:
        for payload in ("slow", "beside", "waits", "sleeps", "paused"):
            await runtime.workflows.create(Order, payload, id=payload)
        await time.settle()
        await runtime.workflows.get(Order, "paused").pause()
        going_on.set()

    going_on.clear()
    prepare(work)
    shown = {id: json.loads(command(capsys, "show", f"Order/{id}", "--json", how=())) for id in ("slow", "beside")}
    shown |= {id: json.loads(command(capsys, "show", f"Order/{id}", "--json", how=())) for id in ("waits", "sleeps")}
    listed = json.loads(command(capsys, "ls", "--json", how=()))["instances"]
    assert {each["id"]: each["status"] for each in listed} == {
        "slow": "running",
        "beside": "running",
        "waits": "waiting",
        "sleeps": "waiting",
        "paused": "paused",
    }
    assert {id: each["status"]["status"] for id, each in shown.items()} == {
        "slow": "running",
        "beside": "running",
        "waits": "waiting",
        "sleeps": "waiting",
    }


def test_of_instances_in_memory_the_list_says_when_they_wake(capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        time = clock()
        async with z0.Runtime("data", actors=CLASSES, env=Service(), clock=time) as runtime:
            await runtime.workflows.create(Order, "sleeps", id="sleeps")
            await runtime.get(z0.Entity, "no instance").verify()
            await time.settle()
            due = time.now() + timedelta(hours=8)
            (listed,) = json.loads(await asyncio.to_thread(command, capsys, "ls", "--json", how=()))["instances"]
            assert (listed["id"], listed["status"]) == ("sleeps", "waiting")
            assert abs(listed["next_alarm"] / 1e6 - due.timestamp()) < 1

    asyncio.run(run())


def test_a_pause_and_a_word_that_was_refused_have_nobody_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    async def work(runtime: z0.Runtime, time: VirtualClock) -> None:
        await runtime.workflows.create(Order, "waits", id="one")
        await time.settle()

    prepare(work)
    assert "only a failed instance" in command(capsys, "retry", "Order/one", code=1)
    assert command(capsys, "pause", "Order/one") == "Order/one is paused\n"
    assert next_runtime() == {"one": "paused"}
    assert did == []


def test_repairs_for_good_are_commands_too(capsys: pytest.CaptureFixture[str]) -> None:
    async def work(runtime: z0.Runtime, time: VirtualClock) -> None:
        await fail(runtime, time, "one", "two")

    prepare(work)
    assert (
        command(capsys, "abandon", "Order/one", "--reason", "booked by hand")
        == "Order/one is abandoned: booked by hand\n"
    )
    command(capsys, "restart", "Order/two", "--from-step", "post")
    assert "whose rollback has failed" in command(capsys, "rollback", "Order/two", code=1)
    assert next_runtime() == {"one": "abandoned", "two": "waiting"}
    assert did == ["body of two", "sent two"]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ((), "--actors"),
        (("--runtime", f"{__name__}:of_another_directory"), "another data directory"),
        (("--runtime", f"{__name__}:no_runtime"), "does not return a z0.Runtime"),
        (("--runtime", f"{__name__}:broken"), "OSError: no password"),
        (("--runtime", "nowhere:runtime"), "MODULE:FUNCTION"),
        (("--actors", f"{__name__}:json"), "MODULE:CLASS"),
        ((*CODE, "--wait", "bogus"), "--wait"),
    ],
)
def test_a_command_that_cannot_be_done_says_so_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], how: tuple[str, ...], why: str
) -> None:
    prepare(lambda runtime, time: time.settle())
    assert why in command(capsys, "create", "Order", "--id", "new", how=how, code=2)
    assert json.loads(command(capsys, "ls", "--json", how=()))["instances"] == []
    assert not Path("other").exists()


def test_a_data_directory_is_not_made_by_a_mistyped_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no data directory" in command(capsys, "create", "Order", code=2)
    assert not Path("data").exists()
    Path("data").write_text("a file")
    assert "takes its whole data directory" in command(capsys, "retry", "Order/one", code=2)
