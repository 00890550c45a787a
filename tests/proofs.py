"""How much of a proof is run: a tenth in the quick tier, all of it before a change lands, twenty times that to torture.

    pytest                                         # quick; with -n auto on all cores, as `make test` does
    pytest -m "proof or slow" --amount full
    pytest -m "proof or slow" --amount torture --minutes 120
    pytest -k schedules --seed 7                   # one seed again

A proof goes through seeds. They are the same in each run, so that a failure stays one, but for torture, which begins
somewhere new. What was proved is counted, and told at the end of the run.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Literal, get_args

Amount = Literal["quick", "full", "torture"]
AMOUNTS: tuple[Amount, ...] = get_args(Amount)
TORTURE = 20
QUICK = 10


class Proof:
    """What one proof may spend, and what it has shown."""

    def __init__(self, amount: Amount = "quick", seed: int | None = None, seconds: float | None = None) -> None:
        """`seed`: try this one only. `seconds`: stop going through seeds after so long."""
        self.amount = amount
        self.figures: Counter[str] = Counter()
        self.cut_short = False
        self._seed = seed
        self._first = random.SystemRandom().getrandbits(32) if amount == "torture" else 0
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def of(self, full: int) -> int:
        """How many, of what a full run does `full` of."""
        match self.amount:
            case "quick":
                return max(1, full // QUICK)
            case "full":
                return full
            case "torture":
                return full * TORTURE

    def seeds(self, full: int) -> Iterator[int]:
        """The seeds to go through, as many as there are of what a full run does `full` of."""
        if self._seed is not None:
            yield self._seed
            return
        for seed in range(self._first, self._first + self.of(full)):
            if self._deadline is not None and time.monotonic() > self._deadline:
                self.cut_short = True
                return
            yield seed

    def count(self, what: str, number: int = 1) -> None:
        """Have the end of the run tell how many of these there were."""
        self.figures[what] += number
