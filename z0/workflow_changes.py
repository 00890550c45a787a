"""The commands of `z0 workflows` that change an instance. They need the owner of the data directory to have stopped.

A command writes down what is to become of the instance, and ends; the instance goes on when its runtime runs next. No
body runs here, unless the command waits (`--wait`), and then that of this instance alone. Nobody else's alarms are run.
Errands (alerts, hooks, kin that are to be told, slots) stay owed, unless the program's own runtime is used
(`--runtime`), for only that has its env, its alert sinks and its hooks.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from z0 import terminal
from z0.actors.actor import Actor
from z0.actors.catalog import CATALOG_FILE
from z0.actors.clock import seconds
from z0.actors.errors import ActorFileError
from z0.actors.names import DEFAULT_TENANT, Address
from z0.importing import imported, told
from z0.inspect import find
from z0.runtime import Runtime
from z0.usage import FAILED, OK, Json
from z0.workflows.history import FINISHED
from z0.workflows.ids import random_id
from z0.workflows.instance import Instance
from z0.workflows.services import services
from z0.workflows.status import InstanceStatus
from z0.workflows.workflow import Workflow

_LATER = "when its runtime runs next"
_NEVER = 1e9  # seconds until who is waited for leaves the memory: nobody is woken from the catalogue here

OwnDir = Annotated[Path, Parameter(help="A data directory; its owner must have stopped.")]
Known = Annotated[str, Parameter(help="WORKFLOW/ID of an instance.")]
Tenant = Annotated[str, Parameter(help="Whose instance, in a data directory.")]
Payload = Annotated[str, Parameter(help="As JSON.")]
Code = Annotated[
    list[str] | None,
    Parameter(name="--actors", negative="", help="MODULE:CLASS of the workflow, and of what else it needs."),
]
Program = Annotated[
    str | None,
    Parameter(help="MODULE:FUNCTION that returns the program's z0.Runtime, not opened: with its env, alerts, hooks."),
]
Wait = Annotated[str | None, Parameter(help='Run it here, and wait so long for it to end, such as "30 seconds".')]
Change = Callable[[Runtime, Instance[Workflow]], Awaitable[Any]]


@Parameter(name="*")
@dataclass(frozen=True)
class How:
    """What all these commands are told: whose code, and what to do besides."""

    actors: Code = None
    runtime: Program = None
    wait: Wait = None
    tenant: Tenant = DEFAULT_TENANT
    json: Json = False


USUAL = How()


def retry(data: OwnDir, instance: Known, /, *, how: How = USUAL) -> int:
    """Have a failed instance go on at the step that failed."""
    return _change(data, instance, how, lambda _, found: found.retry())


def restart(
    data: OwnDir,
    instance: Known,
    /,
    *,
    from_step: Annotated[str | None, Parameter(help="Keep what was before this step [default: keep nothing].")] = None,
    how: How = USUAL,
) -> int:
    """Have an instance run anew, whatever has become of it; what it sends has other keys than before."""
    return _change(data, instance, how, lambda _, found: found.restart(from_step))


def rollback(data: OwnDir, instance: Known, /, *, how: How = USUAL) -> int:
    """Try once more to undo what could not be undone."""
    return _change(data, instance, how, lambda _, found: found.rollback())


def abandon(
    data: OwnDir,
    instance: Known,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why; it stays listed with it.")],
    how: How = USUAL,
) -> int:
    """Close a failed instance for good."""
    return _change(data, instance, how, lambda _, found: found.abandon(reason))


def resume(data: OwnDir, instance: Known, /, *, how: How = USUAL) -> int:
    """Have a paused instance go on."""
    return _change(data, instance, how, lambda _, found: found.resume())


def pause(data: OwnDir, instance: Known, /, *, how: How = USUAL) -> int:
    """Pause an instance: it begins nothing until it is resumed."""
    return _change(data, instance, how, lambda _, found: found.pause())


def terminate(
    data: OwnDir,
    instance: Known,
    /,
    *,
    rollback: Annotated[bool, Parameter(negative="", help="Run the rollbacks of its steps first.")] = False,
    how: How = USUAL,
) -> int:
    """End an instance as it is, or when its steps are undone."""
    return _change(data, instance, how, lambda _, found: found.terminate(rollback=rollback))


def send_event(
    data: OwnDir,
    instance: Known,
    type: Annotated[str, Parameter(help="The event's type.")],
    /,
    *,
    payload: Payload = "null",
    id: Annotated[str | None, Parameter(help="The same id again does nothing.")] = None,
    how: How = USUAL,
) -> int:
    """Tell an instance something.

    Example: z0 workflows send-event var/z0 Billing/inv-7 invoice.paid --payload '{"amount": 5}' --actors app:Billing
    """
    value = _json(payload)
    return _change(data, instance, how, lambda _, found: found.send_event(type, value, id=id))


def create(
    data: OwnDir,
    workflow: Annotated[str, Parameter(help="The workflow: its class's name, or namespace.")],
    /,
    *,
    payload: Payload = "null",
    id: Annotated[str | None, Parameter(help="Default: a random one.")] = None,
    how: How = USUAL,
) -> int:
    """Create an instance, in a data directory that there is.

    Example: z0 workflows create var/z0 Billing --id inv-7 --payload '{"account": "acct_1"}' --actors app:Billing
    """
    value = _json(payload)

    def change(runtime: Runtime, new: Instance[Workflow]) -> Awaitable[Any]:
        return runtime.tenant(how.tenant).workflows.create(workflow, value, id=new.id)

    return asyncio.run(_changed(_directory(data), workflow, id, _checked(how), change))


COMMANDS = (retry, restart, rollback, abandon, resume, pause, terminate, send_event, create)


def _change(data: Path, instance: str, how: How, change: Change) -> int:
    """Open the data directory, do it, and say how the instance is then."""
    workflow, _, id = instance.partition("/")
    find(_directory(data), instance, how.tenant)  # before anything is opened, or made
    return asyncio.run(_changed(data, workflow, id, _checked(how), change))


async def _changed(data: Path, workflow: str, id: str | None, how: How, change: Change) -> int:
    async with AsyncExitStack() as around:
        return await _changed_in(await _runtime(around, data, how), workflow, id, how, change)


async def _changed_in(runtime: Runtime, workflow: str, id: str | None, how: How, change: Change) -> int:
    found: Instance[Workflow] = runtime.tenant(how.tenant).workflows.get(
        workflow, random_id(runtime.node) if id is None else id
    )
    address = Address(how.tenant, runtime.node.kind(found.cls).namespace, found.id)
    runtime.node.limits = msgspec.structs.replace(runtime.node.limits, idle_seconds=_NEVER)
    runtime.node.only = frozenset() if how.wait is None else frozenset({address})
    async with runtime:
        await change(runtime, found)
        if not runtime.node.knows(address):
            sys.stdout.write("null\n" if how.json else f"one will be created {_LATER} (debounce)\n")
            return OK
        status = await (found.status() if how.wait is None else _waited(found, how.wait))
    if how.json:
        terminal.print_json(status)
    else:
        line = f"{found.cls.__name__}/{status.id} is {status.status}{_besides(status, how.wait)}"
        sys.stdout.write(terminal.printable(line) + "\n")
    return FAILED if status.status == "errored" else OK


async def _runtime(around: AsyncExitStack, data: Path, how: How) -> Runtime:
    """The runtime of the command, not opened, with what the program has around it."""
    if how.runtime is None:
        classes = [_class(name) for name in how.actors or ()]
        made = Runtime(data, actors=classes)
        services(made.node).performs_errands = False
        return made
    option, function = f"--runtime {how.runtime}", _named("--runtime", how.runtime)
    try:
        runtime = function()
        if inspect.isawaitable(runtime):
            runtime = await runtime
        if isinstance(runtime, AbstractAsyncContextManager) and not isinstance(runtime, Runtime):
            runtime = await around.enter_async_context(runtime)
    except (Exception, SystemExit) as error:
        raise ActorFileError(option, f"gives no runtime: {told(error)}") from error
    if not isinstance(runtime, Runtime) or runtime.node.is_open:
        raise ActorFileError(option, "does not return a z0.Runtime that is not opened yet")
    if not _is_of(runtime, data):
        raise ActorFileError(option, f"is of another data directory, {runtime.path}, and not of {data}")
    for name in how.actors or ():
        runtime.node.kind(_class(name))
    return runtime


def _is_of(runtime: Runtime, data: Path) -> bool:
    return runtime.node.folder == data.resolve()


async def _waited(instance: Instance[Workflow], wait: str) -> InstanceStatus:
    try:
        return await instance.wait_for_status(*sorted(FINISHED), timeout=wait)
    except TimeoutError:
        return await instance.status()


def _besides(status: InstanceStatus, wait: str | None) -> str:
    """What else is to be said: why it failed, what it waits for, and what will become of it."""
    if status.finished or status.status == "paused":
        why = status.reason or (status.error.message if status.error is not None else "")
        return f": {why}" if why else ""
    late = "" if wait is None else f"; it has not ended within {wait}"
    if status.rollback is not None:
        return f"{late}; it will be rolled back {_LATER}"
    said = f", waiting for {status.waiting_for[0]}{late}" if status.waiting_for else late
    return said if status.status == "waiting" else f"{said}; it goes on {_LATER}"


def _checked(how: How) -> How:
    """The same, when it can be done: whatever is wrong with it is said before anything is written."""
    if not (how.actors or how.runtime):
        raise ActorFileError("the workflow's code", "is needed: --actors MODULE:CLASS, or --runtime MODULE:FUNCTION")
    try:
        if how.wait is not None:
            seconds(how.wait)
    except ValueError as error:
        raise ActorFileError(f"--wait {how.wait}", str(error)) from None
    return how


def _directory(data: Path) -> Path:
    if data.is_file():
        raise ActorFileError(str(data), "is a file; what changes an instance takes its whole data directory")
    if not (data / CATALOG_FILE).is_file():
        raise ActorFileError(str(data), "is no data directory; the program that opens a z0.Runtime there makes one")
    return data


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ActorFileError("--payload", f"is not JSON: {error}") from None


def _class(name: str) -> type[Actor]:
    found = _named("--actors", name)
    if not (isinstance(found, type) and issubclass(found, Actor)):
        raise ActorFileError(f"--actors {name}", "is no MODULE:CLASS of a workflow or another actor")
    return found


def _named(option: str, name: str) -> Any:
    try:
        return imported(name)
    except ValueError as error:
        what = "MODULE:CLASS" if option == "--actors" else "MODULE:FUNCTION"
        raise ActorFileError(f"{option} {name}", f"is no {what}: {error}") from None
