"""Looking into workflow instances by their files, live or copied, without their owner. Read-only, as `z0.inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from z0.actors.catalog import CATALOG_FILE
from z0.actors.catalog_schema import KNOWN_STATUS
from z0.actors.errors import ActorFileError
from z0.actors.names import Address
from z0.actors.reader import Reader
from z0.inspect import check_directory, moment
from z0.workflows import blobs
from z0.workflows.history import History
from z0.workflows.journal import ENTRIES, Entry, entries
from z0.workflows.public import Read, StepInfo, steps_of
from z0.workflows.status import InstanceStatus, status_of

_INSTANCES = (
    f"SELECT tenant, namespace, name, path, {KNOWN_STATUS}, size, last_use, next_alarm FROM actors"
    " WHERE (? IS NULL OR tenant = ?) AND (? IS NULL OR namespace = ?) AND substr(name, 1, ?) = ?"
    " ORDER BY tenant, namespace, name"
)

_RESTS = "SELECT value FROM z0_meta WHERE key = 'rests'"
_ALARM = "SELECT scheduled FROM z0_alarms WHERE name = ''"


class Summary(msgspec.Struct, frozen=True):
    """One instance; times in µs since the epoch, UTC."""

    tenant: str
    workflow: str
    id: str
    status: str
    size: int | None
    last_use: int | None
    next_alarm: int | None


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One instance at one moment, as its file says."""

    tenant: str
    workflow: str
    path: str
    status: InstanceStatus
    steps: list[StepInfo]
    entries: int


def instances(
    data: Path,
    *,
    tenant: str | None = None,
    workflow: str | None = None,
    status: str | None = None,
    prefix: str = "",
) -> Iterator[Summary]:
    """The instances in a data directory, by tenant, workflow and id. Of those in memory each file is asked."""
    check_directory(data)
    with Reader(data / CATALOG_FILE) as reader:
        if not reader.rows("SELECT 1 FROM pragma_table_info('actors') WHERE name = 'status'"):
            raise ActorFileError(str(data / CATALOG_FILE), "has no statuses yet; open it once with this z0")
        rows = reader.rows(_INSTANCES, tenant, tenant, workflow, workflow, len(prefix), prefix)
    for tenant_, namespace, name, path, known, *rest in rows:
        summary = Summary(tenant_, namespace, name, known, *rest) if known else None
        if summary is None and (data / path).is_file():
            summary = _asked(data / path, Summary(tenant_, namespace, name, "", *rest))
        if summary is not None and status in (None, summary.status):
            yield summary


def _asked(file: Path, summary: Summary) -> Summary | None:
    """The same, with what only the file knows of who is in memory; None: it is no instance's."""
    with Reader(file) as reader:
        reader.rows("BEGIN")
        history = _history(_entries(reader))
        if history.created is None:
            return None
        due = None if history.end is not None else history.due()
        return msgspec.structs.replace(summary, status=history.status(_rests(reader, history)), next_alarm=due)


def journal(file: Path) -> tuple[Address, list[Entry]]:
    """Whose journal it is, and all its entries. Raises ActorFileError."""
    with moment(file) as (reader, address, _):
        return address, _instance(file, address, _entries(reader))


def _instance(file: Path, address: Address, found: list[Entry]) -> list[Entry]:
    if not found:
        raise ActorFileError(str(file), f"is of {address}, which is no workflow instance")
    return found


def show(file: Path) -> Instance:
    """Everything about one instance. Raises ActorFileError."""
    with moment(file) as (reader, address, _):
        found = _instance(file, address, _entries(reader))
        history = _history(found)
        rests = _rests(reader, history)
    return Instance(
        tenant=address.tenant,
        workflow=address.namespace,
        path=str(file),
        status=status_of(address.name, history, rests),
        steps=steps_of(found, reader_of(file)),
        entries=len(found),
    )


def reader_of(file: Path) -> Read:
    """Reads the results that are kept beside an instance's file."""
    return partial(blobs.read, blobs.folder_of(file))


def plain(entry: Entry) -> dict[str, Any]:
    """An entry for readers: its value is in the step (see `z0 workflows step`), here only its size."""
    fields = {name: value for name, value in msgspec.structs.asdict(entry).items() if value not in (None, {})}
    if entry.value is not None:
        fields["value"] = f"{len(entry.value)} bytes"
    return fields


def _entries(reader: Reader) -> list[Entry]:
    return entries(reader.rows(ENTRIES)) if reader.has_table("z0_journal") else []


def _history(found: list[Entry]) -> History:
    history = History()
    for entry in found:
        history.apply(entry)
    return history


def _rests(reader: Reader, history: History) -> bool:
    """Whether it waits, as far as a file can say: a process that has it in memory may be about to go on.

    One that was closed while it rested says so. One that was cut off, or told something, is due before what it waits
    for: at once.
    """
    if reader.rows(_RESTS) == [(history.seq,)]:
        return True
    alarms, due = reader.rows(_ALARM), history.due()
    return bool(history.waits()) and all(due is not None and at >= due for (at,) in alarms)
