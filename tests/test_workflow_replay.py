"""Replay: a journal and the code that wrote it fit at every point; where they do not, it is said, and nothing runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

import z0
from tests.proofs import Proof
from tests.scripted_workflow import Scripted, running
from z0 import cli
from z0.testing import VirtualClock, crash, replay

# Shapes: a body as data. A leaf is (kind, number), a branch (kind, shapes).

Shape = tuple[str, Any]
LEAVES = ("do", "fails once", "fails", "sleep", "wait", "wait in vain", "now")
BRANCHES = ("gather", "inside", "row")


def shapes_of(seed: int) -> list[Shape]:
    """A body, by its seed."""
    chance = random.Random(seed)

    def shape(depth: int) -> Shape:
        if depth == 0 or chance.random() < 0.6:
            return chance.choice(LEAVES), chance.randrange(4)
        return chance.choice(BRANCHES), [shape(depth - 1) for _ in range(chance.randint(1, 3))]

    return [shape(3) for _ in range(chance.randint(1, 5))]


class Played:
    """Plays shapes, and counts what it does."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.failed: set[str] = set()

    async def body(self, step: z0.Step, shapes: list[Shape]) -> list[Any]:
        return [await self.play(step, shape, str(number)) for number, shape in enumerate(shapes)]

    async def play(self, step: Any, shape: Shape, path: str) -> Any:
        kind, inner = shape
        match kind:
            case "gather":
                return await asyncio.gather(*(self.play(step, each, f"{path}.{n}") for n, each in enumerate(inner)))
            case "row":
                return [await self.play(step, each, f"{path}.{n}") for n, each in enumerate(inner)]
            case "inside":
                return await step.do(f"in {path}", lambda context: self.play(context, ("row", inner), path))
            case "now":
                return step.now() if isinstance(step, z0.Step) else None
            case "sleep":
                return await step.sleep(f"s{inner}", f"{inner} hours")
            case "wait":
                return (await step.wait_for_event(f"w{inner}", type="tick", timeout=None)).payload
            case "wait in vain":
                try:
                    return await step.wait_for_event(f"v{inner}", type="never", timeout="1 hour")
                except z0.EventTimeout:
                    return "in vain"
            case _:
                return await self.do(step, kind, path, f"d{inner}")

    async def do(self, step: Any, kind: str, path: str, name: str) -> Any:
        def act() -> str:
            if kind == "fails" or (kind == "fails once" and path not in self.failed):
                self.failed.add(path)
                raise ValueError(path)
            self.ran.append(path)
            return path

        try:
            return await step.do(name, act, retries=z0.Retries(limit=1, delay="10 minutes"))
        except ValueError as error:
            return f"failed: {error}"


async def play(data: Path, shapes: list[Shape]) -> tuple[Any, list[str], Path]:
    """The result, what was run, and the file, of an instance with that body."""
    clock, played = VirtualClock(), Played()
    async with running(data, clock, lambda step: played.body(step, shapes)) as (_, instance):
        for number in range(8):
            with contextlib.suppress(z0.WrongStatus):  # a body that waits for nothing has ended
                await instance.send_event("tick", number, id=str(number))
        await clock.advance("3 days")
        output = await instance.result("1 second")
    return output, played.ran, data / "default/Scripted/one.sqlite"


def cut(file: Path, rows: int) -> None:
    """Leave only so many rows of a journal, as a crash there would have."""
    with apsw.Connection(str(file)) as connection:
        for name in ("z0_journal_no_delete", "z0_journal_no_update"):
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM z0_journal WHERE seq > ?", (rows,))
        connection.execute("DELETE FROM z0_meta WHERE key = 'rests'")


def rows_of(file: Path) -> list[Any]:
    connection = apsw.Connection(str(file))
    try:
        return list(connection.execute("SELECT * FROM z0_journal ORDER BY seq"))
    finally:
        connection.close()


