"""docs/durable_objects.md is true as far as a program can tell: its tests exist, and no item is missing."""

from __future__ import annotations

import re
from pathlib import Path

import z0

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "durable_objects.md").read_text()
VERDICTS = {"same", "better", "different on purpose", "not yet"}
ITEMS = 71


def rows(columns: int) -> list[list[str]]:
    """The cells of all table rows with so many columns, headings apart."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    split = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    return [cells for cells in split if len(cells) == columns and "behaviour of Durable Objects" not in cells]


def existing() -> set[str]:
    """The names of all tests."""
    texts = (path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    return {name for text in texts for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)}


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > ITEMS
    assert sorted(named - existing()) == []


def test_every_item_of_the_checklist_has_one_row_with_a_verdict_and_a_proof() -> None:
    items = [cells for cells in rows(5) if cells[0].isdigit()]
    assert [int(cells[0]) for cells in items] == list(range(1, ITEMS + 1))
    for _, behaviour, verdict, exactly, proof in items:
        assert behaviour
        assert verdict in VERDICTS
        assert exactly or verdict == "same", f"what is {verdict} is said: {behaviour}"
        assert re.fullmatch(r"`test_\w+`(, `test_\w+`)*", proof), behaviour


def test_every_other_row_has_a_verdict_and_a_proof_too() -> None:
    others = rows(4)
    assert len(others) > 10
    assert [cells for cells in others if cells[1] not in VERDICTS or "`test_" not in cells[3]] == []


def test_every_name_of_z0_that_the_page_uses_exists() -> None:
    limits = set(re.findall(r"`Limits\.(\w+)`", PAGE))
    assert limits
    assert limits - set(z0.Limits.__struct_fields__) == set()
    errors = {name for name in re.findall(r"`([A-Z]\w+)`", PAGE) if name[1:2].islower()} - {"Exception", "ValueError"}
    assert "CallCycle" in errors
    assert [name for name in errors if not hasattr(z0, name)] == []
    storage = set(re.findall(r"`self\.storage\.(\w+)", PAGE))
    assert storage
    assert [name for name in storage if not hasattr(z0.Storage, name)] == []


def test_every_harness_that_the_page_on_reliability_names_exists() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    files = set(re.findall(r"`(tests/[\w*]+\.py)`", page)) | {
        f"docs/{name}" for name in re.findall(r"\]\((\w+\.md)\)", page)
    }
    assert len(files) > 12
    assert [file for file in sorted(files) if not list(ROOT.glob(file))] == []
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make (\w+)", page)) <= targets
    metrics = (ROOT / "z0" / "metrics.py").read_text()
    assert [name for name in re.findall(r"`(z0_\w+)`", page) if name.removesuffix("_total") not in metrics] == []
