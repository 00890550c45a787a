"""A bank's transaction file, read exactly: rows become transactions, and transactions the fields of facts.

Guarantees: an amount is the integer number of hellers that its text says, never a float on the way; a file
that breaks its format is refused with its name and line; reading holds one row at a time. Nothing here writes,
waits or knows about actors.

Format: the PKDD'99 Discovery Challenge's; semicolon separated text, plain or gzip, with `HEADER` on top.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TextIO

import msgspec

from z0.actors.errors import Z0Error

CURRENCY = "CZK"
SOURCE = "bank"

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


def crowns(hellers: int) -> str:
    """Write hellers as crowns for people: 1234567 is 12,345.67."""
    whole, decimals = divmod(abs(hellers), 100)
    return f"{'-' if hellers < 0 else ''}{whole:,}.{decimals:02}"
