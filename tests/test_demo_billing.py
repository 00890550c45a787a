"""The demo's bill is there once, whatever process died where; and the demo notices when that is not so."""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import z0
from tests.test_demo import interrupted, part, run, started
from z0 import demo_billing, inspect
from z0.check import check_all
from z0.cli import main
from z0.demo_actors import Account, Bill, Billing, Charge, Invoices, Receipt
from z0.demo_billing import OUTSIDE, Billed, bill
from z0.demo_outside import Letter, Outside
from z0.demo_view import commands, summary

ACTORS = (Account, Invoices, Billing)
WHAT = Bill("7", "1993-02-28")
ROWS = [
    ("1", "1993-01-31", "SLUZBY", 1460),
    ("2", "1993-02-01", "SIPO", 70000),
    ("3", "1993-02-28", "SLUZBY", 1460),
    ("4", "1993-02-28", "SANKC. UROK", 99),
]


async def post(data: Path, rows: list[tuple[str, str, str, int]] = ROWS, name: str = "7") -> None:
    async with z0.Runtime(data) as runtime:
        for id, date, symbol, amount in rows:
            said: Any = {"date": date, "balance": 0, "k_symbol": symbol}
            account = runtime.get(Account, name)
            await account.append("debit", amount=amount, external_id=id, idempotency_key=id, data=said)


async def billed(data: Path, what: Bill = WHAT) -> Billed:
    lines: list[str] = []
    found = await bill(what, data, "full", lines.append)
    assert all(what.id in line or "process" in line for line in lines)
    return found


def ledger(data: Path, account: str = "7") -> list[z0.Fact]:
    return list(inspect.facts(inspect.find(data, f"Invoices/{account}")))


def heads(data: Path) -> dict[str, Any]:
    return {f"{each.namespace}/{each.name}": each.head for each in check_all(data)}


async def test_the_bill_outlives_the_sigkill_of_its_process_and_each_effect_is_there_once(tmp_path: Path) -> None:
    await post(tmp_path)
    found = await billed(tmp_path)
    assert found.problems == []
    assert (found.child_exit, found.killed_in) == (-signal.SIGKILL, "create invoice")
    assert found.runs == {"gather charges": 1, "create invoice": 2, "send invoice": 1, "record payment": 1}
    assert (found.status, found.receipt) == ("complete", Receipt(3, 3019, "bank transfer"))
    assert (found.invoices, found.letters, found.payments) == (1, 1, 1)
    invoice, payment = ledger(tmp_path)
    assert (invoice.type, invoice.amount, payment.type, payment.amount) == ("invoice", 3019, "payment", 3019)
    assert invoice.data == {"until": "1993-02-28", "charges": ["1", "3", "4"]}
    processes = [call.process for call in Outside(tmp_path / OUTSIDE).calls(WHAT.id)]
    assert processes == [processes[0]] * 3 + [os.getpid()] * 3
    assert processes[0] != os.getpid()


async def test_a_bill_that_has_ended_is_only_looked_at(tmp_path: Path) -> None:
    await post(tmp_path)
    first, before = await billed(tmp_path), heads(tmp_path)
    second = await billed(tmp_path)
    assert second.problems == []
    assert (second.already_done, second.child_exit, second.killed_in) == (True, None, "create invoice")
    assert (second.runs, second.receipt) == (first.runs, first.receipt)
    assert heads(tmp_path) == before


