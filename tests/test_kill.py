"""SIGKILL at any moment: what was acknowledged is there, nothing is there twice, and the ledgers are sound.

Real processes, on one data directory from round to round; messages of each sort, chains of calls and alarms are under
way together. Each failure prints the seed of its round: `pytest tests/test_kill.py --seed N` draws the same messages.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import z0
from tests.kill_child import TILLS, Till, keys_of
from tests.proofs import Proof

CHILD = Path(__file__).with_name("kill_child.py")
ROOT = CHILD.parent.parent
LONGEST_RUN = 0.6
CHECK_EVERY = 2
PATIENCE_SECONDS = 30.0


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
    money = 0
    async with z0.Runtime(data, actors=[Till]) as runtime:
        async with asyncio.timeout(PATIENCE_SECONDS):
            for till in map(str, range(TILLS)):
                while not await has_rung(runtime, till):  # noqa: ASYNC110  # nobody tells that an alarm has run
                    await asyncio.sleep(0.02)
        for till in map(str, range(TILLS)):
            found += [(till, key) for key in await sound_keys(runtime, till)]
            money += await runtime.get(Till, till).sum_facts(type=["in", "out"])
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
    halves = Counter(key.split("/")[1].rstrip("0123456789") for _, key in there if key.startswith("transfer"))
    hops = Counter(key.split("/")[1].rstrip("0123456789") for _, key in there if key.startswith("chain"))
    assert money == 7 * (halves["in"] - halves["out"]) + 9 * (hops["in"] - hops["out"])  # the rest is on its way
    return len(found)


async def has_rung(runtime: z0.Runtime, name: str) -> bool:
    """Whether every alarm of a till that was set has run; none has twice."""
    facts = await runtime.get(Till, name).query_facts(type=["set", "rang"])
    rang = Counter(fact.source_id for fact in facts if fact.type == "rang")
    assert set(rang.values()) <= {1}, "an alarm ran twice although its first run was committed"
    was_set = {fact.idempotency_key for fact in facts if fact.type == "set"}
    assert rang.keys() <= was_set
    return rang.keys() == was_set


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
    keys = [str(fact.idempotency_key) for fact in facts if fact.type != "rang"]
    assert await till.messages() == sorted(key for key in keys if key.startswith("charge"))
    return keys


async def survive(proof: Proof, kills: int, directory: Path, *arguments: str) -> None:
    data, journal = directory / "data", directory / "journal"
    facts = 0
    for number, seed in enumerate(proof.seeds(kills)):
        print(f"--seed {seed}")  # shown when the test fails
        run_and_kill(data, journal, seed, *arguments)
        proof.count("kills")
        if number % CHECK_EVERY:
            before, facts = facts, await check(data, journal)
            assert facts >= before
    proof.count("messages acknowledged", len(said(journal, "ack")))
    proof.count("facts", await check(data, journal))


@pytest.mark.proof
async def test_a_process_killed_at_any_moment_loses_nothing_it_acknowledged(proof: Proof, tmp_path: Path) -> None:
    await survive(proof, 100, tmp_path, "full")


@pytest.mark.proof
async def test_relaxed_durability_survives_a_kill_too(proof: Proof, tmp_path: Path) -> None:
    await survive(proof, 30, tmp_path, "relaxed")


async def test_replies_that_leave_before_their_commit_are_caught(tmp_path: Path) -> None:
    data, journal = tmp_path / "data", tmp_path / "journal"

    async def rounds() -> None:
        for seed in range(20):
            run_and_kill(data, journal, seed, "full", "hasty")
            await check(data, journal)

    with pytest.raises(AssertionError):
        await rounds()
