"""`z0 demo`: post a bank's transactions to one durable ledger per account, then prove that the books balance.

Guarantees: each transaction becomes exactly one fact, whatever was interrupted and however often it is run
again; an account's facts keep the bank's order; of the input, memory holds one batch, its ids and a latency
for each fact.
"""

from __future__ import annotations

import asyncio
import resource
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import nlargest
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from z0 import bank
from z0.actors.clock import perf_ns
from z0.actors.gates import pass_once
from z0.ledger.entity import Entity
from z0.ledger.errors import LedgerCorrupt
from z0.ledger.fact import INT64_MAX, Fact
from z0.ledger.projection import Projection
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
LARGEST = 3
"""Drifts of each cause, and problems of each kind, that are shown."""

T = TypeVar("T")
R = TypeVar("R")
Accounts = Callable[[str], "Account"]


class AccountBalance(Projection):
    """What the facts of an account add up to, in hellers, and the balance printed with the last one."""

    facts: int = 0
    credits: int = 0
    debits: int = 0
    printed: int | None = None

    @property
    def balance(self) -> int:
        """Credits less debits."""
        return self.credits - self.debits

    def apply(self, fact: Fact) -> None:
        """Add one posting."""
        self.facts += 1
        if fact.type == "credit":
            self.credits += fact.amount or 0
        else:
            self.debits += fact.amount or 0
        self.printed = fact.data["balance"] if fact.data else None


class Account(Entity):
    """One bank account; whoever holds the bank's file may post to it."""

    accepts = frozenset({"credit", "debit"})
    balance: AccountBalance


class Speed(msgspec.Struct, frozen=True):
    """How one posting of the file went; a latency runs from sending a fact to its durable reply."""

    facts: int
    new: int
    seconds: float
    facts_per_second: float
    p50_us: float
    p99_us: float

    def __str__(self) -> str:
        """For people."""
        p50, p99 = self.p50_us / 1000, self.p99_us / 1000
        return f"{self.facts_per_second:,.0f} facts/s, p50 {p50:,.2f} ms, p99 {p99:,.2f} ms"


