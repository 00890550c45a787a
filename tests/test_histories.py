"""What clients saw of a ledger, under failures and kills, is explained by one order of what they asked."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import z0
from tests.history import CHARGE, DEPOSIT, Book, Client, Event, Refused, last_state, why_not
from tests.history_child import LEDGERS
from tests.proofs import Proof
from tests.simulation import Simulation, explore, run
from tests.stage import Stage, at_once
from tests.test_kill import run_and_kill
from z0.actors.durability import FileSync
from z0.actors.gates import Turn
from z0.actors.host import Host
from z0.ledger.ledger import Ledger

CHILD = Path(__file__).with_name("history_child.py")
NAMES = ("a", "b")
CLIENTS = 4
ASKED = 9
INCARNATIONS = 6
WHATS = ("deposit", "deposit", "slowly", "charge", "charge", "head", "amount", "facts")


async def history_under_failures(simulation: Simulation) -> list[Event]:
    """Clients that ask, are cancelled, and ask again: commits fail, actors are evicted, the runtime crashes."""
    stage = Stage(simulation, Book)
    events: list[Event] = []
    below = simulation.below
    await stage.open()

    async def client(name: str) -> None:
        client = Client(name, events.append, lambda ledger: stage.runtime.get(Book, ledger))
        for number in range(ASKED):
            ledger, what, key = simulation.one_of(NAMES), simulation.one_of(WHATS), f"{name}/{number}"
            argument = {"head": None, "amount": None, "facts": below(6)}.get(what, key)
            for _ in range(1 + below(3)):  # once more or twice, under the same key
                task = asyncio.create_task(client.ask(ledger, what, argument))
                if below(6) == 0:
                    simulation.cancel_somewhere(task)
                await asyncio.wait([task])
                if not task.cancelled() and task.result():
                    break
            await stage.clock.sleep(simulation.one_of([0, 0, 0.001, 0.1, 1]))

    async def disturb() -> None:
        for _ in range(4):
            await stage.clock.sleep(simulation.one_of([0, 0.01, 0.2, 1]))
            if below(3):
                await stage.runtime.evict(Book, simulation.one_of(NAMES))
            elif below(2):
                await stage.crash()
                await stage.reopen()

    async def trouble() -> None:
        if below(2):
            await stage.trouble("commit-lost", "commit-kept", "storage", "open")

    await at_once(*(client(f"client {n}") for n in range(CLIENTS)), disturb(), trouble())
    await stage.clock.sleep(60)
    if below(2):
        await stage.crash()
        await stage.reopen()
    last = {name: await last_state(partial(stage.runtime.get, Book), name) for name in NAMES}
    await stage.runtime.close()
    why = why_not(events, last)
    assert why is None, why
    return events


@pytest.mark.proof
def test_histories_under_failures_crashes_and_evictions_are_linearizable(proof: Proof) -> None:
    async def histories_under_failures(simulation: Simulation) -> None:
        events = await history_under_failures(simulation)
        proof.count("histories", len(NAMES))
        proof.count("operations", sum(event[0] == "ask" for event in events))
        proof.count("unknown outcomes", sum(1 if event[0] == "ask" else -1 for event in events))

    explore(histories_under_failures, proof, full=500)


@pytest.mark.proof
@pytest.mark.timeout(300)
async def test_histories_of_processes_that_are_killed_are_linearizable(proof: Proof, tmp_path: Path) -> None:
    for seed in proof.seeds(20):
        data, told = tmp_path / f"data{seed}", tmp_path / f"history{seed}"
        for incarnation in range(INCARNATIONS):
            run_and_kill(data, told, seed * 1_000 + incarnation, child=CHILD)
        events = [json.loads(line) for line in told.read_text().splitlines()]
        async with z0.Runtime(data) as runtime:
            last = {str(n): await last_state(partial(runtime.get, Book), str(n)) for n in range(LEDGERS)}
        why = why_not(events, last)
        assert why is None, f"{why}\nagain: pytest tests/test_histories.py -k processes --seed {seed}"
        proof.count("histories", LEDGERS)
        proof.count("kills", INCARNATIONS)
        proof.count("operations", sum(event[0] == "ask" for event in events))
        proof.count("unknown outcomes", sum(1 if event[0] == "ask" else -1 for event in events))


# Histories that cannot be


def say(*events: tuple[str, int, Any]) -> list[Event]:
    """Events of one ledger, written shortly: ("deposit k", 1, None) asks, ("saw", 1, answer) ends what was asked."""
    told: list[Event] = []
    for what, number, answer in events:
        if what in ("saw", "not"):
            told.append([what, number, answer][: 3 if what == "saw" else 2])
        else:
            f, _, argument = what.partition(" ")
            told.append(
                ["ask", number, f"client {number}", "a", f, int(argument) if f == "facts" else argument or None]
            )
    return told


def ledger(*keys: str) -> dict[str, list[tuple[str, int]]]:
    return {"a": [(key, -25 if key.startswith("c") else 10) for key in keys]}


POSSIBLE = {
    "one after another": (say(("deposit k", 1, None), ("saw", 1, 1), ("head", 2, None), ("saw", 2, 1)), ledger("k")),
    "beside each other, in the order of neither call": (
        say(("deposit k", 1, None), ("deposit l", 2, None), ("saw", 1, 2), ("saw", 2, 1)),
        ledger("l", "k"),
    ),
    "unknown, and never happened": (say(("deposit k", 1, None), ("head", 2, None), ("saw", 2, 0)), ledger()),
    "unknown, and happened after who asked later": (
        say(("deposit k", 1, None), ("deposit l", 2, None), ("saw", 2, 1), ("amount", 3, None), ("saw", 3, 10)),
        ledger("l", "k"),
    ),
    "sent again under its key": (say(("deposit k", 1, None), ("deposit k", 2, None), ("saw", 2, 1)), ledger("k")),
    "refused for want of money": (say(("charge c", 1, None), ("saw", 1, "refused")), ledger()),
}
IMPOSSIBLE = {
    "an acknowledged fact is lost": (say(("deposit k", 1, None), ("saw", 1, 1)), ledger()),
    "a stale read": (
        say(("deposit k", 1, None), ("saw", 1, 1), ("head", 2, None), ("saw", 2, 0)),
        ledger("k"),
    ),
    "a read of what was taken back": (say(("head", 1, None), ("saw", 1, 1)), ledger()),
    "a fact twice": (say(("deposit k", 1, None), ("saw", 1, 1)), ledger("k", "k")),
    "a fact that nobody wrote": (say(("head", 1, None)), ledger("k")),
    "a fact whose writer was told that it never would be": (say(("deposit k", 1, None), ("not", 1, None)), ledger("k")),
    "one overtaken by who began after its end": (
        say(("deposit k", 1, None), ("saw", 1, 2), ("deposit l", 2, None), ("saw", 2, 1)),
        ledger("l", "k"),
    ),
    "refused although there was money": (
        say(
            ("deposit k", 1, None), ("saw", 1, 1), ("deposit l", 2, None), ("saw", 2, 2),
            ("deposit m", 3, None), ("saw", 3, 3), ("charge c", 4, None), ("saw", 4, "refused"),
        ),
        ledger("k", "l", "m"),
    ),
    "facts in another order than they were seen in": (
        say(("deposit k", 1, None), ("deposit l", 2, None), ("facts 0", 3, None), ("saw", 3, ["k", "l"])),
        ledger("l", "k"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", POSSIBLE)
def test_a_history_that_can_be_is_accepted(name: str) -> None:
    assert why_not(*POSSIBLE[name]) is None


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_history_that_cannot_be_is_refused(name: str) -> None:
    assert "not linearizable" in str(why_not(*IMPOSSIBLE[name]))


def refused() -> bool:
    """Whether one of the first simulated histories is refused."""

    async def history(simulation: Simulation) -> None:
        await history_under_failures(simulation)

    return any("not linearizable" in str(run(history, seed).failure) for seed in range(30))


def test_stale_reads_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = count()

    async def head(book: Book) -> int:
        return max(0, book.ledger.head - next(numbers) % 2)

    monkeypatch.setattr(Book, "head", head)
    assert refused()


def test_a_commit_that_is_acknowledged_and_dropped_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    commit, numbers = FileSync.commit, count()

    def drop_some(durability: FileSync, host: Host, turn: Turn, dirty: int) -> None:
        if next(numbers) % 5 == 0:
            host.database.rollback()
            host.database.begin()
        commit(durability, host, turn, dirty)

    monkeypatch.setattr(FileSync, "commit", drop_some)
    assert refused()


def test_a_fact_that_is_written_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slowly(book: Book, key: str) -> int:
        book.ledger.append("deposit", amount=DEPOSIT, idempotency_key=f"{key} again")
        return book.ledger.append("deposit", amount=DEPOSIT, idempotency_key=key).seq

    monkeypatch.setattr(Book, "slowly", slowly)
    assert refused()


def test_a_projection_that_is_not_taken_back_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def charge(book: Book, key: str) -> int:
        book.ledger.append("charge", amount=-CHARGE, idempotency_key=key)
        if book.sum.amount < 0:
            raise Refused
        return book.ledger.head

    def restore(ledger: Ledger, saved: Any) -> None:
        ledger.saved = saved

    monkeypatch.setattr(Book, "charge", charge)
    assert not refused()
    monkeypatch.setattr(Ledger, "restore", restore)
    assert refused()
