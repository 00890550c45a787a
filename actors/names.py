"""Names: what an actor's address is, and which file it has. Pure.

A name is any string of 1 to 512 UTF-8 bytes, unnormalised. On disk it stays readable: as it is when it is
made of `a-z 0-9 _ - .` only, else escaped, cut, and told apart by a hash. So two names that a file system
might confuse (by case, by Unicode form, by a reserved word) never share a file, and no name leaves its folder.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from pathlib import PurePath
from typing import NamedTuple

from .errors import InvalidName

NAME_BYTES_MAX = 512
DEFAULT_TENANT = "default"

_PLAIN = re.compile(r"[a-z0-9_-][a-z0-9_.-]{0,99}")
_TENANT = re.compile(r"[a-z0-9_-]{1,60}")  # no dot: never the catalogue's or the lock's file
_NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,60}")  # a class's name as it is; case twins are refused (node)
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_READABLE_MAX = 80


class Address(NamedTuple):
    """Tenant, namespace and name: one actor, always the same, in one data directory."""

    tenant: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """As people write it: namespace/name, after the tenant unless it is the default one."""
        plain = f"{self.namespace}/{self.name}"
        return plain if self.tenant == DEFAULT_TENANT else f"{self.tenant}:{plain}"


def check_name(name: object, what: str = "name") -> str:
    """The name, if it can be one. Raises InvalidName."""
    if not isinstance(name, str):
        raise _invalid(what, f"is a {type(name).__name__}, not a string")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise _invalid(what, "holds a lone surrogate") from None
    if not size:
        raise _invalid(what, "is empty")
    if size > NAME_BYTES_MAX:
        raise _invalid(what, f"is {size} bytes long")
    if "\0" in name:
        raise _invalid(what, "holds a NUL")
    return name


def _invalid(what: str, reason: str) -> InvalidName:
    return InvalidName(what, reason, f"use 1 to {NAME_BYTES_MAX} UTF-8 bytes without NUL")


def file_path(tenant: str, namespace: str, name: str) -> PurePath:
    """The actor's file, relative to the data directory."""
    return PurePath(_safe(tenant, _TENANT), _safe(namespace, _NAMESPACE), f"{_safe(name, _PLAIN)}.sqlite")


def _safe(name: str, plain: re.Pattern[str]) -> str:
    if plain.fullmatch(name) and not _RESERVED.fullmatch(name) and not name.endswith("."):
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]", _escape, name)[:_READABLE_MAX]
    return f"{readable}~{blake2b(name.encode(), digest_size=16).hexdigest()}"


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())
