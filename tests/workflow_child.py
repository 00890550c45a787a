"""Runs one workflow to its end, or kills itself at its n-th effect: the child process of the crash tests.

python workflow_child.py DATA SHAPE N        0: it is not killed
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.test_workflow_crashes import World, drive, unstruck
from z0.testing import VirtualClock


class Deadly(World):
    """A world that ends with the n-th effect."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n

    def begun(self, key: str) -> None:
        super().begun(key)
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(data: Path, shape: str, kill_at: int) -> None:
    world = Deadly(kill_at)
    await drive(data, VirtualClock(), shape, world, unstruck)
    if world.violations:
        sys.exit("; ".join(world.violations))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
