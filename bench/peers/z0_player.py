"""z0's side: steps of an instance that has run a while, new instances step by step, whole workflows, many at once."""

from __future__ import annotations

import asyncio
import sys
from itertools import count as counter
from pathlib import Path
from typing import Any

import apsw
from turns import answer, bare_table, insert, next_order, now_ns

import z0
from z0.bench.flows import Hand, Short, Steps, nothing, steps_stretch

ID = "body"


class Timed(z0.Workflow):
    """Takes so many steps, and says what each took."""

    namespace = "bench-timed"

    async def run(self, event: z0.Event[int], step: z0.Step) -> list[int]:
        """Nanoseconds: from asking for a step to having its result, the commit of the one before included."""
        samples = []
        for _ in range(event.payload):
            start = now_ns()
            await step.do("step", nothing)
            samples.append(now_ns() - start)
        return samples


class Player:
    """Takes turns on one runtime."""

    def __init__(self, runtime: z0.Runtime, hand: Hand, folder: Path) -> None:
        """Nothing is made yet."""
        self._runtime = runtime
        self._hand = hand
        self._bare = apsw.Connection(str(folder / "bare.sqlite"))
        self._fresh = counter()
        bare_table(lambda sql: self._bare.execute(sql).fetchall())

    async def take(self, turn: str, count: int) -> list[int]:
        """What each operation of the turn took."""
        match turn:
            case "insert":
                return list(insert(self._bare.execute, count))
            case "step":
                return list((await steps_stretch(self._hand, [ID], count)).samples)
            case "new steps":
                found: list[int] = await self._result(Timed, count)
                return found
            case "workflow":
                start = now_ns()
                await self._result(Short, count)
                return [now_ns() - start]
            case "64":
                await asyncio.gather(*(self._result(Short, count) for _ in range(64)))
                return []
            case _:
                raise ValueError(turn)

    async def _result(self, cls: type[z0.Workflow], steps: int) -> Any:
        instance = await self._runtime.workflows.create(cls, steps, id=f"new-{next(self._fresh)}")
        return await instance.result()

    async def serve(self) -> None:
        """Take turns until there are no more."""
        while order := await asyncio.to_thread(next_order):
            start = now_ns()
            samples = await self.take(*order)
            answer({"elapsed_ns": now_ns() - start, "samples": samples})


async def main(folder: Path, warm: int) -> None:
    """Make an instance that has run a while (`warm` steps, so that its WAL is reused); then take turns."""
    hand = Hand()
    limits = z0.Limits(idle_seconds=2.0)  # so that few files are open at any time
    async with z0.Runtime(folder / "z0", actors=[Steps, Short, Timed], env=hand, limits=limits) as runtime:
        body = await runtime.workflows.create(Steps, id=ID)
        await steps_stretch(hand, [ID], warm)
        player = Player(runtime, hand, folder)
        await player.take("insert", warm)
        loop = type(asyncio.get_running_loop()).__module__
        answer(
            {
                "engine": f"z0 {z0.__version__}, SQLite {apsw.sqlite_lib_version()}, event loop of {loop}",
                "durability": "journal_mode=wal, synchronous=FULL; a file for each instance",
            }
        )
        await player.serve()
        hand.dismiss(ID)
        await body.result()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
    else:
        uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2])))
