"""`z0 demo`: post a bank's transactions to one durable ledger per account, prove that the books balance, bill one.

Guarantees: each transaction becomes exactly one fact, whatever was interrupted and however often it is run
again; an account's facts keep the bank's order; of the input, memory holds one batch, its ids and a latency
for each fact.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from z0 import bank, reconcile
from z0.actors.gates import pass_once
from z0.demo_actors import Account, Bill
from z0.demo_billing import Billed, bill
from z0.demo_view import LARGEST, Meter, Reconciled, Report, View
from z0.ledger.errors import LedgerCorrupt
from z0.ledger.fact import INT64_MAX
from z0.runtime import Runtime

SAMPLE = Path(__file__).with_name("data") / "bank_sample.csv.gz"

ACCOUNTS_AT_ONCE = 8
"""More would be no faster: each would only wait longer."""
IN_FLIGHT = 64
"""Facts of one account on their way at once: one commit serves them all."""
BATCH = 32_768
"""Transactions of the file in memory at once."""
OPEN_FILES = 4_096
"""Descriptors asked for, so that a thousand accounts stay open; a shell's 1,024 would keep 340."""

T = TypeVar("T")
R = TypeVar("R")
Accounts = Callable[[str], Account]


async def run(path: Path, data: Path, durability: Literal["full", "relaxed"], view: View) -> Report:
    """Post the file, check the books, post it again. A bad file is refused before anything is written."""
    totals = reconcile.totals(bank.read(path))
    transactions = sum(total.transactions for total in totals.values())
    _raise_open_files()
    async with Runtime(data, actors=[Account], durability=durability) as runtime:

        def account(name: str) -> Account:
            return runtime.get(Account, name)

        known = await runtime.list(Account, limit=INT64_MAX)
        there = await _counts(account, [info.name for info in known if info.name in totals])
        before = sum(there.values())
        view.say(f"{transactions:,} transactions of {len(totals):,} accounts, {path} to {data}")
        if before:
            view.say(f"continuing: {before:,} facts already there")
        with view.posting("posting", transactions) as first:
            await _post(path, account, there, first)
        there = await _counts(account, totals)
        after = sum(there.values())
        view.say("checking balances, printed balances and hash chains")
        wrong = await _wrong_balances(account, totals)
        corrupt = await _corrupt_chains(account, totals)
        reconciled = await _reconcile(account, totals)
        with view.posting("again", transactions) as second:
            await _post(path, account, there, second)
        written_twice = sum((await _counts(account, totals)).values()) - after
        busiest = max(totals, key=lambda name: totals[name].transactions)
        charges = await account(busiest).charges()
    right = not (wrong or corrupt or written_twice) and reconciled.explained
    billed: Billed | None = None
    if right and charges:  # nobody is billed from books that are wrong
        what = Bill(busiest, max(charge.date for charge in charges))
        billed = await bill(what, data, durability, view.say)
    posted, repeated = first.speed(after - before), second.speed(written_twice)
    return Report(
        ok=right and not (billed and billed.problems),
        input=str(path),
        data=str(data),
        durability=durability,
        transactions=transactions,
        accounts=len(totals),
        already_there=before,
        first=posted,
        second=repeated,
        speed_up=None if before else posted.seconds / repeated.seconds,
        balances_wrong=wrong,
        chains_corrupt=corrupt,
        reconciled=reconciled,
        busiest=busiest,
        billed=billed,
    )


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < OPEN_FILES:  # -1 is no limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard) if hard >= 0 else OPEN_FILES, hard))


# Posting


async def _post(path: Path, account: Accounts, there: dict[str, int], meter: Meter) -> None:
    """Post the file, many accounts at once, each in the bank's order; `there`: facts each has already."""

    async def post(item: tuple[str, list[dict[str, Any]]]) -> None:
        name, facts = item
        append, known = account(name).append, there.get(name, 0)
        for start in range(0, len(facts), IN_FLIGHT):
            window = facts[start : start + IN_FLIGHT]
            if start + len(window) <= known:  # repeats are answered at once: a task each would cost more
                await meter.timed_in_turn(append(**fields) for fields in window)
                await pass_once()
            else:
                await asyncio.gather(*[meter.timed(append(**fields)) for fields in window])
            meter.progress(meter)
        there[name] = max(0, known - len(facts))

    for batch in _batches(path):
        with meter.running():
            await _each(batch.items(), post)


def _batches(path: Path) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """The file's transactions as fields of facts, by account, a bounded number at once."""
    transactions = bank.read(path)
    while some := list(islice(transactions, BATCH)):
        accounts: dict[str, list[dict[str, Any]]] = {}
        for transaction in some:
            accounts.setdefault(str(transaction.account_id), []).append(bank.fact_fields(transaction))
        yield accounts


async def _each(items: Iterable[T], act: Callable[[T], Awaitable[R]]) -> list[R]:
    """Act on every item, a bounded number at once; results in order. The first error ends it."""
    results: dict[int, R] = {}
    numbered = enumerate(items)

    async def work() -> None:
        for number, item in numbered:
            results[number] = await act(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(ACCOUNTS_AT_ONCE):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [results[number] for number in sorted(results)]


# Checking


async def _counts(account: Accounts, names: Iterable[str]) -> dict[str, int]:
    """How many facts each account has."""
    names = list(names)
    return dict(zip(names, await _each(names, lambda name: account(name).count_facts()), strict=True))


async def _wrong_balances(account: Accounts, totals: dict[str, reconcile.Totals]) -> list[str]:
    """The accounts whose projection is not exactly what the file adds up to, with both."""

    async def check(name: str) -> str | None:
        found, total = await account(name).projection("balance"), totals[name]
        if (found.facts, found.credits, found.debits) == (total.transactions, total.credits, total.debits):
            return None
        return (
            f"{name}: the ledger has {found.facts} facts and {bank.crowns(found.balance)}, "
            f"the file {total.transactions} and {bank.crowns(total.balance)}"
        )

    return [wrong for wrong in await _each(totals, check) if wrong is not None]


async def _corrupt_chains(account: Accounts, names: Iterable[str]) -> list[str]:
    async def check(name: str) -> str | None:
        try:
            await account(name).verify()
        except LedgerCorrupt as error:
            return f"{name}: {error}"
        return None

    return [corrupt for corrupt in await _each(names, check) if corrupt is not None]


async def _reconcile(account: Accounts, names: Iterable[str]) -> Reconciled:
    async def compare(name: str) -> tuple[bool, Counter[reconcile.Cause], list[reconcile.Drift]]:
        result = reconcile.reconcile(name, map(reconcile.posting, await account(name).query_facts()))
        causes = Counter(drift.cause for drift in result.drifts)
        return result.explained, causes, reconcile.largest(result.drifts, LARGEST)

    causes: Counter[reconcile.Cause] = Counter()
    drifts: list[reconcile.Drift] = []
    explained = True
    for each_explained, each_causes, each_drifts in await _each(names, compare):
        explained &= each_explained
        causes += each_causes
        drifts = reconcile.largest(drifts + each_drifts, LARGEST)
    return Reconciled(explained, dict(causes), drifts)
