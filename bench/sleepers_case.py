"""`sleepers`: a program starts over many sleeping workflows, of which a few are due.

Each start is a process of its own, and counts as ready when a new instance in it is durable: the interpreter's start
and all imports are in that time. The engine's own openings of files are counted, from the start until those that were
due have ended and a while longer. What sleepers take in memory is what the process holds beyond one that starts over
those alone that are due.

They are created by `create_batch`, with `durability="relaxed"`: what is measured begins afterwards.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

import z0

from .flows import Sleeper
from .measure import now_ns
from .result import Result, Verdict, plain_row
from .settings import Settings
from .sleepers_probe import Started

DUE = 5  # at each start
BATCH = 1_000
PATIENCE = 1_000


async def sleepers(settings: Settings) -> Result:
    """How long a start takes over sleeping instances, and what it opens."""
    count, starts = settings.size(20, 10_000), settings.size(1, 3)
    with settings.folder("sleepers") as folder:
        alone, many = folder / "alone", folder / "many"
        await _populate(alone, 0, starts)
        seconds = await _populate(many, count, starts)
        disk = sum(path.stat().st_blocks * 512 for path in many.rglob("*.sqlite")) / 1024
        lone, found = [], []
        for number in range(starts):
            lone.append((await _start(alone, number))[1])
            found.append(await _start(many, number))
    more = [(one.resident - other.resident) / count for (_, one), other in zip(found, lone, strict=True)]
    ready = [(one.ready_ns - spawned) / 1e9 for spawned, one in found]
    extra = [len([id for id in one.opened if id not in _due(number)]) for number, (_, one) in enumerate(found)]
    total = count + starts * DUE
    return Result(
        name="sleepers",
        question=f"a process starts over {count:,} sleeping workflows, {DUE} of which are due",
        rows=[
            plain_row("process start, until ready", ready, unit="s"),
            plain_row("opening the runtime", [(one.open_ns - one.begun_ns) / 1e6 for _, one in found], unit="ms"),
            plain_row("from then, until those due have ended", [_ended_ms(one) for _, one in found], unit="ms"),
            plain_row("memory of a sleeper", more, unit="KiB"),
            plain_row("its file", [disk / total], unit="KiB"),
            plain_row("creating them", [seconds / total * 1e6], samples=total, per_second=total / seconds),
        ],
        verdicts=[
            Verdict(what="process start, until ready", value=max(ready), at_most=1.0, unit="s"),
            Verdict(what="files opened beyond those due", value=max(extra), at_most=0.0, unit=""),
        ],
        notes=[
            f"memory: of {count:,} sleepers, beyond a process that starts over the {DUE} alone that are due",
            'ready: a new instance is durable. Creating: create_batch, durability="relaxed"',
        ],
    )


def _ended_ms(started: Started) -> float:
    return (started.ended_ns - started.open_ns) / 1e6


def _due(start: int) -> list[str]:
    return [f"due-{start}-{number}" for number in range(DUE)]


async def _populate(path: Path, count: int, starts: int) -> float:
    """A data directory of instances that all sleep; how long creating them took, in seconds.

    At each start others are due, for each has its clock two hours later than the one before.
    """
    limits = z0.Limits(idle_seconds=1.0)
    wanted = [{"id": f"sleeper-{number:06d}", "payload": "30 days"} for number in range(count)]
    wanted += [{"id": id, "payload": f"{1 + 2 * start} hours"} for start in range(starts) for id in _due(start)]
    async with z0.Runtime(path, actors=[Sleeper], durability="relaxed", limits=limits) as runtime:
        begun = now_ns()
        for first in range(0, len(wanted), BATCH):
            report = await runtime.workflows.create_batch(Sleeper, wanted[first : first + BATCH])
            if report.errors:
                raise RuntimeError(f"not created: {report.errors[:3]}")
        seconds = (now_ns() - begun) / 1e9
        for _ in range(PATIENCE):
            if await runtime.workflows.count(Sleeper, status="waiting") == len(wanted):
                return seconds
            await asyncio.sleep(0.01)
    raise RuntimeError("not all of them sleep")


async def _start(path: Path, number: int) -> tuple[int, Started]:
    """Start a process over the directory: when it was spawned, and what it says. What it opens is checked."""
    new, hours = f"new-{number}", 2 + 2 * number
    command = (sys.executable, "-m", "z0.bench.sleepers_probe", str(path), str(hours), new, *_due(number))
    spawned = now_ns()
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the start ended with exit code {process.returncode}; its error is above")
    started = msgspec.json.decode(out, type=Started)
    if not {new, *_due(number)} <= set(started.opened):
        raise RuntimeError(f"openings were missed: {started.opened}")
    return spawned, msgspec.structs.replace(started, opened=[name for name in started.opened if name != new])
