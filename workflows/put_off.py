"""What an instance leaves to the next runtime, when this one was opened for somebody else, or for a word only.

Nothing is lost by that: what is to be done is in the journal, and whoever opens the directory next finds the instance
due at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .engine import Engine


def body(engine: Engine) -> bool:
    """Whether its body is not to run in this runtime."""
    host = engine.host
    return _left(engine, not host.node.lively(host.address))


def errands(engine: Engine) -> bool:
    """Whether what it owes others is not to be done in this runtime."""
    return _left(engine, not engine.services.performs_errands)


def _left(engine: Engine, left: bool) -> bool:
    engine.put_off = engine.put_off or left
    return left
