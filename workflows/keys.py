"""What a step is called in the journal: kind, name and occurrence, below the step that it stands in. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Literal

from z0.actors.errors import InvalidName

Kind = Literal["do", "sleep", "wait", "value", "patch", "alert", "all", "race", "workflow", "rollback"]
_BESIDE = frozenset({"value", "patch", "all", "race"})
_NAME_MAX = 256
_SENT_MAX = 512
_ESCAPED = str.maketrans({"%": "%25", "/": "%2F", "#": "%23"})


def key_of(parent: str, kind: Kind, name: str, occurrence: int) -> str:
    """The key; `parent` is that of the step around it, or ""."""
    own = f"{kind}:{escaped(name)}#{occurrence}"
    return f"{parent}/{own}" if parent else own


def escaped(name: str) -> str:
    """The name as it stands in a key."""
    return name.translate(_ESCAPED)


def unescaped(name: str) -> str:
    """The name that stands so in a key."""
    return name.replace("%2F", "/").replace("%23", "#").replace("%25", "%")


def is_below(key: str, parent: str) -> bool:
    """Whether the step stands in that one, however deep."""
    return key.startswith(f"{parent}/")


def kind_of(key: str) -> str:
    """What kind of step it is."""
    start = key.rfind("/") + 1
    return key[start : key.find(":", start)]


def around(key: str) -> list[str]:
    """The keys of the steps that it stands in, the outermost first."""
    return [key[:at] for at, character in enumerate(key) if character == "/"]


def steps_around(key: str) -> list[str]:
    """The keys of the steps that it stands in, without those of branches; the outermost first."""
    return [each for each in around(key) if not each.rpartition("/")[2].isdecimal()]


def callback_of(place: str) -> str:
    """The step whose callback takes the steps that stand in this place, whichever branches they are in; "": none's."""
    while place and place.rpartition("/")[2].isdecimal():
        place = place.rpartition("/")[0].rpartition("/")[0]
    return place


class SentKeys:
    """Idempotency keys for what an attempt of a step sends: the same ones for every attempt."""

    __slots__ = ("_count", "_key", "_step")

    def __init__(self, key: Callable[[str], str], step: str) -> None:
        """`key` makes of a step's key what tells the step from every other."""
        self._key = key
        self._step = step
        self._count = 0

    def __call__(self) -> str:
        """The next one."""
        self._count += 1
        return shortened(f"{self._key(self._step)}/{self._count}")


def shortened(key: str) -> str:
    """The idempotency key, cut where it would be too long for a fact, and still its own."""
    if len(key) <= _SENT_MAX:
        return key
    return f"{key[: _SENT_MAX - 65]}~{blake2b(key.encode(), digest_size=32).hexdigest()}"


def check_step_name(name: object) -> str:
    """The name of a step. Raises InvalidName, TypeError."""
    if not isinstance(name, str):
        raise TypeError(f"a step's name is a string, not {name!r}")
    if not name or len(name) > _NAME_MAX:
        raise InvalidName(f"step name {name[:40]!r}", f"has {len(name)} characters, not 1 to {_NAME_MAX}")
    if not name.isprintable() and any(ord(character) < 0x20 for character in name):
        raise InvalidName(f"step name {name!r}", "holds a control character")
    return name


def name_of(key: str) -> str:
    """The names in a key: "settle/charge"; the second step of a name is "charge#2", one in a branch "all/0/charge".

    What undoes a step is called as that step is.
    """
    return "/".join(_own_name(part) for part in key.split("/"))


def _own_name(part: str) -> str:
    kind, _, rest = part.partition(":")
    if not rest:  # the number of a branch
        return part
    name, _, count = rest.rpartition("#")
    plain = unescaped(name)
    if kind == "rollback":
        return name_of(plain)
    return plain if count == "1" else f"{plain}#{count}"


def names_of(keys: Sequence[str]) -> dict[str, str]:
    """What each step is called so that it is told from the others: its name, or its key when another has that name.

    Of several of one name the first has it; what a body asks for by itself comes before what stands for something else.
    """
    taken, names = set(keys), dict.fromkeys(keys, "")
    for key in sorted(keys, key=lambda key: kind_of(key) in _BESIDE or key.startswith("rollback:")):
        name = name_of(key)
        names[key] = key if name in taken else name
        taken.add(name)
    return names
