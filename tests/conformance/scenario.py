"""How a scenario is written: plain data that both sides understand, `worker.js` and `subject.py`.

A scenario is a row of steps. A step calls an object with operations, sends several calls together, lets time
pass, says what an object does in its alarm or constructor, or restarts everything. An operation is a list of its name
and arguments: ["put", "key", 1]. Its outcome is what every operation returned, or how the call failed, and
what the objects logged.

Values are JSON, and objects of one key for what JSON has not: {"$date": milliseconds}, {"$bytes": [1, 2]},
{"$map": pairs}, {"$set": [...]}, {"$bigint": "1"}, {"$number": "NaN"}, {"$undefined": null}, {"$pattern": "a+"},
{"$function": null}; {"$text": n} and {"$blob": n} are long ones, of n times x or 0.

A failure is {"raised": type, "says": text} where the scenario raised it (its texts begin with "because"), {"reset":
text or null} where the object lost its memory, {"cycle": null}, or {"refused": null} where the platform refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

Operation = list[Any]
Step = dict[str, Any]
Outcome = dict[str, Any]

RESTART: Step = {"restart": True}
"""Everything ends in good order, and starts again on the same data."""


class Scenario(NamedTuple):
    """One thing to compare; its name is the claim under test."""

    name: str
    steps: tuple[Step, ...]
    differs: str | None
    """Which listed difference explains that the two sides end differently; None: they end alike."""

    def acts(self) -> list[list[Step]]:
        """The steps from one restart to the next."""
        acts: list[list[Step]] = [[]]
        for step in self.steps:
            if step is RESTART:
                acts.append([])
            else:
                acts[-1].append(step)
        return acts


def scenario(name: str, *steps: Step, differs: str | None = None) -> Scenario:
    """A scenario. Raises TypeError when it is no plain data."""
    json.dumps(steps)
    return Scenario(name, steps, differs)


def call(*operations: Operation, to: str = "a", kept: bool = False) -> Step:
    """Call an object: "a" is one of the class Subject, "Other:a" of another. `kept`: with the stub of earlier steps."""
    return {"to": to, "do": list(operations), "kept": kept}


def together(*calls: Step) -> Step:
    """Send calls in this order without waiting for answers in between."""
    return {"together": list(calls)}


def wait(milliseconds: int) -> Step:
    """Let time pass."""
    return {"wait": milliseconds}


def on(event: str, *scripts: Sequence[Operation], to: str = "a") -> Step:
    """What the object does at its "alarm" or "start": each script once, the last one ever after."""
    return {"on": event, "to": to, "scripts": [list(script) for script in scripts]}
