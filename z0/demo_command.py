"""The command `z0 demo`."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from z0 import demo as bank_demo
from z0 import demo_view, terminal, workflow_commands
from z0.usage import FAILED, INTERRUPTED, OK, Json

Input = Annotated[
    Path, Parameter(help="A transaction file of the PKDD'99 format [default: a sample].", show_default=False)
]
Ledgers = Annotated[Path, Parameter(help="The data directory; made when it is not there.")]
Durability = Annotated[Literal["full", "relaxed"], Parameter(help="full: on the disk before the reply.")]


def demo(
    *,
    input: Input = bank_demo.SAMPLE,
    data: Ledgers = Path("var/demo"),
    durability: Durability = "full",
    json: Json = False,
) -> int:
    """Post a bank's real transactions to durable ledgers, check every one of them, and bill an account.

    The bill is a workflow, whose process kills itself in a step; its journal is shown. Interrupt the demo whenever
    you like and run it again: it continues; nothing is lost, nothing is there twice.

    Example: z0 demo --data /tmp/demo
    """
    console = Console(stderr=True) if json else terminal.console()
    view = demo_view.View(console)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            report = runner.run(bank_demo.run(input, data, durability, view))
    except KeyboardInterrupt:
        terminal.print_problem("interrupted; what was acknowledged is kept: the same command continues")
        return INTERRUPTED
    if json:
        terminal.print_json(report)
    else:
        console.print(demo_view.summary(report))
        if report.reconciled.largest:
            console.print(demo_view.drifts(report))
        if report.billed is not None and report.billed.status is not None:
            view.say(f"the journal of {report.billed.instance}")
            workflow_commands.journal(data, report.billed.instance)
        view.say("next:")
        for words in demo_view.commands(report):
            view.say(f"  {_typed()} {words}")
    return OK if report.ok else FAILED


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _typed() -> str:
    """How this command was called, as it can be typed again here."""
    called = Path(sys.argv[0])
    return _program(called) if called.name == "z0" else f"{_program(Path(sys.executable))} -m z0"


def _program(path: Path) -> str:
    """A program by its name when that is what a shell finds, else by the shorter of its paths."""
    found = shutil.which(path.name)
    if found is not None and _place(Path(found)) == _place(path):
        return path.name
    short = min(os.path.relpath(path), str(path.absolute()), key=len)
    return shlex.quote(short if os.sep in short else os.path.join(os.curdir, short))


def _place(path: Path) -> Path:
    """Where a file is; a link is a file of its own, for a virtual environment's Python is one."""
    return path.parent.resolve() / path.name
