"""The calendar of one class: an internal actor that creates its scheduled instances, and what callers do with it.

A schedule that fails concerns no other one. What may go away (a full disk) is tried again for as long as it takes, or
until the next run is due; a run that can never be (a payload without the class's key) is passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from z0.actors.actor import Actor
from z0.actors.alarm_runs import AlarmInfo
from z0.actors.clock import datetime_of
from z0.actors.names import Address
from z0.actors.schedule import next_due
from z0.actors.schema import ACTOR_SCHEMA

from .errors import InstanceExists, ScheduleNotFound
from .flow import groups_of, rules_of
from .ids import check_id
from .schedules import Missed, Schedule, ScheduleInfo, check_schedule, due_times, instance_id, moment, times
from .troubles import Troubles
from .values import loaded, stored

if TYPE_CHECKING:
    from z0.actors.node import Node

    from .instance import Instance
    from .instances import Workflows
    from .workflow import Workflow

log = logging.getLogger("z0.workflows")

NAMESPACE = "z0-calendars"
_UNKNOWN = "1 hour"  # until it is tried again to create instances of a class that is not known
_LOOK = "20 minutes"
_SCHEMA = (
    "CREATE TABLE z0_schedules(name TEXT PRIMARY KEY, cron TEXT NOT NULL, timezone TEXT NOT NULL, missed TEXT NOT NULL,"
    " payload BLOB NOT NULL, declared INTEGER NOT NULL, paused INTEGER NOT NULL, due INTEGER NOT NULL, last INTEGER)"
    " WITHOUT ROWID",
)
_COLUMNS = "name, cron, timezone, missed, payload, declared, paused, due, last"
_ALL = f"SELECT {_COLUMNS} FROM z0_schedules ORDER BY name"
_ONE = f"SELECT {_COLUMNS} FROM z0_schedules WHERE name = ?"
_DUE = f"SELECT {_COLUMNS} FROM z0_schedules WHERE NOT paused AND due <= ? ORDER BY due"
_PUT = "INSERT OR REPLACE INTO z0_schedules VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DROP = "DELETE FROM z0_schedules WHERE name = ?"
_RAN = "UPDATE z0_schedules SET due = ?, last = ifnull(?, last) WHERE name = ? AND due = ?"
_PAUSE = "UPDATE z0_schedules SET paused = ?, due = ? WHERE name = ?"
_WAITING = f"SELECT {_COLUMNS} FROM z0_schedules WHERE NOT paused"


class Row(msgspec.Struct, frozen=True):
    """A schedule as it is kept; `cron`, `timezone`, `missed` and `payload` are what makes it another one."""

    name: str
    cron: str
    timezone: str
    missed: Missed
    payload: bytes
    declared: bool
    paused: bool = False
    due: int = 0
    last: int | None = None

    @property
    def recurs(self) -> str:
        """When, as the engine says it."""
        return Schedule(cron=self.cron, timezone=self.timezone).recurs()


class Calendar(Actor):
    """Of the workflow class whose namespace is its name."""

    namespace = NAMESPACE
    _z0_schema: ClassVar[tuple[str, ...]] = (*ACTOR_SCHEMA, *_SCHEMA)

    def _rows(self, sql: str, *bindings: Any) -> list[Row]:
        return [Row(*row) for row in self._z0_host.writes.rows(sql, *bindings)]

    def _row(self, name: str) -> Row:
        for row in self._rows(_ONE, name):
            return row
        raise ScheduleNotFound(self.name, name, [row.name for row in self._rows(_ALL)])

    def _put(self, row: Row) -> None:
        self._z0_host.writes.write(_PUT, msgspec.structs.astuple(row))

    def _z0_open(self, meta: dict[str, Any]) -> None:
        super()._z0_open(meta)
        self._triggered = 0  # the time in the last id that was given by hand

    @property
    def _troubles(self) -> Troubles:
        return Troubles(self.storage)

    def _wake(self) -> None:
        again = {name: trouble.again for name, trouble in self._troubles.all().items()}
        times = [max(row.due, again.get(row.name, 0)) for row in self._rows(_WAITING)]
        if times:
            self.storage.set_alarm(datetime_of(min(times)))
        else:
            self.storage.delete_alarm()

    async def start(self) -> None:
        """Be woken when something is due, also when an alarm was given up once."""
        if self.storage.get_alarm() is None:
            self._wake()

    async def alarm(self, info: AlarmInfo) -> None:
        """Create what is due."""
        if info.is_retry:  # whatever becomes of this run, there is another
            self.storage.set_alarm(_LOOK)
        if self._z0_host.node.kind_of(self.name) is None:
            log.warning("scheduled instances of %s wait for its class: name it in Runtime(actors=[...])", self.name)
            self.storage.set_alarm(_UNKNOWN)
            return
        for row in self._rows(_DUE, self.clock.now_us()):
            await self._catch_up(row)
        self._wake()

    async def _catch_up(self, row: Row) -> None:
        """Create what is due of one schedule."""
        now, trouble = self.clock.now_us(), self._troubles.get(row.name)
        if trouble is not None and trouble.again > now:
            return
        owed = row.missed == "skip" and trouble is not None and trouble.tries  # its time came while we ran
        try:
            runs, following = due_times(row.recurs, "one" if owed else row.missed, row.due, now)
        except ValueError as unknown:  # its zone is not known here any more
            self._delay(row, unknown)
            return
        due = row.due
        if not runs:
            self._z0_host.writes.write(_RAN, (following, None, row.name, due))
        for at, then in zip(runs, [*runs[1:], following], strict=False):
            error = await self._tried(row, at)
            if error is None:
                self._troubles.clear(row.name)
            elif getattr(error, "retryable", False):
                self._delay(row, error)
                return
            else:
                self._pass_over(row, at, error)
            self._z0_host.writes.write(_RAN, (then, at if error is None else None, row.name, due))
            due = then

    async def _tried(self, row: Row, at: int) -> Exception | None:
        """Create the instance of that time; what it failed with."""
        host = self._z0_host
        try:
            await self._create(row, at)
        except Exception as error:
            if host.dead or host.node.draining:
                raise
            return error
        return None

    def _pass_over(self, row: Row, at: int, error: Exception) -> None:
        run = f"the run of schedule {row.name!r} of {self.name} at {datetime_of(at)}"
        log.error("%s cannot be made, and is passed over: %s", run, error, exc_info=error)
        self._troubles.passed_over(row.name, error)

    def _delay(self, row: Row, error: Exception) -> None:
        again = self._troubles.delayed(row.name, error, self.clock.now_us(), self._z0_host.node.clock.random)
        what = f"schedule {row.name!r} of {self.name}"
        log.error("%s failed, and is tried again at %s: %s", what, datetime_of(again), error, exc_info=error)

    async def _create(self, row: Row, at: int, id: str | None = None) -> bool:
        """Create the instance of that time; whether there was none."""
        host, tenant = self._z0_host, self._z0_host.address.tenant
        kind = host.node.kind_of(self.name)
        if kind is None:
            raise RuntimeError(f"no class is known for {self.name}; name it in Runtime(actors=[...])")
        detail: dict[str, Any] = {"schedule": {"name": row.name, "cron": row.cron, "at": at}}
        rules = rules_of(kind.cls.concurrency)  # type: ignore[attr-defined]
        if rules:
            detail |= {"groups": groups_of(rules, loaded(row.payload, Any, "payload"), None, tenant), "priority": 0}
        stub: Any = host.node.stub(kind.cls, id or instance_id(row.name, at), tenant, host)
        with suppress(InstanceExists):
            await stub.z0_create(row.payload, detail)
            return True
        return False

    # Messages

    async def z0_declare(self, declared: list[Row]) -> None:
        """Have the class's own schedules be these; those that others set stay."""
        wanted = {row.name: row for row in declared}
        for row in self._rows(_ALL):
            if row.declared and row.name not in wanted:
                self._drop(row.name)
        for row in wanted.values():
            self._set(row)
        self._wake()

    async def z0_set(self, row: Row) -> None:
        """Keep a schedule, in place of the one of its name."""
        self._set(row)
        self._wake()

    def _set(self, row: Row) -> None:
        paused, due, last = False, 0, None
        for old in self._rows(_ONE, row.name):
            paused, last = old.paused, old.last
            if (old.cron, old.timezone) == (row.cron, row.timezone):
                due = old.due
            if (due, old.missed, old.payload) != (old.due, row.missed, row.payload):
                self._troubles.clear(row.name)
        now = self.clock.now_us()
        self._put(msgspec.structs.replace(row, paused=paused, last=last, due=due or next_due(row.recurs, now, now)))

    async def z0_remove(self, name: str) -> None:
        """Forget a schedule. Raises ScheduleNotFound."""
        self._row(name)
        self._drop(name)
        self._wake()

    def _drop(self, name: str) -> None:
        self._z0_host.writes.write(_DROP, (name,))
        self._troubles.clear(name)

    async def z0_pause(self, name: str, paused: bool) -> None:
        """Create nothing by it, or do again: what lies between is not made up for. Raises ScheduleNotFound."""
        row, now = self._row(name), self.clock.now_us()
        if row.paused != paused:
            self._z0_host.writes.write(_PAUSE, (paused, next_due(row.recurs, now, now), name))
            self._troubles.clear(name)
            self._wake()

    async def z0_trigger(self, name: str, id: str | None) -> str:
        """Create an instance now; its id. Raises ScheduleNotFound, InstanceExists."""
        row, now = self._row(name), self.clock.now_us()
        if id is not None:
            if not await self._create(row, now, id):
                raise InstanceExists(f"{self.name} {id!r}")
            return id
        while True:  # several in one millisecond have the ids of the next ones
            self._triggered = at = max(now, self._triggered + 1_000)
            id = instance_id(f"{name}-now", at)
            if await self._create(row, now, id):
                return id

    async def z0_backfill(self, name: str, since: int, until: int) -> list[str]:
        """Create the instances of a time that has passed, where there are none. Raises ScheduleNotFound, ValueError."""
        row = self._row(name)
        if until > self.clock.now_us():
            raise ValueError(f"until={datetime_of(until)}: give a time that has passed; later runs come by themselves")
        runs = list(times(row.recurs, since, until))
        return [instance_id(name, at) for at in runs if await self._create(row, at)]

    async def z0_list(self) -> list[tuple[Row, str | None]]:
        """All schedules, each with what kept it from its last run."""
        troubles = self._troubles.all()
        return [(row, troubles[row.name].error if row.name in troubles else None) for row in self._rows(_ALL)]


