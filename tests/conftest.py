"""What tests of many modules begin with."""

from __future__ import annotations

import pytest

from z0.testing import VirtualClock


@pytest.fixture
def clock() -> VirtualClock:
    """A clock that stands at its default start until it is moved."""
    return VirtualClock()
