"""A program that starts over sleeping workflows, in a process of its own: run with `python -m`.

Its clock is some hours ahead, so that a few of them are due. Prints one JSON document: when it was ready, which files
the engine opened, what memory it takes. Times are those of the system's monotonic clock, which processes share.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

import z0
from z0.actors.database import Database
from z0.actors.fileops import FileOps
from z0.actors.names import Address

from .flows import Sleeper
from .measure import now_ns
from .memory_probe import can_measure, memory_now

QUIET_SECONDS = 0.5  # after the last of those that are due; what is opened without need would be by then
GIVE_UP_SECONDS = 30.0


class Started(msgspec.Struct, frozen=True):
    """What came of starting."""

    begun_ns: int
    """When the runtime was asked to open."""
    open_ns: int
    """When it was."""
    ready_ns: int
    """When a new instance was durable."""
    ended_ns: int
    """When those had ended that were due."""
    opened: list[str]
    """The instances whose files the engine opened, in this order."""
    resident: float
    """KiB of the process, at the end."""


class Ahead(z0.SystemClock):
    """The machine's clock, some hours ahead."""

    def __init__(self, hours: int) -> None:
        """So many."""
        super().__init__()
        self._ahead = timedelta(hours=hours)

    def now(self) -> datetime:
        """The time."""
        return super().now() + self._ahead

    def now_us(self) -> int:
        """The time."""
        return super().now_us() + self._ahead // timedelta(microseconds=1)


class Opens(FileOps):
    """Notes whose files are opened, and when all of some were."""

    def __init__(self, due: list[str]) -> None:
        """Of these."""
        super().__init__()
        self.names: list[str] = []
        self.all = asyncio.Event()
        self._due = set(due)

    def open(self, address: Address, path: Path, *, vfs: str | None, sync: bool) -> Database:
        """The actor's file."""
        self.names.append(address.name)
        if self._due <= set(self.names):
            self.all.set()
        return super().open(address, path, vfs=vfs, sync=sync)


def main() -> None:
    """Usage: python -m z0.bench.sleepers_probe FOLDER HOURS NEW-ID DUE-ID..."""
    folder, hours, new, *due = sys.argv[1:]
    started = asyncio.run(start(Path(folder), int(hours), new, due))
    sys.stdout.write(msgspec.json.encode(started).decode() + "\n")


async def start(path: Path, hours: int, new: str, due: list[str]) -> Started:
    """Start a runtime `hours` from now, create the instance `new`, and wait until those that are `due` have ended."""
    begun, opens = now_ns(), Opens(due)
    runtime = z0.Runtime(path, actors=[Sleeper], clock=Ahead(hours))
    runtime.node.file_ops = opens
    async with runtime:
        open_ns = now_ns()
        await runtime.workflows.create(Sleeper, "30 days", id=new)
        ready = now_ns()
        async with asyncio.timeout(GIVE_UP_SECONDS):
            await opens.all.wait()
            await asyncio.gather(*(runtime.workflows.get(Sleeper, id).result() for id in due))
        ended = now_ns()
        await asyncio.sleep(QUIET_SECONDS)
        return Started(begun, open_ns, ready, ended, opens.names, memory_now().resident if can_measure() else 0.0)


if __name__ == "__main__":
    main()
