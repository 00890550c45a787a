"""Entities: actors that keep a ledger."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Unpack, cast

from z0.actors.actor import Actor
from z0.actors.gates import pass_once
from z0.actors.handlers import outside

from . import query
from .chain import Verification
from .errors import FactNotAccepted
from .fact import Draft, Fact, FactFields, copy_fact, draft, drafts_of, with_key
from .ledger import Ledger
from .projection import Projection, ProjectionAttribute, ProjectionType, declared
from .query import Filters, Query
from .schema import ENTITY_SCHEMA


def _append(entity: Entity, args: tuple[Any, ...], fields: dict[str, Any]) -> Fact:
    """`Entity.append` on the hot path."""
    if len(args) == 1 and "type" not in fields:
        fields["type"] = args[0]
    elif args:
        raise TypeError("append() takes the fact's type, once, and keyword arguments")
    new = draft(fields)
    if new.type not in entity._z0_accepts and "*" not in entity._z0_accepts:
        return entity._z0_existing(new)
    fact = entity.ledger.write(new)
    # Projections have seen a new fact and may have kept its data; a repeated one was read for this caller alone.
    return fact if fact.data is None or entity.ledger.repeated else copy_fact(fact)


def _keyed(
    args: tuple[Any, ...], fields: dict[str, Any], keys: Callable[[], str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of `Entity.append`, with the next key where none was given."""
    return args, with_key(fields, keys)


def _many_keyed(
    args: tuple[Any, ...], fields: dict[str, Any], keys: Callable[[], str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """As `_keyed`, of `Entity.append_many`."""
    facts = args[0] if args else fields.get("facts")
    if not isinstance(facts, Sequence):
        return args, fields
    keyed = [with_key(fact, keys) if isinstance(fact, Mapping) else fact for fact in facts]
    return ((keyed, *args[1:]), fields) if args else (args, {**fields, "facts": keyed})


class Entity(Actor):
    """An actor that keeps an append-only ledger of facts.

    Inside: `self.ledger`, and each declared projection as an attribute that is always up to date. Outside, the same
    as messages: `append, append_many, query_facts, get_fact, count_facts, sum_facts, projection, verify`.
    """

    accepts: ClassVar[Iterable[str]] = frozenset()
    """Types of facts that callers may append themselves; "*": any."""
    indexes: ClassVar[Sequence[str]] = ()
    """Fields of facts, or "data.<path>", that queries find by an index."""
    projections: ClassVar[Mapping[str, type[Projection]]] = {}
    """Projections by name, where annotations cannot say it."""

    _z0_schema: ClassVar[tuple[str, ...]] = ENTITY_SCHEMA
    _z0_projections: ClassVar[dict[str, ProjectionType]] = {}
    _z0_accepts: ClassVar[frozenset[str]] = frozenset()
    _z0_ledger: ClassVar[type[Ledger]] = Ledger
    ledger: Ledger

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Read what the class declares. Raises TypeError and InvalidQuery for what cannot be."""
        super().__init_subclass__(**kwargs)
        found = declared(cls, sys._getframe(1).f_locals)  # a class may name projections of the function around it
        cls._z0_projections = dict(cls._z0_projections)
        for name, kind in found.items():
            cls._z0_projections[name] = ProjectionType(name, kind)
            if hasattr(Entity, name):
                raise TypeError(f"{cls.__name__}.{name}: the name belongs to z0.Entity; name the projection otherwise")
            setattr(cls, name, ProjectionAttribute(name))
        if isinstance(cls.accepts, str):
            raise TypeError(f"{cls.__name__}.accepts is a set of fact types, not a string")
        cls._z0_accepts = frozenset(cls.accepts)
        for field in cls.indexes:
            query.index_ddl(field)

    def _z0_open(self, meta: dict[str, Any]) -> None:
        host = self._z0_host
        self._z0_make_indexes(str(meta.get("indexes", "")))
        limits = host.node.limits
        self.ledger = self._z0_ledger(
            self, host.address, host.writes, host.node.clock, self._z0_projections, limits.snapshot_facts
        )

    def _z0_make_indexes(self, made: str) -> None:
        """Bring the file's indexes in line with the class; `made` are those that it has."""
        wanted = "\n".join(self.indexes)
        if made == wanted:
            return
        database = self._z0_host.database
        database.begin()
        for field in set(made.split("\n")) - {"", *self.indexes}:
            database.write(f"DROP INDEX IF EXISTS {query.index_name(field)}", ())
        for field in self.indexes:
            database.write(query.index_ddl(field), ())
        database.write("INSERT OR REPLACE INTO z0_meta VALUES('indexes', ?)", (wanted,))
        database.commit()

    def _z0_close(self) -> None:
        self.ledger.snapshot()

    def _z0_facts(self) -> int | None:
        return self.ledger.head

    def _z0_existing(self, new: Draft) -> Fact:
        """The fact that is there already, for the key comes first. Raises FactNotAccepted."""
        existing = self.ledger.existing(new)
        if existing is None:
            raise FactNotAccepted(str(self._z0_host.address), new.type, self._z0_accepts)
        return existing

    @outside("self.ledger.append(...)", _append, _keyed)
    async def append(self, type: str, **fields: Unpack[FactFields]) -> Fact:
        """Append a fact of an accepted type. Raises as `Ledger.append`, and FactNotAccepted."""
        return _append(self, (type,), cast(dict[str, Any], fields))

    @outside("self.ledger.append_many(...)", keyed=_many_keyed)
    async def append_many(self, facts: Sequence[Mapping[str, Any]]) -> list[Fact]:
        """Append facts of accepted types, all or none. Raises as `append`."""
        drafts = drafts_of(facts)
        for new in drafts:
            if new.type not in self._z0_accepts and "*" not in self._z0_accepts:
                self._z0_existing(new)
        return self.ledger.write_many(drafts)

    @outside("self.ledger.query(...)")
    async def query_facts(self, **filters: Unpack[Query]) -> list[Fact]:
        """The facts that pass all filters, in order of seq. Raises InvalidQuery."""
        return self.ledger.query(**filters)

    @outside("self.ledger.get(...)")
    async def get_fact(self, seq_or_id: int | str) -> Fact | None:
        """The fact of that seq or id, or None."""
        return self.ledger.get(seq_or_id)

    @outside("self.ledger.count(...)")
    async def count_facts(self, **filters: Unpack[Filters]) -> int:
        """How many facts pass all filters. Raises InvalidQuery."""
        return self.ledger.count(**filters)

    @outside("self.ledger.sum(...)")
    async def sum_facts(self, field: str = "amount", **filters: Unpack[Filters]) -> int:
        """The exact sum of "amount" or "data.<path>". Raises as `Ledger.sum`."""
        return self.ledger.sum(field, **filters)

    @outside("the attribute of its name, or self.ledger.projection(...)")
    async def projection(self, name: str, *, seq: int | None = None, time: datetime | int | None = None) -> Any:
        """A copy of a projection as it is, or as it was after fact `seq` or at `time` (inclusive)."""
        return self.ledger.projection(name, seq=seq, time=time)

    @outside("self.ledger.verify()")
    async def verify(self) -> Verification:
        """Recompute the chain of hashes, letting other work run between steps. Raises LedgerCorrupt."""
        steps = self.ledger.verify_steps()
        result = next(steps)
        for step in steps:
            await pass_once()
            result = step
        return result
