"""The command `z0 replay`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from z0 import terminal
from z0.actors.errors import Z0Error
from z0.importing import made
from z0.replay import class_of
from z0.replay import replay as replay_file

SAME, DIVERGED, ERROR = 0, 1, 2


def replay(
    file: Annotated[Path, Parameter(help="The file of a workflow instance, live or copied.")],
    workflow: Annotated[str, Parameter(help="Its class, as module:Class.")],
    /,
    *,
    env: Annotated[str | None, Parameter(help="MODULE:FUNCTION that returns what the body has as self.env.")] = None,
    timeout: Annotated[str, Parameter(help="For a body that waits for something that is no step.")] = "30 seconds",
    json: Annotated[bool, Parameter(help="Print JSON.", negative="")] = False,
) -> int:
    """Run today's code against an instance's journal, executing nothing. Exit code 0: it fits, 1: not, 2: an error.

    Example: z0 replay copied/inv-7.sqlite billing:Billing
    """
    try:
        cls, given = class_of(workflow), None if env is None else made(env)
        found = asyncio.run(replay_file(file, cls, env=given, limit=timeout))
    except (ValueError, Z0Error) as error:
        terminal.print_problem(error)
        return ERROR
    if json:
        terminal.print_json({"same": found.same, **{name: getattr(found, name) for name in found.__struct_fields__}})
    elif found.same:
        where = "to its end" if found.ends else f"up to {', '.join(found.reached) or 'where the journal ends'}"
        sys.stdout.write(f"same: {terminal.printable(found.instance)}, {found.steps:,} steps, {where}\n")
    else:
        sys.stdout.write(f"DIVERGED {terminal.printable(found.problem)}\n")
    return SAME if found.same else DIVERGED
