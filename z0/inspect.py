"""Looking into a data directory or one actor's file, live or copied, without its owner.

Guarantees: read-only; no lock is taken and the owner is never kept waiting: long reads go page by page, and
the pages fit together because a ledger only grows. What is shown of one actor is one moment. Errors are
`Z0Error`s that name the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from z0.actors.catalog import CATALOG_FILE
from z0.actors.codec import decode
from z0.actors.errors import ActorFileError
from z0.actors.names import DEFAULT_TENANT, Address, check_name, file_path
from z0.actors.reader import Reader
from z0.ledger.errors import LedgerCorrupt
from z0.ledger.fact import COLUMNS, INT64_MAX, Fact, fact_of, id_prefix

T = TypeVar("T", bound=msgspec.Struct)

PAGE = 1_000
KEYS_SHOWN = 100


class Summary(msgspec.Struct, frozen=True):
    """One actor as the catalogue knows it: as of its last eviction; times in µs since the epoch, UTC."""

    tenant: str
    namespace: str
    name: str
    path: str
    size: int | None
    facts: int | None
    next_alarm: int | None
    last_use: int | None
    version: int | None
    """How many of its class's migrations it has had."""


class Key(msgspec.Struct, frozen=True):
    """A key of the key-value storage, and how many bytes its value takes."""

    key: str
    bytes: int


class Alarm(msgspec.Struct, frozen=True):
    """A pending wake-up; the unnamed one is called ''. Times in µs since the epoch, UTC."""

    name: str
    due: int
    """When it runs next; later than `scheduled` when runs of it failed."""
    scheduled: int
    retries: int
    error: str | None
    """Of the last run, when it failed."""
    recurs: str | None


class Outcome(msgspec.Struct, frozen=True):
    """How often runs of an alarm ended so (ok, retried, abandoned, replaced), and the last one that did."""

    name: str
    outcome: str
    times: int
    scheduled: int
    ended: int
    retries: int
    error: str | None


class Wakeup(msgspec.Struct, frozen=True):
    """An actor that will wake by itself; `active`: it was in memory, so only its file knows when."""

    tenant: str
    namespace: str
    name: str
    next_alarm: int | None
    active: bool


class Snapshot(msgspec.Struct, frozen=True):
    """A projection's state as it was saved after the fact `seq`; later facts are not in it."""

    projection: str
    version: int
    seq: int
    state: Any


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """One actor at one moment, as its file says; `facts` is None when it keeps no ledger."""

    tenant: str
    namespace: str
    name: str
    path: str
    schema: int
    size: int
    wal_size: int
    facts: int | None
    head: str | None
    first_fact: int | None
    last_fact: int | None
    keys: int
    first_keys: list[Key]
    tables: dict[str, int]
    alarms: list[Alarm]
    outcomes: list[Outcome]
    snapshots: list[Snapshot]


def check_directory(data: Path) -> None:
    """Raises ActorFileError when there is no directory to list."""
    if data.is_file():
        raise ActorFileError(str(data), "is a file, and what is listed is a data directory; `show` takes files too")
    if not data.is_dir():
        raise ActorFileError(str(data), "no such data directory")


def actors(
    data: Path,
    *,
    tenant: str | None = None,
    namespace: str | None = None,
    prefix: str = "",
    limit: int | None = None,
) -> list[Summary]:
    """The actors that the catalogue lists, by tenant, namespace and name."""
    check_directory(data)
    with Reader(data / CATALOG_FILE) as reader:
        most = -1 if limit is None else limit
        columns = _columns(reader, "actors")
        sql = _ACTORS.format(version="version" if "version" in columns else "NULL")  # a catalogue of the first schema
        rows = reader.rows(sql, tenant, tenant, namespace, namespace, len(prefix), prefix, most)
    return [_fresh(data, summary) for summary in _typed(data / CATALOG_FILE, Summary, rows)]


_ACTORS = (
    "SELECT tenant, namespace, name, path, size, facts, next_alarm, last_use, {version} FROM actors"
    " WHERE (? IS NULL OR tenant = ?) AND (? IS NULL OR namespace = ?) AND substr(name, 1, ?) = ?"
    " ORDER BY tenant, namespace, name LIMIT ?"
)


