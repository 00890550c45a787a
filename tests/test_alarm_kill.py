"""SIGKILL at any moment: every alarm that was acknowledged runs, and leaves its fact once."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

import z0
from tests.alarm_kill_child import BELLS, Bell
from tests.proofs import Proof
from tests.test_kill import run_and_kill, said
from z0 import inspect

CHILD = Path(__file__).with_name("alarm_kill_child.py")
PATIENCE_SECONDS = 20.0


async def check(data: Path, journal: Path, patience: float = PATIENCE_SECONDS) -> int:
    """Wait until everything that is due has run, touching no actor; how many alarms have."""
    tried, acknowledged = set(said(journal, "try")), set(said(journal, "ack"))
    async with asyncio.timeout(patience), z0.Runtime(data, actors=[Bell]):
        while True:
            files = [data / f"default/Bell/{n}.sqlite" for n in range(BELLS)]
            facts = [fact for file in files if file.exists() for fact in inspect.facts(file)]
            rang = Counter(fact.source_id for fact in facts if fact.type == "rang")
            was_set = Counter(fact.source_id for fact in facts if fact.type == "set")
            if rang.keys() == was_set.keys():
                break
            await asyncio.sleep(0.05)
    assert acknowledged <= was_set.keys() <= tried
    assert set(was_set.values()) <= {1}
    assert set(rang.values()) <= {1}, "an alarm ran twice although its first run was committed"
    return len(rang)


@pytest.mark.proof
async def test_a_process_killed_at_any_moment_loses_no_alarm_and_runs_none_twice(proof: Proof, tmp_path: Path) -> None:
    data, journal = tmp_path / "data", tmp_path / "journal"
    ran = 0
    for number, seed in enumerate(proof.seeds(60)):
        print(f"--seed {seed}")  # shown when the test fails
        run_and_kill(data, journal, seed, child=CHILD)
        proof.count("kills")
        if number % 3 == 2:
            before, ran = ran, await check(data, journal)
            assert ran >= before
    proof.count("alarms", await check(data, journal))


async def test_alarms_that_the_catalogue_does_not_learn_of_are_caught(tmp_path: Path) -> None:
    data, journal = tmp_path / "data", tmp_path / "journal"

    async def rounds() -> None:
        for seed in range(20):
            run_and_kill(data, journal, seed, "forgetful", child=CHILD)
            await check(data, journal, patience=3)

    with pytest.raises(TimeoutError):
        await rounds()
