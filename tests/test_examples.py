"""Each example runs as a script, again on what it has left, and leaves only the data that it was told to keep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SCRIPTS = {
    "invoice_billing": "Billed(outcome='paid', amount=4793140, owed=0)",
    "payment_reconciliation": "account 3374: 105 of 107 postings are on the statement",
    "crm_sync": "74 customers, 8 pages, 3 runs, 9 requests",
    "transfer_saga": "bribe failed: account blocked is blocked",
}


def run(name: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", "data"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def heads(folder: Path) -> dict[str, str]:
    """Each actor's facts, as the command line shows them."""
    shown = subprocess.run(
        [sys.executable, "-m", "z0", "ls", folder / "data", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return {"ls": shown.stdout}


@pytest.mark.parametrize(("name", "line"), SCRIPTS.items())
def test_it_tells_what_happened_and_does_nothing_twice(tmp_path: Path, name: str, line: str) -> None:
    assert line in run(name, tmp_path).splitlines()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
