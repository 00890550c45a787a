"""Posts facts until somebody kills it: the child process of the kill tests.

    python kill_child.py DATA JOURNAL SEED DURABILITY [hasty]

Before each message a line "try <message>" goes to the journal, and after its acknowledgement a line "ack <message>",
each by one write to a file opened for appending: what is in it survives the kill. Messages that the last incarnation
tried and was not told of are sent again first, under the same keys. A `hasty` child breaks the promise that this is
about: its replies leave before the COMMIT.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import z0
from tests.movements import Mover
from z0.actors import alone
from z0.actors.durability import FileSync
from z0.actors.gates import Turn
from z0.actors.host import Host

TILLS = 10
CALLERS = (1, 4)
LIMITS = z0.Limits(open_files=5, idle_seconds=0.05, snapshot_facts=20, checkpoint_pages=40)


class Till(Mover):
    """An entity with a message of each sort. The keys of its facts tell which message wrote them."""

    accepts = {"single", "many"}
    indexes = ("data.message",)
    balance: z0.Balance

    async def start(self) -> None:
        self.storage.sql("CREATE TABLE IF NOT EXISTS messages(message PRIMARY KEY)")

    @z0.idempotent("message")
    async def charge(self, message: str) -> z0.Fact:
        """Idempotent by its reply; writes a fact, a row and a key together."""
        self.storage.sql("INSERT INTO messages VALUES(?)", message)
        self.storage.put(message, 1)
        return self.ledger.append("charge", amount=-3, idempotency_key=message)

    async def chain(self, message: str, hops: list[str], depth: int = 0) -> None:
        """Moves money on from till to till; on the way back each notes that it arrived."""
        if depth:
            self.ledger.append("in", amount=9, idempotency_key=f"{message}/in{depth}")
        if hops:
            self.ledger.append("out", amount=-9, idempotency_key=f"{message}/out{depth}")
            await self.get(Till, hops[0]).chain(message, hops[1:], depth + 1)
            self.ledger.append("arrived", idempotency_key=f"{message}/arrived{depth}")

    async def ring(self, message: str) -> None:
        """Sets an alarm, once, with a fact."""
        if not self.ledger.query(idempotency_key=message):
            self.ledger.append("set", idempotency_key=message)
            self.storage.set_alarm(int(message[-2:], 16) / 1_000, message)

    async def alarm(self, info: z0.AlarmInfo) -> None:
        """Leaves a fact without a key, in its last segment: a run that happened twice would leave two."""
        if str(info.name).endswith("0"):
            await asyncio.sleep(0)
        self.ledger.append("rang", source_id=info.name)

    async def never(self, message: str) -> None:
        """Leaves nothing behind."""
        self.storage.sql("INSERT INTO messages VALUES(?)", message)
        self.ledger.append("never", amount=1_000, idempotency_key=message)
        raise LookupError("never")

    async def messages(self) -> list[str]:
        """What `charge` wrote beside its facts: the table, which must be the key-value pairs too."""
        rows = sorted(message for (message,) in self.storage.sql("SELECT message FROM messages"))
        assert rows == sorted(self.storage.list())
        return rows


def till_of(message: str) -> str:
    """The till that a message is for; it is part of the message's text "<sort>:<till>:<other till>:<number>"."""
    return message.split(":")[1]


def hops_of(message: str) -> list[str]:
    """The tills that a chain goes through after the first: two or three of them, the same one perhaps twice."""
    _, _, other, number = message.split(":")
    more = [str(int(digit, 16) % TILLS) for digit in number[: 1 + int(number[-1], 16) % 2]]
    return [other, *more]


def keys_of(message: str) -> list[tuple[str, str]]:
    """Till and key of each fact that there is once the message is acknowledged."""
    sort, till, other, _ = message.split(":")
    match sort:
        case "many" | "slow":
            return [(till, f"{message}/{part}") for part in (1, 2, 3)]
        case "transfer":
            return [(till, f"{message}/out"), (other, f"{message}/in"), (till, f"{message}/arrived")]
        case "chain":
            way = [till, *hops_of(message)]
            there = [(at, depth, word) for depth, at in enumerate(way) for word in ("in", "out")][1:-1]
            back = [(at, depth, "arrived") for depth, at in enumerate(way[:-1])][::-1]
            return [(at, f"{message}/{word}{depth}") for at, depth, word in there + back]
        case "never":
            return []
        case _:
            return [(till, message)]


async def send(runtime: z0.Runtime, message: str) -> None:
    """Send one message."""
    sort, name, other, _ = message.split(":")
    till = runtime.get(Till, name)
    match sort:
        case "single":
            await till.append("single", amount=5, idempotency_key=message, data={"message": message})
        case "many":
            await till.append_many(
                [{"type": "many", "amount": part, "idempotency_key": f"{message}/{part}"} for part in (1, 2, 3)]
            )
        case "transfer":
            await till.transfer(message, other)
        case "chain":
            await till.chain(message, hops_of(message))
        case "never":
            try:
                await till.never(message)
            except LookupError:
                return
            raise AssertionError("a message that raises was acknowledged")
        case _:
            await getattr(till, sort)(message)


def new_message(chance: random.Random) -> str:
    """A message of a random sort for a random till."""
    sort = chance.choice(
        ["single", "single", "single", "many", "charge", "slow", "transfer", "chain", "chain", "ring", "ring", "never"]
    )
    till, other = chance.sample(range(TILLS), 2)
    return f"{sort}:{till}:{other}:{chance.getrandbits(64):016x}"


def left_over(journal: Path) -> list[str]:
    """Messages that were tried and not acknowledged."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    tried = {line[4:]: None for line in lines if line.startswith("try ")}
    for line in lines:
        if line.startswith("ack "):
            tried.pop(line[4:], None)
    return list(tried)


def be_hasty() -> None:
    """Let replies leave before what they speak of is committed."""

    def commit(self: FileSync, host: Host, turn: Turn, dirty: int) -> None:
        turn.settle(None)
        turn.replies = None
        host.parking.commit(turn, late(host.database.commit))

    def late(work: Callable[[], None]) -> Callable[[], None]:
        def slowly() -> None:
            time.sleep(0.03)
            work()

        return slowly

    FileSync.commit = commit  # type: ignore[method-assign]
    alone.STREAK_MAX = 0  # no message commits by itself


async def main(data: str, journal: str, seed: int, durability: Any) -> None:
    """Post until killed."""
    chance = random.Random(seed)
    again = left_over(Path(journal))
    file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def caller(runtime: z0.Runtime) -> None:
        for _ in range(chance.randrange(10, 60)):
            message = again.pop() if again else new_message(chance)
            os.write(file, f"try {message}\n".encode())
            await send(runtime, message)
            os.write(file, f"ack {message}\n".encode())
            if chance.random() < 0.05:
                await runtime.evict(Till, till_of(message))

    while True:
        async with z0.Runtime(data, actors=[Till], limits=LIMITS, durability=durability) as runtime:
            print("open", flush=True)
            await asyncio.gather(*[caller(runtime) for _ in range(chance.choice(CALLERS))])


if __name__ == "__main__":
    if "hasty" in sys.argv[5:]:
        be_hasty()
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
