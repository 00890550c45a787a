"""SIGKILL at any moment: every alarm that was acknowledged runs, and leaves its fact once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

import z0
from tests.alarm_kill_child import BELLS, Bell
from tests.test_kill import run_and_kill, said
from z0 import inspect

CHILD = Path(__file__).with_name("alarm_kill_child.py")
PATIENCE_SECONDS = 20.0


async def check(data: Path, journal: Path) -> int:
    """Wait until everything that is due has run, touching no actor; how many alarms have."""
    tried, acknowledged = set(said(journal, "try")), set(said(journal, "ack"))
    async with asyncio.timeout(PATIENCE_SECONDS), z0.Runtime(data, actors=[Bell]):
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


async def survive(rounds: int, directory: Path) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")  # shown when the test fails
    data, journal = directory / "data", directory / "journal"
    ran = 0
    for number in range(rounds):
        run_and_kill(data, journal, seed + number, child=CHILD)
        if number % 3 == 2 or number == rounds - 1:
            before, ran = ran, await check(data, journal)
            assert ran >= before
    assert ran > rounds


async def test_a_process_killed_at_any_moment_loses_no_alarm_and_runs_none_twice(tmp_path: Path) -> None:
    await survive(6, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_sixty_kills_lose_no_alarm(tmp_path: Path) -> None:
    await survive(60, tmp_path)
