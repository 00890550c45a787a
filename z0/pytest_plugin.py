"""Fixtures for tests of programs that use z0. pytest finds them when z0 is installed.

`z0_runtime` is for pytest-asyncio (auto and strict mode) and for anyio's plugin. Where tests have event loops of their
own, open a runtime inside the test: `async with z0_runtimes() as runtime:`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

async_fixture: Callable[[Callable[..., AsyncIterator[Runtime]]], object]
try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:
    async_fixture = pytest.fixture  # then anyio's plugin sees to it

if TYPE_CHECKING:
    from z0.runtime import Runtime
    from z0.testing import VirtualClock


@pytest.fixture
def z0_clock() -> VirtualClock:
    """A clock that stands still until the test moves it."""
    from z0.testing import VirtualClock

    return VirtualClock()


@pytest.fixture
def z0_path(tmp_path: Path) -> Path:
    """A data directory that nobody has used."""
    return tmp_path / "z0"


@pytest.fixture
def z0_runtimes(z0_path: Path, z0_clock: VirtualClock) -> Callable[..., Runtime]:
    """Makes runtimes on `z0_path` with `z0_clock`, one after another; takes the options of Runtime."""
    from z0.runtime import Runtime

    return partial(Runtime, z0_path, clock=z0_clock)


@async_fixture
async def z0_runtime(z0_runtimes: Callable[..., Runtime]) -> AsyncIterator[Runtime]:
    """An open runtime on `z0_path` with `z0_clock`; closed after the test."""
    async with z0_runtimes() as runtime:
        yield runtime
