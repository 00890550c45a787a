"""What a person sees of the demo while it runs and at its end, with the figures that are shown."""

from __future__ import annotations

import shlex
from array import array
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from z0.actors.clock import perf_ns
from z0.bank import CURRENCY, crowns
from z0.demo_billing import Billed
from z0.reconcile import CAUSES, Cause, Drift

LARGEST = 3
"""Drifts of each cause, and problems of each kind, that are shown."""


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
    causes: dict[Cause, int]
    largest: list[Drift]


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
    billed: Billed | None
    """None: the busiest account has no charges, or the books are wrong."""


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

    async def timed_in_turn(self, replies: Iterable[Awaitable[object]]) -> None:
        """Wait for replies one after the other; a latency runs from one to the next."""
        start = perf_ns()
        for reply in replies:
            await reply
            now = perf_ns()
            self.latencies.append(now - start)
            start = now

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
    causes = ", ".join(f"{found.causes.get(cause, 0):,} {cause}" for cause in CAUSES)
    rows = {
        "posted": f"{first.new:,} new facts of {first.facts:,}, {first}, durability {report.durability}",
        "posted again": f"{second.facts:,} facts, {second.new:,} written{speed_up}",
        "balances": _verdict(report.balances_wrong, f"{report.accounts:,} equal the file's sums exactly"),
        "hash chains": _verdict(report.chains_corrupt, f"{report.accounts:,} verified"),
        "printed balances": f"{agree:,} agree, {causes}" + ("" if found.explained else ", NOT EXPLAINED"),
    }
    rows |= _billed(report)
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for what, text in rows.items():
        table.add_row(what, Text(text))
    return table


def _billed(report: Report) -> dict[str, str]:
    billed = report.billed
    if billed is None:
        why = "it has no charges" if report.ok else "the books are wrong"
        return {"bill": f"none for account {report.busiest}: {why}"}
    if billed.receipt is None:
        return {"bill": _verdict(billed.problems, "")}
    receipt = billed.receipt
    money = f"{crowns(receipt.amount)} {CURRENCY}, paid by {receipt.paid_by}"
    runs = [
        f"{step}: {times}{' (killed after its effect)' if step == billed.killed_in else ''}"
        for step, times in billed.runs.items()
    ]
    found = f"{billed.invoices} invoice, {billed.letters} letter, {billed.payments} payment"
    return {
        "bill": f"{receipt.charges:,} charges of account {billed.account}, {money}",
        "steps run": ", ".join(runs),
        "exactly once": _verdict(billed.problems, found),
    }


def _verdict(problems: list[str], good: str) -> str:
    return "\n".join([f"{len(problems):,} WRONG", *problems[:LARGEST]]) if problems else good


def drifts(report: Report) -> Table:
    """The largest differences from the bank's printed balances, with their causes explained below."""
    shown = report.reconciled.largest
    found = {drift.cause: CAUSES[drift.cause] for drift in shown}
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left", caption_justify="left")
    table.title = "largest drifts from the printed balances"
    table.caption = "\n".join(f"{cause}: {why}" for cause, why in found.items())
    for name in ("account", "date", "trans_id", "why"):
        table.add_column(name)
    for name in ("ledger", "printed", "off by"):
        table.add_column(name, justify="right")
    for drift in shown:
        money = map(crowns, (drift.ledger, drift.printed, drift.difference))
        table.add_row(drift.account, drift.date, drift.trans_id, drift.cause, *money)
    return table


def commands(report: Report) -> list[str]:
    """What to try next, as words behind `z0`."""
    where, billed = shlex.quote(report.data), report.billed
    shown = [f"ls {where}", f"facts {where} Account/{report.busiest} --limit 5 --reverse", f"verify {where}"]
    if billed is not None and billed.status is not None:
        shown += [
            f"facts {where} Invoices/{billed.account}",
            f"workflows show {where} {billed.instance}",
            f"workflows journal {where} {billed.instance} --events",
        ]
    return shown