async def test_when_the_demo_dies_between_the_kill_and_the_end_the_next_one_only_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(runtime: z0.Runtime) -> None:
        raise RuntimeError("dead")

    await post(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(demo_billing, "_settle", dies)
        with pytest.raises(RuntimeError, match="dead"):
            await billed(tmp_path)
    found = await billed(tmp_path)
    assert found.problems == []
    assert (found.already_done, found.child_exit, found.killed_in) == (False, None, "create invoice")
    assert (found.invoices, found.letters, found.payments, found.runs["gather charges"]) == (1, 1, 1, 1)


async def leave(data: Path, what: Bill) -> None:
    """A bill that waits to be paid."""
    async with z0.Runtime(data, actors=ACTORS, env=Outside(data / OUTSIDE)) as runtime:
        instance = await runtime.workflows.create(Billing, what, id=what.id)
        await instance.wait_for_status("waiting")


async def test_a_bill_that_was_left_is_paid_before_the_same_account_is_billed_again(tmp_path: Path) -> None:
    await post(tmp_path)
    await post(tmp_path, ROWS[:1], "8")
    for left in (Bill("7", "1993-01-31"), Bill("8", "1993-01-31")):
        await leave(tmp_path, left)
    found = await billed(tmp_path)
    assert found.problems == []
    assert (found.child_exit, found.receipt) == (-signal.SIGKILL, Receipt(2, 1559, "bank transfer"))
    assert [(fact.type, fact.amount) for fact in ledger(tmp_path)] == [
        ("invoice", 1460),
        ("payment", 1460),
        ("invoice", 1559),
        ("payment", 1559),
    ]
    assert [fact.type for fact in ledger(tmp_path, "8")] == ["invoice", "payment"]


async def test_later_charges_are_in_a_bill_of_their_own(tmp_path: Path) -> None:
    await post(tmp_path)
    await billed(tmp_path)
    await post(tmp_path, [("5", "1993-03-31", "SLUZBY", 1460)])
    found = await billed(tmp_path, Bill("7", "1993-03-31"))
    assert (found.problems, found.receipt) == ([], Receipt(1, 1460, "bank transfer"))
    assert found.child_exit == -signal.SIGKILL


async def test_who_has_no_charges_gets_no_invoice(tmp_path: Path) -> None:
    await post(tmp_path, ROWS[1:2])
    async with z0.Runtime(tmp_path, actors=ACTORS, env=Outside(tmp_path / OUTSIDE)) as runtime:
        instance = await runtime.workflows.create(Billing, WHAT, id=WHAT.id)
        assert await instance.result("10 seconds") == Receipt(0, 0, None)
        assert await runtime.get(Invoices, "7").count_facts() == 0


async def test_charges_are_what_the_bank_takes_for_itself(tmp_path: Path) -> None:
    await post(tmp_path)
    async with z0.Runtime(tmp_path) as runtime:
        account, said = runtime.get(Account, "7"), {"date": "1993-03-01", "balance": 0}
        await account.append("debit", subtype="fee", amount=5, external_id="9", data=said)
        await account.append("credit", subtype="interest", amount=5, external_id="10", data=said)
        charges = await account.charges()
    assert [charge.id for charge in charges] == ["1", "3", "4", "9"]
    assert charges[-1] == Charge("9", "1993-03-01", 5)


# What is noticed


async def test_a_process_that_does_not_die_by_the_signal_is_a_problem_and_the_next_run_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await post(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")
        found = await billed(tmp_path)
    (problem,) = found.problems
    assert problem == "the other process was to die of SIGKILL, but ended with code 1: it said nothing"
    assert (found.child_exit, found.status, found.receipt) == (1, None, None)
    assert (await billed(tmp_path)).problems == []


async def test_an_instance_that_somebody_has_paused_is_a_problem_and_stays_as_it_is(tmp_path: Path) -> None:
    await post(tmp_path)
    await leave(tmp_path, WHAT)
    async with z0.Runtime(tmp_path, actors=ACTORS, env=Outside(tmp_path / OUTSIDE)) as runtime:
        await runtime.workflows.get(Billing, WHAT.id).pause()
    found = await billed(tmp_path)
    assert found.problems[-1] == "Billing/7-1993-02-28 is paused"
    assert (found.child_exit, found.payments) == (0, 0)


async def test_an_invoice_that_is_there_twice_is_a_problem(tmp_path: Path) -> None:
    await post(tmp_path)
    await billed(tmp_path)
    async with z0.Runtime(tmp_path) as runtime:
        await runtime.get(Invoices, "7").append("invoice", amount=1, external_id=WHAT.id)
    assert (await billed(tmp_path)).problems == ["2 invoices, not 1"]


async def test_a_step_that_ran_again_after_its_end_is_a_problem(tmp_path: Path) -> None:
    await post(tmp_path)
    await billed(tmp_path)
    calls = tmp_path / OUTSIDE / "calls.jsonl"
    lines = calls.read_bytes().splitlines(keepends=True)
    calls.write_bytes(b"".join(lines) + lines[0])
    (problem,) = (await billed(tmp_path)).problems
    assert problem.startswith("a step that had ended was run again: gather charges, create invoice, ")


async def test_a_failed_bill_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Billing, "retries", z0.Retries(limit=0))
    await post(tmp_path)
    await leave(tmp_path, WHAT)
    async with z0.Runtime(tmp_path, actors=ACTORS, env=Outside(tmp_path / OUTSIDE)) as runtime:
        instance = runtime.workflows.get(Billing, WHAT.id)
        await instance.send_event("paid", {"not by": "anybody"})
        with pytest.raises(KeyError):
            await instance.result("60 seconds")
    (problem,) = (await billed(tmp_path)).problems
    assert problem.startswith("Billing/7-1993-02-28 is errored: KeyError")


# The world outside


def test_the_postbox_takes_a_key_once(tmp_path: Path) -> None:
    outside = Outside(tmp_path)
    letters = [Letter(key, "7-1", "7", 5, "CZK") for key in ("a", "b")]
    for letter in (*letters, letters[0]):
        outside.send(letter)
    assert Outside(tmp_path).letters("7-1") == letters


def test_a_line_that_a_power_cut_has_torn_spoils_no_other(tmp_path: Path) -> None:
    outside = Outside(tmp_path)
    first, second = (Letter(key, "7-1", "7", 5, "CZK") for key in ("a", "b"))
    outside.send(first)
    with (tmp_path / "letters.jsonl").open("ab") as file:
        file.write(b'{"key": "b", "inv')
    outside.send(second)
    assert outside.letters("7-1") == [first, second]


# The whole demo


async def test_the_demo_bills_the_busiest_account_and_says_so(tmp_path: Path, capsys: Any) -> None:
    path, data = part(tmp_path, 300), tmp_path / "the data"
    report, output = await run(path, data)
    found = report.billed
    assert found is not None
    assert report.ok
    assert found.account == report.busiest
    assert found.child_exit == -signal.SIGKILL
    assert f"another process begins the workflow {found.instance}" in output
    assert "it died of SIGKILL, in the step 'create invoice'" in output
    rows = [list(column.cells) for column in summary(report).columns]
    told = dict(zip(map(str, rows[0]), map(str, rows[1]), strict=True))
    assert "create invoice: 2 (killed after its effect), send invoice: 1" in told["steps run"]
    assert told["exactly once"] == "1 invoice, 1 letter, 1 payment"
    again, output = await run(path, data)
    assert again.ok
    assert "has ended before, nothing is run" in output
    shown = [words for words in commands(again) if "Invoices" in words or "workflows" in words]
    assert len(shown) == 3


def test_the_demo_prints_the_journal_and_commands_that_work(tmp_path: Path, capsys: Any) -> None:
    words = ["demo", "--input", str(part(tmp_path, 300)), "--data", str(tmp_path / "data")]
    assert main(words) == 0
    out = capsys.readouterr().out
    journal = out.partition("the journal of Billing/")[2].partition("next:")
    for said in ("workflow_started", "do:create invoice#1", "wait:payment#1", "workflow_completed"):
        assert said in journal[0]
    for line in journal[2].splitlines():
        if "Billing/" in line or "Invoices/" in line:
            _, _, typed = line.partition("z0 ")
            assert main(typed.split()) == 0
    assert "bank transfer" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["billed"]
    assert (found["already_done"], found["invoices"], found["problems"]) == (True, 1, [])
    assert found["receipt"]["paid_by"] == "bank transfer"


async def test_without_charges_and_from_wrong_books_nobody_is_billed(tmp_path: Path) -> None:
    path = part(tmp_path, 1)
    report, _ = await run(path, tmp_path / "data")
    assert (report.ok, report.billed) == (True, None)
    assert "it has no charges" in str(list(summary(report).columns[1].cells)[-1])
    async with z0.Runtime(tmp_path / "data") as runtime:
        said: Any = {"date": "1993-01-01", "balance": 1, "k_symbol": "SLUZBY"}
        await runtime.get(Account, report.busiest).append("debit", amount=1, external_id="0", data=said)
    report, _ = await run(path, tmp_path / "data")
    assert (report.ok, report.billed) == (False, None)
    assert "the books are wrong" in str(list(summary(report).columns[1].cells)[-1])


async def test_a_problem_of_the_bill_fails_the_demo_and_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = part(tmp_path, 300)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    report, _ = await run(path, tmp_path / "data")
    assert not report.ok
    shown = str(list(summary(report).columns[1].cells)[-1])
    assert "1 WRONG\nthe other process was to die of SIGKILL" in shown
    assert not any("Billing" in words for words in commands(report))


def test_what_stands_in_the_way_of_the_notes_is_one_line(tmp_path: Path, capsys: Any) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / OUTSIDE).touch()
    assert main(["demo", "--input", str(part(tmp_path, 300)), "--data", str(data)]) == 2
    err = capsys.readouterr().err
    assert (err.startswith("z0: "), err.count("\n"), str(data / OUTSIDE) in err) == (True, 1, True)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_demo_that_is_stopped_while_it_bills_comes_to_the_same_end(tmp_path: Path, stop: signal.Signals) -> None:
    path, data = part(tmp_path, 300), tmp_path / "data"
    interrupted(path, data, stop, partial(Path.exists, data / OUTSIDE / "calls.jsonl"))
    while True:
        process = started(path, data)
        output, errors = process.communicate(timeout=100)
        if "is owned by process" not in errors:  # that of the child, whose end nobody waits for
            break
    report = json.loads(output)
    assert report["ok"]
    assert report["billed"]["problems"] == []
    assert report["billed"]["killed_in"] == "create invoice"
