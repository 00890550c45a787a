"""The simulation itself: a seed is a run, in any process, and a runtime that breaks a promise is caught."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

import z0
from tests.players import Host, Player, Sleeper
from tests.proofs import Proof
from tests.simulation import Simulation, explore, run, told
from tests.stage import Oops, Scene, Stage, at_once, play
from z0.actors.durability import FileSync
from z0.actors.gates import InputGate, Reply, Turn
from z0.actors.host import Host as Engine
from z0.actors.mailbox import Mailbox
from z0.ledger.ledger import Ledger

ROOT = Path(__file__).parent.parent
SEEDS = range(40)
ALLOWED = (Oops, z0.ActorReset, z0.CommitUnknown, z0.Overloaded)


async def everything(stage: Stage) -> None:
    """A little of all that z0 does in threads, by timers and in tasks."""
    a, b, c = stage.get(Sleeper, "a"), stage.get(Host, "b"), stage.get(Player, "c")

    async def caller(name: str) -> None:
        for n in range(3):
            key = f"{name}{n}"
            await stage.call(a.arm(f"{key}a", n), [("a", f"{key}a")], allow=ALLOWED)
            stage.expect("a", f"{key}a!")
            await stage.call(b.slow(f"{key}b"), [("b", f"{key}b")], allow=ALLOWED)
            stage.expect("c", f"{key}c+")
            await stage.call(c.later(f"{key}c"), [("c", f"{key}c")], allow=ALLOWED)
            await stage.runtime.evict(Player, "c")

    await at_once(*map(caller, "pqr"), stage.trouble("commit-kept", "storage", "open", times=1))
    await stage.crash()
    await stage.reopen()


def digests(seeds: range) -> list[str]:
    scenario = partial(play, everything)
    return [run(lambda simulation: scenario(simulation, Sleeper, Host, Player), seed).digest for seed in seeds]


def test_one_seed_is_one_run_in_any_process() -> None:
    program = "from tests.test_simulation import digests; print(digests(range(6)))"
    here = str(digests(range(6)))
    assert len(set(digests(range(6)))) == 6
    for seed in "1", "2":
        environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed, "PATH": os.environ["PATH"]}
        command = [sys.executable, "-c", program]
        there = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        assert there.stdout.strip() == here


def test_a_failure_says_how_to_see_it_again() -> None:
    async def scene(simulation: Simulation) -> None:
        raise AssertionError("what went wrong")

    with pytest.raises(AssertionError, match=r"(?s)what went wrong.*seed 17.*-k scene --seed 17"):
        explore(scene, Proof(seed=17))


def test_timers_fire_between_any_two_steps_and_never_early() -> None:
    between: set[bool] = set()

    async def scene(simulation: Simulation) -> None:
        clock, due = simulation.clock, simulation.clock.now_us() + 1_000
        fired = asyncio.Event()
        clock.call_at(due, fired.set)
        for _ in range(20):
            await asyncio.sleep(0)
            assert not fired.is_set() or clock.now_us() >= due
        between.add(fired.is_set())
        await fired.wait()

    for seed in SEEDS:
        assert run(scene, seed).failure is None
    assert between == {True, False}


def test_a_call_that_is_never_answered_is_a_deadlock() -> None:
    async def scene(simulation: Simulation) -> None:
        await asyncio.get_running_loop().create_future()

    assert "Deadlock" in str(run(scene, 0).failure)


# Promises broken on purpose


def catches(what: str, scene: Scene) -> bool:
    """Whether one of the first runs fails in this way."""

    async def scenario(simulation: Simulation) -> None:
        await play(scene, simulation, Player)

    outcomes = ((seed, run(scenario, seed)) for seed in SEEDS)
    return any(outcome.failure is not None and what in told(scenario, seed, outcome) for seed, outcome in outcomes)


async def several(stage: Stage) -> None:
    """Messages with the gate held, beside others that come at once."""
    a = stage.get(Player, "a")
    calls = [stage.call(a.alone([f"alone{n}"]), [("a", f"alone{n}")]) for n in range(2)]
    calls += [stage.call(a.put(f"put{n}"), [("a", f"put{n}")]) for n in range(4)]
    calls += [stage.call(a.pass_on(f"pass{n}", []), [("a", f"pass{n}/out"), ("a", f"pass{n}/back")]) for n in range(3)]
    calls += [stage.call(a.put_and_fail("never"), allow=(Oops, z0.Overloaded))]
    await at_once(*calls, stage.call(a.put("last"), [("a", "last")]))


def test_the_scene_of_the_controls_fails_in_nothing_else() -> None:
    assert not catches("", several)


def test_an_input_gate_that_opens_early_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InputGate, "free", property(lambda gate: not gate.parked))
    monkeypatch.setattr(InputGate, "admits", lambda gate, activity: not gate.parked)
    assert catches("while another message has the gate", several)


def test_a_segment_beside_a_thread_that_has_the_file_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InputGate, "free", property(lambda gate: gate.holder is None))
    monkeypatch.setattr(InputGate, "admits", lambda gate, activity: gate.holder in (None, activity))
    assert catches("while a thread has the file", several)


def test_an_output_gate_that_opens_early_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Turn, "answer", lambda turn, reply: reply.send())
    assert catches("told of before it was committed", several)


def test_an_acknowledged_message_whose_commit_is_lost_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def settle(turn: Turn, error: Any) -> None:
        turn.done = True
        for reply in turn.replies or ():
            Reply.send(reply)

    async def scene(stage: Stage) -> None:
        a = stage.get(Player, "a")
        calls = [stage.call(a.pass_on(str(n), []), [("a", f"{n}/out")], allow=ALLOWED) for n in range(6)]
        await at_once(*calls, stage.trouble("commit-lost", times=2))

    monkeypatch.setattr(Turn, "settle", settle)
    assert catches("was acknowledged, and is lost", scene)


def test_a_projection_that_keeps_what_was_rolled_back_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_but_projections(ledger: Ledger, saved: Any) -> None:
        ledger.saved = saved

    monkeypatch.setattr(Ledger, "restore", all_but_projections)
    assert catches("pairs, but Count(", several)


def test_a_mailbox_that_gives_out_the_wrong_end_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(stage: Stage) -> None:
        a = stage.get(Player, "a")
        await at_once(*(stage.call(a.put(str(n)), [("a", str(n))]) for n in range(8)))

    monkeypatch.setattr(Mailbox, "append", deque.appendleft)
    assert catches("was overtaken", scene)


def test_a_wake_up_that_is_lost_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "resume", lambda host: host.gate.wake())
    assert catches("was not answered", several)


def test_a_second_run_of_an_idempotent_message_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(stage: Stage) -> None:
        a = stage.get(Player, "a")
        await at_once(
            *(stage.persist(partial(a.put, str(n)), [("a", str(n))]) for n in range(6)), stage.trouble("commit-kept")
        )

    assert catches("more than once", scene)  # a message without a key, sent again after CommitUnknown


def test_a_turn_that_is_committed_without_its_writes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = FileSync.commit

    def after_taking_some_back(durability: FileSync, host: Engine, turn: Turn, dirty: int) -> None:
        if cast(Stage, host.node.env).simulation.below(3) == 0:
            host.database.rollback()
            host.database.begin()
        commit(durability, host, turn, dirty)

    monkeypatch.setattr(FileSync, "commit", after_taking_some_back)
    assert catches("before it was committed", several)
