"""Each example runs as a script, again on what it has left, and leaves only the data that it was told to keep."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from wire import Client
from z0.check import check_all
from z0.workflow_files import journal

EXAMPLES = Path(__file__).parent.parent / "examples"


class Example(NamedTuple):
    """What the first and the second run print among other lines, and what the second one asks of services."""

    first: str
    second: str
    asked: tuple[str, ...] = ()


STATEMENT = "account 3374: 105 of 107 postings are on the statement"
REFUSED = "bribe failed: account blocked is blocked"
BILLED = "Billed(outcome='paid', amount=4793140, owed=0)"
RUNS = {
    "invoice_billing": Example(BILLED, BILLED, ("/paid", "/paid")),  # both times of a payment that is booked
    "payment_reconciliation": Example(STATEMENT, STATEMENT),
    "crm_sync": Example("74 customers, 8 pages, 3 runs, 9 requests", "74 customers, 8 pages, 3 runs, 0 requests"),
    "transfer_saga": Example(REFUSED, REFUSED),
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, subprocess.Popen[str]]]]:
    """Every example as a script in a folder of its own: all at once, since most of their time is waiting."""
    started = {}
    env, pipe = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, subprocess.PIPE
    with ExitStack() as stack:
        for name in RUNS:
            folder = tmp_path_factory.mktemp(name)
            line = [sys.executable, str(EXAMPLES / f"{name}.py"), "data"]
            process = subprocess.Popen(line, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            started[name] = (folder, process)
        yield started


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that services are asked for in this process."""
    paths: list[str] = []
    call = Client._call

    async def listen(self: Client, method: str, target: str, *rest: Any) -> Any:
        paths.append(target)
        return await call(self, method, target, *rest)

    monkeypatch.setattr(Client, "_call", listen)
    return paths


def kept(data: Path) -> dict[str, tuple[int, str | None, int]]:
    """Each actor's facts, the hash of all of them, and the entries of its journal."""
    found = {}
    for actor in check_all(data):
        assert actor.problem is None
        entries = [] if actor.namespace == "Account" else journal(Path(actor.path))[1]
        found[f"{actor.namespace}/{actor.name}"] = (actor.facts, actor.head, len(entries))
    return found


@pytest.mark.parametrize("name", RUNS)
def test_an_example_tells_what_happened_and_does_nothing_twice(
    scripts: dict[str, tuple[Path, subprocess.Popen[str]]],
    name: str,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, process = scripts[name]
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert RUNS[name].first in output.splitlines()
    assert [path.name for path in folder.iterdir()] == ["data"]
    before = kept(folder / "data")
    assert sum(facts for facts, *_ in before.values()) > 70
    assert sum(entries for *_, entries in before.values()) > 5
    monkeypatch.setattr(sys, "argv", [f"{name}.py", str(folder / "data")])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert RUNS[name].second in capsys.readouterr().out.splitlines()
    assert kept(folder / "data") == before
    assert tuple(asked) == RUNS[name].asked
