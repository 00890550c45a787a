"""z0 ends every scenario as the real Durable Objects did when they were last asked, or as the page says and why.

`make conformance` asks them again. Here nothing but z0 runs: what workerd did is in tests/conformance/outcomes.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import compare, subject, workerd
from tests.conformance.compare import Compared
from tests.conformance.differences import DIFFERENCES
from tests.conformance.run import PAGE, RECORD, ROOT, play_all
from tests.conformance.scenario import Scenario
from tests.conformance.scenarios import CHAPTERS, SCENARIOS
from tests.conformance.subject import Subject

RECORDED: dict[str, Any] = json.loads(RECORD.read_text())
PER_CHAPTER = [pytest.param(scenarios, id=chapter) for chapter, scenarios in CHAPTERS.items()]


def recorded(scenarios: list[Scenario], side: str) -> dict[str, Any]:
    """How they ended; z0's ends are kept where they differ."""
    kept = {one.name: RECORDED["scenarios"][one.name] for one in scenarios}
    return {name: {"outcome": its.get(side, its["workerd"])} for name, its in kept.items()}


@pytest.mark.parametrize("scenarios", PER_CHAPTER)
async def test_every_scenario_ends_as_it_did_beside_the_real_durable_objects(scenarios: list[Scenario]) -> None:
    ours = await play_all(scenarios)
    results = compare.compared(scenarios, recorded(scenarios, "workerd"), ours)
    assert [(one.verdict, one) for one in results if not one.as_it_should_be] == []
    as_before = recorded(scenarios, "z0")
    assert {name: its["outcome"] for name, its in ours.items()} == {
        name: its["outcome"] for name, its in as_before.items()
    }


def test_the_page_and_the_record_name_the_scenarios_that_there_are() -> None:
    assert compare.renewed(PAGE.read_text(), compare.table(CHAPTERS, workerd.VERSION)) == PAGE.read_text()
    assert list(RECORDED["scenarios"]) == [one.name for one in SCENARIOS]
    assert RECORDED["workerd"] == workerd.VERSION
    lock = json.loads((RECORD.parent / "package-lock.json").read_text())
    assert lock["packages"]["node_modules/workerd"]["version"] == workerd.VERSION


def test_every_scenario_has_a_name_of_its_own_and_every_difference_a_reason_that_is_used() -> None:
    assert [name for name, times in Counter(one.name for one in SCENARIOS).items() if times > 1] == []
    assert {one.differs for one in SCENARIOS} - {None} == set(DIFFERENCES)
    assert len(SCENARIOS) >= 60


class Reversed(Subject):
    """An actor that gets one thing wrong."""

    def _do_list(self, options: dict[str, Any] | None = None) -> list[Any]:
        return super()._do_list(options)[::-1]


async def test_a_wrong_actor_is_reported(tmp_path: Path) -> None:
    one = next(one for one in SCENARIOS if one.name == "A list begins with start and ends before end")
    theirs = recorded([one], "workerd")
    right = await subject.play(one, tmp_path / "right")
    wrong = await subject.play(one, tmp_path / "wrong", {"Subject": Reversed})
    assert verdicts(compare.compared([one], theirs, {one.name: right})) == ["same"]
    assert verdicts(compare.compared([one], theirs, {one.name: wrong})) == ["UNLISTED"]


async def test_a_difference_that_is_gone_is_reported(tmp_path: Path) -> None:
    one = next(one for one in SCENARIOS if one.differs is None)
    ours = {one.name: await subject.play(one, tmp_path)}
    results = compare.compared([one._replace(differs="stubs")], recorded([one], "workerd"), ours)
    assert verdicts(results) == ["NO LONGER"]


def verdicts(results: list[Compared]) -> list[str]:
    return [one.verdict for one in results]


def test_without_node_the_command_says_what_is_missing(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "tests.conformance.run", "--modules", str(tmp_path / "modules")],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (said.returncode, said.stdout) == (2, "")
    assert "node and npm not found: install Node.js" in said.stderr
    assert not (tmp_path / "modules").exists()


def program(folder: Path, *lines: str) -> Path:
    """One that does not do what workerd does; its process id is in the file `pid`."""
    path = folder / "program"
    path.write_text("\n".join(("#!/bin/sh", f"echo $$ > '{folder}/pid'", *lines)))
    path.chmod(0o700)
    return path


LISTENS = 'echo \'{"event": "listen", "socket": "http", "port": 1}\''


@pytest.mark.parametrize(
    "ends", ["exec sleep 60", "trap '' TERM; while :; do sleep 1; done"], ids=["gently", "by force"]
)
def test_workerd_does_not_outlive_a_failure(tmp_path: Path, ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workerd, "_STOP_SECONDS", 0.2)
    with pytest.raises(workerd.Unavailable, match="did not answer"):
        workerd.play_all(SCENARIOS[:3], program(tmp_path, LISTENS, ends))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_workerd_that_does_not_start_is_reported_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(workerd.Unavailable, match="cannot run here"):
        workerd.play_all(SCENARIOS[:3], program(tmp_path, "echo cannot run here >&2"))
