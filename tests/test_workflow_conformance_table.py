"""docs/workflows_conformance.md is whole, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "workflows_conformance.md").read_text()
VERDICTS = ("same", "better", "different on purpose", "not there")
NAMED = re.compile(r"`(tests/\w+\.py)::(\w+)`")


class Row(NamedTuple):
    number: int
    behaviour: str
    verdict: str
    remark: str
    tests: str


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


ROWS = [
    Row(int(found[0]), *found[1:])
    for line in PAGE.splitlines()
    if line.startswith("| ") and len(found := cells(line)) == 5 and found[0].isdecimal()
]
DEFECTS = [cells(line) for line in PAGE.partition("| defect |")[2].splitlines() if line.startswith("| ")]


@cache
def known_tests(file: str) -> frozenset[str]:
    """The test functions of a module, without running it."""
    tree = ast.parse((ROOT / file).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_"))


def test_every_behaviour_is_there_once_in_order_with_a_verdict() -> None:
    assert [row.number for row in ROWS] == list(range(1, 97))
    assert len({row.behaviour for row in ROWS}) == 96
    assert [row.number for row in ROWS if row.verdict not in VERDICTS] == []


def test_every_verdict_has_its_tests_or_says_why_there_is_none() -> None:
    untested = [row.number for row in ROWS if not NAMED.search(row.tests)]
    assert untested == [row.number for row in ROWS if row.verdict == "not there"]
    unexplained = [row.number for row in ROWS if row.verdict != "same" and not row.remark]
    assert unexplained == []


def test_every_test_that_is_named_exists() -> None:
    named = NAMED.findall(PAGE)
    assert len(named) == PAGE.count("::") > 150
    assert [(file, test) for file, test in named if test not in known_tests(file)] == []


def test_every_defect_has_a_test() -> None:
    assert len(DEFECTS) >= 20
    assert [what for what, tests in DEFECTS if not NAMED.search(tests)] == []


def test_the_page_counts_its_verdicts_rightly() -> None:
    counts = Counter(row.verdict for row in ROWS)
    said = "{same} are the same, {better} better, {different on purpose} different on purpose, {not there} not there"
    assert said.format_map({verdict: counts[verdict] for verdict in VERDICTS}) in PAGE
