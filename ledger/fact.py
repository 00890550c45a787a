"""Facts: what happened, immutable; and what a caller may say of a new one. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Annotated, Any, TypedDict
from urllib.parse import quote

import msgspec
from msgspec.structs import astuple

from z0.actors import codec, extensions
from z0.actors.names import DEFAULT_TENANT

from .errors import InvalidFact, LedgerCorrupt

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
DATA_BYTES_MAX = 1024 * 1024
DATA_DEPTH_MAX = 100  # SQLite's JSON reads 1,000, and whoever decodes it needs stack for each

Word = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
Int64 = Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]
JsonObject = dict[str, Any]


class Fact(msgspec.Struct, frozen=True, gc=False):
    """Something that happened to an entity. What was not given is None."""

    id: str
    """`namespace/name@seq`, percent-escaped; unique within a tenant."""
    seq: int
    """Position in the entity's ledger, contiguous from 1."""
    type: str
    subtype: str | None = None
    timestamp: int = 0
    """When the ledger took it, in microseconds since the epoch, UTC; never goes back."""
    tenant_id: str = DEFAULT_TENANT
    entity_id: str = ""
    """The entity's name."""
    source_id: str | None = None
    from_entity: str | None = None
    to_entity: str | None = None
    amount: int | None = None
    """In minor units of the currency (cents), an int64."""
    currency: str | None = None
    config_id: str | None = None
    config_version: int | None = None
    trace_id: str | None = None
    external_source: str | None = None
    external_id: str | None = None
    idempotency_key: str | None = None
    data: JsonObject | None = None
    hash: bytes = b""
    """32 bytes: blake2b-256 over the predecessor's hash and this fact's columns."""

    def __z0_share__(self) -> Fact:
        """The fact as it may leave its actor: `data` is the only thing in it that can be changed."""
        return copy_fact(self) if self.data else self


make_fact: Callable[..., Fact] = Fact
"""Fact by position, for rows."""
extensions.declare(11, Fact, lambda fact: codec.encode(list(astuple(fact))), lambda data: Fact(*codec.decode(data)))
_copy: Callable[[Fact], Fact] = Fact.__copy__  # type: ignore[attr-defined]  # msgspec has it, its stubs do not


def copy_fact(fact: Fact) -> Fact:
    """A fact with `data` of its own."""
    new = _copy(fact)
    msgspec.structs.force_setattr(new, "data", msgspec.to_builtins(fact.data))
    return new


COLUMNS: tuple[str, ...] = Fact.__struct_fields__[1:]
"""Columns of the table `facts`, in order: every field but `id`, which the others imply."""

CONTENT = (
    "type", "subtype", "source_id", "from_entity", "to_entity", "amount", "currency", "external_source", "external_id",
)  # fmt: skip
"""Fields that, with `data`, make two facts of one idempotency key the same."""

content = itemgetter(*map(COLUMNS.index, CONTENT))
"""`CONTENT` of a row of `facts`."""
content_of = attrgetter(*CONTENT)
"""`CONTENT` of a draft."""


class FactFields(TypedDict, total=False):
    """What a caller may give beside the type."""

    subtype: str | None
    amount: int | None
    currency: str | None
    source_id: str | None
    from_entity: str | None
    to_entity: str | None
    config_id: str | None
    config_version: int | None
    trace_id: str | None
    external_source: str | None
    external_id: str | None
    idempotency_key: str | None
    data: JsonObject | None
    expected_seq: int | None


