"""The real bank data that the examples run on: accounts of the sample that z0 comes with."""

from __future__ import annotations

from collections import defaultdict

import z0
from z0.bank import Transaction, fact_fields, read
from z0.demo import SAMPLE


def histories() -> dict[str, list[Transaction]]:
    """Each account's transactions, in the bank's order."""
    found = defaultdict(list)
    for transaction in read(SAMPLE):
        found[str(transaction.account_id)].append(transaction)
    return dict(found)


async def post(account: z0.Entity, transactions: list[Transaction]) -> None:
    """Post the transactions to the account's ledger: each one once, however often it is posted."""
    await account.append_many([fact_fields(each) for each in transactions])
