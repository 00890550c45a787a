"""The README is true."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import z0.testing

README = Path(__file__).parent.parent / "README.md"


def block(language: str, number: int) -> str:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    return found[number]


async def run(program: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), cwd=program.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_the_first_program_prints_what_the_readme_says_also_the_second_time(tmp_path: Path) -> None:
    program = tmp_path / "first.py"
    program.write_text(block("python", 0))
    expected = block("text", 0)
    assert [await run(program), await run(program)] == [expected, expected]


async def test_the_workflow_bills_once_however_often_it_is_run(tmp_path: Path) -> None:
    program = tmp_path / "billing.py"
    program.write_text(block("python", 2))
    first, again = [await run(program), await run(program)]
    assert first == "sending an invoice over 250\n250 paid by card\n"
    assert again == "250 paid by card\n"


def test_the_names_of_the_testing_module_exist() -> None:
    names = block("python", 1).partition(" import ")[2].split(", ")
    assert [name for name in names if name.strip() not in z0.testing.__all__] == []
