"""The turnstile of one class: an internal actor that keeps its queue, and lets instances in as slots become free.

An instance asks before it starts and gives back at its end, each at least once (`Errands`); all that is asked here may
be asked again. Who has been let in is told at least once as well: it is `granted` until it has been. Slots of
instances that are gone, or ended without saying so, are found again by looking at all members now and then.
"""

from __future__ import annotations

import json
import logging
from bisect import insort
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

from z0.actors.actor import Actor
from z0.actors.alarm_runs import AlarmInfo
from z0.actors.clock import datetime_of
from z0.actors.names import DEFAULT_TENANT, Address
from z0.actors.roster import Roster
from z0.actors.schedule import as_long_again
from z0.actors.schema import ACTOR_SCHEMA
from z0.actors.segments import gated

from .errors import InstanceExists
from .flow import Concurrency, Member, fits, next_members, rules_of, taken, victims
from .history import FINISHED
from .ids import random_id

if TYPE_CHECKING:
    from z0.actors.kind import Kind

    from .workflow import Workflow

log = logging.getLogger("z0.workflows")

NAMESPACE = "z0-turnstiles"
_LOOK = "10 minutes"  # after which members are looked at that have not been heard of
_RETRY = "5 seconds"
_SCHEMA = (
    "CREATE TABLE z0_members(tenant TEXT NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL, groups TEXT NOT NULL,"
    " priority INTEGER NOT NULL, state TEXT NOT NULL, since INTEGER NOT NULL, reason TEXT NOT NULL,"
    " ticket INTEGER NOT NULL, PRIMARY KEY(tenant, id)) WITHOUT ROWID",
    "CREATE TABLE z0_debounced(tenant TEXT NOT NULL, key TEXT NOT NULL, id TEXT NOT NULL, payload BLOB NOT NULL,"
    " detail TEXT NOT NULL, first INTEGER NOT NULL, due INTEGER NOT NULL, PRIMARY KEY(tenant, key)) WITHOUT ROWID",
)
_MEMBERS = "SELECT tenant, id, seq, groups, priority, state, since, reason, ticket FROM z0_members"
_PUT = "INSERT OR REPLACE INTO z0_members VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DROP = "DELETE FROM z0_members WHERE tenant = ? AND id = ?"
_PENDING = "SELECT id, first, due FROM z0_debounced WHERE tenant = ? AND key = ?"
_NAMED = "SELECT 1 FROM z0_debounced WHERE tenant = ? AND id = ? AND key <> ? LIMIT 1"
_PUT_PENDING = "INSERT OR REPLACE INTO z0_debounced VALUES(?, ?, ?, ?, ?, ?, ?)"
_DUE = "SELECT tenant, key, id, payload, detail, first, due FROM z0_debounced WHERE due <= ? ORDER BY due"
_DROP_PENDING = "DELETE FROM z0_debounced WHERE tenant = ? AND key = ?"
_RENAME_PENDING = "UPDATE z0_debounced SET id = ? WHERE tenant = ? AND key = ?"
_DELAY_PENDING = "UPDATE z0_debounced SET due = ? WHERE tenant = ? AND key = ? AND due = ?"
_FIRST_DUE = "SELECT min(due) FROM z0_debounced"


def home_of(cls: type[Workflow], tenant: str) -> str:
    """The tenant whose turnstile serves instances of that tenant: its own, unless slots are shared."""
    return tenant if all(rule.per_tenant for rule in rules_of(cls.concurrency)) else DEFAULT_TENANT