async def check(folder: Path, shapes: list[Shape], proof: Proof) -> None:
    _, _, file = await play(folder / "whole", shapes)
    rows = rows_of(file)
    proof.count("workflows")
    played = Played()
    env = {"body": lambda step: played.body(step, shapes)}
    whole = await replay(file, Scripted, env=env)
    assert (whole.problem, whole.ends, whole.entries) == (None, True, len(rows)), "replay is no fixed point"
    assert rows_of(file) == rows
    for seq in range(2, len(rows), 7 if proof.amount == "quick" else 1):
        part = folder / "part.sqlite"
        shutil.copy(file, part)
        cut(part, seq)
        found = await replay(part, Scripted, env=env)
        assert found.problem is None, f"cut at {seq}: {found.problem}"
        assert found.entries == seq
        proof.count("prefixes replayed")
    assert played.ran == [], "a replay executed something"


@pytest.mark.proof
async def test_replay_is_a_fixed_point_and_a_prefix_replays_to_a_prefix(tmp_path: Path, proof: Proof) -> None:
    for seed in proof.seeds(60):
        await check(tmp_path / str(seed), shapes_of(seed), proof)


@pytest.mark.proof
async def test_a_crash_anywhere_comes_to_the_same_end(tmp_path: Path, proof: Proof) -> None:
    for seed in proof.seeds(50):
        await crashed(tmp_path / str(seed), shapes_of(seed), 1 + seed % 20, proof)


async def crashed(folder: Path, shapes: list[Shape], when: int, proof: Proof) -> None:
    """Crash every so many rows, and compare with what came of it undisturbed."""
    expected, ran, _ = await play(folder / "whole", shapes)
    clock, played = VirtualClock(), Played()
    for _ in range(100):
        async with running(folder / "crashed", clock, lambda step: played.body(step, shapes)) as (runtime, instance):
            with_events = [instance.send_event("tick", number, id=str(number)) for number in range(8)]
            await asyncio.gather(*with_events, return_exceptions=True)
            if await finishes(clock, instance, when):
                output = await instance.result("1 second")
                break
            await crash(runtime)
            proof.count("crashes")
    assert plain(output) == plain(expected)
    assert sorted(played.ran) == sorted(ran), "a finished step ran again"
    proof.count("workflows")


async def finishes(clock: VirtualClock, instance: Any, when: int) -> bool:
    for _ in range(when):
        await clock.advance("20 minutes")
        if (await instance.status()).finished:
            return True
    return False


def plain(output: Any) -> Any:
    """Without times, which differ."""
    if isinstance(output, list):
        return [plain(each) for each in output]
    return "time" if hasattr(output, "tzinfo") else output


async def test_a_replay_finds_changed_code_and_executes_nothing(tmp_path: Path, clock: VirtualClock) -> None:
    ran: list[str] = []

    async def first(step: z0.Step) -> None:
        await step.do("a", lambda: "a")
        await step.sleep("-", "1 day")

    async def second(step: z0.Step) -> None:
        await step.do("b", lambda: ran.append("b"))

    async with running(tmp_path / "data", clock, first):
        pass
    file = tmp_path / "data/default/Scripted/one.sqlite"
    same = await replay(file, Scripted, env={"body": first})
    assert (same.same, same.ends, same.reached, same.steps) == (True, False, ["sleep:-#1"], 2)
    other = await replay(file, Scripted, env={"body": second})
    assert other.problem is not None
    assert "do:a#1" in other.problem
    assert "do:b#1" in other.problem
    assert ran == []


def ending(name: str) -> Callable[[z0.Step], Any]:
    """A body that ends behind its first step, in some way."""

    async def body(step: z0.Step) -> Any:
        if name == "an error first":
            raise NameError("no such name")
        await step.do("a", lambda: "a")
        if name == "an error between steps":
            raise KeyError("customer")
        if name == "another run":
            step.continue_as_new()
        if name == "a cancellation":
            raise asyncio.CancelledError
        if name == "the usual":
            await step.do("b", lambda: "b")
            await step.sleep("-", "1 day")

    return body


