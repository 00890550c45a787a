"""z0 beside DBOS on SQLite, in one run: `make bench-peers`.

Each engine is a process of its own, in its own environment. In each round every turn of every process comes once, in
shuffled order, while the others wait: so all see the same machine, and ratios are of the same round. Each process also
writes bare durable rows with its own SQLite, as a floor.

Usage: python bench/peers/versus.py PYTHON-OF-THE-PEERS [--smoke]
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
from array import array
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

import z0
from z0.bench import machine
from z0.bench.floors import sqlite_version
from z0.bench.measure import Series, Stretch, joined
from z0.bench.report import Report, show
from z0.bench.result import Result, Row, Verdict, latency_row, throughput_row
from z0.bench.stats import median_ratio

HERE = Path(__file__).parent
SEED = 1
WIDTH_MIN = 140
ALONE = ("z0 step", "z0 step, a new instance", "z0 workflow, 1 step", "z0 workflow, 10 steps")
LABELS = ("DBOS", "DBOS, WAL")
SLICES = 2
LINE_BYTES = 2**24

Command = tuple[str | Path, ...]


class Turn(NamedTuple):
    """What one process is told to do, and how much of it."""

    player: str
    turn: str
    size: int
    operations: int = 0
    """How many one turn has, when it does not say what each took."""


def turns(smoke: bool) -> dict[str, Turn]:
    """All turns by the names that they have in the table."""
    steps, few, each = (3, 2, 2) if smoke else (25, 10, 10)
    found = {
        "z0 step": Turn("z0", "step", 4 * steps),
        "z0 step, a new instance": Turn("z0", "new steps", steps),
        "z0 workflow, 1 step": Turn("z0", "workflow", 1),
        "z0 workflow, 10 steps": Turn("z0", "workflow", 10),
        "z0 steps, 64 workflows": Turn("z0", "64", each, 64 * each),
        "bare INSERT, apsw": Turn("z0", "insert", 4 * steps),
    }
    for player, label in zip(("dbos", "dbos-wal"), LABELS, strict=True):
        found |= {
            f"{label}: step": Turn(player, "step", steps),
            f"{label}: async step": Turn(player, "async step", few),
            f"{label}: workflow, 1 step": Turn(player, "workflow", 1),
            f"{label}: workflow, 10 steps": Turn(player, "workflow", 10),
            f"{label}: steps, 64 async": Turn(player, "64", each, 64 * each),
            f"{label}: bare INSERT, sqlite3": Turn(player, "insert", 4 * steps),
        }
    return found


class Player:
    """A process that takes turns."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """It is starting."""
        self._process = process

    async def hears(self) -> dict[str, Any]:
        """What it says next. Raises RuntimeError when it has ended."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a player ended with exit code {await self._process.wait()}; its error is above")
        found: dict[str, Any] = json.loads(line)
        return found

    async def take(self, turn: Turn) -> Stretch:
        """Have it take a turn."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"turn": turn.turn, "count": turn.size}).encode() + b"\n")
        found = await self.hears()
        elapsed = found["elapsed_ns"]
        if turn.operations:
            return Stretch(samples=array("q", [elapsed]), elapsed_ns=elapsed, cpu_ns=0, batch=turn.operations)
        return Stretch(samples=array("q", found["samples"]), elapsed_ns=elapsed, cpu_ns=0)

    async def dismiss(self) -> None:
        """Have it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if await self._process.wait():
            raise RuntimeError(f"a player ended with exit code {self._process.returncode}; its error is above")


def commands(peers: str) -> dict[str, Command]:
    """How each player is started. `peers`: the Python that has DBOS."""
    return {
        "z0": (sys.executable, HERE / "z0_player.py"),
        "dbos": (peers, HERE / "dbos_player.py", "default"),
        "dbos-wal": (peers, HERE / "dbos_player.py", "wal"),
    }


