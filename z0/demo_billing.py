"""The demo's bill: a workflow that a child process begins, that dies with it by SIGKILL, and that this one ends.

Guarantees: whatever was interrupted, the same bill is gone on with; one that has ended is only looked at.

`python -m z0.demo_billing DATA DURABILITY ACCOUNT DATE` is the child process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from z0 import inspect, workflow_files
from z0.actors.durability import Mode
from z0.actors.names import DEFAULT_TENANT
from z0.demo_actors import STEPS, Account, Bill, Billing, Invoices, Receipt
from z0.demo_outside import Outside
from z0.runtime import Runtime
from z0.workflows.errors import WrongStatus
from z0.workflows.history import FINISHED, Status
from z0.workflows.instance import Instance

PATIENCE = "60 seconds"
"""For what takes milliseconds."""
OUTSIDE = "outside"
"""The folder, in the data directory, of what is not z0's."""


class Billed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the bill; `problems` says what is not as it must be."""

    instance: str
    account: str
    status: Status | None
    receipt: Receipt | None
    already_done: bool
    child_exit: int | None
    """Of the process that this run of the demo had killed; None: there was none."""
    killed_in: str | None
    runs: dict[str, int]
    """How often the callback of each step was run."""
    invoices: int
    letters: int
    payments: int
    problems: list[str]


async def bill(what: Bill, data: Path, durability: Mode, say: Callable[[str], None]) -> Billed:
    """Bill an account, by way of a process that is killed. The data directory must have no owner."""
    outside, exit, problems = Outside(data / OUTSIDE), None, list[str]()
    done = _status(data, what) in FINISHED
    if done:
        say(f"billing account {what.account}: Billing/{what.id} has ended before, nothing is run")
    else:
        if _killed_in(outside, what) is None:
            say(f"billing account {what.account}: another process begins the workflow Billing/{what.id}")
            exit, error = await _child(what, data, durability)
            if exit != -signal.SIGKILL:
                problems.append(f"the other process was to die of SIGKILL, but ended with code {exit}: {error}")
        if not problems:
            died = "it was killed before" if exit is None else "it died of SIGKILL"
            say(f"{died}, in the step {_killed_in(outside, what)!r}; this process goes on with the workflow")
            async with _owner(data, outside, durability) as runtime:
                await _settle(runtime)
    return _found(what, data, outside, done, exit, problems)


def _owner(data: Path, outside: Outside, durability: Mode) -> Runtime:
    return Runtime(data, actors=[Account, Invoices, Billing], env=outside, durability=durability)


# The two processes


async def _child(what: Bill, data: Path, durability: Mode) -> tuple[int, str]:
    """Have another process begin the bill; its exit code, and the last that it said."""
    words = ("-P", "-m", "z0.demo_billing", str(data), durability, what.account, what.until)
    modules = os.pathsep.join(map(os.path.abspath, sys.path))  # what is imported here is imported there
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, env={**os.environ, "PYTHONPATH": modules}
    )
    try:
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = said.decode(errors="replace").splitlines()
    return await process.wait(), lines[-1] if lines else "it said nothing"


async def begin(what: Bill, data: Path, durability: Mode) -> None:
    """Bill, in the process that is killed. Bills that were left are paid first: they may be of the same account."""
    async with _owner(data, Outside(data / OUTSIDE, kills=what.id), durability) as runtime:
        await _settle(runtime)
        await runtime.workflows.create(Billing, what, id=what.id, on_conflict="existing")
        await _settle(runtime)


async def _settle(runtime: Runtime) -> None:
    """Have all bills end: each is paid when it waits for that."""
    for info in await runtime.workflows.list(Billing, limit=None):
        if info.status not in FINISHED:
            with suppress(TimeoutError, WrongStatus):  # what has become of it, its status says
                await _pay(runtime.workflows.get(Billing, info.id))


async def _pay(instance: Instance[Billing]) -> None:
    status = await instance.wait_for_status("waiting", "paused", timeout=PATIENCE)
    if status.status == "waiting":
        await instance.send_event("paid", {"by": "bank transfer"}, id="payment")
        await instance.wait_for_status(*FINISHED, "paused", timeout=PATIENCE)


# What has become of it


def _status(data: Path, what: Bill) -> str | None:
    """How the instance is, without opening the data directory; None: there is none."""
    found = workflow_files.instances(data, tenant=DEFAULT_TENANT, workflow=Billing.__name__, prefix=what.id)
    return next((each.status for each in found if each.id == what.id), None)


def _killed_in(outside: Outside, what: Bill) -> str | None:
    return next((call.step for call in outside.calls(what.id) if call.killed), None)


def _found(what: Bill, data: Path, outside: Outside, done: bool, exit: int | None, problems: list[str]) -> Billed:
    instance, status, receipt = f"{Billing.__name__}/{what.id}", None, None
    if _status(data, what) is not None:
        ended = workflow_files.show(inspect.find(data, instance)).status
        status = ended.status
        if status == "complete":
            receipt = msgspec.convert(ended.output, Receipt)
        else:
            problems.append(f"{instance} is {status}" + (f": {ended.error.text}" if ended.error else ""))
    facts, letters = _facts(data, what), len(outside.letters(what.id))
    counts = {"invoices": facts["invoice"], "letters": letters, "payments": facts["payment"]}
    problems += [f"{number} {things}, not 1" for things, number in counts.items() if receipt and number != 1]
    ran = [call.step for call in outside.calls(what.id) if not call.killed]
    if ran != sorted(ran, key=STEPS.index):
        problems.append(f"a step that had ended was run again: {', '.join(ran)}")
    return Billed(
        instance=instance,
        account=what.account,
        status=status,
        receipt=receipt,
        already_done=done,
        child_exit=exit,
        killed_in=_killed_in(outside, what),
        runs={step: ran.count(step) for step in STEPS},
        problems=problems,
        **counts,
    )


def _facts(data: Path, what: Bill) -> Counter[str]:
    """How many facts of each type there are of the invoice."""
    there = inspect.actors(data, tenant=DEFAULT_TENANT, namespace=Invoices.__name__, prefix=what.account)
    if what.account not in (actor.name for actor in there):
        return Counter()
    facts = inspect.facts(inspect.find(data, f"{Invoices.__name__}/{what.account}"))
    return Counter(fact.type for fact in facts if fact.external_id == what.id)


if __name__ == "__main__":
    _data, _durability, _account, _until = sys.argv[1:]
    asyncio.run(begin(Bill(_account, _until), Path(_data), "relaxed" if _durability == "relaxed" else "full"))
