"""What tests of workflows share: accounts that facts are counted on, and crashing at every commit."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import z0
from tests.proofs import Proof
from z0.testing import Point, VirtualClock, crash, fault

Drive = Callable[[z0.Runtime, VirtualClock], Awaitable[None]]
CRASHES: tuple[Point, Point] = ("crash-before-commit", "crash-after-commit")
STRIDE = 4
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
CUT_OFF = (z0.ActorReset, z0.CommitUnknown, z0.RuntimeClosed)
SAID_BEFORE = (z0.InstanceExists, z0.WrongStatus)


class Account(z0.Entity):
    """Whose facts show what happened, and how often."""

    accepts = {"*"}
    balance: z0.Balance

    @z0.idempotent("key")
    async def move(self, amount: int, *, key: str = "") -> int:
        self.ledger.append("move", amount=amount, currency="EUR")
        return amount


async def balance(runtime: z0.Runtime, name: str) -> int:
    return await runtime.get(Account, name).sum_facts("amount", currency="EUR")


async def amounts(runtime: z0.Runtime, name: str) -> list[int | None]:
    return [fact.amount for fact in await runtime.get(Account, name).query_facts()]


async def events_of(instance: z0.Instance[Any]) -> list[str]:
    return [entry.event for entry in await instance.journal()]


async def end_of(instance: z0.Instance[Any]) -> str:
    return (await instance.status()).status


async def outcome(instance: z0.Instance[Any]) -> Any:
    """Its result, which must be there."""
    status = await instance.status()
    assert status.finished, status
    return await instance.result()


async def crash_at_every_commit(proof: Proof, actors: list[type[z0.Actor]], drive: Drive, check: Drive) -> int:
    """Drive a story, cut it off at each commit in turn, drive it again on what was kept, and check; how many crashes.

    The story must allow for being told twice. The quick tier takes every fourth commit.
    """
    return await crash_everywhere(proof, "crashes of workflows", partial(_crash_once, actors, drive, check))


async def crash_everywhere(proof: Proof, what: str, crash_once: Callable[[Point, int], Awaitable[bool]]) -> int:
    """Crash at the first commit, the second, and so on, until `crash_once` finds that there are no more; how many."""
    crashes = 0
    logging.disable()
    try:
        for first, point in enumerate(CRASHES, start=1):
            nth, struck = first, True
            while struck:
                struck = await crash_once(point, nth)
                crashes += struck
                nth += STRIDE if proof.amount == "quick" else 1
    finally:
        logging.disable(logging.NOTSET)
    proof.count(what, crashes)
    return crashes


async def _crash_once(actors: list[type[z0.Actor]], drive: Drive, check: Drive, point: Point, nth: int) -> bool:
    clock = VirtualClock()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        data = Path(folder) / "data"
        struck = await _cut_off(data, actors, clock, drive, point, nth)
        async with z0.Runtime(data, actors=actors, clock=clock) as runtime:
            await drive(runtime, clock)
            await clock.advance("60 days")
            try:
                await check(runtime, clock)
            except BaseException as error:
                error.add_note(f"after {point}, nth={nth}")
                raise
    return struck


async def _cut_off(
    data: Path, actors: list[type[z0.Actor]], clock: VirtualClock, drive: Drive, point: Point, nth: int
) -> bool:
    async with z0.Runtime(data, actors=actors, clock=clock) as runtime:
        with fault(runtime, point, nth=nth) as set_:
            try:
                await drive(runtime, clock)
                for _ in range(30):
                    await clock.settle()
                    if not set_.hits:  # else no time is to pass before it goes on
                        await clock.advance("2 days")
            except CUT_OFF:
                assert set_.hits
        if set_.hits:
            await crash(runtime)
        return bool(set_.hits)


async def said(command: Awaitable[Any]) -> Any:
    """What it answers; None when it was said before."""
    try:
        return await command
    except SAID_BEFORE:
        return None
