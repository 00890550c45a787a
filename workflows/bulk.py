"""Many instances at once: listed, counted, created, repaired, removed; with a report of each."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from z0.actors.clock import datetime_of
from z0.actors.errors import ActorFileError, OtherLoop, RuntimeClosed, Z0Error, said
from z0.actors.roster import Listed, Roster

from . import permitted
from .errors import InstanceExists, InstanceNotFound
from .history import Status
from .instance import Instance

if TYPE_CHECKING:
    from .instances import Workflows
    from .workflow import Workflow

log = logging.getLogger("z0.workflows")

Verb = Literal["pause", "resume", "terminate", "restart", "retry", "abandon", "delete"]
VERBS: tuple[Verb, ...] = get_args(Verb)
_AT_ONCE = 32
_PAGE = 500


class InstanceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One instance in a list; size and times as of when it was last in memory."""

    id: str
    status: Status
    wake_at: datetime | None
    last_use: datetime | None
    size: int | None
    """Bytes."""


class BatchError(msgspec.Struct, frozen=True, kw_only=True):
    """One of a batch that came to nothing."""

    index: int
    id: str | None
    code: str
    """"exists", "duplicate" (in this batch), "invalid", or "failed": the same may succeed later.

    Of one that failed the message says whether it may have been created nevertheless; the same id again tells.
    """
    message: str


class BatchReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch: each instance was created wholly, or is listed as an error."""

    created: list[str]
    errors: list[BatchError]


class BulkResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one instance."""

    id: str
    done: bool
    """With dry_run: whether it would have been tried."""
    message: str = ""
    """Why not, or the error that it had failed with."""


async def listed(
    manager: Workflows, cls: type[Workflow] | str, status: Status | None, prefix: str, after: str
) -> AsyncIterator[InstanceInfo]:
    """The instances, by id."""
    kind = manager.kind(cls)
    roster = Roster(manager.node, kind, manager.tenant)
    while True:
        page = await roster.page(status, prefix, after, _PAGE)
        for row in page:
            now = row.status or await _asked(manager, cls, row.name)
            if now is not None and status in (None, now):
                yield _info(row, now)
        if len(page) < _PAGE:
            return
        after = page[-1].name


def _info(row: Listed, status: str) -> InstanceInfo:
    return InstanceInfo(
        id=row.name,
        status=status,  # type: ignore[arg-type]
        wake_at=None if row.next_alarm is None else datetime_of(row.next_alarm),
        last_use=None if row.last_use is None else datetime_of(row.last_use),
        size=row.size,
    )


async def _asked(manager: Workflows, cls: type[Workflow] | str, id: str) -> Status | None:
    """The status of one that has to be opened for it; None: it has none, or cannot be opened."""
    try:
        return (await manager.get(cls, id).status()).status
    except InstanceNotFound:
        return None
    except ActorFileError as error:
        log.error("an instance is left out of a list, for its file cannot be used: %s", error)
        return None


async def counted(manager: Workflows, cls: type[Workflow] | str, prefix: str) -> Counter[str]:
    """How many instances there are, by status."""
    counts, unknown = await Roster(manager.node, manager.kind(cls), manager.tenant).counts(prefix)
    for id in unknown:
        status = await _asked(manager, cls, id)
        if status is not None:
            counts[status] += 1
    return +counts


async def created(manager: Workflows, cls: type[Workflow] | str, instances: Sequence[Mapping[str, Any]]) -> BatchReport:
    """Create many; `instances`: the arguments of `Workflows.create` for each. Raises as `Workflows.kind`."""
    manager.kind(cls)
    seen: set[str] = set()
    errors: list[BatchError] = []
    made: dict[int, str] = {}

    async def one(index: int, arguments: Mapping[str, Any]) -> None:
        id = arguments.get("id") if isinstance(arguments, Mapping) else None
        if isinstance(id, str) and id in seen:
            error = BatchError(index=index, id=id, code="duplicate", message=f"id {id!r} is in this batch before")
            errors.append(error)
            return
        if isinstance(id, str):
            seen.add(id)
        try:
            instance = await manager.create(cls, **arguments)
            made[index] = instance.id
        except InstanceExists as error:
            errors.append(BatchError(index=index, id=id, code="exists", message=str(error)))
        except (RuntimeClosed, OtherLoop):
            raise
        except Exception as error:
            code = "failed" if getattr(error, "retryable", False) else "invalid"
            errors.append(BatchError(index=index, id=id, code=code, message=_said(error)))

    await _all([lambda index=index, each=each: one(index, each) for index, each in enumerate(instances)])  # type: ignore[misc]
    return BatchReport(
        created=[made[index] for index in sorted(made)], errors=sorted(errors, key=lambda error: error.index)
    )


async def done(
    manager: Workflows,
    cls: type[Workflow] | str,
    verb: Verb,
    ids: Sequence[str],
    arguments: Mapping[str, Any],
    dry_run: bool,
    error: str | None = None,
) -> list[BulkResult]:
    """Do the same to many; `error`: only to those that failed with an error whose type or message holds this.

    Raises ValueError for a verb that is none, TypeError for arguments that it does not take, RuntimeClosed.
    """
    if verb not in VERBS:
        raise ValueError(f"not something to do to instances: {verb!r}; one of {', '.join(VERBS)}")
    manager.kind(cls)
    signature(getattr(Instance, verb)).bind(None, **arguments)
    results: dict[str, BulkResult] = {}

    async def one(id: str) -> None:
        try:
            instance, why = manager.get(cls, id), ""
            if error is not None or dry_run:
                status = await instance.status()
                why = "" if status.error is None else status.error.text
                if error is not None and error not in why:
                    return
                if dry_run:
                    permitted.check(repr(instance), verb, status)
            if not dry_run:
                await getattr(instance, verb)(**arguments)
            results[id] = BulkResult(id=id, done=True, message=why)
        except (RuntimeClosed, OtherLoop):
            raise
        except Exception as caught:
            results[id] = BulkResult(id=id, done=False, message=_said(caught))

    await _all([lambda id=id: one(id) for id in dict.fromkeys(ids)])  # type: ignore[misc]
    return [results[id] for id in dict.fromkeys(ids) if id in results]


async def _all(work: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Do it all, some at once."""
    left = iter(work)

    async def some() -> None:
        for each in left:
            await each()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, len(work))):
                group.create_task(some())
    except ExceptionGroup as closed:
        raise closed.exceptions[0] from None


def _said(error: Exception) -> str:
    """What a report has of an error: those of ours say it themselves."""
    return str(error) if isinstance(error, Z0Error) else said(error)
