"""What tests of many modules begin with."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.proofs import AMOUNTS, Proof
from z0.testing import VirtualClock

SHOWN = "z0.proof"

# How long an example takes depends on what else the machine does: pytest's timeout is the limit.
settings.register_profile("z0", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("z0")


@pytest.fixture
def clock() -> VirtualClock:
    """A clock that stands at its default start until it is moved."""
    return VirtualClock()


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> Iterator[Proof]:
    """How much a test that is marked as a proof may spend, and where it tells what it has shown."""
    config = request.config
    minutes = config.getoption("minutes")
    sharing = max(1, sum(item.get_closest_marker("proof") is not None for item in request.session.items))
    proof = Proof(config.getoption("amount"), config.getoption("seed"), minutes and minutes * 60 / sharing)
    yield proof
    # With the report, which reaches the process that tells it, whichever process ran the test.
    request.node.user_properties.append((SHOWN, (dict(proof.figures), proof.cut_short)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--amount", choices=AMOUNTS, default="quick", help="how much of each proof to run")
    parser.addoption("--seed", type=int, help="the one seed that proofs go through")
    parser.addoption("--minutes", type=float, help="end all proofs within about so many minutes")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # this process is one of several (pytest -n), and measured as all the tests are
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)  # ... but for what they start


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    limits = {"quick": 600, "full": 1800, "torture": 24 * 3600}  # generous: a busy machine is no fault
    for item in items:
        if item.get_closest_marker("proof"):
            item.add_marker(pytest.mark.timeout(limits[config.getoption("amount")]))


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # or each collection would go through thousands of tests and all that they import


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What is sent between processes (pytest -n) is UTF-8; what a test logs need not be."""
    return encodable((yield))


def encodable(data: Any) -> Any:
    match data:
        case str():
            return data.encode(errors="backslashreplace").decode()
        case dict():
            return {encodable(key): encodable(value) for key, value in data.items()}
        case list() | tuple():
            return type(data)(map(encodable, data))
        case _:
            return data


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = [report for each in terminalreporter.stats.values() for report in each]
    ended = [report for report in reports if getattr(report, "when", "") == "teardown"]
    told = {report.nodeid: shown for report in ended for name, shown in report.user_properties if name == SHOWN}
    if not any(figures for figures, _ in told.values()):
        return
    terminalreporter.section(f"proofs, {config.getoption('amount')}")
    for name, (shown, cut_short) in sorted(told.items()):
        figures = ", ".join(f"{number:,} {what}" for what, number in shown.items())
        if figures:
            terminalreporter.line(f"{name.partition('::')[2]}: {figures}{' (out of time)' if cut_short else ''}")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Where a data directory is to be made."""
    return tmp_path / "data"
