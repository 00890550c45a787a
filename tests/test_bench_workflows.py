"""The cases about whole workflows: what they count, and that what they count can go wrong."""

from __future__ import annotations

import asyncio
import random
import sys
from array import array
from pathlib import Path

import pytest

from z0.bench.cases import CASES
from z0.bench.measure import Series, Stretch
from z0.bench.peers import versus
from z0.bench.result import Result
from z0.bench.settings import Settings
from z0.bench.sleepers_case import DUE, _populate
from z0.bench.sleepers_probe import start


def smoke(name: str, path: Path) -> Result:
    async def run() -> Result:
        return await CASES[name](Settings(directory=path, rounds=1, rng=random.Random(1), smoke=True))

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "first", "rows"),
    [
        ("workflow-10", "z0 workflow, 1 step", 5),
        ("replay", "z0 resume from the file", 3),
        ("sleepers", "process start, until ready", 6),
    ],
)
def test_a_case_has_its_rows_and_judges_what_it_measured(name: str, first: str, rows: int, tmp_path: Path) -> None:
    result = smoke(name, tmp_path)
    assert (result.rows[0].name, len(result.rows)) == (first, rows)
    assert all(verdict.outcome in ("met", "missed") for verdict in result.verdicts)
    openings = [verdict.value for verdict in result.verdicts if verdict.what.startswith("files opened")]
    assert openings == ([0] if name == "sleepers" else [])
    assert list(tmp_path.iterdir()) == []


def test_a_start_over_sleepers_notes_every_file_that_it_opens(tmp_path: Path) -> None:
    async def started() -> list[str]:
        await _populate(tmp_path / "data", 3, 1)
        return (await start(tmp_path / "data", 2, "new", ["due-0-0"])).opened

    assert sorted(asyncio.run(started())) == [*(f"due-0-{number}" for number in range(DUE)), "new"]


async def test_a_player_takes_the_turns_that_it_is_told_to(tmp_path: Path) -> None:
    """Of z0's own side; the others' environments are made by `make bench-peers`."""
    commands = {"z0": (sys.executable, versus.HERE / "z0_player.py")}
    async with versus.players(tmp_path, commands, warm=5) as players:
        hello = await players["z0"].hears()
        assert "synchronous=FULL" in hello["durability"]
        for name, turn in versus.turns(smoke=True).items():
            if turn.player == "z0":
                stretch = await players["z0"].take(turn)
                one = turn.turn == "workflow"
                assert stretch.operations == (turn.operations or (1 if one else turn.size)), name
                assert stretch.p50_us > 0


async def test_a_player_that_ends_by_itself_ends_the_comparison(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="exit code 3"):
        async with versus.players(tmp_path, {"x": (sys.executable, tmp_path / "broken.py")}, warm=5) as players:
            await players["x"].hears()


def test_a_comparison_is_of_the_same_rounds() -> None:
    def stretch(us: int) -> Stretch:
        return Stretch(samples=array("q", [us * 1000]), elapsed_ns=us * 1000, cpu_ns=0)

    times = {"z0 step": (100, 200), "z0 step, a new instance": (200, 400), "DBOS: step": (1_000, 2_000)}
    series = {
        name: Series(name, [stretch(us) for us in times.get(name, (500, 500))]) for name in versus.turns(smoke=True)
    }
    result = versus.result(series, ["said"])
    assert [verdict.value for verdict in result.verdicts] == [10.0, 5.0]
    assert [verdict.outcome for verdict in result.verdicts] == ["met", "missed"]
    assert {row.name for row in result.rows} == set(versus.turns(smoke=True))
    assert result.notes[0] == "said"
