"""How many instances of a class may run at once, and who is next. Pure.

An instance holds a slot in each of its groups, one for each `Concurrency` of its class, from its start to its end,
also while it sleeps or waits. Who cannot start waits in the queue: the highest priority first, then in order; one
whose key is busy does not hold up those behind it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from z0.actors.clock import Span
from z0.actors.schedule import SPAN_MAX

from .checks import check_span

Key = str | Callable[[Any], Any]
_PRIORITY_MAX = 2**62  # SQLite keeps 64 bits
WhenFull = Literal["queue", "cancel_new", "cancel_running"]


class Concurrency(msgspec.Struct, frozen=True, kw_only=True):
    """At most `limit` instances of a class run at once: `concurrency = z0.Concurrency(limit=10)`."""

    limit: int
    key: Key | None = None
    """Count those apart that differ in this: a path in the payload ("customer.id"), or a function of it."""
    per_tenant: bool = True
    """Count tenants apart."""
    when_full: WhenFull = "queue"
    """What becomes of one too many: it is queued, it is terminated, or the one that came first is: the newest run."""

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be."""
        if type(self.limit) is not int or self.limit < 1:
            raise ValueError(f"Concurrency(limit={self.limit!r}): give a whole number, 1 or more")
        if not (self.key is None or isinstance(self.key, str) or callable(self.key)):
            raise ValueError(f"Concurrency(key={self.key!r}): give a path in the payload, or a function of it")
        if self.when_full not in ("queue", "cancel_new", "cancel_running"):
            raise ValueError(f"Concurrency(when_full={self.when_full!r}): give 'queue', 'cancel_new', 'cancel_running'")


def singleton(key: Key | None = None, *, mode: Literal["skip", "cancel"] = "skip") -> Concurrency:
    """One instance at a time, of each key: another is terminated at once ("skip"), or ends the one that runs.

    One that has ended and is retried or restarted ends nobody: while another one runs it raises WrongStatus. One that
    is paused before it has begun gives its place up, and is a new one when it is resumed. Raises ValueError.
    """
    if mode not in ("skip", "cancel"):
        raise ValueError(f"singleton(mode={mode!r}): give 'skip' or 'cancel'")
    return Concurrency(limit=1, key=key, when_full="cancel_new" if mode == "skip" else "cancel_running")


