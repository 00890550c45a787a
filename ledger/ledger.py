"""One entity's ledger, from inside the entity: append facts and read them, synchronously.

An append is one INSERT in the turn's transaction; the unique index finds a repeated idempotency key, so a new key
costs no look-up (unless the one before was a repeat: a caller that repeats one usually repeats many).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, Unpack, cast

from msgspec.structs import astuple

from z0.actors.clock import Clock
from z0.actors.codec import same_json
from z0.actors.database import Row
from z0.actors.errors import ActorReset, CommitUnknown, ConstraintFailed, IdempotencyConflict, NotADatabase, QueryError
from z0.actors.names import Address
from z0.actors.writes import Writes

from . import chain, query
from .chain import Verification, encode
from .errors import ConcurrencyConflict, InvalidQuery, LedgerCorrupt, ProjectionError
from .fact import (
    COLUMNS,
    CONTENT,
    INT64_MAX,
    Draft,
    Fact,
    FactFields,
    content,
    content_of,
    draft,
    drafts_of,
    fact_of,
    id_prefix,
    make_fact,
    not_utf8,
)
from .projection import Projection, ProjectionType, Snapshot
from .query import Filters, Query

_ALL = f"SELECT {', '.join(COLUMNS)} FROM facts"
_INSERT = f"INSERT INTO facts VALUES({', '.join('?' * len(COLUMNS))})"
_BY_KEY = f"{_ALL} WHERE idempotency_key = ?"
_BY_SEQ = f"{_ALL} WHERE seq = ?"
_RANGE = f"{_ALL} WHERE seq > ? AND seq <= ? ORDER BY seq"
_EXTENT = "SELECT min(seq), max(seq) FROM facts"
_HEAD = "SELECT seq, hash, timestamp FROM facts ORDER BY seq DESC LIMIT 1"
_SNAPSHOTS = "SELECT projection, version, seq, state FROM z0_snapshots"
_PUT_SNAPSHOT = "INSERT OR REPLACE INTO z0_snapshots VALUES(?, ?, ?, ?)"
log = logging.getLogger("z0.ledger")

_SEQ = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_CHUNK = 2_000  # facts that are read at once when many are

Saved = tuple[int, bytes, int]


class Ledger:
    """The facts of one entity. Everything it writes is part of the message's transaction."""

    def __init__(
        self,
        owner: Any,
        address: Address,
        writes: Writes,
        clock: Clock,
        projections: Mapping[str, ProjectionType],
        snapshot_facts: int,
    ) -> None:
        """Open: read the head and the projections. `owner` gets each projection as an attribute of its name."""
        self._owner = owner
        self._entity = str(address)
        self._tenant, self._namespace, self._name = address
        self._writes = writes
        self._now_us = clock.now_us
        self._types = projections
        self._snapshot_facts = snapshot_facts
        self._prefix = id_prefix(address.namespace, address.name)
        self.repeated = False
        """Whether the last append was a repeat, so that its fact had been there."""
        self.broken: dict[str, ProjectionError] = {}
        self._states: dict[str, Projection] = {}
        self._snapshot_seq: dict[str, int] = {}
        self._fact = partial(fact_of, self._prefix)
        self.saved = self._read_head(address)
        self._open_projections()
        writes.memory = self

    def _read_head(self, address: Address) -> Saved:
        row = self._writes.database.row(_HEAD)
        if row is None:
            return 0, chain.genesis(*address), 0
        seq, hash, timestamp = row
        if not (isinstance(hash, bytes) and isinstance(timestamp, int)):
            raise LedgerCorrupt(self._entity, seq, "has no hash, or no time")
        return seq, hash, timestamp

    @property
    def head(self) -> int:
        """The seq of the last fact; 0 when there is none."""
        return self.saved[0]

    @property
    def hash(self) -> bytes:
        """The hash of the last fact; of the genesis when there is none."""
        return self.saved[1]

    # Writing

    def append(self, type: str, **fields: Unpack[FactFields]) -> Fact:
        """Write a fact and return it; the same idempotency key again returns the existing fact and writes nothing.

        `amount` is an int64 in minor units, `data` a JSON object of at most 1 MiB, `expected_seq` the head that the
        caller has seen. Raises InvalidFact, IdempotencyConflict, ConcurrencyConflict, and what an `apply` raises.
        """
        fields["type"] = type  # type: ignore[typeddict-unknown-key]
        return self.write(draft(fields))

    def append_many(self, facts: Sequence[Mapping[str, Any]]) -> list[Fact]:
        """Write several facts, all or none; each is a dict of `append`'s arguments. Raises as `append`."""
        return self.write_many(drafts_of(facts))

    def existing(self, new: Draft) -> Fact | None:
        """The fact that the draft's idempotency key stands for, if any. Raises IdempotencyConflict."""
        if new.idempotency_key is None:
            return None
        try:
            rows = self._writes.rows(_BY_KEY, new.idempotency_key)
        except QueryError as error:
            raise not_utf8(new) or error from None
        if not rows:
            return None
        row = rows[0]
        if row[17] == new.text and content(row) == content_of(new):  # as a rule to the letter
            return make_fact(f"{self._prefix}{row[0]}", *row[:17], new.data, row[18])
        fact = self._fact(row)
        differs = [name for name in CONTENT if getattr(fact, name) != getattr(new, name)]
        if not same_json(fact.data, new.data):
            differs.append("data")
        if differs:
            raise IdempotencyConflict(new.idempotency_key, f"fact {fact.id}: {', '.join(differs)}")
        return fact

    def write_many(self, drafts: Sequence[Draft]) -> list[Fact]:
        """`append_many` of what has been checked."""
        with self._writes.transaction():
            return [self._write(new) for new in drafts]

    def write(self, new: Draft) -> Fact:
        """`append` of what has been checked."""
        writes = self._writes
        if writes.opaque or writes.sql_ran or writes.depth:  # only a savepoint can take back a part of the segment
            with writes.transaction():
                return self._write(new)
        mark, saved = len(writes.log), self.saved
        try:
            return self._write(new)
        except Exception:
            if len(writes.log) > mark:  # the row is in, but a projection refused it
                writes.undo_to(mark, saved)
            raise

    def _write(self, new: Draft) -> Fact:
        if self.repeated or new.expected_seq is not None:
            existing = self._look_up(new)
            if existing is not None:
                return existing
        seq, previous, last = self.saved
        seq += 1
        timestamp = self._now_us()
        if timestamp < last:
            timestamp = last
        columns = (seq, new.type, new.subtype, timestamp, self._tenant, self._name, *astuple(new)[2:14])
        try:
            hash = blake2b(previous + encode(columns), digest_size=32).digest()  # chain.link, without the call
        except UnicodeEncodeError as error:
            raise not_utf8(new) or error from None
        fact = make_fact(f"{self._prefix}{seq}", *columns[:17], new.data, hash)
        writes = self._writes
        if seq % self._snapshot_facts and writes.alone:
            return self._write_alone(new, fact, (*columns, hash))
        try:
            writes.write(_INSERT, (*columns, hash))
        except ConstraintFailed:
            return self._repeat(new)
        self.saved = (seq, hash, timestamp)
        for state in self._states.values():
            state.apply(fact)
        if not seq % self._snapshot_facts:
            self.snapshot()
        return fact

    def _write_alone(self, new: Draft, fact: Fact, row: Row) -> Fact:
        """Write the one fact of a turn of its own; projections come first, for nothing can be undone after it."""
        try:
            for state in self._states.values():
                state.apply(fact)
            self._writes.write_alone(_INSERT, row)
        except ConstraintFailed:
            self._open_projections()
            return self._repeat(new)
        except CommitUnknown:  # this incarnation is over, projections and all
            raise
        except BaseException:
            self._open_projections()
            raise
        self.saved = (fact.seq, fact.hash, fact.timestamp)
        return fact

    def _repeat(self, new: Draft) -> Fact:
        """The fact that stands in the way of this one. Raises IdempotencyConflict."""
        existing = self.existing(new)
        if existing is None:  # not the key, but the seq
            raise LedgerCorrupt(self._entity, self.head + 1, "was written by somebody else")
        self.repeated = True
        self._writes.drop_empty()
        return existing

    def _look_up(self, new: Draft) -> Fact | None:
        """The fact that is there already: the key comes before every refusal. Raises ConcurrencyConflict."""
        existing = self.existing(new)
        if existing is None:
            self.repeated = False
            if new.expected_seq is not None and new.expected_seq != self.head:
                raise ConcurrencyConflict(self._entity, new.expected_seq, self.head)
        return existing

    # Reading

    def query(self, **query_: Unpack[Query]) -> list[Fact]:
        """The facts that pass all filters, in order of seq. Raises InvalidQuery."""
        sql, bindings = query.select(cast(dict[str, Any], query_))
        return list(self._facts(sql, *bindings))

    def get(self, seq_or_id: int | str) -> Fact | None:
        """The fact of that seq or id, or None."""
        if isinstance(seq_or_id, str):
            prefix, tail = seq_or_id[: len(self._prefix)], seq_or_id[len(self._prefix) :]
            if prefix != self._prefix or not _SEQ.fullmatch(tail):
                return None
            seq_or_id = int(tail)
        row = self._writes.row(_BY_SEQ, seq_or_id) if 0 < seq_or_id <= INT64_MAX else None
        return None if row is None else self._fact(row)

    def count(self, **filters: Unpack[Filters]) -> int:
        """How many facts pass all filters. Raises InvalidQuery."""
        sql, bindings = query.count(cast(dict[str, Any], filters))
        return int(self._rows(sql, *bindings)[0][0])

    def sum(self, field: str = "amount", **filters: Unpack[Filters]) -> int:
        """The exact sum of "amount" or "data.<path>" over the facts that pass all filters; absent ones count nothing.

        Raises InvalidQuery for several currencies (filter by `currency`), and for a value that is no integer.
        """
        sql, bindings = query.total(field, cast(dict[str, Any], filters))
        rows = self._rows(sql, *bindings)
        if len(rows) > 1:
            names = ", ".join(sorted(str(row[0]) for row in rows))
            raise InvalidQuery(f"the facts are in several currencies ({names}); filter by currency=...")
        if rows and rows[0][3]:
            raise InvalidQuery(f"{field} is not an integer in {rows[0][3]} facts")
        return int((rows[0][1] << 32) + rows[0][2]) if rows else 0

    def verify(self) -> Verification:
        """Recompute the chain of hashes. Raises LedgerCorrupt with the first bad seq."""
        *_, result = self.verify_steps()
        return result

    def verify_steps(self) -> Iterator[Verification]:
        """`verify` a chunk at a time, for whoever must not hold up the others; the last step is the result."""
        target, head_hash, _ = self.saved
        seq, head = 0, chain.genesis(self._tenant, self._namespace, self._name)
        self._check_extent()
        while seq < target:
            end = min(seq + _CHUNK, target)
            try:
                rows = self._rows(_RANGE, seq, end)
            except QueryError:  # a text that is none; which one?
                end = seq + 1
                rows = self._readable_row(end)
            except ActorReset as reset:
                if not isinstance(reset.__cause__, NotADatabase):
                    raise
                reason = f"or one after it cannot be read ({reset.__cause__})"
                raise LedgerCorrupt(self._entity, seq + 1, reason) from reset
            seq, head = chain.follow(rows, head, self._entity, seq)
            if seq != end:
                raise LedgerCorrupt(self._entity, seq + 1, "is missing")
            yield Verification(seq, head)
        if head != head_hash:
            raise LedgerCorrupt(self._entity, seq, "is not the head that the entity wrote")
        yield Verification(seq, head)

    def _check_extent(self) -> None:
        first, last = self._rows(_EXTENT)[0]
        if first is not None and first < 1:
            raise LedgerCorrupt(self._entity, first, "stands before the first")
        if last is not None and last > self.head:
            raise LedgerCorrupt(self._entity, self.head + 1, "stands behind the head")

    def _readable_row(self, seq: int) -> list[Row]:
        try:
            return self._rows(_BY_SEQ, seq)
        except QueryError as error:
            raise LedgerCorrupt(self._entity, seq, f"cannot be read ({error})") from None

    # Projections

    def projection(self, name: str, *, seq: int | None = None, time: Any = None) -> Projection:
        """A projection as it is, or as it was after fact `seq` or at `time` (inclusive). Raises ProjectionError."""
        kind = self._type(name)
        if seq is None and time is None:
            if name in self.broken:
                raise self.broken[name].again()
            return self._states[name]
        if seq is not None and time is not None:
            raise InvalidQuery("give seq or time, not both")
        if seq is not None and (type(seq) is not int or not 0 <= seq <= INT64_MAX):
            raise InvalidQuery(f"seq is the number of a fact, or 0, not {seq!r}")
        past: dict[str, Any] = {}
        if time is not None:
            past["until"] = query.microseconds(time, "time") + 1
        sql, bindings = query.select(past) if seq is None else (_RANGE, (0, seq))
        return kind.fold(kind.cls(), self._facts(sql, *bindings))

    def rebuild(self, name: str | None = None) -> None:
        """Fold one projection, or all, anew from the first fact. A failing one raises ProjectionError when read."""
        for each in self._types if name is None else (self._type(name).name,):
            self._fold(each, None)

    def snapshot(self) -> None:
        """Write the projections' state, so that the next opening folds only what comes after."""
        for name, state in self._states.items():
            if self._snapshot_seq.get(name) != self.head:
                kind = self._types[name]
                self._snapshot_seq[name] = self.head
                try:
                    stored = kind.encode(state)
                except (TypeError, ValueError, OverflowError) as error:
                    log.warning("projection %s of %s cannot be stored: %s", name, self._entity, error)
                else:
                    self._writes.write(_PUT_SNAPSHOT, (name, kind.cls.version, self.head, stored))

    def _type(self, name: str) -> ProjectionType:
        try:
            return self._types[name]
        except KeyError:
            known = ", ".join(self._types) or "none"
            raise InvalidQuery(f"{self._entity} has no projection {name!r}; it has: {known}") from None

    def _open_projections(self) -> None:
        if not self._types:
            return
        rows = self._writes.database.rows(_SNAPSHOTS)
        stored = {name: Snapshot(version, seq, state) for name, version, seq, state in rows}
        for name in self._types:
            self._fold(name, stored.get(name))

    def _fold(self, name: str, snapshot: Snapshot | None) -> None:
        kind = self._types[name]
        state, seq = kind.restore(snapshot, self.head)
        self._snapshot_seq[name] = seq
        self.broken.pop(name, None)
        try:
            for start in range(seq, self.head, _CHUNK):
                facts = list(self._facts(_RANGE, start, min(start + _CHUNK, self.head)))
                if not facts:
                    raise LedgerCorrupt(self._entity, start + 1, "is missing")
                kind.fold(state, facts)
        except ProjectionError as error:
            self.broken[name] = error
            self._states.pop(name, None)
            vars(self._owner).pop(name, None)
        else:
            self._states[name] = state
            setattr(self._owner, name, state)

    def restore(self, saved: Saved) -> None:
        """Be as when the head was this; projections that took facts in since are folded anew."""
        before, self.saved = self.saved, saved
        if before != saved:
            self._open_projections()

    # Database

    def _facts(self, sql: str, *bindings: Any) -> Iterator[Fact]:
        return map(self._fact, self._rows(sql, *bindings))

    def _rows(self, sql: str, *bindings: Any) -> list[Row]:
        return self._writes.rows(sql, *bindings)
