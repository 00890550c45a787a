"""What test_full_disk.py runs on a small file system of its own: fills it, makes room, and checks what is there."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import z0

NAMES = ("a", "b")
BALLAST = 300_000
TEXT = {"text": "x" * 1_500}


class Till(z0.Entity):
    """Takes any fact."""

    accepts = {"*"}
    balance: z0.Balance


class Outcomes:
    """What became of each fact that was sent."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, list[str]] = {name: [] for name in NAMES}
        self.sent = 0

    async def post(self, runtime: z0.Runtime, name: str) -> bool:
        self.sent += 1
        key = f"{name}{self.sent}"
        try:
            await runtime.get(Till, name).append("x", amount=1, idempotency_key=key, data=TEXT)
        except (z0.ActorReset, z0.CommitUnknown):
            return False
        self.acknowledged[name].append(key)
        return True

    async def fill(self, runtime: z0.Runtime) -> None:
        """Post until the disk takes no more of anybody."""
        refused = 0
        while refused < 20:
            posted = [await self.post(runtime, name) for name in NAMES]
            refused = 0 if any(posted) else refused + 1

    async def check(self, runtime: z0.Runtime) -> None:
        for name in NAMES:
            till = runtime.get(Till, name)
            facts = await till.query_facts()
            keys = {str(fact.idempotency_key) for fact in facts}
            assert set(self.acknowledged[name]) <= keys
            assert (await till.verify()).facts == len(facts)
            assert (await till.projection("balance")).amounts == {"": len(facts)}


async def refused_or(call: Any) -> Any:
    """The answer, or None when the actor says that the disk is in the way."""
    try:
        return await call
    except (z0.ActorReset, z0.StorageFailed):
        return None


async def main(path: Path, durability: Any) -> None:
    ballast, outcomes = path / "ballast", Outcomes()
    limits = z0.Limits(relaxed_sync_seconds=0.01)

    def runtime() -> z0.Runtime:
        return z0.Runtime(path / "data", durability=durability, limits=limits)

    ballast.write_bytes(bytes(BALLAST))
    async with runtime() as first:
        reader = first.get(Till, "reader")
        await reader.append("x", amount=1)
        await outcomes.fill(first)
        assert await reader.count_facts() == 1, "reads of an actor in memory do not go on"
        counted = await refused_or(first.get(Till, "a").count_facts())  # its last write has failed
        assert counted is None or counted >= len(outcomes.acknowledged["a"])
        ballast.unlink()
        for name in NAMES:
            assert await outcomes.post(first, name), "writes do not resume without a restart"
        await outcomes.check(first)
        print("filled, and went on with", {name: len(keys) for name, keys in outcomes.acknowledged.items()})

        await outcomes.fill(first)
        for name in NAMES:
            await first.evict(Till, name)
        assert await reader.count_facts() == 1
    print("closed while full")

    try:  # where there is no space at all, a start may be refused, but costs nothing
        async with runtime() as second:
            for name in NAMES:
                counted = await refused_or(second.get(Till, name).count_facts())
                print("reading on a full disk:", counted)
                assert counted is None or counted >= len(outcomes.acknowledged[name])
    except z0.StorageFailed as error:
        print("a start on a full disk:", error)

    grow(path)
    async with runtime() as third:
        await outcomes.check(third)
        for name in NAMES:
            assert await outcomes.post(third, name)
        await outcomes.check(third)
    print("all is well")


def grow(path: Path) -> None:
    """Have more space, as an operator would."""
    subprocess.run(["mount", "-o", "remount,size=8m", str(path)], check=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
