"""Queries over facts: filters to SQL. Pure; values always travel as bindings."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, TypedDict

from z0.actors.clock import us_of

from .errors import InvalidQuery
from .fact import COLUMNS, INT64_MAX, INT64_MIN

Binding = str | int | float | bytes | None

_SELECT = f"SELECT {', '.join(COLUMNS)} FROM facts"
_PART = re.compile(r"[^\"\\\0]+")
_ONE_OR_SEVERAL = ("type", "subtype")
_EQUAL = (
    "tenant_id", "source_id", "from_entity", "to_entity", "currency", "trace_id", "external_source", "external_id",
    "idempotency_key",
)  # fmt: skip
_INDEXABLE = frozenset(COLUMNS) - {"seq", "idempotency_key", "data", "hash"}


class Filters(TypedDict, total=False):
    """Which facts: all filters must hold; None means that the field is absent."""

    type: str | list[str] | tuple[str, ...] | set[str]
    subtype: str | list[str] | tuple[str, ...] | set[str] | None
    tenant_id: str
    source_id: str | None
    from_entity: str | None
    to_entity: str | None
    currency: str | None
    trace_id: str | None
    external_source: str | None
    external_id: str | None
    idempotency_key: str | None
    data: dict[str, str | int | float | bool | None]
    """JSON paths ("invoice_id", "customer.country") to values; None: absent or null."""
    since: datetime | int
    """Inclusive; an aware datetime or microseconds since the epoch."""
    until: datetime | int
    """Exclusive."""
    after_seq: int
    """Exclusive."""


class Query(Filters, total=False):
    """Filters, and which of the facts that pass."""

    limit: int | None
    reverse: bool


def select(query: dict[str, Any]) -> tuple[str, tuple[Binding, ...]]:
    """SQL and bindings for the facts of a query, in order of seq. Raises InvalidQuery."""
    filters = dict(query)
    reverse = bool(filters.pop("reverse", False))
    limit = filters.pop("limit", None)
    if limit is not None and (not _is_int64(limit) or limit < 0):
        raise InvalidQuery(f"limit is a number of facts or None (all), not {limit!r}")
    where, bindings = _where(filters)
    sql = f"{_SELECT}{where} ORDER BY seq{' DESC' if reverse else ''}"
    return (sql, bindings) if limit is None else (f"{sql} LIMIT ?", (*bindings, limit))


def count(filters: dict[str, Any]) -> tuple[str, tuple[Binding, ...]]:
    """SQL for the number of facts. Raises InvalidQuery."""
    where, bindings = _where(filters)
    return f"SELECT count(*) FROM facts{where}", bindings


def total(field: str, filters: dict[str, Any]) -> tuple[str, tuple[Binding, ...]]:
    """SQL for sums of an integer field by currency, in two halves so that no sum overflows. Raises InvalidQuery.

    Rows: currency, sum of the high parts, sum of the low 32 bits, number of values that are no integers.
    """
    if field != "amount" and not field.startswith("data."):
        raise InvalidQuery(f'sum is over "amount" or "data.<path>", not {field!r}')
    value = column(field)
    where, bindings = _where(filters)
    # json_type tells true from 1, typeof an integer that fits 64 bits from one that does not
    kind = f"json_type(data, {_path(field[5:])})" if field != "amount" else "'integer'"
    return (
        f"SELECT currency, sum(({value}) >> 32), sum(({value}) & 4294967295),"
        f" sum(typeof({value}) <> 'integer' OR {kind} <> 'integer') FROM facts{where}"
        f"{' AND' if where else ' WHERE'} {value} IS NOT NULL GROUP BY currency",
        bindings,
    )


def column(field: str) -> str:
    """The SQL expression of a column, or of "data.<path>". Raises InvalidQuery."""
    if field.startswith("data."):
        return f"json_extract(data, {_path(field[5:])})"
    if field not in _INDEXABLE:
        raise InvalidQuery(f"no such field: {field!r}")
    return field


def index_ddl(field: str) -> str:
    """The statement that makes the index of a declared field. Raises InvalidQuery."""
    return f"CREATE INDEX IF NOT EXISTS {index_name(field)} ON facts({column(field)})"


def index_name(field: str) -> str:
    """The (quoted) name of a declared field's index; SQLite's names do not know upper from lower case."""
    case = "".join("^" if letter != letter.lower() else "." for letter in field)
    return '"z0_by_{}"'.format((field if "^" not in case else f"{field} {case}").replace('"', '""'))


def microseconds(moment: object, what: str) -> int:
    """A moment as microseconds since the epoch. Raises InvalidQuery for a naive datetime or another type."""
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise InvalidQuery(f"{what} is a naive datetime; give it a time zone, for example datetime.now(UTC)")
        return us_of(moment)
    if _is_int64(moment):
        return moment  # type: ignore[return-value]
    raise InvalidQuery(f"{what} is an aware datetime or an int of microseconds, not {moment!r}")


def _where(filters: dict[str, Any]) -> tuple[str, tuple[Binding, ...]]:
    terms: list[str] = []
    bindings: list[Binding] = []
    for name, value in filters.items():
        if name in _ONE_OR_SEVERAL and isinstance(value, (list, tuple, set, frozenset)):
            _strings(name, value)
            terms.append(f"{name} IN ({', '.join('?' * len(value))})")
            bindings += value
        elif name in _ONE_OR_SEVERAL or name in _EQUAL:
            if value is not None:
                _strings(name, (value,))
            terms.append(f"{name} IS NULL" if value is None else f"{name} = ?")
            bindings += [] if value is None else [value]
        elif name == "data":
            _data_terms(value, terms, bindings)
        elif name in ("since", "until"):
            terms.append(f"timestamp {'>=' if name == 'since' else '<'} ?")
            bindings.append(microseconds(value, name))
        elif name == "after_seq":
            if not _is_int64(value):
                raise InvalidQuery(f"after_seq is the seq of a fact, not {value!r}")
            terms.append("seq > ?")
            bindings.append(value)
        else:
            raise InvalidQuery(f"unknown filter {name!r}; filters are {', '.join(Query.__annotations__)}")
    return (f" WHERE {' AND '.join(terms)}" if terms else "", tuple(bindings))


def _data_terms(paths: object, terms: list[str], bindings: list[Binding]) -> None:
    if not isinstance(paths, dict):
        raise InvalidQuery(f"data is a dict of JSON paths to values, not {paths!r}")
    for path, value in paths.items():
        at = _path(path)
        if value is None:
            terms.append(f"json_extract(data, {at}) IS NULL")
        elif isinstance(value, bool):
            terms.append(f"json_type(data, {at}) = '{'true' if value else 'false'}'")
        elif isinstance(value, str) and _is_utf8(value):
            terms.append(f"json_extract(data, {at}) = ? AND json_type(data, {at}) = 'text'")
            bindings.append(value)
        elif isinstance(value, float) or _is_int64(value):  # JSON's true is no 1
            terms.append(f"json_extract(data, {at}) = ? AND json_type(data, {at}) IN ('integer', 'real')")
            bindings.append(value)
        else:
            raise InvalidQuery(f"data[{path!r}] is compared with a string, number, bool or None, not {value!r}")


def _path(path: object) -> str:
    """A dotted path as a quoted SQLite JSON path."""
    if not isinstance(path, str) or not _is_utf8(path) or not all(_PART.fullmatch(part) for part in path.split(".")):
        raise InvalidQuery(f"not a JSON path: {path!r}; write names with dots between them")
    steps = "".join(f'."{part}"' for part in path.split("."))
    return "'${}'".format(steps.replace("'", "''"))


def _strings(name: str, values: Any) -> None:
    for value in values:
        if not isinstance(value, str) or not _is_utf8(value):
            raise InvalidQuery(f"{name} is a string of UTF-8, not {value!r}")


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_int64(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and INT64_MIN <= value <= INT64_MAX
