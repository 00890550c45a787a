"""The pytest plugin: its fixtures work with every way of running async tests, and it bothers nobody else."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

SCOPE = "asyncio_default_fixture_loop_scope=function"  # unset, pytest-asyncio warns

ACTOR = """
import asyncio, z0, pytest
from z0.testing import crash

class Counter(z0.Actor):
    async def add(self) -> int:
        n = self.storage.get("n", 0) + 1
        self.storage.put("n", n)
        return n
"""

USES = """
{mark}
async def test_runtime(z0_runtime, z0_clock, z0_path):
    assert await z0_runtime.get(Counter, "a").add() == 1
    assert await z0_runtime.get(Counter, "a").add() == 2
    await z0_clock.advance("1 minute")
    assert z0_path == z0_runtime.path
    assert not z0_runtime.node.hosts

{mark}
async def test_another_has_another_directory(z0_runtime):
    assert await z0_runtime.get(Counter, "a").add() == 1
"""


def run(pytester: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(source)
    return pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider", *options)


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_the_runtime_fixture_works_with_pytest_asyncio(pytester: pytest.Pytester, mode: str) -> None:
    mark = "@pytest.mark.asyncio" if mode == "strict" else ""
    result = run(pytester, ACTOR + USES.format(mark=mark), "-o", f"asyncio_mode={mode}", "-o", SCOPE, "-p", "no:anyio")
    result.assert_outcomes(passed=2)


def test_the_runtime_fixture_works_with_anyio(pytester: pytest.Pytester) -> None:
    pytest.importorskip("anyio")
    backend = "\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    result = run(pytester, ACTOR + backend + USES.format(mark="@pytest.mark.anyio"), "-p", "no:asyncio")
    result.assert_outcomes(passed=2)


def test_the_directory_can_be_opened_again_after_a_crash_and_with_options(pytester: pytest.Pytester) -> None:
    source = """
def test_crash(z0_runtimes):
    async def main():
        async with z0_runtimes() as first:
            assert await first.get(Counter, "a").add() == 1
            await crash(first)
            async with z0_runtimes(env="new", durability="relaxed") as second:
                assert await second.get(Counter, "a").add() == 2
                assert second.node.env == "new"
    asyncio.run(main())
"""
    run(pytester, ACTOR + source, "-p", "no:asyncio", "-p", "no:anyio").assert_outcomes(passed=1)


def test_suites_that_do_not_use_it_are_left_alone(pytester: pytest.Pytester) -> None:
    source = """
import sys
def test_nothing():
    assert "z0.pytest_plugin" in sys.modules
    assert not {"z0.testing", "z0.faults", "prometheus_client", "rich"} & set(sys.modules)
"""
    run(pytester, source, "-p", "no:asyncio", "-p", "no:anyio", "--strict-markers").assert_outcomes(passed=1)
