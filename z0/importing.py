"""What a command is given as "module:name": a class or a function of the user's program, imported as that would be."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import Any

from z0.actors.errors import said

HERE = ("<frozen", __file__, importlib.__file__ or "")


def imported(name: str) -> Any:
    """What the name stands for, imported from the working directory too.

    Raises ValueError, of one line, whatever importing raises: a module's own errors and exits are its user's to mend.
    """
    module, _, path = name.partition(":")
    if not (module and path):
        raise ValueError(f"{name!r} names nothing; write module:name")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{name!r} cannot be imported: {told(error)}") from error
    return found


def told(error: BaseException) -> str:
    """The error in one line, with the line of the user's code that raised it."""
    text = said(error).splitlines()[0]
    if isinstance(error, SyntaxError):  # which says where
        return text
    lines = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith(HERE)]
    return f"{text} ({lines[-1].filename}, line {lines[-1].lineno})" if lines else text


def made(name: str) -> Any:
    """What the function of that name returns. Raises ValueError, also for what the function raises."""
    function = imported(name)
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise ValueError(f"{name!r} gives nothing: {told(error)}") from error
