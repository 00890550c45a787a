"""The bank's file is read exactly or refused by line."""

from __future__ import annotations

import datetime
import gzip
from pathlib import Path

import pytest

from z0 import bank


def write(folder: Path, *rows: str, header: str = bank.HEADER) -> Path:
    path = folder / "bank.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def read(folder: Path, *rows: str) -> list[bank.Transaction]:
    return list(bank.read(write(folder, *rows)))


def test_a_row_becomes_a_transaction_in_exact_hellers(tmp_path: Path) -> None:
    row = "695247;2378;930101;VYDAJ;PREVOD NA UCET;2852.10;-96031.55;POJISTNE;OP;62838387"
    assert read(tmp_path, row) == [
        bank.Transaction(
            trans_id=695247,
            account_id=2378,
            date=datetime.date(1993, 1, 1),
            type="debit",
            operation="transfer_out",
            amount=285210,
            balance=-9603155,
            k_symbol="POJISTNE",
            bank="OP",
            account="62838387",
        )
    ]


@pytest.mark.parametrize(
    ("text", "hellers"),
    [("0.07", 7), ("1.1", 110), ("12", 1200), ("70000000000000.29", 7_000_000_000_000_029)],
)
def test_an_amount_is_the_integer_that_its_text_says(tmp_path: Path, text: str, hellers: int) -> None:
    (transaction,) = read(tmp_path, f"1;2;930101;PRIJEM;VKLAD;{text};{text};;;")
    assert (transaction.amount, transaction.balance, transaction.signed) == (hellers, hellers, hellers)


def test_blank_columns_are_none_and_an_empty_operation_is_interest_or_a_fee(tmp_path: Path) -> None:
    rows = read(tmp_path, "1;2;930101;PRIJEM;;5.00;5.00; ;;", "", "2;2;930101;VYBER;;1.00;4.00;;;")
    assert [(row.operation, row.k_symbol, row.signed) for row in rows] == [
        ("interest", None, 500),
        ("fee", None, -100),
    ]


GOOD = "1;2;930101;PRIJEM;VKLAD;5.00;5.00;;;"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("2;2;930101;PRIJEM;VKLAD;5.0O;5.00;;;", "amount '5.0O'"),
        ("2;2;930101;PRIJEM;VKLAD;5.001;5.00;;;", "amount '5.001'"),
        ("2;2;930101;PRIJEM;VKLAD;1e3;5.00;;;", "amount '1e3'"),
        ("2;2;930101;PRIJEM;VKLAD;-5.00;5.00;;;", "negative"),
        ("2;2;930101;PRIJEM;VKLAD;99999999999999999;5.00;;;", "amount '9999"),
        ("2;2;930101;PRIJEM;VKLAD;5.00;;;;", "balance ''"),
        ("2;2;930101;CREDIT;VKLAD;5.00;5.00;;;", "type 'CREDIT' is none of PRIJEM, VYDAJ, VYBER"),
        ("2;2;930101;PRIJEM;CHEQUE;5.00;5.00;;;", "operation 'CHEQUE'"),
        ("2;2;930231;PRIJEM;VKLAD;5.00;5.00;;;", "date '930231' is not in the calendar"),
        ("2;2;1993-01-01;PRIJEM;VKLAD;5.00;5.00;;;", "date '1993-01-01' is not YYMMDD"),
        ("two;2;930101;PRIJEM;VKLAD;5.00;5.00;;;", "trans_id 'two'"),
        ("2;;930101;PRIJEM;VKLAD;5.00;5.00;;;", "account_id ''"),
        ("2;2;930101;PRIJEM", "4 columns are too few"),
        ("1;2;930102;PRIJEM;VKLAD;5.00;5.00;;;", "trans_id 1 was there before"),
        ('2;2;930101;PRIJEM;"VKLAD', "cannot be read"),
    ],
)
def test_a_bad_row_is_refused_with_its_file_line_and_reason(tmp_path: Path, row: str, problem: str) -> None:
    with pytest.raises(bank.BadTransactionFile) as caught:
        read(tmp_path, GOOD, row)
    assert caught.value.line == 3
    assert str(caught.value).startswith(f"{tmp_path / 'bank.csv'}, line 3: ")
    assert problem in str(caught.value)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, header=bank.HEADER.replace(";balance", ""))
    with pytest.raises(bank.BadTransactionFile, match="line 1: the header has no column balance"):
        list(bank.read(path))


def test_columns_may_stand_in_any_order_quoted_and_with_others_between(tmp_path: Path) -> None:
    header = '"balance";amount;"note";operation;"type";date;account_id;"trans_id";k_symbol;bank;account'
    path = write(tmp_path, '5.00;2.00;"x;y";"VKLAD";"PRIJEM";930101;2;1;"";"";""', header=header)
    (transaction,) = bank.read(path)
    assert (transaction.trans_id, transaction.amount, transaction.balance) == (1, 200, 500)


def test_what_is_no_text_file_at_all_is_refused_without_a_traceback_of_ours(tmp_path: Path) -> None:
    whole = gzip.compress(f"{bank.HEADER}\n{GOOD}\n".encode())
    contents = {"cut.gz": whole[:-9], "binary": b"\xff\xfe\x00", "junk.gz": b"\x1f\x8bjunk"}
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(bank.BadTransactionFile, match=name):
            list(bank.read(path))
    for path in (tmp_path / "nowhere.csv", tmp_path):
        with pytest.raises(bank.BadTransactionFile):
            list(bank.read(path))
    with pytest.raises(bank.BadTransactionFile, match="no transactions"):
        list(bank.read(write(tmp_path)))


def test_a_fact_says_all_that_the_transaction_said(tmp_path: Path) -> None:
    (transaction,) = read(tmp_path, "7;2;930105;VYDAJ;PREVOD NA UCET;28.00;-1.50;SIPO;OP;628")
    assert bank.fact_fields(transaction) == {
        "type": "debit",
        "subtype": "transfer_out",
        "amount": 2800,
        "currency": "CZK",
        "external_source": "bank",
        "external_id": "7",
        "idempotency_key": "7",
        "data": {"date": "1993-01-05", "balance": -150, "k_symbol": "SIPO", "bank": "OP", "account": "628"},
    }


def test_crowns_are_written_for_people() -> None:
    assert [bank.crowns(n) for n in (0, -7, 1234567, -100)] == ["0.00", "-0.07", "12,345.67", "-1.00"]
