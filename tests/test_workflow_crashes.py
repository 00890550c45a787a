"""Crashes at every commit of workflows of ten shapes, before it and after it, and kills of real processes.

Finished steps never run again, the result is that of an undisturbed run, sleeps end at their first deadline, and each
effect is there exactly once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import z0
from tests.proofs import Proof
from tests.workflow_shapes import SHAPES, Effects, Shop
from z0.testing import Point, VirtualClock, crash, fault

POINTS: tuple[Point, Point] = ("crash-before-commit", "crash-after-commit")
CHILD = Path(__file__).with_name("workflow_child.py")
ROOT = CHILD.parent.parent
HOUR_US = 3_600 * 1_000_000 + 1


class World:
    """What an instance did, as the world around it sees it."""

    def __init__(self) -> None:
        self.finished: set[str] = set()
        self.violations: list[str] = []

    def begun(self, key: str) -> None:
        if key in self.finished:
            self.violations.append(f"{key} had finished, and ran again")

    async def look(self, instance: z0.Instance[Shop]) -> None:
        """Note which steps have finished, durably."""
        with contextlib.suppress(z0.InstanceNotFound):
            for entry in await instance.journal():
                if entry.event in ("step_completed", "step_errored"):
                    self.finished.add(f"Shop/{instance.id}/1/{entry.step}")


async def drive(path: Path, clock: VirtualClock, shape: str, world: World, strike: Any) -> bool:
    """Run until it is finished, or struck down; whether it is finished."""
    runtime = z0.Runtime(path, clock=clock, actors=[Shop, Effects], env=world)
    async with runtime:
        await world.look(runtime.workflows.get(Shop, "one"))
        with strike(runtime) as struck:
            with contextlib.suppress(z0.ActorReset, z0.CommitUnknown, z0.RuntimeClosed, z0.InstanceExists):
                await runtime.workflows.create(Shop, shape, id="one")
            for number in (1, 3, 2):
                with contextlib.suppress(z0.Z0Error):
                    instance = runtime.workflows.get(Shop, "one")
                    await instance.send_event("paid", {"order": number}, id=f"e{number}")
            for _ in range(12):
                if struck is not None and struck.hits:
                    break
                await clock.advance("1 hour")
        if struck is not None and struck.hits:
            await crash(runtime)
            return False
    return True


async def outcome(path: Path, clock: VirtualClock, world: World, hours: int = 1) -> tuple[Any, ...]:
    """All that can be seen of a finished instance that must not depend on crashes.

    `hours`: for which at most the process was dead while a deadline passed.
    """
    async with z0.Runtime(path, clock=clock, actors=[Shop, Effects], env=world) as runtime:
        instance = runtime.workflows.get(Shop, "one")
        assert (await instance.status()).finished, await instance.status()
        result = await instance.result()
        journal = await instance.journal()
        effects = [fact.idempotency_key for fact in await runtime.get(Effects, "world").query_facts()]
    begun = {entry.step: entry.detail["until"] for entry in journal if entry.event == "sleep_started"}
    ended = {entry.step: entry.at for entry in journal if entry.event == "sleep_completed" and entry.step in begun}
    assert begun.keys() == ended.keys()
    for step, until in begun.items():
        assert until <= ended[step] < until + hours * HOUR_US, f"{step} did not end at its deadline"
    assert len(begun) == sum(entry.event == "sleep_started" for entry in journal), "a sleep began twice"
    finished = sorted(str(entry.step) for entry in journal if entry.event in ("step_completed", "step_errored"))
    return result, finished, sorted(map(str, effects))


@contextlib.contextmanager
def unstruck(runtime: z0.Runtime) -> Any:
    yield None


@pytest.mark.proof
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_crash_at_any_commit_changes_nothing(shape: str, tmp_path: Path, proof: Proof) -> None:
    world = World()
    assert await drive(tmp_path / "whole", VirtualClock(), shape, world, unstruck)
    expected = await outcome(tmp_path / "whole", VirtualClock(), world)
    stride = 5 if proof.amount == "quick" else 1
    for point in POINTS:
        nth, struck = 1 + list(SHAPES).index(shape) % stride, True
        while struck:
            struck = await crashed_once(tmp_path / f"{point}-{nth}", shape, point, nth, expected)
            proof.count("crashes", struck)
            nth += stride


async def crashed_once(path: Path, shape: str, point: Point, nth: int, expected: tuple[Any, ...]) -> bool:
    """Crash at that commit of the instance, finish, and compare; whether there was such a commit."""
    clock, world = VirtualClock(), World()

    def strike(runtime: z0.Runtime) -> Any:
        return fault(runtime, point, actor=runtime.get(Shop, "one"), nth=nth)

    struck = not await drive(path, clock, shape, world, strike)
    if struck:
        assert await drive(path, clock, shape, world, unstruck)
    found = await outcome(path, clock, world)
    assert world.violations == [], f"{point} at commit {nth} of {shape}"
    assert found == expected, f"{point} at commit {nth} of {shape}"
    return struck


@pytest.mark.proof
@pytest.mark.parametrize("shape", ["loop", "nested_sleep", "branches"])
async def test_many_crashes_in_a_row_change_nothing(
    shape: str, tmp_path: Path, proof: Proof, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shop, "recoveries_max", None)  # counting them is a commit, and each commit ends a process here
    world = World()
    assert await drive(tmp_path / "whole", VirtualClock(), shape, world, unstruck)
    expected = await outcome(tmp_path / "whole", VirtualClock(), world)
    for every in range(1, 2 + proof.of(10)):
        clock, world, path = VirtualClock(), World(), tmp_path / str(every)

        def strike(runtime: z0.Runtime, every: int = every) -> Any:
            return fault(runtime, "crash-after-commit", actor=runtime.get(Shop, "one"), nth=every)

        for _ in range(100):
            if await drive(path, clock, shape, world, strike):
                break
            proof.count("crashes")
        assert world.violations == []
        # Where each commit ends a process, a sleep may be over while two crashes, of an hour each, come first.
        assert await outcome(path, clock, world, hours=3) == expected


async def crash_everywhere(path: Path, expected: tuple[Any, ...]) -> None:
    for nth in range(3, 9):
        await crashed_once(path / str(nth), "sequential", "crash-after-commit", nth, expected)


async def test_the_check_notices_a_step_that_runs_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from z0.workflows import history

    def forgets(past: Any, entry: Any) -> None:
        past.record(entry)

    world = World()
    assert await drive(tmp_path / "whole", VirtualClock(), "sequential", world, unstruck)
    expected = await outcome(tmp_path / "whole", VirtualClock(), world)
    monkeypatch.setitem(history._FOLDS, "step_completed", forgets)
    with pytest.raises(AssertionError, match="crash-after-commit at commit"):
        await crash_everywhere(tmp_path, expected)


@pytest.mark.proof
async def test_a_process_killed_at_any_moment_finishes_when_it_is_started_again(tmp_path: Path, proof: Proof) -> None:
    """By real SIGKILLs, of a child that kills itself at its n-th effect."""
    for seed in proof.seeds(20):
        data, names = tmp_path / str(seed), list(SHAPES)
        for kill_at in (1 + seed % 3, 2 + seed % 5, 0):
            code = run_child(data, names[seed % len(names)], kill_at)
            assert code in (0, -signal.SIGKILL)
            proof.count("kills", code != 0)
            if code == 0:
                break
        world = World()
        clock = VirtualClock()
        shape = names[seed % len(names)]
        assert await drive(tmp_path / f"{seed}-whole", clock, shape, world, unstruck)
        expected = await outcome(tmp_path / f"{seed}-whole", clock, world)
        assert await outcome(data, clock, World()) == expected, f"seed {seed}"


def run_child(data: Path, shape: str, kill_at: int) -> int:
    command = [sys.executable, str(CHILD), str(data), shape, str(kill_at)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=env, timeout=60, check=False).returncode