class Schedules:
    """The schedules of one class and tenant: `runtime.workflows.schedules(Class)`."""

    def __init__(self, manager: Workflows, cls: type[Workflow]) -> None:
        """Nothing is loaded."""
        self._manager = manager
        self._cls = cls
        name = manager.node.kind(cls).namespace
        self._calendar = manager.node.stub(Calendar, name, manager.tenant, None)

    async def set(self, schedule: Schedule) -> str:
        """Keep a schedule, in place of the one of its name; the name. Whether it is paused stays as it was.

        Raises TypeError for what is none.
        """
        await self._calendar.z0_set(_row_of(self._cls, check_schedule(schedule, "schedule"), declared=False))
        return schedule.key

    async def list(self) -> Sequence[ScheduleInfo]:
        """All of them."""
        return [
            ScheduleInfo(
                name=row.name,
                cron=row.cron,
                timezone=row.timezone,
                missed=row.missed,
                paused=bool(row.paused),
                declared=bool(row.declared),
                next=None if row.paused else datetime_of(row.due),
                last=None if row.last is None else datetime_of(row.last),
                error=error,
            )
            for row, error in await self._calendar.z0_list()
        ]

    async def pause(self, name: str) -> None:
        """Create nothing by it until it is resumed. Raises ScheduleNotFound."""
        await self._calendar.z0_pause(name, True)

    async def resume(self, name: str) -> None:
        """Go on from now; what lies between is not made up for (see `backfill`). Raises ScheduleNotFound."""
        await self._calendar.z0_pause(name, False)

    async def remove(self, name: str) -> None:
        """Forget it; one that the class declares is back when the runtime is opened next. Raises ScheduleNotFound."""
        await self._calendar.z0_remove(name)

    async def trigger(self, name: str, *, id: str | None = None) -> Instance[Any]:
        """Create an instance now, besides those that are scheduled.

        Raises ScheduleNotFound, InvalidName, InstanceExists for an id that is taken.
        """
        chosen = None if id is None else check_id(id)
        return self._manager.get(self._cls, await self._calendar.z0_trigger(name, chosen))

    async def backfill(self, name: str, since: datetime, until: datetime) -> Sequence[str]:
        """Create the instances from `since` to before `until` that are missing; their ids.

        Raises ScheduleNotFound, and ValueError for times without a zone, and for more than 10,000 runs.
        """
        return await self._calendar.z0_backfill(name, moment(since, "since"), moment(until, "until"))


def _row_of(cls: type[Workflow], schedule: Schedule, *, declared: bool) -> Row:
    payload = stored(schedule.payload, f"the payload of schedule {schedule.key!r}", cls.result_bytes)
    return Row(schedule.key, schedule.cron, schedule.timezone, schedule.missed, payload, declared)


async def declare(node: Node, cls: type[Workflow], tenant: str) -> None:
    """Have the calendar of the class know the schedules that it declares. Nothing is opened for a class without any."""
    address = Address(tenant, NAMESPACE, node.kind(cls).namespace)
    if not cls.schedules and not node.catalog.has(address):
        return
    rows = [_row_of(cls, schedule, declared=True) for schedule in cls.schedules]
    if len({row.name for row in rows}) < len(rows):
        raise ValueError(f"two schedules of {cls.__name__} have one name; give them names")
    await node.stub(Calendar, address.name, tenant, None).z0_declare(rows)
