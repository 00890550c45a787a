"""Ids of instances. Pure but for the chance that the node's clock gives."""

from __future__ import annotations

import re

from z0.actors.errors import InvalidName
from z0.actors.node import Node

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")


def check_id(id: str) -> str:
    """The id of an instance. Raises InvalidName."""
    if not _ID.fullmatch(id):
        raise InvalidName(f"instance id {id!r}", "is not 1 to 100 letters, digits, '_' or '-', not first '-'")
    return id


def random_id(node: Node) -> str:
    """An id that nobody else has."""
    return "".join(f"{int(node.clock.random() * 2**32):08x}" for _ in range(4))
