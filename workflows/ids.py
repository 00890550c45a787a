"""Ids of instances. Pure but for the chance that the node's clock gives."""

from __future__ import annotations

import re

from z0.actors.errors import InvalidName
from z0.actors.node import Node

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")


def check_id(id: object, what: str = "instance id", most: int = 100) -> str:
    """The id of an instance, or what is made of the same characters. Raises InvalidName."""
    if not isinstance(id, str) or len(id) > most or not _ID.fullmatch(id):
        raise InvalidName(f"{what} {id!r}", f"is not 1 to {most} letters, digits, '_' or '-', not first '-'")
    return id


def random_id(node: Node) -> str:
    """An id that nobody else has."""
    return "".join(f"{int(node.clock.random() * 2**32):08x}" for _ in range(4))