def _fresh(data: Path, summary: Summary) -> Summary:
    """An actor that was never evicted yet has its figures in its file only."""
    file = data / summary.path
    if summary.size is not None or not file.is_file():
        return summary
    with Reader(file) as reader:
        return msgspec.structs.replace(summary, size=file.stat().st_size, facts=_head(file, reader)[0])


def find(path: Path, actor: str | None, tenant: str = DEFAULT_TENANT) -> Path:
    """The file of an actor: `path` itself, or that of "NAMESPACE/NAME" in the data directory `path`."""
    if not path.is_dir():
        return path
    namespace, _, name = (actor or "").partition("/")
    if not (namespace and name):
        raise ActorFileError(str(path), "is a directory; say which actor, as NAMESPACE/NAME")
    file = path / file_path(check_name(tenant, "tenant"), check_name(namespace, "namespace"), check_name(name))
    if not file.is_file():
        raise ActorFileError(str(path), f"has no actor {Address(tenant, namespace, name)}")
    return file


class _Meta(msgspec.Struct):
    tenant: str
    namespace: str
    name: str
    schema: int = 0


class _Head(msgspec.Struct):
    seq: int
    hash: bytes


class _Time(msgspec.Struct):
    timestamp: int


S = TypeVar("S", bound=msgspec.Struct)


def _typed(file: Path, kind: type[S], rows: Iterable[Sequence[object]]) -> list[S]:
    """Rows as what they are declared to be. Raises ActorFileError for another type, which z0 has not written."""
    names = kind.__struct_fields__
    try:
        return [msgspec.convert(dict(zip(names, row, strict=True)), kind) for row in rows]
    except (msgspec.ValidationError, UnicodeError) as error:
        raise ActorFileError(str(file), f"holds what z0 has not written ({error})") from None


@contextmanager
def moment(file: Path) -> Iterator[tuple[Reader, Address, int]]:
    """One moment of an actor's file, with whose it is and its schema."""
    with Reader(file) as reader:
        reader.rows("BEGIN")
        meta: dict[str, Any] = {}
        if reader.has_table("z0_meta"):
            meta.update(reader.rows("SELECT key, value FROM z0_meta"))
        try:
            whose = msgspec.convert(meta, _Meta)
        except msgspec.ValidationError:
            raise ActorFileError(str(file), "is a SQLite database, but no actor's file") from None
        yield reader, Address(whose.tenant, whose.namespace, whose.name), whose.schema


def show(file: Path) -> Details:
    """Everything about one actor but its facts and values."""
    with moment(file) as (reader, address, schema):
        facts, head = _head(file, reader)
        wal = file.with_name(f"{file.name}-wal")
        return Details(
            **address._asdict(),
            path=str(file),
            schema=schema,
            size=file.stat().st_size,
            wal_size=wal.stat().st_size if wal.exists() else 0,
            facts=facts,
            head=head,
            first_fact=_timestamp(file, reader, 1) if facts else None,
            last_fact=_timestamp(file, reader, facts) if facts else None,
            keys=reader.rows("SELECT count(*) FROM z0_kv")[0][0],
            first_keys=_typed(file, Key, reader.rows(_KEYS, KEYS_SHOWN)),
            tables=_tables(reader),
            alarms=_alarms(file, reader),
            outcomes=_outcomes(file, reader),
            snapshots=_snapshots(file, reader),
        )


_KEYS = "SELECT key, length(value) FROM z0_kv ORDER BY key LIMIT ?"
_ALARMS = "SELECT name, due, scheduled, retries, error, {recurs} FROM z0_alarms ORDER BY due"
_OUTCOMES = (
    "SELECT name, outcome, times, scheduled, ended, retries, error FROM z0_alarm_outcomes ORDER BY ended DESC LIMIT ?"
)
_WAKEUPS = (
    "SELECT tenant, namespace, name, next_alarm, {active} AS active FROM actors"
    " WHERE ({active} OR next_alarm IS NOT NULL) AND (? IS NULL OR tenant = ?) AND (? IS NULL OR namespace = ?)"
    " ORDER BY active DESC, next_alarm LIMIT ?"
)
_SNAPSHOTS = "SELECT projection, version, seq, state FROM z0_snapshots ORDER BY projection"
_USER_TABLES = (
    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'facts' COLLATE NOCASE"
    " AND name NOT LIKE 'z0\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
)


