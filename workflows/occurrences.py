"""How often a run has asked for steps of each name, and on which way: a step's key counts them as they are asked for.

Tasks side by side that take steps of one name behind other steps may ask in another order when they are replayed, and
then each is answered with what the journal has of the other. From here it looks the same when they take their work from
one queue, which is in order whoever asks. So that is said as soon as it is seen, and not refused.
"""

from __future__ import annotations

from .history import Record
from .keys import Kind, is_below

Place = tuple[str, Kind, str]
"""What a step stands in, its kind and its name."""


class Occurrences:
    """Of one run."""

    def __init__(self) -> None:
        """None yet."""
        self._latest: dict[Place, tuple[int, Record, int]] = {}

    def next(self, place: Place) -> int:
        """Which one is asked for now, from 1."""
        latest = self._latest.get(place)
        return 1 if latest is None else latest[0] + 1

    def ask(self, place: Place, count: int, record: Record, last: int) -> bool:
        """Note who asks: a task that has begun the step of position `last` last. Whether the order may be another one.

        So it may when this task has not come by the occurrence before, nor from the same step as that.
        """
        latest = self._latest.get(place)
        self._latest[place] = count, record, last
        if latest is None:
            return False
        _, before, came_from = latest
        return last < before.position and last != came_from

    def forget_inside(self, key: str) -> None:
        """What stands in that step is counted anew."""
        for place in [place for place in self._latest if place[0] == key or is_below(place[0], key)]:
            del self._latest[place]
