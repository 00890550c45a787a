"""Sums are exact, and every printed balance is explained, on made-up statements and on the sample."""

from __future__ import annotations

import gzip
from collections import Counter
from decimal import Decimal
from pathlib import Path

from z0 import bank, reconcile

SAMPLE = Path(bank.__file__).with_name("data") / "bank_sample.csv.gz"


def postings(*days: list[tuple[int, int]]) -> list[reconcile.Posting]:
    rows = [(day, *row) for day, rows in enumerate(days, 1) for row in rows]
    return [
        reconcile.Posting(str(number), f"1993-01-{day:02}", signed, printed)
        for number, (day, signed, printed) in enumerate(rows, 1)
    ]


def causes(result: reconcile.Reconciliation) -> list[tuple[str, int, str]]:
    return [(drift.trans_id, drift.difference, drift.cause) for drift in result.drifts]


def test_an_exact_statement_has_no_drift() -> None:
    result = reconcile.reconcile("a", postings([(1000, 1000)], [(-300, 700), (50, 750)]))
    assert result == reconcile.Reconciliation("a", 3, 750, 750, [])
    assert (result.drift, result.explained) == (0, True)


def test_a_rounded_balance_stays_in_the_drift() -> None:
    result = reconcile.reconcile("a", postings([(1007, 1010)], [(-300, 710)], [(4, 710)]))
    assert causes(result) == [("1", 3, "rounding"), ("3", -4, "rounding")]
    assert (result.ledger, result.printed, result.drift, result.explained) == (711, 710, -1, True)


def test_another_order_within_the_day_settles_by_evening() -> None:
    result = reconcile.reconcile("a", postings([(1000, 1000)], [(-300, 750), (50, 1050)], [(1, 751)]))
    assert causes(result) == [("2", 50, "order"), ("3", 250, "order")]
    assert (result.drift, result.explained) == (0, True)


def test_what_no_order_explains_is_a_missing_posting() -> None:
    result = reconcile.reconcile("a", postings([(1000, 1000)], [(-300, 900)], [(-100, 800)]))
    assert causes(result) == [("2", 200, "missing")]
    assert (result.drift, result.explained) == (200, True)


def test_reconciling_nothing_finds_nothing() -> None:
    assert reconcile.reconcile("a", []) == reconcile.Reconciliation("a", 0, 0, 0, [])


def test_the_sample_is_real_varied_and_sums_to_the_heller() -> None:
    transactions = list(bank.read(SAMPLE))
    accounts = reconcile.totals(transactions)
    assert len(transactions) == sum(total.transactions for total in accounts.values()) == 3290
    assert len(accounts) == 74
    assert {transaction.operation for transaction in transactions} == {*bank.OPERATIONS.values(), "interest"}
    with gzip.open(SAMPLE, "rt") as text:
        rows = [line.split(";") for line in text.read().splitlines()[1:]]
    exact: Counter[str] = Counter()
    for row in rows:
        exact[row[1]] += int(Decimal(row[5]) * 100) * (1 if row[3] == "PRIJEM" else -1)
    assert {name: total.balance for name, total in accounts.items()} == dict(exact)


def test_the_largest_drifts_of_each_cause_come_first() -> None:
    result = reconcile.reconcile("a", postings([(1000, 1000)], [(-300, 900)], [(-100, 804)], [(0, 802)], [(0, 803)]))
    assert causes(result) == [("2", 200, "missing"), ("3", 4, "rounding"), ("4", -2, "rounding"), ("5", 1, "rounding")]
    largest = reconcile.largest(result.drifts, 2)
    assert [drift.trans_id for drift in largest] == ["2", "3", "4"]


def test_every_printed_balance_of_the_sample_is_explained() -> None:
    histories: dict[str, list[reconcile.Posting]] = {}
    for row in bank.read(SAMPLE):
        histories.setdefault(str(row.account_id), []).append(
            reconcile.Posting(str(row.trans_id), row.date.isoformat(), row.signed, row.balance)
        )
    results = [reconcile.reconcile(name, history) for name, history in histories.items()]
    assert all(result.explained for result in results)
    found = Counter(drift.cause for result in results for drift in result.drifts)
    assert found["missing"] == 1
    assert found["rounding"] > 100
    assert found["order"] > 100
