"""Sets alarms until somebody kills it: the child process of the kill tests of alarms.

    python alarm_kill_child.py DATA JOURNAL SEED [forgetful]

As kill_child: "try <alarm>" goes to the journal before each message, "ack <alarm>" after its acknowledgement.
A `forgetful` child breaks the promise that this is about: the catalogue does not learn of alarms before the COMMIT.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

import z0
from z0.actors.alarm_index import AlarmIndex
from z0.actors.names import Address

BELLS = 40
CALLERS = 2
LIMITS = z0.Limits(open_files=8, idle_seconds=0.05, checkpoint_pages=40)


class Bell(z0.Entity):
    """Each of its alarms leaves one fact, which has no key: a run that happened twice would leave two."""

    namespace = "Bell"

    async def ring(self, alarm: str, after: float) -> None:
        """Set an alarm, and write a fact with it."""
        self.ledger.append("set", source_id=alarm)
        self.storage.set_alarm(after, alarm)

    async def alarm(self, info: z0.AlarmInfo) -> None:
        """Ring, some of the time in two segments."""
        assert info.name is not None
        assert self.clock.now() >= info.scheduled_time
        if info.name.endswith("0"):
            await asyncio.sleep(0.001)
        self.ledger.append("rang", source_id=info.name)


def bell_of(alarm: str) -> str:
    """The bell that an alarm "<bell>:<number>" is set on."""
    return alarm.split(":")[0]


def be_forgetful() -> None:
    """Do not put actors into the active set."""

    def mark(self: AlarmIndex, address: Address) -> asyncio.Future[None]:
        marked = asyncio.get_running_loop().create_future()
        marked.set_result(None)
        return marked

    AlarmIndex.mark = mark  # type: ignore[method-assign]


async def main(data: Path, journal: int, chance: random.Random) -> None:
    """Set alarms for ever."""
    async with z0.Runtime(data, actors=[Bell], limits=LIMITS) as runtime:
        os.write(1, b"open\n")

        async def call() -> None:
            while True:
                alarm = f"{chance.randrange(BELLS)}:{chance.getrandbits(64)}"
                os.write(journal, f"try {alarm}\n".encode())
                await runtime.get(Bell, bell_of(alarm)).ring(alarm, chance.uniform(0, 0.15))
                os.write(journal, f"ack {alarm}\n".encode())
                await asyncio.sleep(chance.uniform(0, 0.03))

        await asyncio.gather(*(call() for _ in range(CALLERS)))


if __name__ == "__main__":
    if "forgetful" in sys.argv[4:]:
        be_forgetful()
    descriptor = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    asyncio.run(main(Path(sys.argv[1]), descriptor, random.Random(sys.argv[3])))
