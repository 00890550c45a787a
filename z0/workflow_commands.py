"""The commands `z0 workflows ...`; here those that read.

They work on a live data directory, and on one copied file of an instance. Those that change one: `workflow_changes`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from z0 import inspect, terminal, workflow_changes, workflow_files
from z0.actors.clock import us_of
from z0.actors.names import DEFAULT_TENANT
from z0.usage import OK, Json
from z0.workflows import history
from z0.workflows.failure import text_of
from z0.workflows.journal import Entry
from z0.workflows.public import Expander, StepInfo, step_named

DataDir = Annotated[Path, Parameter(help="A data directory; its owner may be running.")]
AnyPath = Annotated[Path, Parameter(help="A data directory, or one instance's file, live or copied.")]
Which = Annotated[str | None, Parameter(help="WORKFLOW/ID of an instance in the data directory.")]
Class = Annotated[str | None, Parameter(name="--class", help="Only instances of this workflow.")]
Status = Annotated[history.Status | None, Parameter(help="Only instances of this status.")]
Prefix = Annotated[str, Parameter(help="Only ids that begin so.")]
Limit = Annotated[int, Parameter(validator=Number(gte=0), help="At most so many; 0: all.")]
Tenant = Annotated[str, Parameter(help="Whose instance, in a data directory.")]
AnyTenant = Annotated[str | None, Parameter(help="Only instances of this tenant.")]
Events = Annotated[bool, Parameter(negative="", help="The public events instead of the journal's rows.")]

app = App(name="workflows", help="See what workflow instances do, and repair them.")
for command in workflow_changes.COMMANDS:
    app.command(command)


# Reading


@app.command
def ls(
    data: DataDir,
    /,
    *,
    workflow: Class = None,
    status: Status = None,
    prefix: Prefix = "",
    tenant: AnyTenant = None,
    limit: Limit = 100,
    json: Json = False,
) -> int:
    """List instances with their statuses.

    Example: z0 workflows ls var/z0 --class Billing --status errored
    """
    found: list[workflow_files.Summary] = []
    more = False
    for each in workflow_files.instances(data, tenant=tenant, workflow=workflow, status=status, prefix=prefix):
        if limit and len(found) == limit:
            more = True
            break
        found.append(each)
    if json:
        terminal.print_json({"instances": found, "more": more})
        return OK
    table = terminal.table("workflow", "id", "status", "wakes (UTC)", "last use", "tenant")
    for each in found:
        wakes, used = terminal.time(each.next_alarm), terminal.time(each.last_use)
        terminal.row(table, each.workflow, each.id, each.status, wakes, used, each.tenant)
    terminal.console().print(table)
    if more:
        sys.stdout.write(f"there are more: --limit {limit * 10}\n")
    return OK


@app.command
def show(path: AnyPath, instance: Which = None, /, *, tenant: Tenant = DEFAULT_TENANT, json: Json = False) -> int:
    """Show one instance: status, what it waits for, why it failed, and its steps.

    Example: z0 workflows show var/z0 Billing/inv-2026-11-acme
    """
    found = workflow_files.show(inspect.find(path, instance, tenant))
    if json:
        terminal.print_json(found)
        return OK
    status = found.status
    table = terminal.table("", "")
    table.show_header = False
    terminal.row(table, "instance", f"{found.workflow} {status.id}")
    terminal.row(table, "status", f"{status.status}{f': {status.reason}' if status.reason else ''}")
    terminal.row(table, "created", terminal.time(us_of(status.created)))
    for wait in status.waiting_for:
        terminal.row(table, "waits for", wait)
    if status.error is not None:
        terminal.row(table, "failed at", status.step)
        terminal.row(table, "error", terminal.whole(status.error.text))
    if status.output is not None:
        terminal.row(table, "output", terminal.whole(terminal.json_text(status.output, indent=True)))
    terminal.row(table, "journal", f"{found.entries:,} entries, {found.path}")
    terminal.console().print(table)
    steps = terminal.table("", "step", "kind", "status", "attempts", "begun (UTC)", "seconds", numbers=("", "seconds"))
    for each in found.steps:
        if each.kind != "value":
            terminal.row(steps, each.position, each.name, each.kind, each.status, *_course(each))
    terminal.console().print(steps)
    return OK


def _course(step: StepInfo) -> tuple[object, ...]:
    taken = "" if step.ended is None else f"{(step.ended - step.begun).total_seconds():.3f}"
    return len(step.attempts) or "", terminal.time(us_of(step.begun)), taken


@app.command
def journal(
    path: AnyPath,
    instance: Which = None,
    /,
    *,
    events: Events = False,
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> int:
    """Print an instance's journal, in order; with --json one line each.

    Example: z0 workflows journal inv-2026-11-acme.sqlite --events
    """
    address, entries = workflow_files.journal(inspect.find(path, instance, tenant))
    expander = Expander(address.name)
    if json:
        for entry in entries:
            for row in expander.events(entry) if events else [workflow_files.plain(entry)]:
                sys.stdout.write(terminal.json_text(row) + "\n")
        return OK
    if events:
        table = terminal.table("id", "time (UTC)", "event", "step", "attempt", "", numbers=("id", "attempt"))
        for event in (event for entry in entries for event in expander.events(entry)):
            rest = msgspec.to_builtins(event)
            del rest["instanceId"]
            head = [rest.pop(name, None) for name in ("eventId", "timestamp", "type", "stepName", "attempt")]
            terminal.row(table, *head, terminal.json_text(rest) if rest else "")
    else:
        table = terminal.table("seq", "time (UTC)", "event", "step", "", numbers=("seq",))
        for entry in entries:
            terminal.row(table, entry.seq, terminal.time(entry.at), entry.event, entry.step, _besides(entry))
    table.columns[1].no_wrap = True
    terminal.console().print(table)
    return OK


def _besides(entry: Entry) -> str:
    """What else an entry says, in words."""
    words = [] if entry.attempt is None else [f"attempt {entry.attempt}"]
    if entry.started is not None:
        words.append(f"{(entry.at - entry.started) / 1_000:,.1f} ms")
    if entry.value is not None:
        words.append(f"{len(entry.value):,} byte{'s' if len(entry.value) != 1 else ''}")
    for name, value in entry.detail.items():
        if name in ("until", "retry_at"):
            words.append(f"{name} {terminal.time(value)}")
        elif value is not None:
            words.append(f"{name} {value if isinstance(value, str) else terminal.json_text(value)}")
    return ", ".join(words)


@app.command
def step(
    path: AnyPath,
    first: Annotated[str, Parameter(name="INSTANCE", help="WORKFLOW/ID; not for a single file.")],
    second: Annotated[str | None, Parameter(name="STEP", help="The step's name or key.")] = None,
    /,
    *,
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> int:
    """Show one step: its result, and each attempt with its error, whole.

    Example: z0 workflows step var/z0 Billing/inv-2026-11-acme "create invoice"
    """
    instance, name = (first, second) if second is not None else (None, first)
    file = inspect.find(path, instance, tenant)
    address, entries = workflow_files.journal(file)
    found = step_named(entries, str(address), name, workflow_files.reader_of(file))
    if json:
        terminal.print_json(found)
        return OK
    table = terminal.table("", "")
    table.show_header = False
    terminal.row(table, "step", f"{found.key}, the {found.position}. that was begun")
    terminal.row(table, "status", found.status)
    for each in found.attempts:
        error = "succeeded" if each.error is None else _text(each.error)
        again = "" if each.retry_at is None else f", again at {terminal.time(us_of(each.retry_at))}"
        said = f"{terminal.time(us_of(each.ended))} {error}{again}"
        terminal.row(table, f"attempt {each.attempt}", terminal.whole(said))
    last = found.attempts[-1].error if found.attempts else None
    if found.error is not None and found.error != last:
        terminal.row(table, "error", terminal.whole(_text(found.error)))
    terminal.console().print(table)
    for each in found.attempts:
        _print_traceback(f"attempt {each.attempt}", each.error)
    if found.error != last:
        _print_traceback("the step", found.error)
    if found.output is not None:
        sys.stdout.write(f"\nresult:\n{terminal.json_text(found.output, indent=True)}\n")
    return OK


def _text(error: dict[str, Any]) -> str:
    return text_of(error["type"], error["message"])


def _print_traceback(of: str, error: dict[str, Any] | None) -> None:
    """Below the table, as Python prints it: it is read, and copied, line by line."""
    if error is not None and error.get("traceback"):
        sys.stdout.write(f"\n{of} failed:\n{terminal.lines(error['traceback']).rstrip()}\n")