class Turnstile(Actor):
    """Of the workflow class whose namespace is its name."""

    namespace = NAMESPACE
    _z0_schema: ClassVar[tuple[str, ...]] = (*ACTOR_SCHEMA, *_SCHEMA)

    def _z0_open(self, meta: dict[str, Any]) -> None:
        self._members: dict[tuple[str, str], Member] = {}
        for tenant, id, seq, groups, *rest in self._z0_host.database.rows(_MEMBERS):
            self._members[tenant, id] = Member(tenant, id, seq, json.loads(groups), *rest)
        self._waiting = sorted((each for each in self._members.values() if each.state == "waiting"), key=_order)
        self._slots = taken(self._members.values())
        self._seq = max((each.seq for each in self._members.values()), default=0)
        self._telling: set[tuple[str, str]] = set()

    async def start(self) -> None:
        """Tell those again who may not have been told, and be woken when something is due."""
        self._tell_all()
        if self.storage.get_alarm(name="debounce") is None:  # none was asked for, or one was given up once
            self._set_debounce()

    async def alarm(self, info: AlarmInfo) -> None:
        """Create what was debounced, tell who was not told, and look who has gone."""
        if info.is_retry:  # whatever becomes of this run, there is another
            self.storage.set_alarm(_LOOK, name=info.name)
        if info.name == "debounce":
            await self._create_due()
            return
        await self._look()
        self._let_in()
        self._tell_all()
        if self._members:
            self.storage.set_alarm(_LOOK)

    @property
    def _rules(self) -> list[Concurrency] | None:
        """The rules of the class as it is today; None: it is not known."""
        kind = self._kind
        return None if kind is None else list(rules_of(kind.cls.concurrency))  # type: ignore[attr-defined]

    @property
    def _kind(self) -> Kind | None:
        return self._z0_host.node.kind_of(self.name)

    # Messages of instances

    async def z0_join(
        self, tenant: str, id: str, groups: list[str], priority: int, ticket: int, keeps: bool = False
    ) -> None:
        """Have the instance told when it may start; `keeps`: what it had got when it asked before."""
        before = self._members.get((tenant, id))
        if before is not None and before.ticket >= ticket:
            return
        if before is not None and before.state == "reserved":
            before.ticket = ticket
            self._become(before, "granted")
            self._tell(before)
            return
        if before is not None and keeps:
            before.ticket = ticket
            self._put(before)
            return
        self._drop((tenant, id))
        member = self._add(tenant, id, groups, priority, "waiting", ticket)
        insort(self._waiting, member, key=_order)
        rules = self._rules or []
        full = fits(member, rules, self._slots)
        if full is not None and rules[full].when_full == "cancel_new":
            self._cancel(member, self._full(rules[full]))
            return
        if full is not None or len(self._waiting) > 1:
            for ended in victims(member, rules, self._members.values()):
                self._cancel(ended, f"instance {id!r} took its place (concurrency)")
        self._let_in()

    async def z0_reserve(self, tenant: str, id: str, groups: list[str], priority: int, ticket: int) -> str | None:
        """Keep a slot for an instance that has ended and is about to begin anew; why it must not, if so.

        Where it would wait for a slot there is nothing to keep.
        """
        before, rules = self._members.get((tenant, id)), self._rules or []
        if before is not None and before.ticket > ticket:  # it has begun anew
            return None
        member = Member(tenant, id, 0, groups, priority, "waiting")
        others = taken(each for each in self._members.values() if each is not before)
        full = fits(member, rules, others)
        if full is not None:
            return None if rules[full].when_full == "queue" else self._full(rules[full])
        self._drop(member.address)
        self._add(tenant, id, groups, priority, "reserved", ticket)
        return None

    async def z0_leave(self, tenant: str, id: str, ticket: int) -> None:
        """The instance has ended."""
        member = self._members.get((tenant, id))
        if member is not None and member.ticket < ticket:
            self._drop((tenant, id))
            self._let_in()

    async def z0_debounce(
        self, tenant: str, key: str, id: str, payload: bytes, detail: dict[str, Any], wait: int, most: int | None,
        named: bool = False,
    ) -> str:  # fmt: skip
        """Create an instance soon, with the last payload that came for the key; its id.

        `named`: somebody chose the id. Raises InstanceExists when it waits already, for another key.
        """
        now, host = self.clock.now_us(), self._z0_host
        if named and host.writes.row(_NAMED, tenant, id, key) is not None:
            raise InstanceExists(f"{self.name} {id!r}")
        row = host.writes.row(_PENDING, tenant, key)
        first = now
        if row is not None:
            id, first, _ = row
        due = now + wait if most is None else min(now + wait, first + most)
        host.writes.write(_PUT_PENDING, (tenant, key, id, payload, json.dumps(detail), first, due))
        self._set_debounce()
        return id

    async def z0_queue(self) -> list[tuple[str, str, str, int]]:
        """Tenant, id, state and priority of all members, those that run first, then in the order of the queue."""
        holding = [each for each in self._members.values() if each.state != "waiting"]
        return [(each.tenant, each.id, each.state, each.priority) for each in [*holding, *self._waiting]]

    # Slots

    def _full(self, rule: Concurrency) -> str:
        return f"{rule.limit} of {self.name} run already (concurrency)"

    def _add(self, tenant: str, id: str, groups: list[str], priority: int, state: Any, ticket: int) -> Member:
        self._seq += 1
        member = Member(tenant, id, self._seq, groups, priority, state, self.clock.now_us(), ticket=ticket)
        self._members[member.address] = member
        self._put(member)
        if state != "waiting":
            self._slots.update(enumerate(groups))
        if self.storage.get_alarm() is None:
            self.storage.set_alarm(_LOOK)
        return member

    def _put(self, member: Member) -> None:
        row = (*member.address, member.seq, json.dumps(member.groups), member.priority, member.state)
        self._z0_host.writes.write(_PUT, (*row, member.since, member.reason, member.ticket))

    def _become(self, member: Member, state: str) -> None:
        member.state, member.since = state, self.clock.now_us()  # type: ignore[assignment]
        self._put(member)

    def _drop(self, address: tuple[str, str]) -> None:
        member = self._members.pop(address, None)
        if member is None:
            return
        self._z0_host.writes.write(_DROP, address)
        if member.state == "waiting":
            self._waiting.remove(member)
        else:
            self._slots -= Counter(enumerate(member.groups))

    def _cancel(self, member: Member, reason: str) -> None:
        """Have it end. One that holds slots has them until it has."""
        member.reason = reason
        if member.state == "waiting":  # it never had one
            self._waiting.remove(member)
            self._slots.update(enumerate(member.groups))
        self._become(member, "cancelled")
        self._tell(member)

    def _let_in(self) -> None:
        rules = self._rules
        if rules is None or not self._waiting:
            return
        chosen = next_members(self._waiting, rules, self._slots)
        for member in chosen:
            self._waiting.remove(member)
            self._become(member, "granted")
            self._tell(member)

    # Telling instances

    def _tell_all(self) -> None:
        for member in list(self._members.values()):
            if member.state in ("granted", "cancelled"):
                self._tell(member)

    def _tell(self, member: Member) -> None:
        self._z0_host.alarms.hold()
        if member.address not in self._telling:
            self._telling.add(member.address)
            self.wait_until(self._telling_of(member))

    async def _telling_of(self, member: Member) -> None:
        try:
            await gated(self._z0_host, self._told(member))
        finally:
            self._telling.discard(member.address)

    async def _told(self, member: Member) -> None:
        kind, host = self._kind, self._z0_host
        if kind is None:
            return
        stub: Any = host.node.stub(kind.cls, member.id, member.tenant, host)
        state, ticket = member.state, member.ticket
        try:
            if state == "granted":
                goes_on = await stub.z0_start(member.seq)
            else:
                await stub.z0_cancel(member.reason)
                goes_on = False
        except Exception as error:
            if host.dead:
                raise
            log.warning("%s could not be told that it is %s, and will be: %s", member.id, state, error)
            self.storage.set_alarm(_RETRY)
            return
        if self._members.get(member.address) is not member:  # it has ended meanwhile
            return
        if not goes_on and member.ticket == ticket:
            self._drop(member.address)
            self._let_in()
        elif goes_on and member.state == "granted":
            self._become(member, "running")
        else:  # it is to end, or has asked again
            self._telling.discard(member.address)
            self._tell(member)

    # Who has gone

    async def _look(self) -> None:
        """Drop members that were not heard of for long and are gone, or have ended."""
        kind = self._kind
        if kind is None:
            return
        node, before = self._z0_host.node, self.clock.now_us() - 300_000_000
        for member in [each for each in self._members.values() if each.since < before]:
            address = Address(member.tenant, kind.namespace, member.id)
            known, status = Roster(node, kind, member.tenant).one(address.name)
            if not known or status in FINISHED:
                log.warning("%s was still held to run, or to be queued, and is not any more", address)
                self._drop(member.address)

    # Debounced

    def _set_debounce(self) -> None:
        row = self._z0_host.writes.row(_FIRST_DUE)
        if row is not None and row[0] is not None:
            self.storage.set_alarm(datetime_of(row[0]), name="debounce")

    async def _create_due(self) -> None:
        kind, host = self._kind, self._z0_host
        if kind is None:
            log.warning("debounced instances of %s wait for its class: name it in Runtime(actors=[...])", self.name)
            self.storage.set_alarm(_LOOK, name="debounce")
            return
        for row in host.writes.rows(_DUE, self.clock.now_us()):
            await self._create_pending(kind, *row)
        self._set_debounce()

    async def _create_pending(
        self, kind: Kind, tenant: str, key: str, id: str, payload: bytes, detail: str, first: int, due: int
    ) -> None:
        host, how = self._z0_host, json.loads(detail)
        stub: Any = host.node.stub(kind.cls, id, tenant, host)
        try:
            await stub.z0_create(payload, how)
        except InstanceExists:
            if "origin" in how:  # else it may be ours, of before a crash: it has no key that would tell
                other = random_id(host.node)
                log.error("%s %r exists already: what was debounced begins as %r", self.name, id, other)
                host.writes.write(_RENAME_PENDING, (other, tenant, key))
                return
        except Exception as error:
            if host.dead or host.node.draining:
                raise
            now = self.clock.now_us()
            again = as_long_again(first, now)
            what = f"debounced {self.name} {id!r}"
            log.error("%s is not created yet, and is tried again at %s: %s", what, datetime_of(again), error)
            host.writes.write(_DELAY_PENDING, (again, tenant, key, due))
            return
        row = host.writes.row(_PENDING, tenant, key)
        if row is not None and row[2] == due:
            host.writes.write(_DROP_PENDING, (tenant, key))
        else:  # asked for again meanwhile: that is another one
            host.writes.write(_RENAME_PENDING, (random_id(host.node), tenant, key))


def _order(member: Member) -> tuple[int, int]:
    return member.order