class Debounce(msgspec.Struct, frozen=True, kw_only=True):
    """Instances of one key that are created in quick succession become one, which gets the last payload."""

    wait: Span
    """It is created when none has been asked for, for so long."""
    max_wait: Span | None = None
    """... but no later than this after the first was asked for."""
    key: Key | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for what is no span, or longer than 1,000 years."""
        check_span(self.wait, "Debounce.wait", SPAN_MAX)
        if self.max_wait is not None:
            check_span(self.max_wait, "Debounce.max_wait", SPAN_MAX)


def check_debounce(debounce: object, what: str) -> None:
    """Raises TypeError for what is none."""
    if not (debounce is None or isinstance(debounce, Debounce)):
        raise TypeError(f"{what}={debounce!r}: give z0.Debounce(wait=...), or None")


Rules = Concurrency | Sequence[Concurrency] | None


def rules_of(rules: Rules) -> Sequence[Concurrency]:
    """All of them."""
    return () if rules is None else (rules,) if isinstance(rules, Concurrency) else rules


def check_rules(rules: object, what: str) -> None:
    """Raises TypeError for what limits nothing."""
    each: object = rules_of(rules)  # type: ignore[arg-type]  # which is what is looked at here
    if not (isinstance(each, list | tuple) and all(isinstance(rule, Concurrency) for rule in each)):
        raise TypeError(f"{what}={rules!r}: give z0.Concurrency(limit=...), several of them in a tuple, or None")


def key_in(payload: Any, key: Key | None, given: str | None, does: str = "limits concurrency") -> str:
    """The key of an instance: what was given, or what the payload says. Raises ValueError when it says nothing.

    `does`: what its class does by it.
    """
    if key is None:
        return ""
    if given is not None:
        return given
    if callable(key):
        found = key(payload)
    else:
        found = msgspec.to_builtins(payload, enc_hook=repr)
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                raise ValueError(f"the payload has no {key!r}, by which its class {does}; or give key=...")
            found = found[part]
    return found if isinstance(found, str) else json.dumps(found, sort_keys=True, default=repr)


def groups_of(rules: Sequence[Concurrency], payload: Any, given: str | None, tenant: str) -> list[str]:
    """The groups in which an instance takes a slot, in the order of the rules."""
    return [
        json.dumps([tenant if rule.per_tenant else None, key_in(payload, rule.key, given)], separators=(",", ":"))
        for rule in rules
    ]


def check_priority(priority: object) -> None:
    """Raises TypeError for what is no whole number, ValueError for one that is too big to be kept."""
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise TypeError(f"priority={priority!r}: give a whole number; the higher, the sooner")
    if not -_PRIORITY_MAX <= priority <= _PRIORITY_MAX:
        raise ValueError(f"priority={priority!r}: give one from -2**62 to 2**62")


class Queued(NamedTuple):
    """An instance that holds a slot, or waits for one."""

    tenant: str
    id: str
    state: str
    """"waiting", "granted", "running" or "cancelled"; "reserved": by one that is about to begin anew."""
    priority: int


class Member(msgspec.Struct):
    """An instance that holds slots, or waits for them."""

    tenant: str
    id: str
    seq: int
    """In which order it came."""
    groups: list[str]
    priority: int
    state: Literal["waiting", "reserved", "granted", "running", "cancelled"]
    """"reserved": it has not asked yet; "granted": it was not told yet; "cancelled": it is to end, and was not told."""
    since: int = 0
    """When it came to that, in µs since the epoch."""
    reason: str = ""
    ticket: int = 0
    """Which of the instance's journal entries asked for it: leaving and joining may arrive in any order."""

    @property
    def address(self) -> tuple[str, str]:
        """Tenant and id."""
        return self.tenant, self.id

    @property
    def order(self) -> tuple[int, int]:
        """The smallest is first in the queue."""
        return -self.priority, self.seq


def queues(rules: Sequence[Concurrency]) -> bool:
    """Whether nobody is ended for the want of a slot."""
    return all(rule.when_full == "queue" for rule in rules)


def taken(members: Iterable[Member]) -> Counter[tuple[int, str]]:
    """How many slots are taken, by rule and group."""
    return Counter(slot for member in members if member.state != "waiting" for slot in enumerate(member.groups))


def fits(member: Member, rules: Sequence[Concurrency], slots: Counter[tuple[int, str]]) -> int | None:
    """None when there is a slot for it everywhere; else the number of the first rule that has none."""
    for number, (rule, group) in enumerate(zip(rules, member.groups, strict=False)):
        if slots[number, group] >= rule.limit:
            return number
    return None


def next_members(
    waiting: Iterable[Member], rules: Sequence[Concurrency], slots: Counter[tuple[int, str]]
) -> list[Member]:
    """Who may start now; `waiting` in the order of the queue, `slots` are counted up."""
    chosen = []
    one_group = len(rules) == 1 and rules[0].key is None and rules[0].per_tenant
    for member in waiting:
        if fits(member, rules, slots) is None:
            chosen.append(member)
            slots.update(enumerate(member.groups))
        elif one_group:
            break
    return chosen


def victims(member: Member, rules: Sequence[Concurrency], members: Iterable[Member]) -> list[Member]:
    """Whom a new instance ends: of each group that is for the newest, those that came first and are too many now.

    That they wait saves them not: it is the newest that is to run.
    """
    found: dict[tuple[str, str], Member] = {}
    for number, (rule, group) in enumerate(zip(rules, member.groups, strict=False)):
        if rule.when_full != "cancel_running":
            continue
        going = [
            each
            for each in members
            if each.state != "cancelled" and each is not member and each.groups[number : number + 1] == [group]
        ]
        going.sort(key=lambda each: each.seq)
        found |= {each.address: each for each in going[: max(0, len(going) + 1 - rule.limit)]}
    return list(found.values())
