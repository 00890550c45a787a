"""The demo posts every transaction once, proves it, and goes on after any interruption."""

from __future__ import annotations

import gzip
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import z0
from z0 import bank, demo, inspect
from z0.check import check_all
from z0.demo_actors import Account
from z0.demo_view import Report, View
from z0.reconcile import totals

ROWS = gzip.decompress(demo.SAMPLE.read_bytes()).decode().splitlines()


def part(folder: Path, rows: int) -> Path:
    """The first rows of the sample, as a file."""
    path = folder / "part.csv"
    path.write_text("\n".join(ROWS[: rows + 1]) + "\n")
    return path


async def run(path: Path, data: Path) -> tuple[Report, str]:
    output = io.StringIO()
    report = await demo.run(path, data, "full", View(Console(file=output, width=120)))
    return report, output.getvalue()


async def test_every_transaction_becomes_one_fact_and_the_books_are_right(tmp_path: Path) -> None:
    path = part(tmp_path, 300)
    report, output = await run(path, tmp_path / "data")
    assert report.ok
    assert (report.transactions, report.already_there) == (300, 0)
    assert (report.first.facts, report.first.new) == (300, 300)
    assert (report.second.facts, report.second.new) == (300, 0)
    assert report.balances_wrong == report.chains_corrupt == []
    assert report.reconciled.explained
    assert "posting: 300 of 300 facts" in output
    assert "continuing" not in output
    for name, total in totals(bank.read(path)).items():
        file = inspect.find(tmp_path / "data", f"Account/{name}")
        facts = list(inspect.facts(file))
        assert [fact.seq for fact in facts] == list(range(1, total.transactions + 1))
        signed = sum((fact.amount or 0) * (1 if fact.type == "credit" else -1) for fact in facts)
        assert signed == total.balance
        state = inspect.show(file).snapshots[0].state
        assert (state["credits"], state["debits"]) == (total.credits, total.debits)


async def test_facts_keep_the_banks_order_and_say_all_that_it_said(tmp_path: Path) -> None:
    path = part(tmp_path, 300)
    await run(path, tmp_path / "data")
    transactions = list(bank.read(path))
    name = str(transactions[0].account_id)
    facts = list(inspect.facts(inspect.find(tmp_path / "data", f"Account/{name}")))
    own = [transaction for transaction in transactions if str(transaction.account_id) == name]
    for fact, transaction in zip(facts, own, strict=True):
        said = bank.fact_fields(transaction)
        assert {field: getattr(fact, field) for field in said} == said


async def test_a_second_run_writes_nothing(tmp_path: Path) -> None:
    path = part(tmp_path, 200)
    await run(path, tmp_path / "data")
    before = {checked.name: checked.head for checked in check_all(tmp_path / "data")}
    report, output = await run(path, tmp_path / "data")
    assert report.ok
    assert (report.already_there, report.first.new, report.second.new) == (200, 0, 0)
    assert report.speed_up is None
    assert "continuing: 200 facts already there" in output
    assert {checked.name: checked.head for checked in check_all(tmp_path / "data")} == before


async def test_a_longer_file_continues_a_shorter_one(tmp_path: Path) -> None:
    await run(part(tmp_path, 100), tmp_path / "data")
    report, _ = await run(part(tmp_path, 250), tmp_path / "data")
    assert report.ok
    assert (report.already_there, report.first.new) == (100, 150)


async def test_batches_of_a_large_file_join_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "BATCH", 70)
    monkeypatch.setattr(demo, "IN_FLIGHT", 3)
    await run(part(tmp_path, 100), tmp_path / "data")
    report, _ = await run(part(tmp_path, 300), tmp_path / "data")
    assert report.ok
    assert report.first.new == 200


async def test_a_fact_that_the_file_does_not_know_is_reported(tmp_path: Path) -> None:
    path = part(tmp_path, 50)
    name = ROWS[1].split(";")[1]
    async with z0.Runtime(tmp_path / "data") as runtime:
        extra = {"date": "1993-01-01", "balance": 1}
        fields: Any = {"amount": 1, "currency": "CZK", "external_id": "0", "data": extra}
        await runtime.get(Account, name).append("credit", **fields)
    report, _ = await run(path, tmp_path / "data")
    assert not report.ok
    (wrong,) = report.balances_wrong
    assert wrong.startswith(f"{name}: the ledger has ")


async def test_the_same_id_with_another_amount_is_refused(tmp_path: Path) -> None:
    await run(part(tmp_path, 50), tmp_path / "data")
    changed = tmp_path / "changed.csv"
    fields = ROWS[1].split(";")
    fields[5] = "1.00"
    changed.write_text("\n".join([ROWS[0], ";".join(fields)]))
    with pytest.raises(z0.IdempotencyConflict):
        await run(changed, tmp_path / "data")


async def test_a_bad_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = part(tmp_path, 50)
    path.write_text(path.read_text() + "1;2;3\n")
    with pytest.raises(bank.BadTransactionFile, match="line 52"):
        await run(path, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def started(path: Path, data: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "z0", "demo", "--json", "--input", str(path), "--data", str(data)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # whoever runs the tests may ignore Ctrl-C
    )


def finished(path: Path, data: Path) -> dict[str, Any]:
    process = started(path, data)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    return dict(json.loads(output))


def interrupted(path: Path, data: Path, stop: signal.Signals, when: Callable[[], bool]) -> tuple[int, str]:
    """Start the demo and send it a signal as soon as something is so."""
    process = started(path, data)
    while process.poll() is None and not when():
        try:
            process.wait(0.001)
        except subprocess.TimeoutExpired:
            continue
    process.send_signal(stop)
    _, errors = process.communicate(timeout=100)
    return process.returncode, errors


def enough(data: Path, least: int) -> bool:
    """Whether so many accounts have their file."""
    return len(list(data.glob("default/Account/*.sqlite"))) >= least


def posted(data: Path) -> int:
    """How many facts the accounts have; every ledger is sound."""
    results = list(check_all(data))
    assert [checked.problem for checked in results if checked.problem] == []
    return sum(checked.facts for checked in results if checked.namespace == "Account")


def test_after_kill_9_it_continues_with_nothing_lost_or_twice(tmp_path: Path) -> None:
    data = tmp_path / "data"
    code, _ = interrupted(demo.SAMPLE, data, signal.SIGKILL, partial(enough, data, 30))
    assert code == -signal.SIGKILL
    kept = posted(data)
    report = finished(demo.SAMPLE, data)
    assert report["ok"]
    assert 0 < kept <= report["already_there"]
    assert report["already_there"] + report["first"]["new"] == report["transactions"]
    assert posted(data) == report["transactions"]


def test_after_ctrl_c_it_says_so_and_continues(tmp_path: Path) -> None:
    data = tmp_path / "data"
    code, errors = interrupted(demo.SAMPLE, data, signal.SIGINT, partial(enough, data, 20))
    assert code == 130
    assert "interrupted; what was acknowledged is kept: the same command continues" in errors
    assert "Traceback" not in errors
    report = finished(demo.SAMPLE, data)
    assert report["ok"]
    assert report["already_there"] > 0
    assert report["already_there"] + report["first"]["new"] == report["transactions"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_kills_at_any_moment_lose_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    acknowledged = 0
    for least in range(0, 80, 4):
        interrupted(demo.SAMPLE, data, signal.SIGKILL, partial(enough, data, least))
        kept = posted(data) if (data / "catalog.sqlite").exists() else 0
        assert kept >= acknowledged
        acknowledged = kept
    report = finished(demo.SAMPLE, data)
    assert report["ok"]
    assert report["already_there"] == acknowledged
