"""The command `z0`. Only the console script and `python -m z0` import it, never a program that embeds z0.

Exit codes: 0 all is well; 1 a check failed; 2 wrong usage, or nothing there to read; 130 interrupted. With
`--json` comes one document (facts: one a line) with stable field names. Whatever is stored, a terminal sees
no control character of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from z0 import inspect, terminal, workflow_commands
from z0.actors.errors import ActorFileError, DataDirLocked, InvalidName, QueryError, Z0Error
from z0.actors.names import DEFAULT_TENANT, Address
from z0.bank import BadTransactionFile
from z0.check import check, check_all
from z0.replay_command import replay
from z0.usage import FAILED, INTERRUPTED, OK, PIPE_CLOSED, USAGE, Json
from z0.workflows.errors import InstanceNotFound, StepNotFound

NOT_THERE = (
    ActorFileError, BadTransactionFile, DataDirLocked, InvalidName, OSError, QueryError, InstanceNotFound, StepNotFound
)  # fmt: skip
COMMANDS = "z0.commands"
OPTIONAL = {"bench": "pip install z0, or in a checkout: pip install --editable ."}

DataDir = Annotated[Path, Parameter(help="A data directory; its owner may be running.")]
AnyPath = Annotated[Path, Parameter(help="A data directory, or one actor's file, live or copied.")]
Actor = Annotated[str | None, Parameter(help="NAMESPACE/NAME of an actor in the data directory.")]
Tenant = Annotated[str, Parameter(help="Whose actor, in a data directory.")]
AnyTenant = Annotated[str | None, Parameter(help="Only actors of this tenant.")]
Class = Annotated[str | None, Parameter(name="--class", help="Only actors of this class (its namespace).")]
Prefix = Annotated[str, Parameter(help="Only names that begin so.")]
Types = Annotated[
    list[str] | None,
    Parameter(name="--type", negative="", consume_multiple=True, help="Only facts of these types."),
]
_NOT_NEGATIVE = Number(gte=0, lt=2**63 - 1)
After = Annotated[int, Parameter(validator=_NOT_NEGATIVE, help="Only facts after this seq.")]
Limit = Annotated[int, Parameter(validator=_NOT_NEGATIVE, help="At most so many; 0: all.")]
Reverse = Annotated[bool, Parameter(negative="", help="The last one first.")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code. Errors that z0 raises on purpose are one line on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _app(words[0] if words else None)(words, exit_on_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError:  # cyclopts has printed it
        return USAGE
    except BrokenPipeError:  # whoever read us has seen enough; the interpreter must not flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except NOT_THERE as error:
        return _fail(error, USAGE)
    except Z0Error as error:
        return _fail(error, FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    return code if isinstance(code, int) else OK


def _fail(problem: object, code: int) -> int:
    terminal.print_problem(problem)
    return code


def _app(chosen: str | None) -> App:
    """The commands of this module and those that other packages bring; of these only the chosen is loaded."""
    app = App(name="z0", help="Durable ledgers, one SQLite file for each actor.", version=_version)
    app.command("z0.demo_command:demo", name="demo")  # imported when it is asked for
    for command in (ls, show, facts, alarms, verify, replay):
        app.command(command)
    app.command(workflow_commands.app)
    brought = {point.name: point for point in entry_points(group=COMMANDS)}
    for name, point in brought.items():
        app.command(point.load() if name == chosen else App(help=f"See z0 {name} --help."), name=name)
    for name in OPTIONAL.keys() - brought.keys():
        app.command(_missing(name), name=name)
    return app


def _version() -> str:
    try:
        return version("z0")
    except PackageNotFoundError:
        return "unknown (not installed)"


def _missing(name: str) -> Callable[..., int]:
    def missing(*_: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]) -> int:
        return _fail(f"`z0 {name}` is not installed here: {OPTIONAL[name]}", USAGE)

    missing.__doc__ = "Not installed here."
    return missing


# Commands


def ls(
    data: DataDir,
    /,
    *,
    namespace: Class = None,
    prefix: Prefix = "",
    tenant: AnyTenant = None,
    limit: Limit = 100,
    json: Json = False,
) -> int:
    """List actors; sizes and counts are as of an actor's last eviction.

    Example: z0 ls var/demo --class Account --prefix 23
    """
    wanted = limit + 1 if limit else None
    found = inspect.actors(data, tenant=tenant, namespace=namespace, prefix=prefix, limit=wanted)
    shown, more = (found[:limit], len(found) > limit) if limit else (found, False)
    if json:
        terminal.print_json({"actors": shown, "more": more})
        return OK
    table = terminal.table("actor", "facts", "bytes", "next alarm", "last use", numbers=("facts", "bytes"))
    for actor in shown:
        address = Address(actor.tenant, actor.namespace, actor.name)
        terminal.row(
            table, address, actor.facts, actor.size, terminal.time(actor.next_alarm), terminal.time(actor.last_use)
        )
    console = terminal.console()
    console.print(table)
    if more:
        console.print(f"there are more: --limit {limit * 10}")
    return OK


def show(path: AnyPath, actor: Actor = None, /, *, tenant: Tenant = DEFAULT_TENANT, json: Json = False) -> int:
    """Show one actor: its ledger's head, projections, alarms, keys and tables.

    Example: z0 show var/demo Account/2378
    """
    details = inspect.show(inspect.find(path, actor, tenant))
    if json:
        terminal.print_json(details)
        return OK
    table = terminal.table("", "")
    table.show_header = False
    terminal.row(table, "actor", Address(details.tenant, details.namespace, details.name))
    terminal.row(table, "file", f"{details.path}, {details.size:,} bytes, schema {details.schema}")
    if details.wal_size:
        terminal.row(table, "WAL", f"{details.wal_size:,} bytes: somebody has it open, or it was not closed")
    if details.facts is None:
        terminal.row(table, "facts", "keeps no ledger")
    else:
        terminal.row(table, "facts", details.facts)
        terminal.row(table, "first, last", f"{terminal.time(details.first_fact)}, {terminal.time(details.last_fact)}")
        terminal.row(table, "head", details.head)
    for snapshot in details.snapshots:
        version_and_seq = f"version {snapshot.version}, as of fact {snapshot.seq:,}"
        terminal.row(
            table, f"projection {snapshot.projection}", f"{terminal.json_text(snapshot.state)} ({version_and_seq})"
        )
    for alarm in details.alarms:
        terminal.row(table, f"alarm {alarm.name}".strip(), f"{terminal.time(alarm.due)}{_how(alarm)}")
    for outcome in details.outcomes:
        terminal.row(table, f"{outcome.outcome} {outcome.name}".strip(), _ended(outcome))
    keys = ", ".join(f"{key.key} ({key.bytes:,} bytes)" for key in details.first_keys)
    terminal.row(table, "keys", f"{details.keys:,}: {keys}" if keys else "none")
    for name, rows in details.tables.items():
        terminal.row(table, f"table {name}", f"{rows:,} rows")
    terminal.console().print(table)
    return OK


def facts(
    path: AnyPath,
    actor: Actor = None,
    /,
    *,
    types: Types = None,
    after: After = 0,
    limit: Limit = 20,
    reverse: Reverse = False,
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> int:
    """Print an actor's facts, in order.

    Example: z0 facts var/demo Account/2378 --type debit --limit 5 --reverse
    """
    file = inspect.find(path, actor, tenant)
    found = inspect.facts(file, types=types or (), after=after, limit=limit or None, reverse=reverse)
    if json:
        for fact in found:
            sys.stdout.write(terminal.json_text(inspect.plain(fact)) + "\n")
        return OK
    table = terminal.table("seq", "time (UTC)", "type", "amount", "", "key", "data", numbers=("seq", "amount"))
    for fact in found:
        kind = fact.type if fact.subtype is None else f"{fact.type} ({fact.subtype})"
        data = "" if fact.data is None else terminal.json_text(fact.data)
        money = fact.amount, fact.currency
        terminal.row(table, fact.seq, terminal.time(fact.timestamp), kind, *money, fact.idempotency_key, data)
    terminal.console().print(table)
    return OK


def _how(alarm: inspect.Alarm) -> str:
    recurs = f", again {alarm.recurs}" if alarm.recurs else ""
    error = f", failed {alarm.retries} times: {alarm.error}" if alarm.error else ""
    return recurs + error


def _ended(outcome: inspect.Outcome) -> str:
    error = f": {outcome.error}" if outcome.error else ""
    times = "once" if outcome.times == 1 else f"{outcome.times:,} times"
    return f"{times}, last {terminal.time(outcome.ended)}{error}"


def alarms(
    path: AnyPath,
    actor: Actor = None,
    /,
    *,
    namespace: Class = None,
    tenant: AnyTenant = None,
    limit: Limit = 100,
    json: Json = False,
) -> int:
    """List who wakes next in a data directory; or one actor's alarms, and how its past ones ended.

    Example: z0 alarms var/z0 --class Account
    """
    if path.is_dir() and actor is None:
        return _list_wakeups(path, namespace, tenant, limit, json)
    details = inspect.show(inspect.find(path, actor, tenant or DEFAULT_TENANT))
    if json:
        terminal.print_json({"alarms": details.alarms, "outcomes": details.outcomes})
        return OK
    table = terminal.table("alarm", "", "when (UTC)", "")
    for alarm in details.alarms:
        terminal.row(table, alarm.name or "(unnamed)", "due", terminal.time(alarm.due), _how(alarm).removeprefix(", "))
    for outcome in details.outcomes:
        terminal.row(table, outcome.name or "(unnamed)", outcome.outcome, terminal.time(outcome.ended), _ended(outcome))
    terminal.console().print(table)
    return OK


def _list_wakeups(data: Path, namespace: str | None, tenant: str | None, limit: int, json: bool) -> int:
    found = inspect.wakeups(data, tenant=tenant, namespace=namespace, limit=limit or None)
    if json:
        terminal.print_json({"wakeups": found})
        return OK
    table = terminal.table("actor", "next alarm (UTC)")
    for each in found:
        when = "in memory: see its file" if each.active else terminal.time(each.next_alarm)
        terminal.row(table, Address(each.tenant, each.namespace, each.name), when)
    terminal.console().print(table)
    return OK


def verify(path: AnyPath, actor: Actor = None, /, *, tenant: AnyTenant = None, json: Json = False) -> int:
    """Check hash chains: of one actor, or of every actor of a data directory. Exit code 1 when one is broken.

    Example: z0 verify var/demo
    """
    if path.is_dir() and actor is None:
        results = check_all(path, tenant)
    else:
        results = iter([check(inspect.find(path, actor, tenant or DEFAULT_TENANT))])
    actors, count, broken = 0, 0, []
    for result in results:
        actors, count = actors + 1, count + result.facts
        if result.problem is not None:
            broken.append(result)
    if json:
        terminal.print_json({"ok": not broken, "actors": actors, "facts": count, "broken": broken})
    else:
        for result in broken:
            address = Address(result.tenant, result.namespace, result.name)
            sys.stdout.write(f"BROKEN {terminal.printable(address)}: {terminal.printable(result.problem)}\n")
        sys.stdout.write(f"{actors:,} actors, {count:,} facts verified, {len(broken):,} broken\n")
    return FAILED if broken else OK
