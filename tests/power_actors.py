"""The actors of the power-loss proof, and what is ordered of them: all that they do shows in their facts."""

from __future__ import annotations

from typing import Any, NamedTuple

import z0
from tests.movements import Mover

TABLE = "CREATE TABLE IF NOT EXISTS messages(message PRIMARY KEY)"
KEPT = 2 * 86_400_000_000  # µs that the reply of a charge counts
Place = tuple[str, str, str]
"""Tenant and name of an actor, and the key of a fact."""


class Order(NamedTuple):
    """One message, as it was to be sent."""

    sort: str
    number: int
    tenant: str
    name: str
    other: str
    """Another actor."""
    alarm: str
    """An alarm that was set before."""
    after: float
    """Seconds."""

    @property
    def key(self) -> str:
        """Different for each; it begins with the sort."""
        return f"{self.sort}-{self.number:04}"

    @property
    def places(self) -> list[Place]:
        """The facts that there are once this is acknowledged, in the order in which they become durable."""
        key = self.key
        match self.sort:
            case "many" | "slow":
                return [(self.tenant, self.name, f"{key}/{part}") for part in (1, 2, 3)]
            case "transfer":
                out, arrived = (self.tenant, self.name, f"{key}/out"), (self.tenant, self.name, f"{key}/arrived")
                return [out, (self.tenant, self.other, f"{key}/in"), arrived]
            case "never" | "note":
                return []
            case _:
                return [(self.tenant, self.name, key)]


class State(NamedTuple):
    """What an audit has found."""

    keys: list[str]
    notes: int
    owed: list[str]
    """Alarms that are to run once."""


class Safe(Mover):
    """Everything that it stores follows from its facts; `audit` makes sure of that."""

    namespace = "Safe"
    accepts = {"single", "many"}
    balance: z0.Balance

    async def start(self) -> None:
        self.storage.sql(TABLE)

    @z0.idempotent("message", retention="2 days")
    async def charge(self, message: str) -> int:
        """Idempotent by its reply; writes a fact, a row and a key together."""
        self.storage.sql("INSERT INTO messages(message) VALUES(?)", message)
        self.storage.put(message, 1)
        return self.ledger.append("charge", amount=-3, idempotency_key=message).seq

    async def never(self, message: str) -> None:
        """Leaves nothing behind."""
        self.storage.sql("INSERT INTO messages(message) VALUES(?)", message)
        self.ledger.append("never", amount=1_000, idempotency_key=message)
        raise LookupError("never")

    async def clear(self, message: str) -> None:
        """Deletes everything but the facts."""
        if self._was_done(message):
            return
        self.ledger.append("clear", idempotency_key=message)
        self.storage.delete_all()
        self.storage.sql(TABLE)

    async def note(self) -> None:
        """A write that nobody waits for."""
        notes = int(self.storage.get("z-notes", 0)) + 1
        self.storage.put({"z-notes": notes, f"z-note-{notes:04}": notes}, allow_unconfirmed=True)

    async def set(self, message: str, alarm: str, after: float, every: float | None) -> None:
        """Sets an alarm, or sets it earlier or later, and writes a fact with it."""
        if self._was_done(message):
            return
        self.ledger.append("set", idempotency_key=message, source_id=alarm, data={"every": every})
        self.storage.set_alarm(after, alarm, every=every)

    async def drop(self, message: str, alarm: str) -> None:
        """Deletes an alarm."""
        if self._was_done(message):
            return
        self.ledger.append("drop", idempotency_key=message, source_id=alarm)
        self.storage.delete_alarm(alarm)

    async def alarm(self, info: z0.AlarmInfo) -> None:
        """Leaves a fact without a key: a run that was committed twice would leave two."""
        assert info.name is not None
        assert self.clock.now() >= info.scheduled_time
        if info.name.startswith("fails") and not info.is_retry:
            raise ValueError("at first")
        if info.name.startswith("slowly"):
            self.storage.put("z-began", info.name)
            await self.storage.sync()
        self.ledger.append("rang", source_id=info.name, data={"scheduled": info.scheduled_time.isoformat()})

    def _was_done(self, message: str) -> bool:
        return self.ledger.count(idempotency_key=message) > 0

    async def audit(self, now: int) -> State:
        """Make sure that this file is sound, and all that it holds one with its facts."""
        facts = self.ledger.query()
        assert [fact.seq for fact in facts] == list(range(1, len(facts) + 1)), "a hole in the ledger"
        assert self.ledger.verify().facts == len(facts)
        fold = z0.Balance({})
        for fact in facts:
            fold.apply(fact)
        assert self.balance == fold, "a projection is not the fold of its facts"
        assert self._z0_host.database.rows("PRAGMA integrity_check") == [("ok",)], "the file is damaged"
        self._check_storage(facts, now)
        owed = self._check_alarms(facts)
        keys = [fact.idempotency_key for fact in facts if fact.idempotency_key is not None]
        assert len(set(keys)) == len(keys)
        return State(keys, self._check_notes(), owed)

    def _check_storage(self, facts: list[z0.Fact], now: int) -> None:
        charges: list[str] = []
        for fact in facts:
            if fact.type == "clear":
                charges.clear()
            elif fact.type == "charge":
                charges.append(str(fact.idempotency_key))
        rows = [message for (message,) in self.storage.sql("SELECT message FROM messages ORDER BY message")]
        keys = [key for key in self.storage.list() if not key.startswith("z-")]
        assert sorted(charges) == rows == keys, f"facts, table and keys differ: {charges} {rows} {keys}"
        replies = {key for (key,) in self.storage.sql("SELECT key FROM z0_replies")}
        made = {str(fact.idempotency_key): fact.timestamp for fact in facts if fact.type == "charge"}
        recent = {key for key, timestamp in made.items() if timestamp > now - KEPT}
        assert recent <= replies <= made.keys(), "replies differ from facts"

    def _check_notes(self) -> int:
        notes = [value for key, value in self.storage.list(prefix="z-note-").items()]
        count = int(self.storage.get("z-notes", 0))
        assert notes == list(range(1, count + 1)), "unconfirmed writes came apart"
        return count

    def _check_alarms(self, facts: list[z0.Fact]) -> list[str]:
        """The alarms that facts say are set must be set, and no other; those that are to run once."""
        pending: dict[str, bool] = {}
        runs: dict[str, str] = {}
        for fact in facts:
            alarm = str(fact.source_id)
            match fact.type:
                case "set":
                    pending[alarm] = bool(fact.data and fact.data["every"])
                case "drop":
                    pending.pop(alarm, None)
                case "clear":
                    pending.clear()
                case "rang":
                    assert alarm in pending, f"{alarm} ran although it was not owed"
                    assert fact.data is not None
                    assert runs.get(alarm, "") < fact.data["scheduled"], f"{alarm} ran twice for one time"
                    runs[alarm] = fact.data["scheduled"]
                    if not pending[alarm]:
                        del pending[alarm]
        there = {name for (name,) in self.storage.sql("SELECT DISTINCT name FROM z0_alarms")}
        assert there == pending.keys(), f"alarms differ from facts: {there ^ pending.keys()}"
        return [alarm for alarm, recurs in pending.items() if not recurs]


