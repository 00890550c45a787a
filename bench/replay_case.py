"""`replay`: how fast an instance that is not in memory goes through the steps that its journal has.

What is timed is all that lies between an event's being sent to a waiting instance of which nothing is in memory, and
the first line of the first step that its journal does not have: opening the file, reading and decoding the journal
from SQLite, folding it, committing the event durably, and running the body from its first line, every step being
asked for by the user's code as on the first run and answered with its decoded result. Each sample has a runtime of its
own, opened before. It is shown per journaled step.

Beside it: `z0.testing.replay`, today's code against a file that is only read, which makes a runtime for it each time;
and reading and decoding the rows of the same journal with apsw and msgspec, which is as little as a replay can be.
"""

from __future__ import annotations

import shutil
import statistics
from array import array
from pathlib import Path

import apsw
import msgspec

import z0
from z0.testing import replay as replay_file

from .flows import Long, Reached
from .measure import Contender, Stopwatch, Stretch, interleave, now_ns
from .result import Result, Verdict, latency_row
from .settings import Settings

RESUME = "z0 resume from the file"
FILE = "z0 replay of a copied file"
READ = "bare SELECT and decode"
ID = "long"
SELECT = "SELECT seq, at, event, step, attempt, position, started, value, detail FROM z0_journal ORDER BY seq"
VALUE, DETAIL = 7, 8


async def replay(settings: Settings) -> Result:
    """Steps a second, of a journal that was evicted."""
    steps = settings.size(50, 5_000)
    with settings.folder("replay") as folder:
        await _populate(folder / "z0", steps)
        copy = folder / "copy"
        shutil.copytree(folder / "z0", copy)
        (file,) = copy.glob(f"*/{Long.namespace}/*.sqlite")
        contenders: dict[str, Contender] = {
            RESUME: lambda: _resume_stretch(folder / "z0", steps),
            FILE: lambda: _file_stretch(file, steps),
            READ: lambda: _read_stretch(file, steps),
        }
        series = await interleave(contenders, rounds=settings.rounds, rng=settings.rng)
    resume, floor = series[RESUME], series[READ]
    return Result(
        name="replay",
        question=f"an instance with a journal of {steps:,} steps goes on out of its file: per journaled step",
        rows=[latency_row(resume, floor=floor), latency_row(series[FILE], floor=floor), latency_row(floor)],
        verdicts=[
            Verdict(
                what="journaled steps a second, until the first new one",
                value=statistics.median(resume.rates),
                at_least=20_000.0,
                unit="steps/s",
            )
        ],
        notes=["a sample is one replay of the whole journal, shown per step"],
    )


async def _populate(path: Path, steps: int) -> None:
    """A data directory with one instance, which has taken its steps and waits for an event."""
    async with z0.Runtime(path, actors=[Long], env=Reached(), durability="relaxed") as runtime:
        instance = await runtime.workflows.create(Long, steps, id=ID)
        await instance.wait_for_status("waiting")


async def _resume_stretch(path: Path, steps: int) -> Stretch:
    """Wake the instance once; it then waits for the next event."""
    reached = Reached()
    async with z0.Runtime(path, actors=[Long], env=reached, durability="full") as runtime:
        instance = runtime.workflows.get(Long, ID)
        with Stopwatch() as watch:
            start = now_ns()
            await instance.send_event("go")
            elapsed = await reached.when - start
    return watch.stretch(array("q", [elapsed]), batch=steps)


async def _file_stretch(file: Path, steps: int) -> Stretch:
    with Stopwatch() as watch:
        start = now_ns()
        found = await replay_file(file, Long, env=Reached())
        elapsed = now_ns() - start
    if not found.same or found.steps < steps:
        raise RuntimeError(f"the replay went wrong: {found}")
    return watch.stretch(array("q", [elapsed]), batch=steps)


async def _read_stretch(file: Path, steps: int) -> Stretch:
    load, plain = msgspec.msgpack.decode, msgspec.json.decode
    with Stopwatch() as watch:
        start = now_ns()
        connection = apsw.Connection(str(file))
        for row in connection.execute(SELECT):
            if row[VALUE] is not None:
                load(row[VALUE])
            if row[DETAIL] is not None:
                plain(row[DETAIL])
        elapsed = now_ns() - start
        connection.close()
    return watch.stretch(array("q", [elapsed]), batch=steps)