def _head(file: Path, reader: Reader) -> tuple[int | None, str | None]:
    """How many facts the ledger has, and the last one's hash; (None, None) without a ledger."""
    if not reader.has_table("facts"):
        return None, None
    rows = reader.rows("SELECT seq, hash FROM facts ORDER BY seq DESC LIMIT 1")
    heads = _typed(file, _Head, rows)
    return (heads[0].seq, heads[0].hash.hex()) if heads else (0, None)


def _alarms(file: Path, reader: Reader) -> list[Alarm]:
    recurs = "recurs" if "recurs" in _columns(reader, "z0_alarms") else "NULL"  # a file of the first schema
    sql = _ALARMS.format(recurs=recurs)
    return _typed(file, Alarm, reader.rows(sql))


def _outcomes(file: Path, reader: Reader) -> list[Outcome]:
    if not reader.has_table("z0_alarm_outcomes"):
        return []
    return _typed(file, Outcome, reader.rows(_OUTCOMES, KEYS_SHOWN))


def wakeups(
    data: Path, *, tenant: str | None = None, namespace: str | None = None, limit: int | None = None
) -> list[Wakeup]:
    """The actors that will wake by themselves, those in memory first, then by time; as the catalogue knows them."""
    check_directory(data)
    with Reader(data / CATALOG_FILE) as reader:
        most = -1 if limit is None else limit
        active = "active" if "active" in _columns(reader, "actors") else "0"
        rows = reader.rows(_WAKEUPS.format(active=active), tenant, tenant, namespace, namespace, most)
    return _typed(data / CATALOG_FILE, Wakeup, [(*row, bool(active)) for *row, active in rows])


def _columns(reader: Reader, table: str) -> set[str]:
    return {row[1] for row in reader.rows(f'PRAGMA table_info("{table}")')}  # no table of the user's can hide it


def _timestamp(file: Path, reader: Reader, seq: int) -> int | None:
    times = _typed(file, _Time, reader.rows("SELECT timestamp FROM facts WHERE seq = ?", seq))
    return times[0].timestamp if times else None


def _tables(reader: Reader) -> dict[str, int]:
    """The actor's own tables with their numbers of rows."""
    names = [name for (name,) in reader.rows(_USER_TABLES)]
    quoted = {name: name.replace('"', '""') for name in names}
    return {name: reader.rows(f'SELECT count(*) FROM "{quoted[name]}"')[0][0] for name in names}


def _snapshots(file: Path, reader: Reader) -> list[Snapshot]:
    if not reader.has_table("z0_snapshots"):
        return []
    rows = reader.rows(_SNAPSHOTS)
    try:
        decoded = [(*row, decode(state)) for *row, state in rows]
    except Exception as error:
        raise ActorFileError(str(file), f"a projection's snapshot is damaged ({error})") from None
    return _typed(file, Snapshot, decoded)


def facts(
    file: Path, *, types: Sequence[str] = (), after: int = 0, limit: int | None = None, reverse: bool = False
) -> Iterator[Fact]:
    """Facts after a seq, of some types or of all, in seq order or from the last one back."""
    wanted = f" AND type IN ({', '.join('?' * len(types))})" if types else ""
    sql = f"{FACTS} WHERE seq > ? AND seq < ?{wanted} ORDER BY seq {'DESC' if reverse else 'ASC'} LIMIT ?"
    before, left = INT64_MAX, INT64_MAX if limit is None else limit
    while left > 0:
        size = min(PAGE, left)
        with moment(file) as (reader, address, _):
            rows = reader.rows(sql, after, before, *types, size) if reader.has_table("facts") else []
        yield from (_fact(file, address, row) for row in rows)
        if len(rows) < size:
            return
        left -= size
        after, before = (after, rows[-1][0]) if reverse else (rows[-1][0], before)


FACTS = f"SELECT {', '.join(COLUMNS)} FROM facts"


def _fact(file: Path, address: Address, row: tuple[Any, ...]) -> Fact:
    try:
        fact = fact_of(id_prefix(address.namespace, address.name), row)
    except LedgerCorrupt as error:
        raise ActorFileError(str(file), f"the data of fact {row[0]} is damaged ({error})") from None
    return _typed(file, Fact, [attrgetter(*Fact.__struct_fields__)(fact)])[0]


def plain(fact: Fact) -> dict[str, Any]:
    """The fact's fields under their names, the hash in hexadecimal."""
    return {"id": fact.id, **{name: getattr(fact, name) for name in COLUMNS}, "hash": fact.hash.hex()}
