"""`idle-memory`: what an open idle actor holds and an evicted one leaves, each in a fresh process."""

from __future__ import annotations

import asyncio
import statistics
import sys
from pathlib import Path

import msgspec

from .memory_probe import FACTS, Memory, can_measure
from .result import Result, Row, Verdict, plain_row
from .settings import Settings

REPEATS = 2
BARE = "bare open connection"


async def idle_memory(settings: Settings) -> Result:
    """Memory per actor, by growth of the process."""
    question = f"memory of an idle actor that took {FACTS} facts, open and evicted"
    if not can_measure():
        notes = ["skipped: this system has no /proc/self/status"]
        return Result(name="idle-memory", question=question, rows=[], verdicts=[], notes=notes)
    count = settings.size(5, 200)
    repeats = settings.size(1, REPEATS)
    found = {kind: await _probes(settings, kind, count, repeats) for kind in ("used", "idle", "bare")}
    evictions = 5 * count
    found["evicted"] = await _probes(settings, "evicted", evictions, 1)
    rows = [
        _row("z0 open actor, just used", found["used"], count, floor=found["bare"]),
        _row("z0 open actor, idle", found["idle"], count, floor=found["bare"]),
        _row(BARE, found["bare"], count),
        _row("z0 evicted actor", found["evicted"], evictions),
    ]
    anonymous = [
        f"{kind} {statistics.median(value.anonymous for value in values):.1f}" for kind, values in found.items()
    ]
    return Result(
        name="idle-memory",
        question=question,
        rows=rows,
        verdicts=[
            Verdict(what="open idle actor", value=rows[1].p50, at_most=200.0, unit="KiB"),
            Verdict(what="evicted actor", value=rows[3].p50, at_most=1.0, unit="KiB"),
        ],
        notes=[
            f"growth of resident memory per actor, over {count} in a fresh process, -shm mappings included",
            f"evicted actors: over {evictions} after as many others, so the catalogue's page cache is filling",
            f"of it anonymous, KiB: {', '.join(anonymous)}",
        ],
    )


async def _probes(settings: Settings, kind: str, count: int, repeats: int) -> list[Memory]:
    probes = []
    for number in range(repeats):
        with settings.folder(f"memory-{kind}-{number}") as folder:
            probes.append(await _probe(kind, folder, count))
    return probes


async def _probe(kind: str, folder: Path, count: int) -> Memory:
    command = (sys.executable, "-m", "z0.bench.memory_probe", kind, str(folder), str(count))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the memory probe ended with exit code {process.returncode}; its error is above")
    return msgspec.json.decode(out, type=Memory)


def _row(name: str, values: list[Memory], count: int, *, floor: list[Memory] | None = None) -> Row:
    spread = None
    if floor is not None:
        spread = [one.resident / max(other.resident, 1.0) for one, other in zip(values, floor, strict=True)]
    return plain_row(
        name,
        [value.resident for value in values],
        unit="KiB",
        samples=count * len(values),
        floor=BARE if floor else None,
        spread=spread,
    )