class Draft(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A fact that may be written: `FactFields` after validation. Up to `text` the fields stand as in COLUMNS."""

    type: Word
    subtype: Word | None = None
    source_id: Reference | None = None
    from_entity: Reference | None = None
    to_entity: Reference | None = None
    amount: Int64 | None = None
    currency: Word | None = None
    config_id: Reference | None = None
    config_version: Int64 | None = None
    trace_id: Reference | None = None
    external_source: Reference | None = None
    external_id: Reference | None = None
    idempotency_key: Reference | None = None
    text: str | None = None
    """`data` as it is stored; nothing that a caller may give."""
    data: Any = None
    expected_seq: Annotated[int, msgspec.Meta(ge=0)] | None = None


_SET_BY_LEDGER = frozenset({"id", "seq", "timestamp", "tenant_id", "entity_id", "hash"})
_FIELD = re.compile(r"\$\.(\w+)|field `([^`]*)`")

_encode = msgspec.json.Encoder().encode
decode_data = msgspec.json.Decoder().decode
"""The object of a stored `data` text."""


def draft(fields: Mapping[str, Any]) -> Draft:
    """Check what a caller gave, `type` included. Raises InvalidFact naming the field."""
    if "text" in fields:
        raise InvalidFact("text", "is no field of a fact; put it into data")
    try:
        new = msgspec.convert(fields, Draft)
    except (msgspec.ValidationError, TypeError, UnicodeEncodeError) as error:
        raise _invalid(str(error), fields) from None
    if new.data is not None:
        new.text, new.data = encode_data(new.data)
        key = new.data.get("idempotency_key")
        if key is not None:
            _take_key(new, key)
    return new


def drafts_of(facts: Sequence[Mapping[str, Any]]) -> list[Draft]:
    """Check several. Raises InvalidFact."""
    for fields in facts:
        if not isinstance(fields, Mapping):
            raise InvalidFact("facts", f"is a list of dicts of append's arguments, but holds {fields!r}")
    return [draft(dict(fields)) for fields in facts]


def with_key(fields: Mapping[str, Any], keys: Callable[[], str]) -> dict[str, Any]:
    """The arguments of a fact, with the next idempotency key where they have none."""
    data = fields.get("data")
    if fields.get("idempotency_key") is not None or (isinstance(data, Mapping) and "idempotency_key" in data):
        return dict(fields)
    return {**fields, "idempotency_key": keys()}


def not_utf8(new: Draft) -> InvalidFact | None:
    """The error for a draft with a field that UTF-8 cannot hold."""
    for name in Draft.__struct_fields__:
        value = getattr(new, name)
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return InvalidFact(name, "holds a lone surrogate, which UTF-8 cannot hold")
    return None


def _take_key(new: Draft, key: object) -> None:
    if not isinstance(key, str) or not 1 <= len(key) <= 512:
        raise InvalidFact("data.idempotency_key", "is a string of 1 to 512 characters")
    if new.idempotency_key not in (None, key):
        raise InvalidFact("idempotency_key", "differs from data['idempotency_key']; give one of them")
    new.idempotency_key = key


def _invalid(error: str, fields: Mapping[str, Any]) -> InvalidFact:
    match = _FIELD.search(error)
    name = (match[1] or match[2]) if match else next((str(key) for key in fields if not isinstance(key, str)), "type")
    if "unknown field" in error:
        reason = "is set by the ledger" if name in _SET_BY_LEDGER else "is no field of a fact; put it into data"
    else:
        reason = error.partition(" - at ")[0]
        reason = f"{reason[0].lower()}{reason[1:]}"
    if name == "amount":
        reason += " (amounts are whole minor units that fit 64 bits)"
    return InvalidFact(name, reason)


def encode_data(data: object) -> tuple[str, JsonObject]:
    """`data` as stored JSON text, and the copy that comes back from it. Raises InvalidFact."""
    if not isinstance(data, dict):
        raise InvalidFact("data", f"is a JSON object (a dict), not a {type(data).__name__}")
    try:
        raw = _encode(data)
        copy = decode_data(raw)
        same = copy == data or copy == _as_arrays(data)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidFact("data", f"is not JSON: {error}") from None
    if not same:
        raise InvalidFact("data", "holds a value that JSON does not bring back as it was; use JSON's own types")
    if raw.count(b"[") + raw.count(b"{") > DATA_DEPTH_MAX and _is_deeper(copy, DATA_DEPTH_MAX):
        raise InvalidFact("data", f"is nested more than {DATA_DEPTH_MAX} deep")
    if len(raw) > DATA_BYTES_MAX:
        raise InvalidFact("data", f"is {len(raw)} bytes of JSON, more than {DATA_BYTES_MAX}; store it elsewhere")
    return raw.decode(), copy


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and dicts are nested in the value more than so many levels deep."""
    if not isinstance(value, (dict, list)):
        return False
    items = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in items)


def _as_arrays(value: Any) -> Any:
    """The value with lists for tuples, which is what JSON makes of them."""
    if isinstance(value, dict):
        return {key: _as_arrays(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_arrays(item) for item in value]
    return value


def id_prefix(namespace: str, name: str) -> str:
    """What the ids of an entity's facts begin with."""
    return f"{quote(namespace, safe='')}/{quote(name, safe='')}@"


def fact_of(prefix: str, row: tuple[Any, ...]) -> Fact:
    """The fact of a row of `facts`, columns in their order. Raises LedgerCorrupt for data that cannot be read."""
    text = row[17]
    try:
        data = None if text is None else decode_data(text)
    except Exception as error:
        raise LedgerCorrupt(prefix[:-1], row[0], f"has damaged data ({error})") from error
    return make_fact(f"{prefix}{row[0]}", *row[:17], data, row[18])