@asynccontextmanager
async def players(folder: Path, commands: Mapping[str, Command], *, warm: int) -> AsyncIterator[dict[str, Player]]:
    """The processes, each in a folder of its own; they end with it, one way or another.

    `warm`: how many operations each does before it says that it is there.
    """
    started = []
    try:
        found = {}
        for name, (python, script, *mode) in commands.items():
            (folder / name).mkdir()
            words = (str(python), str(script), str(folder / name), str(warm), *map(str, mode))
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, limit=LINE_BYTES)
            started.append(process)
            found[name] = Player(process)
        yield found
        for player in found.values():
            await player.dismiss()
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def race(folder: Path, peers: str, smoke: bool, rounds: int) -> tuple[dict[str, Series], list[str]]:
    """All rounds, and what each player says of itself."""
    rng = random.Random(SEED)
    all_turns = turns(smoke)
    series = {name: Series(name, []) for name in all_turns}
    names = list(all_turns)
    async with players(folder, commands(peers), warm=20 if smoke else 2_000) as by_name:
        said = [f"{hello['engine']}: {hello['durability']}" for hello in [await p.hears() for p in by_name.values()]]
        for _ in range(rounds):
            parts: dict[str, list[Stretch]] = {name: [] for name in names}
            for _ in range(1 if smoke else SLICES):
                rng.shuffle(names)
                for name in names:
                    parts[name].append(await by_name[all_turns[name].player].take(all_turns[name]))
            for name in names:
                series[name].stretches.append(joined(parts[name]))
    return series, said


def result(series: dict[str, Series], said: list[str]) -> Result:
    """The table: z0 beside its floor, DBOS beside z0."""
    step, fresh, floor = series["z0 step"], series["z0 step, a new instance"], series["bare INSERT, apsw"]
    rows = [latency_row(each, floor=floor) for name, each in series.items() if name in ALONE]
    rows.append(throughput_row(series["z0 steps, 64 workflows"], floor=step))
    for label in LABELS:
        rows += _rows(series, label)
    own, wal = (series[f"{label}: step"] for label in LABELS)
    return Result(
        name="peers",
        question="a workflow's steps beside those of DBOS",
        rows=[*rows, latency_row(floor)],
        verdicts=[
            _verdict("a step of DBOS / a step of z0", own, step),
            _verdict("a step of DBOS / a step of a new instance of z0", own, fresh),
        ],
        notes=[*said, f"DBOS in WAL mode: {median_ratio(wal.p50s_us, step.p50s_us):.1f} times a step of z0"],
    )


def _rows(series: dict[str, Series], label: str) -> list[Row]:
    beside = {
        "step": "z0 step",
        "async step": "z0 step",
        "workflow, 1 step": "z0 workflow, 1 step",
        "workflow, 10 steps": "z0 workflow, 10 steps",
        "bare INSERT, sqlite3": "bare INSERT, apsw",
    }
    rows = [latency_row(series[f"{label}: {name}"], floor=series[floor]) for name, floor in beside.items()]
    return [*rows, throughput_row(series[f"{label}: steps, 64 async"], floor=series["z0 steps, 64 workflows"])]


def _verdict(what: str, subject: Series, floor: Series) -> Verdict:
    return Verdict(what=f"{what}, p50", value=median_ratio(subject.p50s_us, floor.p50s_us), at_least=8.0)


def main() -> None:
    """Measure and show."""
    peers, smoke = sys.argv[1], "--smoke" in sys.argv[2:]
    raised = not smoke and machine.raise_priority()
    rounds = 2 if smoke else 7
    with tempfile.TemporaryDirectory(prefix=".z0-bench-", dir=Path.cwd()) as path:
        described = machine.describe(Path(path), z0=z0.__version__, sqlite=sqlite_version(), priority_raised=raised)
        series, said = asyncio.run(race(Path(path), peers, smoke, rounds))
    found = [result(series, said)]
    report = Report(machine=described, rounds=rounds, seed=SEED, smoke=smoke, results=found)
    console = Console()
    show(report, console if console.width >= WIDTH_MIN else Console(width=WIDTH_MIN))


if __name__ == "__main__":
    main()
