"""The commands `z0 workflows ...`. Reading works on a live data directory, and on one copied file of an instance.

Commands that change an instance open the data directory as its owner does, so the owner must have stopped; and they
need the workflow's code: `--actors package.module:Class`. What the instance does next it does in this process, until
the command ends; whoever opens the directory next goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from z0 import inspect, terminal, workflow_files
from z0.actors.clock import us_of
from z0.actors.errors import ActorFileError
from z0.actors.names import DEFAULT_TENANT
from z0.replay import imported
from z0.runtime import Runtime
from z0.workflows.failure import text_of
from z0.workflows.instance import Instance
from z0.workflows.journal import Entry
from z0.workflows.public import Expander, StepInfo, step_named
from z0.workflows.workflow import Workflow

OK, FAILED = 0, 1

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON, for programs.")]
DataDir = Annotated[Path, Parameter(help="A data directory; its owner may be running.")]
OwnDir = Annotated[Path, Parameter(help="A data directory; its owner must have stopped.")]
AnyPath = Annotated[Path, Parameter(help="A data directory, or one instance's file, live or copied.")]
Which = Annotated[str | None, Parameter(help="WORKFLOW/ID of an instance in the data directory.")]
Known = Annotated[str, Parameter(help="WORKFLOW/ID of an instance.")]
Class = Annotated[str | None, Parameter(name="--class", help="Only instances of this workflow.")]
Status = Annotated[str | None, Parameter(help="Only instances of this status.")]
Prefix = Annotated[str, Parameter(help="Only ids that begin so.")]
Limit = Annotated[int, Parameter(help="At most so many; 0: all.")]
Tenant = Annotated[str, Parameter(help="Whose instance, in a data directory.")]
AnyTenant = Annotated[str | None, Parameter(help="Only instances of this tenant.")]
Events = Annotated[bool, Parameter(negative="", help="The public events instead of the journal's rows.")]
Code = Annotated[
    list[str],
    Parameter(name="--actors", negative="", help="MODULE:CLASS of the workflow, and of what else it needs."),
]
Wait = Annotated[str | None, Parameter(help='Wait so long for it to end, such as "30 seconds".')]
Payload = Annotated[str, Parameter(help="As JSON.")]

app = App(name="workflows", help="See what workflow instances do, and repair them.")


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
        terminal.row(table, "error", status.error.text)
    if status.output is not None:
        terminal.row(table, "output", terminal.json_text(status.output))
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
    """Show one step: its result, and each attempt with its error.

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
    if found.output is not None:
        terminal.row(table, "output", terminal.json_text(found.output))
    for each in found.attempts:
        error = "succeeded" if each.error is None else text_of(each.error["type"], each.error["message"])
        again = "" if each.retry_at is None else f", again at {terminal.time(us_of(each.retry_at))}"
        terminal.row(table, f"attempt {each.attempt}", f"{terminal.time(us_of(each.ended))} {error}{again}")
    if found.error is not None and found.error.get("traceback"):
        terminal.row(table, "traceback", found.error["traceback"])
    terminal.console().print(table)
    return OK


# Changing


@app.command
def retry(
    data: OwnDir, instance: Known, /, *, actors: Code, wait: Wait = None, tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> int:  # fmt: skip
    """Have a failed instance go on at the step that failed."""
    return _change(data, instance, actors, tenant, wait, json, lambda found: found.retry())


@app.command
def resume(
    data: OwnDir, instance: Known, /, *, actors: Code, wait: Wait = None, tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> int:  # fmt: skip
    """Have a paused instance go on."""
    return _change(data, instance, actors, tenant, wait, json, lambda found: found.resume())


@app.command
def pause(
    data: OwnDir, instance: Known, /, *, actors: Code, tenant: Tenant = DEFAULT_TENANT, json: Json = False
) -> int:
    """Pause an instance; steps that are under way end first."""
    return _change(data, instance, actors, tenant, None, json, lambda found: found.pause())


@app.command
def terminate(
    data: OwnDir,
    instance: Known,
    /,
    *,
    actors: Code,
    rollback: Annotated[bool, Parameter(negative="", help="Run the rollbacks of its steps first.")] = False,
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> int:
    """End an instance as it is."""
    return _change(data, instance, actors, tenant, None, json, lambda found: found.terminate(rollback=rollback))


@app.command
def send_event(
    data: OwnDir,
    instance: Known,
    type: Annotated[str, Parameter(help="The event's type.")],
    /,
    *,
    actors: Code,
    payload: Payload = "null",
    id: Annotated[str | None, Parameter(help="The same id again does nothing.")] = None,
    wait: Wait = None,
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> int:
    """Tell an instance something.

    Example: z0 workflows send-event var/z0 Billing/inv-7 invoice.paid --payload '{"amount": 5}' --actors app:Billing
    """
    value = _json(payload)
    return _change(data, instance, actors, tenant, wait, json, lambda found: found.send_event(type, value, id=id))


@app.command
def create(
    data: OwnDir,
    workflow: Annotated[str, Parameter(help="The workflow: its class's name, or namespace.")],
    /,
    *,
    actors: Code,
    payload: Payload = "null",
    id: Annotated[str | None, Parameter(help="Default: a random one.")] = None,
    wait: Wait = None,
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> int:
    """Create an instance.

    Example: z0 workflows create var/z0 Billing --id inv-7 --payload '{"account": "acct_1"}' --actors app:Billing
    """
    value, classes = _json(payload), _classes(actors)

    async def run() -> int:
        async with Runtime(data, actors=classes) as runtime:
            made: Instance[Workflow] = await runtime.tenant(tenant).workflows.create(workflow, value, id=id)
            return await _told(made, wait, json)

    return asyncio.run(run())


def _change(
    data: Path,
    instance: str,
    actors: list[str],
    tenant: str,
    wait: str | None,
    json: bool,
    change: Callable[[Instance[Workflow]], Awaitable[Any]],
) -> int:
    """Open the data directory, do it, and say how the instance is then."""
    classes = _classes(actors)
    workflow, _, id = instance.partition("/")
    inspect.find(data, instance, tenant)  # before anything is opened, or made

    async def run() -> int:
        async with Runtime(data, actors=classes) as runtime:
            found: Instance[Workflow] = runtime.tenant(tenant).workflows.get(workflow, id)
            await change(found)
            return await _told(found, wait, json)

    return asyncio.run(run())


async def _told(instance: Instance[Workflow], wait: str | None, json: bool) -> int:
    status = await (instance.status() if wait is None else _waited(instance, wait))
    if json:
        terminal.print_json(status)
    else:
        waits = f", waiting for {status.waiting_for[0]}" if status.waiting_for else ""
        error = f": {status.error.message}" if status.error is not None else ""
        line = f"{instance.cls.__name__}/{status.id} is {status.status}{waits}{error}"
        sys.stdout.write(terminal.printable(line) + "\n")
    return FAILED if status.status == "errored" else OK


async def _waited(instance: Instance[Workflow], wait: str) -> Any:
    with contextlib.suppress(Exception):  # how it has ended, or not, its status says
        await instance.result(wait)
    return await instance.status()


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ActorFileError("--payload", f"is not JSON: {error}") from None


def _classes(names: list[str]) -> list[Any]:
    """The classes, imported as a program in the present folder would."""
    return [_class(name) for name in names]


def _class(name: str) -> Any:
    try:
        return imported(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ActorFileError(f"--actors {name}", f"is no MODULE:CLASS that can be imported: {error}") from None
