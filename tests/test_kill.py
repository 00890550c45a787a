"""SIGKILL at any moment: what was acknowledged is there, nothing is there twice, and the ledgers are sound.

Real processes, on one data directory from round to round. Each failure prints the seed of its run.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import z0
from tests.kill_child import TILLS, Till, keys_of

CHILD = Path(__file__).with_name("kill_child.py")
ROOT = CHILD.parent.parent
LONGEST_RUN = 0.6
CHECK_EVERY = 2


def run_and_kill(data: Path, journal: Path, seed: int, *arguments: str, child: Path = CHILD) -> None:
    """Let a child post for a random while, and kill it; now and then before it has opened the directory."""
    chance = random.Random(seed)
    command = [sys.executable, str(child), str(data), str(journal), str(seed), *arguments]
    with subprocess.Popen(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if chance.random() < 0.9:
            assert process.stdout.readline() == b"open\n"
        time.sleep(chance.uniform(0, LONGEST_RUN))
        assert process.poll() is None, "the child ended by itself"
        process.kill()
    assert process.returncode == -signal.SIGKILL


def said(journal: Path, word: str) -> list[str]:
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [line.removeprefix(f"{word} ") for line in lines if line.startswith(f"{word} ")]


async def check(data: Path, journal: Path) -> int:
    """Open the directory and make sure that it holds what was acknowledged; how many facts there are."""
    tried, acknowledged = set(said(journal, "try")), set(said(journal, "ack"))
    may = {place for message in tried for place in keys_of(message)}
    must = {place for message in acknowledged for place in keys_of(message)}
    found: list[tuple[str, str]] = []
    async with z0.Runtime(data) as runtime:
        for till in map(str, range(TILLS)):
            found += [(till, key) for key in await sound_keys(runtime, till)]
        listed = {info.name for info in await runtime.list(Till)}
    there = set(found)
    assert len(there) == len(found)
    assert must - there == set()
    assert there - may == set()
    assert {till for till, _ in there} <= listed
    for message in tried:
        places = keys_of(message)
        written = [place in there for place in places]
        if message.startswith("many"):
            assert all(written) or not any(written)
        assert written == sorted(written, reverse=True)  # each part was durable before the next could begin
    return len(found)


async def sound_keys(runtime: z0.Runtime, name: str) -> list[str]:
    """The keys of one till's facts, after making sure that its ledger, projection and tables agree."""
    till = runtime.get(Till, name)
    facts = await till.query_facts()
    assert [fact.seq for fact in facts] == list(range(1, len(facts) + 1))
    assert (await till.verify()).facts == len(facts)
    fold = z0.Balance({})
    for fact in facts:
        fold.apply(fact)
    assert await till.projection("balance") == fold
    keys = [str(fact.idempotency_key) for fact in facts]
    assert await till.messages() == sorted(key for key in keys if key.startswith("charge"))
    return keys


async def survive(rounds: int, directory: Path, durability: str = "full") -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")  # shown when the test fails
    data, journal = directory / "data", directory / "journal"
    facts = 0
    for number in range(rounds):
        run_and_kill(data, journal, seed + number, durability)
        if number % CHECK_EVERY or number == rounds - 1:
            before, facts = facts, await check(data, journal)
            assert facts >= before
    assert len(said(journal, "ack")) > rounds


async def test_a_process_killed_at_any_moment_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    await survive(8, tmp_path)


async def test_relaxed_durability_survives_a_kill_too(tmp_path: Path) -> None:
    await survive(3, tmp_path, "relaxed")


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    await survive(100, tmp_path)
