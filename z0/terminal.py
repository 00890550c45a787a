"""Safe output: whatever is stored, a terminal sees no control character of it. Tables, cells and JSON."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from z0.actors.clock import datetime_of

WIDTH = 160
CELL_MAX = 200


def printable(value: object) -> str:
    """Text without what a terminal would obey, hide or reorder: such characters stand escaped."""
    return _ODD.sub(lambda match: _escaped(match[0]) if _unsafe(match[0]) else match[0], str(value))


def lines(text: str) -> str:
    """Text of several lines, each of them printable."""
    return "\n".join(map(printable, text.split("\n")))


def whole(text: str) -> Text:
    """A cell that is not cut, and may have several lines."""
    return Text(lines(text))


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


def print_json(value: object) -> None:
    """Print one document, indented."""
    sys.stdout.write(json_text(value, indent=True) + "\n")


def print_problem(problem: object) -> None:
    """Print why a command ends, as one line on stderr."""
    sys.stderr.write(f"z0: {printable(problem)}\n")


def console() -> Console:
    """A terminal as it is; anything else gets room for whole lines."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """An empty table; `numbers` are columns that stand to the right."""
    new = Table()
    for column in columns:
        new.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return new


def row(table: Table, *cells: object) -> None:
    """Add a row; a long text is cut unless it is `whole`, None is empty."""
    table.add_row(*map(_cell, cells))


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    text = "" if value is None else f"{value:,}" if isinstance(value, int) else printable(value)
    return Text(text if len(text) <= CELL_MAX else f"{text[:CELL_MAX]}…")


def time(us: int | None) -> str:
    """Microseconds since the epoch as UTC, to the millisecond."""
    if us is None:
        return ""
    try:
        return datetime_of(us).isoformat(" ", "milliseconds").removesuffix("+00:00")
    except OverflowError:
        return str(us)
