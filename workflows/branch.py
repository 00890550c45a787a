"""Branches of a body that run side by side, and know which of them they are. Pure."""

from __future__ import annotations

from contextvars import ContextVar


class Branch:
    """One of several that `all` or `race` runs."""

    __slots__ = ("around", "base", "key", "lost")

    def __init__(self, base: str, key: str, lost: bool) -> None:
        """`base`: the key of the step that it stands in, or ""; `key`: what its own steps stand in."""
        self.around = BRANCH.get()
        self.base = base
        self.key = key
        self.lost = lost
        """Nobody waits for it any more: it begins nothing."""


BRANCH: ContextVar[Branch | None] = ContextVar("z0_workflow_branch", default=None)
"""The branch that this code belongs to."""


def parent_in_branch(base: str) -> str:
    """What a step stands in that is taken here, directly in `base`: that, or a branch in it."""
    branch = BRANCH.get()
    while branch is not None and branch.base != base:
        branch = branch.around
    return base if branch is None else branch.key


def is_lost() -> bool:
    """Whether nobody waits any more for what this code does."""
    branch = BRANCH.get()
    while branch is not None:
        if branch.lost:
            return True
        branch = branch.around
    return False
