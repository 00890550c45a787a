"""Clients that ask ledgers for all sorts of things until somebody kills them, and tell it in a file.

    python history_child.py DATA HISTORY SEED

Each event is one write to a file opened for appending: what is in it survives the kill, and its order is the order of
time. Client names begin with the seed, which no two incarnations share.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys

import uvloop

import z0
from tests.history import Book, Client, Event

LEDGERS = 4
CLIENTS = 5
LIMITS = z0.Limits(open_files=3, idle_seconds=0.05, snapshot_facts=20, checkpoint_pages=20)


async def main(data: str, history: str, seed: int) -> None:
    """Ask until killed."""
    chance = random.Random(seed)
    file = os.open(history, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(event: Event) -> None:
        os.write(file, json.dumps(event).encode() + b"\n")

    async def client(runtime: z0.Runtime, name: str) -> None:
        client = Client(name, tell, lambda ledger: runtime.get(Book, ledger))
        number = 0
        while True:
            ledger, key = str(chance.randrange(LEDGERS)), f"{name}/{number}"
            number += 1
            what = chance.choice(["deposit", "deposit", "slowly", "charge", "charge", "head", "amount", "facts"])
            argument = {"head": None, "amount": None, "facts": chance.randrange(50)}.get(what, key)
            for _ in range(3):  # once more, under the same key
                if await client.ask(ledger, what, argument):
                    break
            if chance.random() < 0.05:
                await runtime.evict(Book, ledger)
            await asyncio.sleep(chance.choice([0, 0, 0.005]))

    async with z0.Runtime(data, limits=LIMITS) as runtime:
        print("open", flush=True)
        await asyncio.gather(*[client(runtime, f"{seed}.{number}") for number in range(CLIENTS)])


if __name__ == "__main__":
    loop = uvloop.new_event_loop if int(sys.argv[3]) % 2 else None
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
