"""`z0 bench`: run the cases and show what z0 costs beyond the bare thing."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

import z0

from . import machine
from .cases import CASES
from .floors import sqlite_version
from .report import Report, show, to_json
from .result import Result
from .settings import Settings

ROUNDS = 9
ROUNDS_SMOKE = 2
WIDTH_MIN = 140

app = App(name="bench", version_flags=[])


@app.default
def bench(
    *,
    only: Annotated[str, Parameter(help="Cases to run, separated by commas; all by default.")] = "",
    rounds: Annotated[int | None, Parameter(help="Interleaved rounds: 9, or 2 in a smoke run.")] = None,
    seed: Annotated[int, Parameter(help="Decides the order of rounds and the facts, not their keys.")] = 1,
    directory: Annotated[
        Path | None,
        Parameter(name="--dir", help="A folder on the disk to measure; by default the current one."),
    ] = None,
    smoke: Annotated[bool, Parameter(negative="", help="Run everything tiny; nothing is judged.")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON document.")] = False,
) -> int:
    """Measure z0 beside bare SQLite, a bare sync and a bare coroutine, on this machine.

    The cases: append, append-cpu, append-64, entities-64, call, cold, fold, idle-memory, idempotent, alarm, alarm-late,
    alarm-restart, alarm-month, scale, step, steps-64, workflow-10, replay, sleepers.
    """
    names = [name.strip() for name in only.split(",") if name.strip()] or list(CASES)
    problem = _problem(names, rounds, directory)
    if problem:
        sys.stderr.write(f"z0 bench: {problem}\n")
        return 2
    raised = not smoke and machine.raise_priority()
    loop_factory = _loop_factory()
    with _working_directory(directory) as path:
        described = machine.describe(path, z0=z0.__version__, sqlite=sqlite_version(), priority_raised=raised)
        settings = Settings(
            directory=path,
            rounds=rounds or (ROUNDS_SMOKE if smoke else ROUNDS),
            rng=random.Random(seed),
            smoke=smoke,
        )
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                results = runner.run(_run(settings, names))
        except KeyboardInterrupt:
            sys.stderr.write("z0 bench: interrupted, nothing to report\n")
            return 130
    report = Report(machine=described, rounds=settings.rounds, seed=seed, smoke=smoke, results=results)
    if as_json:
        sys.stdout.write(to_json(report) + "\n")
    else:
        console = Console()
        show(report, console if console.width >= WIDTH_MIN else Console(width=WIDTH_MIN))
    return 0


async def _run(settings: Settings, names: list[str]) -> list[Result]:
    results = []
    for name in names:
        sys.stderr.write(f"measuring {name}\n")  # a spinner's thread would be measured too
        results.append(await CASES[name](settings))
    return results


def _problem(names: list[str], rounds: int | None, directory: Path | None) -> str | None:
    unknown = [name for name in names if name not in CASES]
    if unknown:
        return f"no case is called {', '.join(unknown)}; --only takes {', '.join(CASES)}"
    if rounds is not None and rounds < 1:
        return "--rounds is at least 1"
    if directory is not None and not directory.is_dir():
        return f"--dir {directory} is not a folder"
    return None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


@contextmanager
def _working_directory(given: Path | None) -> Iterator[Path]:
    """A fresh folder on a real disk, removed afterwards."""
    parent = given if given is not None else _default_parent()
    with tempfile.TemporaryDirectory(prefix=".z0-bench-", dir=parent) as path:
        yield Path(path)


def _default_parent() -> Path:
    candidates = [Path.cwd(), Path(tempfile.gettempdir())]
    writable = [path for path in candidates if os.access(path, os.W_OK)]
    on_disk = [path for path in writable if not machine.file_system(path).in_memory]
    return (on_disk or writable or candidates)[0]
