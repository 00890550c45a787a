"""What two plays of the scenarios tell, and docs/conformance.md, which has to say the same. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from tests.conformance.differences import DIFFERENCES
from tests.conformance.scenario import Outcome, Scenario

Verdict = Literal["same", "listed", "UNLISTED", "NO LONGER"]

BEGIN, END = "<!-- begin: written by make conformance -->", "<!-- end -->"


class Compared(NamedTuple):
    """One scenario with both its outcomes."""

    scenario: Scenario
    theirs: Outcome
    ours: Outcome

    @property
    def verdict(self) -> Verdict:
        """`UNLISTED`: they differ, and nothing says why. `NO LONGER`: a difference is listed, but there is none."""
        if self.theirs == self.ours:
            return "NO LONGER" if self.scenario.differs else "same"
        return "listed" if self.scenario.differs else "UNLISTED"

    @property
    def as_it_should_be(self) -> bool:
        """Whether they are alike, or it is listed why not."""
        return self.verdict in ("same", "listed")


def compared(scenarios: list[Scenario], theirs: Mapping[str, Outcome], ours: Mapping[str, Outcome]) -> list[Compared]:
    """All scenarios with their outcomes, by name."""
    return [Compared(one, theirs[one.name]["outcome"], ours[one.name]["outcome"]) for one in scenarios]


def recorded(results: list[Compared], version: str) -> str:
    """The outcomes as they are kept, so that z0 is compared where there is no workerd; a scenario a line."""
    kept: dict[str, Any] = {}
    for one in results:
        kept[one.scenario.name] = {"workerd": one.theirs}
        if one.theirs != one.ours:
            kept[one.scenario.name]["z0"] = one.ours
    lines = [f"{json.dumps(name)}: {json.dumps(its)}" for name, its in kept.items()]
    return f'{{"workerd": {json.dumps(version)}, "scenarios": {{\n' + ",\n".join(lines) + "\n}}\n"


def table(chapters: Mapping[str, list[Scenario]], version: str) -> str:
    """What the page says of each scenario, and of each difference."""
    every = [one for scenarios in chapters.values() for one in scenarios]
    differing = sum(one.differs is not None for one in every)
    lines = [
        f"{len(every)} scenarios against workerd {version}: {len(every) - differing} end alike, {differing} differ."
    ]
    for chapter, scenarios in chapters.items():
        lines += ["", f"| {chapter}: what Durable Objects do | z0 |", "|---|---|"]
        lines += [
            f"| {one.name} | {f'different: {_link(one.differs)}' if one.differs else 'same'} |" for one in scenarios
        ]
    lines += ["", "## Differences"]
    for name, why in DIFFERENCES.items():
        lines += ["", f"### {name[0].upper()}{name[1:]}", "", why]
    return "\n".join(lines)


def _link(name: str) -> str:
    anchor = name.lower().replace(" ", "-").replace("'", "")
    return f"[{name}](#{anchor})"


def renewed(page: str, text: str) -> str:
    """The page with this text between its two marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
