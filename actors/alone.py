"""Who is alone with its commits ends its turns at once: waiting for others to join would only take time.

An actor is alone while no other one has committed since it did. Every few turns it lets others run all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .gates import pass_once

if TYPE_CHECKING:
    from .gates import Turn
    from .host import Host

STREAK_MAX = 4
"""How often in a row who was alone in its last turn may end one without letting others run first."""


def is_alone(host: Host) -> bool:
    """Whether no other actor has committed since this one did, which may go on so without letting others run."""
    return host.node.committer is host.address and host.streak < STREAK_MAX


def _may_commit(host: Host) -> bool:
    """Whether the running segment may commit at once: it is alone, and nothing waits for it to end."""
    return is_alone(host) and host.node.durability.quick and not host.mailbox and not host.gate.parked


def writes_alone(host: Host) -> bool:
    """Whether the next write may be a turn by itself: the running segment's first, and nobody else can join it."""
    writes = host.writes
    return host.streak > 0 and not host.node.dirty and writes.wrote != writes.segment and _may_commit(host)


def _commit(host: Host, turn: Turn) -> bool:
    """End the open turn in the running segment, which is kept so far, if nobody else writes; whether it did."""
    if host.node.dirty != 1 or not _may_commit(host):
        host.streak = 0
        return False
    host.streak += 1
    host.divide()
    host.commit()
    return turn.done


async def durable(host: Host) -> None:
    """Return when everything written so far is committed, and the actor may write again; at once if it is alone.

    Of a segment that is running. Raises what the commit raised.
    """
    turn = host.turn
    if turn is not None:
        if not _commit(host, turn):
            await host.durable()
        elif turn.error is not None:
            raise turn.failure()
    if host.gate.parked:  # a checkpoint has begun: the segment ends, and its next one waits at the gate
        await pass_once()
