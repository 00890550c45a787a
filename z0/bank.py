"""A bank's transaction file, read exactly, and a ledger reconciled with the balances that the bank printed.

Guarantees: an amount is the integer number of hellers that its text says, never a float on the way; a file
that breaks its format is refused with its name and line; reading holds one row at a time. Pure but for the
opening of the file: nothing here writes, waits or knows about actors.

Format: the PKDD'99 Discovery Challenge's; semicolon separated text, plain or gzip, with `HEADER` on top.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TextIO

import msgspec

from z0.actors.errors import Z0Error
from z0.ledger.fact import Fact

CURRENCY = "CZK"
SOURCE = "bank"
ROUNDING = 10
"""What the bank's own rounding may shift one printed balance by, in hellers."""

HEADER = "trans_id;account_id;date;type;operation;amount;balance;k_symbol;bank;account"
COLUMNS = HEADER.split(";")
TYPES: dict[str, Literal["credit", "debit"]] = {"PRIJEM": "credit", "VYDAJ": "debit", "VYBER": "debit"}
OPERATIONS = {
    "VKLAD": "cash_deposit",
    "VYBER": "cash_withdrawal",
    "PREVOD Z UCTU": "transfer_in",
    "PREVOD NA UCET": "transfer_out",
    "VYBER KARTOU": "card_withdrawal",
}
UNNAMED = {"credit": "interest", "debit": "fee"}


class BadTransactionFile(Z0Error):
    """The input is not a transaction file; `path` and `line` (0: the file as a whole) say where."""

    def __init__(self, path: Path, line: int, problem: str) -> None:
        """Say what is wrong, and where."""
        super().__init__(f"{path}, line {line}: {problem}" if line else f"{path}: {problem}")
        self.path = path
        self.line = line
        self.problem = problem


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """One row of the file; amounts in hellers, `amount` never negative, empty columns None."""

    trans_id: int
    account_id: int
    date: datetime.date
    type: Literal["credit", "debit"]
    operation: str
    amount: int
    balance: int
    k_symbol: str | None
    bank: str | None
    account: str | None

    @property
    def signed(self) -> int:
        """What the transaction adds to the account's balance."""
        return self.amount if self.type == "credit" else -self.amount


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


def read(path: Path) -> Iterator[Transaction]:
    """Yield every transaction in the file's own order, or raise `BadTransactionFile` at the first bad row."""
    line = 0
    try:
        with _open(path) as text:
            rows = csv.reader(text, delimiter=";", strict=True)
            pick = _columns(path, next(rows, []))
            seen: set[int] = set()
            for row in rows:
                line = rows.line_num
                if not row:
                    continue
                try:
                    transaction = _transaction(pick, row)
                except ValueError as error:
                    raise BadTransactionFile(path, line, str(error)) from None
                if transaction.trans_id in seen:
                    raise BadTransactionFile(path, line, f"trans_id {transaction.trans_id} was there before")
                seen.add(transaction.trans_id)
                yield transaction
            if not seen:
                raise BadTransactionFile(path, 0, "it has no transactions")
    except (csv.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise BadTransactionFile(path, line + 1, f"cannot be read ({error})") from error
    except OSError as error:
        raise BadTransactionFile(path, 0, error.strerror or str(error)) from error


def _open(path: Path) -> TextIO:
    """Open plain or gzipped text, whatever the file is called."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    if zipped:
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _columns(path: Path, header: list[str]) -> list[int]:
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise BadTransactionFile(path, 1, f"the header has no column {', '.join(missing)}")
    return [header.index(name) for name in COLUMNS]


def _transaction(pick: list[int], row: list[str]) -> Transaction:
    try:
        trans_id, account_id, day, type_, operation, amount, balance, k_symbol, bank, account = (
            row[column] for column in pick
        )
    except IndexError:
        raise ValueError(f"{len(row)} columns are too few") from None
    if type_ not in TYPES:
        raise ValueError(f"type {type_!r} is none of {', '.join(TYPES)}")
    if operation and operation not in OPERATIONS:
        raise ValueError(f"operation {operation!r} is none of {', '.join(OPERATIONS)}")
    hellers = _hellers("amount", amount)
    if hellers < 0:
        raise ValueError(f"amount {amount!r} is negative: the type says the direction")
    return Transaction(
        _id("trans_id", trans_id),
        _id("account_id", account_id),
        _date(day),
        TYPES[type_],
        OPERATIONS[operation] if operation else UNNAMED[TYPES[type_]],
        hellers,
        _hellers("balance", balance),
        k_symbol.strip() or None,
        bank.strip() or None,
        account.strip() or None,
    )


def _id(column: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError(f"{column} {text[:40]!r} is not a number")
    return int(text)


_MONEY = re.compile(r"(-?)([0-9]{1,16})(?:\.([0-9]{1,2}))?")


def _hellers(column: str, text: str) -> int:
    match = _MONEY.fullmatch(text)
    if match is None:
        raise ValueError(f"{column} {text[:40]!r} is not an amount with at most two decimals")
    sign, crowns, decimals = match.groups("0")
    hellers = int(crowns + decimals.ljust(2, "0"))
    return -hellers if sign == "-" else hellers


@lru_cache(maxsize=4096)
def _date(text: str) -> datetime.date:
    if not (text.isascii() and text.isdigit() and len(text) == 6):
        raise ValueError(f"date {text[:40]!r} is not YYMMDD")
    year = int(text[:2])
    try:
        return datetime.date(year + (1900 if year >= 70 else 2000), int(text[2:4]), int(text[4:]))
    except ValueError:
        raise ValueError(f"date {text!r} is not in the calendar") from None


def totals(transactions: Iterable[Transaction]) -> dict[str, Totals]:
    """Sum each account's transactions exactly; keyed by account id as text, in order of first appearance."""
    accounts: dict[str, Totals] = {}
    for transaction in transactions:
        name = str(transaction.account_id)
        if name not in accounts:
            accounts[name] = Totals()
        accounts[name].add(transaction)
    return accounts


def fact_fields(transaction: Transaction) -> dict[str, Any]:
    """Say the transaction as the fields of a fact; its idempotency key is the bank's own id."""
    data: dict[str, Any] = {"date": transaction.date.isoformat(), "balance": transaction.balance}
    if transaction.k_symbol is not None:
        data["k_symbol"] = transaction.k_symbol
    if transaction.bank is not None:
        data["bank"] = transaction.bank
    if transaction.account is not None:
        data["account"] = transaction.account
    trans_id = str(transaction.trans_id)
    return {
        "type": transaction.type,
        "subtype": transaction.operation,
        "amount": transaction.amount,
        "currency": CURRENCY,
        "external_source": SOURCE,
        "external_id": trans_id,
        "idempotency_key": trans_id,
        "data": data,
    }


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


def crowns(hellers: int) -> str:
    """Write hellers as crowns for people: 1234567 is 12,345.67."""
    whole, decimals = divmod(abs(hellers), 100)
    return f"{'-' if hellers < 0 else ''}{whole:,}.{decimals:02}"
