"""The notation of values that JSON has not (see `scenario`), for Python. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_LONG = 100


def decoded(value: Any) -> Any:
    """The value that is written so."""
    match value:
        case list():
            return [decoded(item) for item in value]
        case {"$undefined": None}:
            return None
        case {"$number": number}:
            return float(number)
        case {"$bigint": digits}:
            return int(digits)
        case {"$date": milliseconds}:
            return datetime.fromtimestamp(milliseconds / 1000, UTC)
        case {"$bytes": items}:
            return bytes(items)
        case {"$blob": length}:
            return bytes(length)
        case {"$text": length}:
            return "x" * length
        case {"$set": items}:
            return set(map(decoded, items))
        case {"$map": items}:
            return {decoded(key): decoded(its) for key, its in items}
        case {"$pattern": pattern}:
            return re.compile(pattern)
        case {"$function": None}:
            return decoded
        case dict():
            return {key: decoded(its) for key, its in value.items()}
    return value


def encoded(value: Any) -> Any:
    """How the value is written."""
    match value:
        case float() if math.isnan(value) or math.isinf(value):
            return {"$number": {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]}
        case float() if value == 0 and math.copysign(1, value) < 0:
            return {"$number": "-0"}
        case float() if value.is_integer():
            return encoded(int(value))  # JavaScript's numbers are all of one kind
        case int() if not isinstance(value, bool) and abs(value) >= 2**53:
            return {"$bigint": str(value)}
        case str() if len(value) > _LONG:
            return {"$text": len(value)}
        case bytes():
            return {"$blob": len(value)} if len(value) > _LONG else {"$bytes": list(value)}
        case datetime():
            return {"$date": round(value.timestamp() * 1000)}
        case list() | tuple():
            return [encoded(item) for item in value]
        case set() | frozenset():
            return {"$set": [encoded(item) for item in sorted(value)]}
        case dict() if all(isinstance(key, str) for key in value):
            return {key: encoded(its) for key, its in value.items()}
        case dict():
            return {"$map": pairs(value)}
    return value


def pairs(mapping: Mapping[Any, Any]) -> list[Any]:
    """Keys and values in their order."""
    return [[encoded(key), encoded(its)] for key, its in mapping.items()]
