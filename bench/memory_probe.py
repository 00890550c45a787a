"""Memory of open or evicted actors, or of bare connections, in a process of its own: run with `python -m`.

Prints one JSON document. Resident memory includes the mapped -shm files; anonymous memory does not.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from pathlib import Path

import msgspec

import z0

from .floors import BareLedger
from .workload import Account, evicted, fact_fields, fact_rows

FACTS = 20
WARM_UP = 50
STATUS = Path("/proc/self/status")
IDLE_SECONDS = 8.0  # after this an actor is evicted
IDLE_CARE = 0.75  # at this part of it, what the engine does for idle actors is done


class Memory(msgspec.Struct, frozen=True):
    """What one actor, or one bare connection, holds in KiB."""

    resident: float
    anonymous: float


def can_measure() -> bool:
    """Tell whether this system says how much memory a process holds."""
    return STATUS.exists()


def main() -> None:
    """Usage: python -m z0.bench.memory_probe used|idle|evicted|bare FOLDER COUNT."""
    kind, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    match kind:
        case "used" | "idle":
            memory = asyncio.run(_open_actors(folder, count, idle=kind == "idle"))
        case "evicted":
            memory = asyncio.run(_evicted_actors(folder, count))
        case _:
            memory = _bare_connections(folder, count)
    sys.stdout.write(msgspec.json.encode(memory).decode() + "\n")


async def _open_actors(folder: Path, count: int, *, idle: bool) -> Memory:
    idle_seconds = IDLE_SECONDS if count > WARM_UP else 1.0
    limits = z0.Limits(idle_seconds=idle_seconds, open_files=count + WARM_UP)
    async with z0.Runtime(folder / "z0", durability="relaxed", limits=limits) as runtime:
        before = Memory(0, 0)
        for number in range(WARM_UP + count):
            if number == WARM_UP:
                before = memory_now()
            await _use(runtime, f"account-{number}")
        if idle:
            await asyncio.sleep(idle_seconds * IDLE_CARE)
        return _each(before, memory_now(), count)


async def _evicted_actors(folder: Path, count: int) -> Memory:
    async with z0.Runtime(folder / "z0", durability="relaxed") as runtime:
        before = Memory(0, 0)
        for number in range(2 * count):
            if number == count:
                before = memory_now()
            await _use(runtime, f"account-{number}", facts=1)
            await evicted(runtime, f"account-{number}")
        return _each(before, memory_now(), count)


async def _use(runtime: z0.Runtime, name: str, *, facts: int = FACTS) -> None:
    account = runtime.get(Account, name)
    for fields in fact_fields(random.Random(name), facts):
        await account.append("deposit", **fields)


def _bare_connections(folder: Path, count: int) -> Memory:
    before = Memory(0, 0)
    ledgers = []
    for number in range(WARM_UP + count):
        if number == WARM_UP:
            before = memory_now()
        ledger = BareLedger(folder / f"{number}.sqlite", synchronous="OFF")
        for row in fact_rows(random.Random(number), 1, FACTS):
            ledger.insert(row)
        ledgers.append(ledger)
    memory = _each(before, memory_now(), count)
    for ledger in ledgers:
        ledger.close()
    return memory


def memory_now() -> Memory:
    """What this process holds now, after a collection."""
    gc.collect()
    lines = STATUS.read_text(encoding="ascii").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return Memory(_kib(status["VmRSS"]), _kib(status["RssAnon"]))


def _kib(field: str) -> float:
    return float(field.split()[0])


def _each(before: Memory, after: Memory, count: int) -> Memory:
    resident = (after.resident - before.resident) / count
    return Memory(resident, (after.anonymous - before.anonymous) / count)


if __name__ == "__main__":
    main()