def _rename(storage: z0.Storage) -> None:
    storage.put("z-before", [message for (message,) in storage.sql("SELECT message FROM messages ORDER BY message")])
    storage.sql("UPDATE messages SET n = 7")


class NewSafe(Safe):
    """The next release of it, whose file has another column."""

    namespace = "Safe"
    migrations = [TABLE, "ALTER TABLE messages ADD COLUMN n INTEGER NOT NULL DEFAULT 0", _rename]

    async def audit(self, now: int) -> State:
        sevens = [
            message for (message,) in self.storage.sql("SELECT message FROM messages WHERE n = 7 ORDER BY message")
        ]
        assert sevens == self.storage.get("z-before"), "half of a migration"
        return await super().audit(now)


async def send(runtime: z0.Runtime, cls: type[Safe], order: Order) -> None:
    """Send the message."""
    safe, key = runtime.tenant(order.tenant).get(cls, order.name), order.key
    match order.sort:
        case "single":
            await safe.append("single", amount=5, idempotency_key=key)
        case "many":
            many: list[dict[str, Any]] = [
                {"type": "many", "amount": part, "idempotency_key": f"{key}/{part}"} for part in (1, 2, 3)
            ]
            await safe.append_many(many)
        case "transfer":
            await safe.transfer(key, order.other)
        case "note":
            await safe.note()
        case "never":
            try:
                await safe.never(key)
            except LookupError:
                return
            raise AssertionError("a message that raises was acknowledged")
        case "rings" | "fails" | "slowly":
            await safe.set(key, key, order.after, None)
        case "recurs":
            await safe.set(key, key, order.after, 600.0)
        case "moves":
            await safe.set(key, order.alarm, order.after, None)
        case "drops":
            await safe.drop(key, order.alarm)
        case sort:
            await getattr(safe, sort)(key)
