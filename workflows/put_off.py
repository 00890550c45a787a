"""What an instance leaves to the next runtime, when this one was opened for somebody else, or for a word only.

Nothing is lost by that: what is to be done is in the journal, and whoever opens the directory next finds the instance
due at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .workflow import Workflow


def body(workflow: Workflow) -> bool:
    """Whether its body is not to run in this runtime."""
    host = workflow._z0_host
    return _left(workflow, not host.node.lively(host.address))


def errands(workflow: Workflow) -> bool:
    """Whether what it owes others is not to be done in this runtime."""
    return _left(workflow, not workflow._services.performs_errands)


def _left(workflow: Workflow, left: bool) -> bool:
    workflow.put_off = workflow.put_off or left
    return left
