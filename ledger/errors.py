"""Errors of the ledger."""

from __future__ import annotations

from z0.actors.errors import Z0Error


class InvalidFact(Z0Error, ValueError):
    """A fact that cannot be written; nothing was."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"fact field {field!r}: {reason}")
        self.field = field
        self.reason = reason


class FactNotAccepted(InvalidFact):
    """A caller appended a fact of a type that the entity does not take from outside."""

    def __init__(self, entity: str, type: str, accepts: frozenset[str]) -> None:
        allowed = ", ".join(sorted(accepts)) or "none"
        super().__init__(
            "type",
            f"{entity} does not accept {type!r} from outside (accepts: {allowed}); "
            "send a message of the entity, or add the type to `accepts`",
        )


class ConcurrencyConflict(Z0Error):
    """The ledger's head is not the one that the caller had seen."""

    def __init__(self, entity: str, expected_seq: int, head: int) -> None:
        super().__init__(
            f"{entity}: expected the head to be {expected_seq}, but it is {head}; read the new facts and decide again"
        )
        self.expected_seq = expected_seq
        self.head = head


class LedgerCorrupt(Z0Error):
    """The chain of hashes does not hold: the file was changed, or damaged."""

    def __init__(self, entity: str, seq: int, reason: str) -> None:
        super().__init__(f"{entity}: fact {seq} {reason}; restore the file from a backup and compare")
        self.seq = seq
        self.reason = reason


class ProjectionError(Z0Error):
    """A projection could not be folded from facts that are already in the ledger."""

    def __init__(self, projection: str, seq: int, reason: str) -> None:
        super().__init__(
            f"projection {projection!r} failed at fact {seq}: {reason}; mend its apply() and raise its version"
        )
        self.projection = projection
        self.seq = seq
        self.reason = reason

    def again(self) -> ProjectionError:
        """The same error for another caller."""
        return ProjectionError(self.projection, self.seq, self.reason)


class InvalidQuery(Z0Error, ValueError):
    """A query with an unknown or malformed filter."""
