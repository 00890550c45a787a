"""A bank's books: exact sums of its transactions, and a ledger reconciled with the balances that it printed.

Guarantees: every posting whose printed balance does not follow from the one printed before it is listed with its
cause, and a reconciliation says whether these explain its whole difference to the heller. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import nlargest
from itertools import groupby
from typing import Literal

import msgspec

from z0.bank import Transaction
from z0.ledger.fact import Fact

ROUNDING = 10
"""What the bank's own rounding may shift one printed balance by, in hellers."""


class Totals(msgspec.Struct):
    """The exact sums of one account's transactions, in hellers."""

    transactions: int = 0
    credits: int = 0
    debits: int = 0

    @property
    def balance(self) -> int:
        """Credits less debits."""
        return self.credits - self.debits

    def add(self, transaction: Transaction) -> None:
        """Count one more transaction."""
        self.transactions += 1
        if transaction.type == "credit":
            self.credits += transaction.amount
        else:
            self.debits += transaction.amount


def totals(transactions: Iterable[Transaction]) -> dict[str, Totals]:
    """Sum each account's transactions exactly; keyed by account id as text, in order of first appearance."""
    accounts: dict[str, Totals] = {}
    for transaction in transactions:
        name = str(transaction.account_id)
        if name not in accounts:
            accounts[name] = Totals()
        accounts[name].add(transaction)
    return accounts


class Posting(msgspec.Struct, frozen=True, gc=False):
    """What reconciliation needs of one posting: its business date, its signed amount, its printed balance."""

    trans_id: str
    date: str
    signed: int
    printed: int


def posting(fact: Fact) -> Posting:
    """Take a posting back out of a fact that `fact_fields` made."""
    assert fact.external_id is not None
    assert fact.amount is not None
    assert fact.data is not None
    signed = fact.amount if fact.type == "credit" else -fact.amount
    return Posting(fact.external_id, fact.data["date"], signed, fact.data["balance"])


Cause = Literal["rounding", "order", "missing"]

CAUSES: dict[Cause, str] = {
    "missing": "the bank counted a posting that the file does not have",
    "order": "the bank counted the day's postings in another order",
    "rounding": "the bank rounded, by up to 0.10 a posting",
}


class Drift(msgspec.Struct, frozen=True):
    """One posting whose printed balance is not the balance printed before it plus its amount.

    `difference` is by how much, `ledger` the exact running sum after the posting, `printed` what the bank
    printed, all in hellers. A rounding or a missing posting shifts every later printed balance too; another
    order is settled by the evening.
    """

    account: str
    date: str
    trans_id: str
    ledger: int
    printed: int
    difference: int
    cause: Cause


class Reconciliation(msgspec.Struct, frozen=True):
    """One account against its printed balances; always `printed - ledger` = all rounding plus all missing."""

    account: str
    postings: int
    ledger: int
    printed: int
    drifts: list[Drift]

    @property
    def drift(self) -> int:
        """How far the last printed balance is from the ledger, in hellers."""
        return self.printed - self.ledger

    @property
    def explained(self) -> bool:
        """Whether the drifts account for the difference to the heller."""
        return self.drift == sum(drift.difference for drift in self.drifts if drift.cause != "order")


def reconcile(account: str, postings: Iterable[Posting]) -> Reconciliation:
    """Compare each printed balance with the ledger; every difference is listed with its cause."""
    drifts: list[Drift] = []
    count = ledger = printed = 0
    for _, group in groupby(postings, key=lambda posting: posting.date):
        day = list(group)
        in_ledger_order = _steps(day, printed)
        ordered = day if max(map(abs, in_ledger_order)) <= ROUNDING else _bank_order(day, printed)
        steps = zip(ordered, _steps(ordered, printed), strict=True)
        in_bank_order = {posting.trans_id: step for posting, step in steps}
        for posting, step in zip(day, in_ledger_order, strict=True):
            ledger += posting.signed
            if difference := in_bank_order[posting.trans_id]:
                cause: Cause = "rounding" if abs(difference) <= ROUNDING else "missing"
            else:
                difference, cause = step, "order"
            if difference:
                drifts.append(
                    Drift(account, posting.date, posting.trans_id, ledger, posting.printed, difference, cause)
                )
        count += len(day)
        printed = ordered[-1].printed
    return Reconciliation(account, count, ledger, printed, drifts)


def _steps(day: list[Posting], printed: int) -> list[int]:
    """By how much each printed balance misses the one before it plus the amount, taken in the given order."""
    befores = [printed, *(posting.printed for posting in day[:-1])]
    return [after.printed - before - after.signed for before, after in zip(befores, day, strict=True)]


def _bank_order(day: list[Posting], printed: int) -> list[Posting]:
    """Order a day's postings so that each printed balance follows best from the one before it."""
    left, ordered = list(day), []
    while left:
        best = min(left, key=lambda posting: abs(posting.printed - printed - posting.signed))
        left.remove(best)
        ordered.append(best)
        printed = best.printed
    return ordered


def largest(drifts: Sequence[Drift], count: int) -> list[Drift]:
    """So many drifts of each cause, the largest ones."""
    causes = [[drift for drift in drifts if drift.cause == cause] for cause in CAUSES]
    return [drift for some in causes for drift in nlargest(count, some, key=lambda it: abs(it.difference))]
