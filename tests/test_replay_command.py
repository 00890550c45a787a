"""`z0 replay` tells what a user can mend in one line, and never the exit code of something else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import z0
from z0.cli import main
from z0.testing import VirtualClock

HERE = __name__
FITS, ERROR = 0, 2


class Bill(z0.Workflow):
    env: str

    async def run(self, event: z0.Event[None], step: z0.Step) -> str:
        await step.do("send", lambda: 1)
        return f"with {self.env}"


class Waiting(Bill):
    """Today's code waits for what no replay brings about."""

    namespace = "Waiting"

    async def run(self, event: z0.Event[None], step: z0.Step) -> str:
        await step.do("send", lambda: 1)
        await asyncio.Event().wait()
        return ""


def service() -> str:
    return "service"


def no_service() -> str:
    raise OSError("no password")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)

    async def run() -> None:
        clock = VirtualClock()
        async with z0.Runtime("data", actors=[Bill], env="service", clock=clock) as runtime:
            await runtime.workflows.create(Bill, id="one")
            await clock.settle()

    asyncio.run(run())
    return "data/default/Bill/one.sqlite"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(1)", "SystemExit: 1"),
        ("class Bill: ...", "is no subclass of z0.Workflow"),
        ("", "has no attribute 'Bill'"),
    ],
)
def test_code_that_cannot_be_imported_is_told_in_one_line_with_exit_code_2(
    file: str, capsys: pytest.CaptureFixture[str], code: str, told: str, request: pytest.FixtureRequest
) -> None:
    name = f"broken_{request.node.callspec.indices['code']}"
    Path(f"{name}.py").write_text(f"\n{code}\n")
    assert main(["replay", file, f"{name}:Bill"]) == ERROR
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert f"{name}.py, line 2" in said or "attribute" in told or "subclass" in told


def test_a_body_that_waits_for_something_else_than_steps_is_given_up(
    file: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["replay", file, f"{HERE}:Waiting", "--timeout", "0.1 seconds"]) == ERROR
    assert "does it wait for something that is no step?" in capsys.readouterr().err
    assert caplog.records == []
    assert main(["replay", file, f"{HERE}:Waiting", "--timeout", "bogus"]) == ERROR


def test_a_directory_in_the_place_of_a_file_and_a_file_in_that_of_a_directory_are_called_so(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", "data", f"{HERE}:Bill"]) == ERROR
    assert "is a directory" in capsys.readouterr().err
    for words in (["ls", file], ["workflows", "ls", file]):
        assert main(words) == ERROR
        assert "is a file" in capsys.readouterr().err


def test_a_body_is_given_the_env_that_is_named(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", file, f"{HERE}:Bill", "--env", f"{HERE}:service"]) == FITS
    assert main(["replay", file, f"{HERE}:Bill"]) == 1
    assert main(["replay", file, f"{HERE}:Bill", "--env", f"{HERE}:no_service"]) == ERROR
    assert "OSError: no password" in capsys.readouterr().err
