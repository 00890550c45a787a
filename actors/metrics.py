"""What a node measures of itself, in plain numbers: added up where things happen, published when somebody asks.

Durations are real (`clock.perf_ns`), in nanoseconds, whatever clock the runtime was given. Everything here is added
on the event loop; reading it from another thread is harmless.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .clock import perf_ns

if TYPE_CHECKING:
    from .gates import Turn


class Histogram:
    """How many whole numbers lie in each power of two: `counts[k]` of them are at most 2**k, and more than half that.

    `counts[0]` are those of at most 1.
    """

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        """Empty."""
        self.counts = [0] * 65
        self.total = 0

    def add(self, n: int) -> None:
        """Count one number, below 2**64; a negative one counts as 0."""
        if n <= 0:
            self.counts[0] += 1
        else:
            self.counts[(n - 1).bit_length()] += 1
            self.total += n

    @property
    def count(self) -> int:
        """How many were added."""
        return sum(self.counts)


class Metrics:
    """The numbers of one node since it was made; times in nanoseconds unless it says otherwise."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self.posted = 0  # messages that were accepted by a mailbox
        self.direct = 0  # messages that ran in their callers' steps and waited for a turn; others are in Node.calls
        self.queued = Histogram()  # accepted by the mailbox, to begun
        self.gate_held = Histogram()  # the input gate, taken to given back
        self.gate_waited = Histogram()  # at the input gate
        self.output_waited = Histogram()  # a turn's first write, to its gate open
        self.batch = Histogram()  # messages of one commit
        self.committed = Histogram()  # the COMMIT of a turn
        self.alone = Histogram()  # the whole commit of a message whose one statement commits by itself
        self.threaded = 0  # commits by a thread
        self.commit_failures = 0
        self.resets: Counter[str] = Counter()  # by namespace
        self.quarantines: Counter[str] = Counter()  # by namespace
        self.activations: Counter[str] = Counter()  # by namespace
        self.first_activations: Counter[str] = Counter()  # by namespace
        self.evictions: Counter[str] = Counter()  # by reason
        self.checkpoints = 0
        self.overloaded: Counter[str] = Counter()  # by the limit's name
        self.alarms: Counter[str] = Counter()  # by outcome
        self.alarm_lateness = Histogram()  # microseconds of the node's own clock, due to begun
        self.blocked = 0  # times that one piece of code kept the event loop from running for too long

    @property
    def spent_ns(self) -> int:
        """What all commits have taken: whoever goes on commits."""
        return self.committed.total + self.alone.total

    def turn_committed(self, turn: Turn) -> None:
        """A turn was committed just now, by its durability."""
        self.committed.add(turn.commit_ns)
        self.output_waited.add(perf_ns() - turn.began_ns)
        self.batch.add(turn.waiting)
        self.threaded += turn.threaded

    def turn_ended(self, turn: Turn) -> None:
        """A turn is over, well or not."""
        self.direct += turn.waiting - len(turn.replies or ())
