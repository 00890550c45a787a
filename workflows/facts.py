"""The ledger of an instance: a fact that a step appends has a key of its own, so that it is there once."""

from __future__ import annotations

from collections.abc import Sequence

from z0.actors.call import CURRENT
from z0.ledger.fact import Draft, Fact
from z0.ledger.ledger import Ledger, Saved


class InstanceLedger(Ledger):
    """A ledger whose facts are appended by steps, which may run again."""

    def write(self, new: Draft) -> Fact:
        """`append` of what has been checked."""
        return super().write(self._keyed(new))

    def write_many(self, drafts: Sequence[Draft]) -> list[Fact]:
        """`append_many` of what has been checked."""
        return super().write_many([self._keyed(new) for new in drafts])

    def restore(self, saved: Saved) -> None:
        """Be as when the head was this; and have the instance know that its journal may have been taken back too."""
        super().restore(saved)
        self._owner._z0_engine.look_back()

    def _keyed(self, new: Draft) -> Draft:
        call = CURRENT.get()
        mine = call is not None and call.host is self._owner._z0_host
        if mine and call is not None and call.keys is not None and new.idempotency_key is None:
            new.idempotency_key = call.keys()
        return new
