"""Reconcile an account with its bank statement: fetch it page by page, match, record, and flag what does not match.

    python examples/payment_reconciliation.py [DATA]

The account's ledger is the bank sample's; the statement is the same but for a line left out, one changed, one made up.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

import z0
from sample import histories, post
from services import Row, StatementPage, Statements
from wire import Client
from z0.bank import SOURCE, Transaction

Reason = Literal["not on the statement", "not in the ledger", "another amount"]


class Unmatched(msgspec.Struct, frozen=True):
    """A posting that people have to look at; None: that side has none of this id."""

    id: str
    reason: Reason
    ledger: int | None = None
    statement: int | None = None


class Summary(msgspec.Struct, frozen=True):
    """What came of it; `unmatched` is in the order of the statement, then in that of the ledger."""

    account: str
    matched: int
    unmatched: list[Unmatched]


class Open(z0.Projection):
    """The postings that no statement has had yet."""

    postings: dict[str, Row] = {}  # by the bank's id

    def apply(self, fact: z0.Fact) -> None:
        """A posting is open until it is matched."""
        match fact.type:
            case "credit" | "debit":
                posting = row_of(fact)
                self.postings[posting.id] = posting
            case "payment_matched":
                del self.postings[fact.external_id or ""]


class Account(z0.Entity):
    """An account whose postings are matched with what the bank says."""

    accepts = {"credit", "debit"}
    indexes = ("external_id",)
    open: Open

    async def match(self, statement: list[Row]) -> list[Unmatched]:
        """Record each line that is a posting of ours, once for all statements that have it; the lines that are not."""
        left = []
        for row in statement:
            posted = self.ledger.query(type=("credit", "debit"), external_id=row.id)
            ours = row_of(posted[0]).amount if posted else None
            if ours == row.amount:
                self.record("payment_matched", row.id, key=f"match/{row.id}")
            else:
                reason: Reason = "not in the ledger" if ours is None else "another amount"
                left.append(Unmatched(row.id, reason, ours, row.amount))
        return left

    async def missing(self, statement: list[Row]) -> list[Unmatched]:
        """The postings that should be on the statement, for they are not younger than it, and are not."""
        until, there = max((row.date for row in statement), default=""), {row.id for row in statement}
        return [
            Unmatched(row.id, "not on the statement", row.amount)
            for row in self.open.postings.values()
            if row.date <= until and row.id not in there
        ]

    async def flag(self, unmatched: list[Unmatched]) -> None:
        """Record what people have to look at: once, however many statements show it."""
        for each in unmatched:
            key = f"flag/{each.id}/{each.reason}/{each.statement}"
            self.record("payment_unmatched", each.id, key=key, subtype=each.reason, data=msgspec.to_builtins(each))

    def record(self, type: str, id: str, *, key: str, **more: Any) -> None:
        """Append a fact on the posting with the bank's id."""
        self.ledger.append(type, external_source=SOURCE, external_id=id, idempotency_key=key, **more)


class Reconciliation(z0.Workflow):
    """Reconciles the account that is its payload."""

    env: Client
    retries = z0.Retries(limit=8, delay="1 second", max_delay="10 minutes", jitter=0.1)
    timeout = "10 seconds"

    async def run(self, event: z0.Event[str], step: z0.Step) -> Summary:
        """A page that was fetched is not fetched again, whatever happens to the process meanwhile."""
        account = self.get(Account, event.payload)
        statement = await self.fetch(event.payload, step)

        async def match() -> list[Unmatched]:
            return await account.match(statement)

        async def look() -> list[Unmatched]:
            return await account.missing(statement)

        left = await step.do("match and record", match)
        unmatched = left + await step.do("look for what the statement lacks", look)
        if unmatched:
            await step.do("flag what does not match", lambda: account.flag(unmatched))
            await step.alert("reconciliation_manual_review", {"account": event.payload, "unmatched": unmatched})
        return Summary(event.payload, len(statement) - len(left), unmatched)

    async def fetch(self, account: str, step: z0.Step) -> list[Row]:
        """The statement. Each page is a step; a line that is on two pages counts once."""
        rows: dict[str, Row] = {}
        at: int | None = 0
        while at is not None:
            page = await step.do("fetch a page", self.page(account, at))
            rows.update((row.id, row) for row in page.rows)
            at = page.next
        return list(rows.values())

    def page(self, account: str, at: int) -> Callable[[], Awaitable[StatementPage]]:
        """A callback that fetches one page. Its annotation says what to make of the journal's data on replay."""

        async def fetch() -> StatementPage:
            return await self.env.get(f"/statements/{account}", StatementPage, at=at)

        return fetch


def row_of(fact: z0.Fact) -> Row:
    """The posting as the statement would have it."""
    assert fact.external_id is not None
    assert fact.amount is not None
    assert fact.data is not None
    return Row(fact.external_id, fact.data["date"], fact.amount if fact.type == "credit" else -fact.amount)


def statement(transactions: list[Transaction]) -> list[Row]:
    """What the bank says of an account: without one line, with another amount in one, and with one that is not ours."""
    rows = [Row(str(each.trans_id), each.date.isoformat(), each.signed) for each in transactions]
    changed = Row(rows[8].id, rows[8].date, rows[8].amount + 100)
    stranger = Row("stranger", rows[8].date, 4_200)
    return [*rows[:7], changed, stranger, *rows[9:]]


async def main(data: str = "var/payment_reconciliation", account: str = "3374") -> None:
    """Reconcile; the bank's service fails once."""
    transactions = histories()[account]
    async with (
        Statements({account: statement(transactions)}) as service,
        z0.Runtime(data, actors=[Account, Reconciliation], env=service.client) as runtime,
    ):
        await post(runtime.get(Account, account), transactions)
        service.misbehave("GET /statements", "fail")
        instance = await runtime.workflows.create(Reconciliation, account, id=account, on_conflict="existing")
        summary: Summary = await instance.result("1 minute")
        print(f"account {account}: {summary.matched} of {len(transactions)} postings are on the statement")
        for each in summary.unmatched:
            print(f"{each.id} is {each.reason}: {each.ledger} here, {each.statement} there")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
