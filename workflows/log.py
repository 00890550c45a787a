"""The logger of a body: what it says again on replay is not said twice."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import Run


class StepLog(logging.LoggerAdapter[logging.Logger]):
    """As the logger "z0.workflows.<class>", with the instance's id; silent on replay."""

    def __init__(self, run: Run) -> None:
        """Of this run."""
        engine = run.engine
        super().__init__(logging.getLogger(f"z0.workflows.{type(engine.workflow).__name__}"), {"instance": engine.id})
        self._run = run

    def isEnabledFor(self, level: int) -> bool:
        """Whether it is heard: the body is past all that its journal has."""
        return not self._run.owed and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Name the instance."""
        assert self.extra is not None
        return f"{self.extra['instance']}: {msg}", {**kwargs, "extra": {**self.extra, **(kwargs.get("extra") or {})}}
