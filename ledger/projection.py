"""Projections: state folded from facts. Pure: never authoritative, always rebuildable."""

from __future__ import annotations

import inspect
import logging
import sys
import typing
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NoReturn

import msgspec

from .errors import ProjectionError
from .fact import Fact

log = logging.getLogger("z0.ledger")


class Projection(msgspec.Struct):
    """State folded from an entity's facts; derive from it with defaults for every field, and define `apply`."""

    version: ClassVar[int] = 1
    """Raise it when `apply` or the fields change: snapshots of another version are rebuilt."""

    def apply(self, fact: Fact) -> None:
        """Take one fact into account; pure. Raising refuses a fact that is being appended."""
        raise NotImplementedError(f"{type(self).__name__} has no apply(fact)")


class Balance(Projection):
    """The sum of the facts' amounts, per currency ("" where a fact names none)."""

    amounts: dict[str, int] = {}

    def apply(self, fact: Fact) -> None:
        """Add the fact's amount, if it has one."""
        if fact.amount is not None:
            currency = fact.currency or ""
            self.amounts[currency] = self.amounts.get(currency, 0) + fact.amount


class Snapshot(msgspec.Struct, frozen=True):
    """A projection's state after fact `seq`."""

    version: int
    seq: int
    state: bytes


class ProjectionType:
    """How one projection of an entity class begins, is stored and comes back."""

    def __init__(self, name: str, cls: type[Projection]) -> None:
        """Raises TypeError for a class that cannot begin empty or cannot be stored."""
        self.name = name
        self.cls = cls
        self._decode = msgspec.msgpack.Decoder(cls).decode
        try:
            self._decode(self.encode(cls()))
        except (TypeError, msgspec.MsgspecError) as error:
            raise TypeError(
                f"projection {name}: {cls.__name__} needs a default for every field, of types that msgspec "
                f"can store ({error})"
            ) from error

    encode = staticmethod(msgspec.msgpack.Encoder().encode)

    def restore(self, snapshot: Snapshot | None, head: int) -> tuple[Projection, int]:
        """The state of a snapshot that still holds, and its seq; else an empty one, and 0."""
        if snapshot is None:
            return self.cls(), 0
        try:
            if snapshot.version == self.cls.version and type(snapshot.seq) is int and 0 <= snapshot.seq <= head:
                return self._decode(snapshot.state), snapshot.seq
        except Exception:  # damaged, or the class changed without its version: never authoritative, so rebuilt
            log.warning("a snapshot of projection %s cannot be read: it is rebuilt", self.name, exc_info=True)
        return self.cls(), 0

    def fold(self, state: Projection, facts: Iterable[Fact]) -> Projection:
        """Apply facts that are in the ledger. Raises ProjectionError."""
        apply = state.apply
        for fact in facts:
            try:
                apply(fact)
            except Exception as error:
                raise ProjectionError(self.name, fact.seq, f"{type(error).__name__}: {error}") from error
        return state


class ProjectionAttribute:
    """Stands on the class under a projection's name: read when the instance holds none, because it is broken."""

    def __init__(self, name: str) -> None:
        """`name` of the projection."""
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        """Raise the projection's error."""
        if instance is None:
            return self
        error = instance.ledger.broken.get(self.name)
        raise error.again() if error is not None else AttributeError(f"{self.name} is not open yet")


def declared(cls: type, local_names: dict[str, Any]) -> dict[str, type[Projection]]:
    """The projections that a class declares: `projections = {...}`, and annotations with a Projection class."""
    found = dict(cls.__dict__.get("projections") or {})
    module = sys.modules.get(cls.__module__)
    names = {**getattr(module, "__dict__", {}), **local_names}
    for name, annotation in inspect.get_annotations(cls).items():
        kind = _resolve(annotation, names)
        if isinstance(kind, type) and issubclass(kind, Projection):
            found[name] = kind
    for name, kind in found.items():
        if not (isinstance(kind, type) and issubclass(kind, Projection)):
            _refuse(cls, name, kind)
    return found


def _resolve(annotation: Any, names: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return typing.get_type_hints(_annotated(annotation), names, names)["value"]
    except Exception:  # an annotation of something else, out of reach: `projections` can name it
        return None


def _annotated(annotation: str) -> Callable[[], None]:
    def probe() -> None: ...

    probe.__annotations__ = {"value": annotation}
    return probe


def _refuse(cls: type, name: str, kind: object) -> NoReturn:
    raise TypeError(f"{cls.__name__}.projections[{name!r}] is {kind!r}, not a subclass of z0.Projection")
