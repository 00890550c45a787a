"""`scale`: many actors on disk, few of them in memory: starting, touching them at random, what it takes.

The files are written as the engine would write them, without a message each, for that alone would take minutes.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

import z0
from z0.actors.catalog import CATALOG_FILE
from z0.actors.database import Database
from z0.actors.kind import Kind
from z0.actors.names import DEFAULT_TENANT, file_path
from z0.actors.schema import SCHEMA_VERSION

from .alarm_case import Bell
from .measure import now_ns
from .memory_probe import STATUS
from .result import Result, Verdict, plain_row
from .settings import Settings
from .stats import percentile

_LIST = "INSERT INTO actors(tenant, namespace, name, path, size, facts, next_alarm) VALUES(?, ?, ?, ?, ?, 0, ?)"
_LATER_US = 4_102_444_800_000_000  # 2100: the index holds them all, none is due


async def scale(settings: Settings) -> Result:
    """Start over many actors, then touch some thousands of them with room for few."""
    count, touched, most = settings.size(200, 100_000), settings.size(60, 4_000), settings.size(20, 1_000)
    starts_ms, touches_ms, descriptors, megabytes = [], [], [0], [0.0]
    with settings.folder("scale") as folder:
        await _populate(folder / "z0", count)
        limits = z0.Limits(resident_actors=most)
        for _ in range(settings.size(1, 5)):
            start = now_ns()
            runtime = z0.Runtime(folder / "z0", actors=[Bell], env=[], limits=limits)
            await runtime.open()
            starts_ms.append((now_ns() - start) / 1e6)
            await runtime.close()
        async with z0.Runtime(folder / "z0", actors=[Bell], env=[], limits=limits) as runtime:
            for number in settings.rng.sample(range(count), touched):
                start = now_ns()
                await runtime.get(Bell, f"bell-{number:06d}").fact()
                touches_ms.append((now_ns() - start) / 1e6)
                if len(touches_ms) % 50 == 0:
                    descriptors.append(len(os.listdir("/proc/self/fd")) if STATUS.exists() else 0)
                    megabytes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            resident = len(runtime.node.hosts)
    return Result(
        name="scale",
        question=f"{count} actors on disk, {touched} of them touched once, room for {most}",
        rows=[plain_row("start", starts_ms, unit="ms"), plain_row("touch a cold one", touches_ms, unit="ms")],
        verdicts=[
            Verdict(what="start of the runtime", value=max(starts_ms), at_most=300.0, unit="ms"),
            Verdict(what="actors in memory", value=resident, at_most=most, unit=""),
            Verdict(what="descriptors in use", value=max(descriptors), at_most=3 * most + 100, unit=""),
        ],
        notes=[
            f"touches: p99 {percentile(sorted(touches_ms), 99):.2f} ms; each writes a fact, durably",
            f"memory of the whole process, at most: {max(megabytes):,.0f} MB",
        ],
    )


async def _populate(path: Path, count: int) -> None:
    async with z0.Runtime(path, env=[]) as runtime:
        await runtime.get(Bell, "first").fact()
    kind = Kind(Bell)
    catalogue = Database(path / CATALOG_FILE, vfs=None, sync=False)
    catalogue.begin()
    for number in range(count):
        address = (DEFAULT_TENANT, kind.namespace, f"bell-{number:06d}")
        meta = dict(zip(("tenant", "namespace", "name"), address, strict=True))
        image = kind.image({"schema": SCHEMA_VERSION, **meta}).database
        relative = file_path(*address)
        (path / relative).write_bytes(image)
        catalogue.write(_LIST, (*address, str(relative), len(image), _LATER_US))
    catalogue.commit()
    catalogue.checkpoint(wait=True)
    catalogue.close()