class Reconciled(msgspec.Struct, frozen=True):
    """The ledgers against every balance that the bank printed; `causes` counts the postings that differ."""

    explained: bool
    causes: dict[bank.Cause, int]
    largest: list[bank.Drift]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of the demo did and found; `ok` when nothing is wrong."""

    ok: bool
    input: str
    data: str
    durability: str
    transactions: int
    accounts: int
    already_there: int
    first: Speed
    second: Speed
    speed_up: float | None
    balances_wrong: list[str]
    chains_corrupt: list[str]
    reconciled: Reconciled
    busiest: str


class Meter:
    """Counts facts as they are acknowledged, with their latencies; the watch runs only while posting."""

    def __init__(self, progress: Callable[[Meter], None]) -> None:
        """`progress` is called after every few facts: it must be cheap."""
        self.latencies = array("q")
        self.progress = progress
        self._spent = 0
        self._started: int | None = None

    async def timed(self, reply: Awaitable[object]) -> None:
        """Wait for a reply and note how long it took."""
        start = perf_ns()
        await reply
        self.latencies.append(perf_ns() - start)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the watch run."""
        self._started = perf_ns()
        yield
        self._spent, self._started = self._elapsed(), None

    def _elapsed(self) -> int:
        return self._spent + (0 if self._started is None else perf_ns() - self._started)

    def speed(self, new: int = 0, *, sample: int | None = None) -> Speed:
        """The figures so far; `sample`: percentiles from about so many latencies, evenly picked."""
        facts = len(self.latencies)
        ordered = sorted(self.latencies[:: facts // sample + 1 if sample else 1]) or [0]
        p50, p99 = (ordered[len(ordered) * part // 100] / 1_000 for part in (50, 99))
        seconds = max(self._elapsed(), 1) / 1e9
        return Speed(facts, new, seconds, facts / seconds, p50, p99)


async def run(path: Path, data: Path, durability: Literal["full", "relaxed"], view: View) -> Report:
    """Post the file, check the books, post it again. A bad file is refused before anything is written."""
    totals = bank.totals(bank.read(path))
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
    posted, repeated = first.speed(after - before), second.speed(written_twice)
    return Report(
        ok=not (wrong or corrupt or written_twice) and reconciled.explained,
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
        busiest=max(totals, key=lambda name: totals[name].transactions),
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
            if start + len(window) <= known:  # repeats are answered at once: no need of a task each
                for fields in window:
                    await meter.timed(append(**fields))
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


async def _wrong_balances(account: Accounts, totals: dict[str, bank.Totals]) -> list[str]:
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
    async def compare(name: str) -> tuple[bool, Counter[bank.Cause], list[bank.Drift]]:
        result = bank.reconcile(name, map(bank.posting, await account(name).query_facts()))
        return result.explained, Counter(drift.cause for drift in result.drifts), _largest(result.drifts)

    causes: Counter[bank.Cause] = Counter()
    drifts: list[bank.Drift] = []
    explained = True
    for each_explained, each_causes, each_drifts in await _each(names, compare):
        explained &= each_explained
        causes += each_causes
        drifts = _largest(drifts + each_drifts)
    return Reconciled(explained, dict(causes), drifts)


def _largest(drifts: Sequence[bank.Drift]) -> list[bank.Drift]:
    """The largest drifts of each cause."""
    causes = [[drift for drift in drifts if drift.cause == cause] for cause in bank.CAUSES]
    return [drift for some in causes for drift in nlargest(LARGEST, some, key=lambda it: abs(it.difference))]


# Showing


class View:
    """What a person sees while it runs: one live line on a terminal, else a line now and then."""

    def __init__(self, console: Console) -> None:
        """Print to this console."""
        self._console = console
        self._pause_ns = 100_000_000 if console.is_terminal else 1_000_000_000

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(Text(text), soft_wrap=True)

    @contextmanager
    def posting(self, what: str, total: int) -> Iterator[Meter]:
        """Show how posting goes, at most ten times a second, and how it ended."""
        shown = perf_ns()
        with Live(console=self._console, auto_refresh=False) as live:

            def show(meter: Meter, *, last: bool = False) -> None:
                nonlocal shown
                if perf_ns() - shown < self._pause_ns and not last:
                    return
                speed = meter.speed(sample=None if last else 2_000)
                line = f"{what}: {speed.facts:,} of {total:,} facts, {speed}"
                if self._console.is_terminal:
                    live.update(Text(line), refresh=True)
                else:
                    self.say(line)
                shown = perf_ns()

            meter = Meter(show)
            yield meter
            show(meter, last=True)


def summary(report: Report) -> Table:
    """The outcome, a line for each thing that was to be proved."""
    first, second, found = report.first, report.second, report.reconciled
    speed_up = "" if report.speed_up is None else f", {report.speed_up:.1f} times as fast"
    agree = report.transactions - sum(found.causes.values())
    causes = ", ".join(f"{found.causes.get(cause, 0):,} {cause}" for cause in bank.CAUSES)
    rows = {
        "posted": f"{first.new:,} new facts of {first.facts:,}, {first}, durability {report.durability}",
        "posted again": f"{second.facts:,} facts, {second.new:,} written{speed_up}",
        "balances": _verdict(report.balances_wrong, f"{report.accounts:,} equal the file's sums exactly"),
        "hash chains": _verdict(report.chains_corrupt, f"{report.accounts:,} verified"),
        "printed balances": f"{agree:,} agree, {causes}" + ("" if found.explained else ", NOT EXPLAINED"),
    }
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for what, text in rows.items():
        table.add_row(what, Text(text))
    return table


def _verdict(problems: list[str], good: str) -> str:
    return "\n".join([f"{len(problems):,} WRONG", *problems[:LARGEST]]) if problems else good


def drifts(report: Report) -> Table:
    """The largest differences from the bank's printed balances, with their causes explained below."""
    shown = report.reconciled.largest
    found = {drift.cause: bank.CAUSES[drift.cause] for drift in shown}
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left", caption_justify="left")
    table.title = "largest drifts from the printed balances"
    table.caption = "\n".join(f"{cause}: {why}" for cause, why in found.items())
    for name in ("account", "date", "trans_id", "why"):
        table.add_column(name)
    for name in ("ledger", "printed", "off by"):
        table.add_column(name, justify="right")
    for drift in shown:
        money = map(bank.crowns, (drift.ledger, drift.printed, drift.difference))
        table.add_row(drift.account, drift.date, drift.trans_id, drift.cause, *money)
    return table