ENDINGS = {
    "an error first": ("do:a#1", "builtins:NameError: no such name"),
    "an error between steps": ("do:b#1", "builtins:KeyError: 'customer'"),
    "another run": ("do:b#1", "continue_as_new()"),
    "a cancellation": ("do:b#1", "cancelled"),
    "a return": ("do:b#1", "the end of run()"),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_code_that_ends_before_its_journal_does_not_fit_it(
    name: str, tmp_path: Path, clock: VirtualClock
) -> None:
    async with running(tmp_path / "data", clock, ending("the usual")):
        pass
    found = await replay(tmp_path / "data/default/Scripted/one.sqlite", Scripted, env={"body": ending(name)})
    assert found.problem is not None
    assert (found.same, found.ends) == (False, True)
    for each in ENDINGS[name]:
        assert each in found.problem


async def test_code_that_begins_another_run_where_the_journal_ends_does_not_fit_it(
    tmp_path: Path, clock: VirtualClock
) -> None:
    async with running(tmp_path / "data", clock, ending("a return")):
        pass
    file = tmp_path / "data/default/Scripted/one.sqlite"
    found = await replay(file, Scripted, env={"body": ending("another run")})
    assert found.problem is not None
    assert "continue_as_new()" in found.problem
    cut(file, 3)  # as it is before the end
    assert (await replay(file, Scripted, env={"body": ending("another run")})).same


async def test_a_copy_without_its_large_results_is_told_from_one_that_differs(
    tmp_path: Path, clock: VirtualClock
) -> None:
    async def body(step: z0.Step) -> int:
        try:
            large = await step.do("large", lambda: b"x" * 2**21)
        except z0.InvalidValue:
            return 0
        await step.sleep("-", "1 day")
        return len(large)

    async with running(tmp_path / "data", clock, body):
        pass
    file, copy = tmp_path / "data/default/Scripted/one.sqlite", tmp_path / "copy.sqlite"
    shutil.copy(file, copy)
    assert (await replay(file, Scripted, env={"body": body})).reached == ["sleep:-#1"]
    with pytest.raises(z0.InvalidValue, match=r"copy the folder '.blobs' .* as 'copy.blobs'"):
        await replay(copy, Scripted, env={"body": body})
    shutil.copytree(file.with_suffix(".blobs"), copy.with_suffix(".blobs"))
    assert (await replay(copy, Scripted, env={"body": body})).same


class Hello(z0.Workflow):
    async def run(self, event: z0.Event[str], step: z0.Step) -> str:
        return await step.do("greet", lambda: f"hello {event.payload}")


class Changed(z0.Workflow):
    async def run(self, event: z0.Event[str], step: z0.Step) -> str:
        return await step.do("welcome", lambda: f"hello {event.payload}")


class Differs(z0.Workflow):
    async def run(self, event: z0.Event[str], step: z0.Step) -> str:
        return await step.do("greet", lambda: "") + "!"


def test_the_command_tells_ci_by_its_exit_code_whether_the_code_still_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def make() -> None:
        async with z0.Runtime(tmp_path / "data") as runtime:
            await (await runtime.workflows.create(Hello, "you", id="one")).result()

    asyncio.run(make())
    file = str(tmp_path / "data/default/Hello/one.sqlite")
    here = "tests.test_workflow_replay"
    assert cli.main(["replay", file, f"{here}:Hello", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True
    assert cli.main(["replay", file, f"{here}:Hello"]) == 0
    assert capsys.readouterr().out == "same: Hello 'one', 1 steps, to its end\n"
    for name in ("Changed", "Differs"):
        assert cli.main(["replay", file, f"{here}:{name}"]) == 1
        assert capsys.readouterr().out.startswith("DIVERGED Hello 'one': at step ")
    for wrong in (f"{here}:Nothing", "nothing", f"{here}:Path"):
        assert cli.main(["replay", file, wrong]) == 2
    assert cli.main(["replay", str(tmp_path / "none.sqlite"), f"{here}:Hello"]) == 2
