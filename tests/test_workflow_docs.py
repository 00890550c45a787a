"""docs/workflows.md shows a program that runs as it is printed, and names what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import z0
from z0 import workflow_commands

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "workflows.md").read_text()


def test_the_program_runs_as_it_is_printed_also_the_second_time(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "billing.py").write_text(program)
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, "billing.py"], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
        )
        assert (ran.returncode, ran.stdout) == (0, "250 paid by card\n"), ran.stderr


def test_no_two_programs_that_are_printed_share_a_directory_or_an_instance() -> None:
    pages = [PAGE, (ROOT / "README.md").read_text(), (ROOT / "docs" / "serving.md").read_text()]
    used = [re.findall(r'z0\.Runtime\("(var/\w+)"|\bid="(inv-[\w-]+)"', page) for page in pages]
    assert all(used)
    each = [name for page in used for pair in page for name in pair if name]
    assert len(each) == len(set(each))


def test_programs_that_are_printed_can_be_imported_by_commands_without_being_run() -> None:
    for page in (PAGE, (ROOT / "README.md").read_text()):
        programs = [each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "asyncio.run(" in each]
        assert programs
        assert all('\nif __name__ == "__main__":\n    asyncio.run(' in each for each in programs)


def test_the_commands_that_the_page_names_are_those_that_there_are() -> None:
    part = PAGE.partition("### From a shell")[2].partition("Such a command")[0]
    named = set(re.findall(r"`(?:z0 workflows )?([a-z][a-z-]*)`", part))
    there = {each for each in workflow_commands.app if not each.startswith("-")}
    assert named - {"fork"} == there


def test_every_name_that_the_page_uses_exists() -> None:
    assert [name for name in re.findall(r"`step\.(\w+)", PAGE) if not hasattr(z0.Step, name)] == []
    given = {*dir(z0.RollbackContext), "attempt"}
    assert set(re.findall(r"`ctx\.(\w+)", PAGE)) - given == set()
    assert [name for name in re.findall(r"`instance\.(\w+)", PAGE) if not hasattr(z0.Instance, name)] == []
    assert [name for name in re.findall(r"`runtime\.workflows\.(\w+)", PAGE) if not hasattr(z0.Workflows, name)] == []
