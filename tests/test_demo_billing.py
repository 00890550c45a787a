"""The demo's bill: begun in a process that kills itself, ended in another, with each effect there once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from z0 import demo
from z0.check import check_all
from z0.demo_actors import Billing
from z0.demo_outside import Call, Outside


def run(data: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "z0", "demo", "--input", str(demo.SAMPLE), "--data", str(data), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


def heads(data: Path) -> dict[str, str | None]:
    return {checked.path: checked.head for checked in check_all(data)}


def test_a_bill_whose_process_is_killed_is_ended_with_each_effect_once_and_never_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = run(data)["billed"]
    assert first["child_exit"] == -signal.SIGKILL
    assert first["killed_in"] == "create invoice"
    assert (first["invoices"], first["letters"], first["payments"]) == (1, 1, 1)
    assert first["runs"] == {"gather charges": 1, "create invoice": 2, "send invoice": 1, "record payment": 1}
    assert first["problems"] == []
    assert first["instance"].startswith(f"{Billing.__name__}/")
    before = heads(data)
    second = run(data)["billed"]
    assert second["already_done"]
    assert second["child_exit"] is None
    assert second["runs"] == first["runs"]
    assert heads(data) == before


def test_a_torn_line_of_the_outside_world_costs_no_other(tmp_path: Path) -> None:
    outside = Outside(tmp_path / "outside")
    calls = tmp_path / "outside" / "calls.jsonl"
    calls.write_bytes(b'{"instance":"x","step":"gath')
    assert outside.calls("x") == []

    class Context:
        instance_id, name = "x", "send invoice"

    outside.called(Context())  # type: ignore[arg-type]
    assert [call.step for call in outside.calls("x")] == ["send invoice"]
    assert isinstance(outside.calls("x")[0], Call)
