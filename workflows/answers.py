"""What the journal says that came of a step, as the body gets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .failure import error_of
from .history import Record
from .values import loaded, returned_by

if TYPE_CHECKING:
    from .workflow import Workflow


class Answers:
    """Of one instance's steps."""

    workflow: Workflow
    _asked: int
    _failed: dict[str, int]

    async def outcome_of(self, record: Record, fn: Callable[..., Any]) -> Any:
        """What the journal says that came of the step whose callback is `fn`. Raises the step's error, InvalidValue."""
        if record.blob is None:
            return self.outcome(record, returned_by(fn))
        return loaded(await self.value_of(record), returned_by(fn), f"the result of {record.key}")

    async def value_of(self, record: Record) -> bytes | None:
        """The step's result, from where it is kept. Raises InvalidValue."""
        return record.value if record.blob is None else await self.workflow.kept(record.blob)

    def outcome(self, record: Record, kind: Any = Any) -> Any:
        """What the journal says that came of the step. Raises the step's error."""
        if record.failure is not None:
            error = error_of(record.failure, type(self.workflow).__module__)
            error.__dict__["_z0_step"] = record.key
            self._failed[record.key] = self._asked
            raise error
        return loaded(record.value, kind, f"the result of {record.key}")
