"""The command `z0`. Only the console script and `python -m z0` import it, never a program that embeds z0.

Exit codes: 0 all is well; 1 a check failed; 2 wrong usage, or nothing there to read; 130 interrupted. With
`--json` comes one document (facts: one a line) with stable field names. Whatever is stored, a terminal sees
no control character of it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Callable, Sequence
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from z0 import demo as bank_demo
from z0 import inspect
from z0.actors.clock import EPOCH
from z0.actors.errors import ActorFileError, DataDirLocked, InvalidName, Z0Error
from z0.actors.names import DEFAULT_TENANT, Address
from z0.bank import BadTransactionFile

OK, FAILED, USAGE, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141
NOT_THERE = (ActorFileError, BadTransactionFile, DataDirLocked, InvalidName)
COMMANDS = "z0.commands"
OPTIONAL = {"bench": "pip install z0, or in a checkout: pip install --editable ."}
WIDTH = 160
CELL_MAX = 200

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON, for programs.")]
DataDir = Annotated[Path, Parameter(help="A data directory; its owner may be running.")]
AnyPath = Annotated[Path, Parameter(help="A data directory, or one actor's file, live or copied.")]
Actor = Annotated[str | None, Parameter(help="NAMESPACE/NAME of an actor in the data directory.")]
Tenant = Annotated[str, Parameter(help="Whose actor, in a data directory.")]
AnyTenant = Annotated[str | None, Parameter(help="Only actors of this tenant.")]
Class = Annotated[str | None, Parameter(name="--class", help="Only actors of this class (its namespace).")]
Prefix = Annotated[str, Parameter(help="Only names that begin so.")]
Input = Annotated[
    Path, Parameter(help="A transaction file of the PKDD'99 format [default: a sample].", show_default=False)
]
Ledgers = Annotated[Path, Parameter(help="The data directory; made when it is not there.")]
Durability = Annotated[Literal["full", "relaxed"], Parameter(help="full: on the disk before the reply.")]
Types = Annotated[
    list[str] | None,
    Parameter(name="--type", negative="", consume_multiple=True, help="Only facts of these types."),
]
After = Annotated[int, Parameter(help="Only facts after this seq.")]
Limit = Annotated[int, Parameter(help="At most so many; 0: all.")]
Reverse = Annotated[bool, Parameter(negative="", help="The last one first.")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code. Errors that z0 raises on purpose are one line on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _app(words[0] if words else None)(words, exit_on_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError:  # cyclopts has printed it
        return USAGE
    except NOT_THERE as error:
        return _fail(error, USAGE)
    except Z0Error as error:
        return _fail(error, FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # whoever read us has seen enough; the interpreter must not flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return code if isinstance(code, int) else OK


def _fail(problem: object, code: int) -> int:
    sys.stderr.write(f"z0: {printable(problem)}\n")
    return code


def _app(chosen: str | None) -> App:
    """The commands of this module and those that other packages bring; of these only the chosen is loaded."""
    app = App(name="z0", help="Durable ledgers, one SQLite file for each actor.", version=_version)
    for command in (demo, ls, show, facts, verify):
        app.command(command)
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


def demo(
    *,
    input: Input = bank_demo.SAMPLE,
    data: Ledgers = Path("var/demo"),
    durability: Durability = "full",
    json: Json = False,
) -> int:
    """Post a bank's real transactions to durable ledgers, and check every one of them.

    Interrupt it whenever you like and run it again: it continues; nothing is lost, nothing is there twice.

    Example: z0 demo --data /tmp/demo
    """
    console = Console(stderr=True) if json else _console()
    view = bank_demo.View(console)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            report = runner.run(bank_demo.run(input, data, durability, view))
    except KeyboardInterrupt:
        return _fail("interrupted; what was acknowledged is kept: the same command continues", INTERRUPTED)
    if json:
        _print_json(report)
    else:
        console.print(bank_demo.summary(report))
        if report.reconciled.largest:
            console.print(bank_demo.drifts(report))
        view.say("next:")
        where, actor, z0 = shlex.quote(str(data)), f"Account/{report.busiest}", _typed()
        for words in (f"ls {where}", f"facts {where} {actor} --limit 5 --reverse", f"verify {where}"):
            view.say(f"  {z0} {words}")
    return OK if report.ok else FAILED


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _typed() -> str:
    """How this command was called, as it can be typed again."""
    called = Path(sys.argv[0])
    if called.name != "z0":
        return "python -m z0"
    found = shutil.which("z0")
    if found is not None and Path(found).resolve() == called.resolve():
        return "z0"
    relative = os.path.relpath(called)
    return shlex.quote(relative if len(relative) < len(str(called)) else str(called))


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
        _print_json({"actors": shown, "more": more})
        return OK
    table = _table("actor", "facts", "bytes", "next alarm", "last use", numbers=("facts", "bytes"))
    for actor in shown:
        address = Address(actor.tenant, actor.namespace, actor.name)
        _row(table, address, actor.facts, actor.size, _time(actor.next_alarm), _time(actor.last_use))
    console = _console()
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
        _print_json(details)
        return OK
    table = _table("", "")
    table.show_header = False
    _row(table, "actor", Address(details.tenant, details.namespace, details.name))
    _row(table, "file", f"{details.path}, {details.size:,} bytes, schema {details.schema}")
    if details.wal_size:
        _row(table, "WAL", f"{details.wal_size:,} bytes: somebody has it open, or it was not closed")
    if details.facts is None:
        _row(table, "facts", "keeps no ledger")
    else:
        _row(table, "facts", details.facts)
        _row(table, "first, last", f"{_time(details.first_fact)}, {_time(details.last_fact)}")
        _row(table, "head", details.head)
    for snapshot in details.snapshots:
        version_and_seq = f"version {snapshot.version}, as of fact {snapshot.seq:,}"
        _row(table, f"projection {snapshot.projection}", f"{json_text(snapshot.state)} ({version_and_seq})")
    for alarm in details.alarms:
        error = f", failed {alarm.retries} times: {alarm.error}" if alarm.error else ""
        _row(table, f"alarm {alarm.name}".strip(), f"{_time(alarm.due)}{error}")
    keys = ", ".join(f"{key.key} ({key.bytes:,} bytes)" for key in details.first_keys)
    _row(table, "keys", f"{details.keys:,}: {keys}" if keys else "none")
    for name, rows in details.tables.items():
        _row(table, f"table {name}", f"{rows:,} rows")
    _console().print(table)
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
            sys.stdout.write(json_text(inspect.plain(fact)) + "\n")
        return OK
    table = _table("seq", "time (UTC)", "type", "amount", "", "key", "data", numbers=("seq", "amount"))
    for fact in found:
        kind = fact.type if fact.subtype is None else f"{fact.type} ({fact.subtype})"
        data = "" if fact.data is None else json_text(fact.data)
        money = fact.amount, fact.currency
        _row(table, fact.seq, _time(fact.timestamp), kind, *money, fact.idempotency_key, data)
    _console().print(table)
    return OK


def verify(path: AnyPath, actor: Actor = None, /, *, tenant: AnyTenant = None, json: Json = False) -> int:
    """Check hash chains: of one actor, or of every actor of a data directory. Exit code 1 when one is broken.

    Example: z0 verify var/demo
    """
    if path.is_dir() and actor is None:
        results = inspect.check_all(path, tenant)
    else:
        results = iter([inspect.check(inspect.find(path, actor, tenant or DEFAULT_TENANT))])
    actors, count, broken = 0, 0, []
    for result in results:
        actors, count = actors + 1, count + result.facts
        if result.problem is not None:
            broken.append(result)
    if json:
        _print_json({"ok": not broken, "actors": actors, "facts": count, "broken": broken})
    else:
        for result in broken:
            address = Address(result.tenant, result.namespace, result.name)
            sys.stdout.write(f"BROKEN {printable(address)}: {printable(result.problem)}\n")
        sys.stdout.write(f"{actors:,} actors, {count:,} facts verified, {len(broken):,} broken\n")
    return FAILED if broken else OK


# What a terminal may see


def printable(value: object) -> str:
    """Text without what a terminal would obey, hide or reorder: such characters stand escaped."""
    return _ODD.sub(lambda match: _escaped(match[0]) if _unsafe(match[0]) else match[0], str(value))


def json_text(value: object, *, indent: bool = False) -> str:
    """JSON on one line, or indented; what a terminal would obey is escaped inside its strings."""
    text = msgspec.json.encode(value, enc_hook=repr)
    if indent:
        text = msgspec.json.format(text, indent=2)
    return _ODD.sub(lambda match: _json_escaped(match[0]) if _unsafe(match[0]) else match[0], text.decode())


_ODD = re.compile(r"[^ -~]")


def _unsafe(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _json_escaped(character: str) -> str:
    if character == "\n":  # ours: inside strings it is escaped already
        return character
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _print_json(value: object) -> None:
    sys.stdout.write(json_text(value, indent=True) + "\n")


def _console() -> Console:
    """A terminal as it is; anything else gets room for whole lines."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def _table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return table


def _row(table: Table, *cells: object) -> None:
    table.add_row(*map(_cell, cells))


def _cell(value: object) -> Text:
    text = "" if value is None else f"{value:,}" if isinstance(value, int) else printable(value)
    return Text(text if len(text) <= CELL_MAX else f"{text[:CELL_MAX]}…")


def _time(us: int | None) -> str:
    """Microseconds since the epoch as UTC, to the millisecond."""
    if us is None:
        return ""
    try:
        return (EPOCH + timedelta(microseconds=us)).isoformat(" ", "milliseconds").removesuffix("+00:00")
    except OverflowError:
        return str(us)
