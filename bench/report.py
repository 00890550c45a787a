"""A run as tables for people and as one JSON document for programs."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .machine import Machine
from .measure import GC_POLICY
from .result import Result, Row, Verdict

PACING = "back to back, no pause between operations (after idle time a commit is dearer)"
DURABILITY = "full (WAL, synchronous=FULL, normal locking, 4 KiB pages) unless a case says otherwise"
COLOURS = {"met": "green", "acceptable": "yellow", "missed": "red"}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a run has to say."""

    machine: Machine
    rounds: int
    seed: int
    smoke: bool
    results: list[Result]
    pacing: str = PACING
    durability: str = DURABILITY
    gc: str = GC_POLICY


def to_json(report: Report) -> str:
    """One JSON document; verdicts carry their outcome, except in a smoke run."""
    document = msgspec.to_builtins(report)
    for result, shown in zip(report.results, document["results"], strict=True):
        shown["verdicts"] = [
            {**plain, "outcome": verdict.outcome}
            for verdict, plain in zip(result.verdicts, shown["verdicts"], strict=True)
            if not report.smoke
        ]
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def show(report: Report, console: Console) -> None:
    """The header, the figures and the verdicts."""
    for label, text in header(report):
        console.print(f"[bold]{label:<12}[/]{escape(text)}", highlight=False)
    if report.machine.file_system.in_memory:
        console.print(
            "[bold red]The files lie in memory: a sync costs nothing here, so no durable figure means "
            "anything. Give --dir on a disk.[/]"
        )
    console.print(_figures(report.results))
    if report.smoke:
        console.print("Smoke run: it works. The figures mean nothing and are not judged.")
        return
    console.print(_verdicts(report.results))
    for result in report.results:
        for note in result.notes:
            console.print(f"[dim]{result.name}: {escape(note)}[/]", highlight=False)


def header(report: Report) -> list[tuple[str, str]]:
    """What the figures were measured on, and how."""
    machine = report.machine
    disk = machine.file_system
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    priority = "raised (nice -19)" if machine.priority_raised else "normal"
    return [
        ("durability", report.durability),
        ("disk", f"{disk.kind} on {disk.device}, write cache: {disk.write_cache}"),
        ("machine", f"{machine.cpu}, {machine.cores} cores, load {machine.load}, priority {priority}"),
        ("versions", f"{machine.python}, {versions}, {machine.kernel}"),
        ("pacing", report.pacing),
        ("method", f"{report.rounds} shuffled rounds, seed {report.seed}, p50 = median of round medians"),
        ("ratios", "to the floor of the same round; median [low to high]"),
        ("gc", report.gc),
    ]


def _figures(results: list[Result]) -> Table:
    table = Table(title="µs per operation, unless another unit is given", title_justify="left")
    table.add_column("case")
    table.add_column("what")
    for name in ("p50", "p99", "p999", "per second", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("to")
    for result in results:
        for number, row in enumerate(result.rows):
            table.add_row("" if number else f"[bold]{result.name}[/]", *_cells(row))
        table.add_section()
    return table


def _cells(row: Row) -> list[str]:
    unit = "" if row.unit == "µs" else f" {row.unit}"
    ratio = ""
    if row.ratio is not None:
        ratio = f"{row.ratio:.2f} [dim]\\[{row.ratio_low:.2f} to {row.ratio_high:.2f}][/]"
    return [
        escape(row.name),
        f"{_number(row.p50)}{unit}",
        _number(row.p99),
        _number(row.p999),
        "" if row.per_second is None else f"{row.per_second:,.0f}",
        ratio,
        escape(row.floor or ""),
    ]


def _verdicts(results: list[Result]) -> Table:
    table = Table(title="what z0 promises", title_justify="left")
    table.add_column("case")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("target", justify="right")
    table.add_column("outcome")
    for result in results:
        for verdict in result.verdicts:
            colour = COLOURS[verdict.outcome]
            table.add_row(
                result.name,
                escape(verdict.what),
                f"{_number(verdict.value)} {verdict.unit}",
                _target(verdict),
                f"[{colour}]{verdict.outcome}[/]",
            )
    return table


def _target(verdict: Verdict) -> str:
    if verdict.at_least is not None:
        return f"≥ {verdict.at_least:g} {verdict.unit}"
    also = f" (≤ {verdict.acceptable:g} acceptable)" if verdict.acceptable is not None else ""
    return f"≤ {verdict.at_most:g} {verdict.unit}{also}"


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"
