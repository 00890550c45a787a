"""A disk that is really full: nothing acknowledged is lost, reads go on, and writes resume when there is space."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("full_disk_child.py")
MEGABYTES = 2
MOUNT = 'mount -t tmpfs -o size="$1"m none "$2" && shift 2 && exec "$@"'


def on_a_small_disk(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a namespace of its own, where `folder` is a file system of few megabytes."""
    words = ["unshare", "--mount", "--user", "--map-root-user", "sh", "-c", MOUNT, "sh", MEGABYTES, folder, *command]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, env=environment, timeout=110)


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here to mount a small file system with")
    found = on_a_small_disk(tmp_path, "true")
    if found.returncode:
        pytest.skip(f"this machine lets nobody mount a small file system: {found.stderr.strip()}")
    return tmp_path


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_a_full_disk_loses_nothing_and_needs_no_restart(small_disk: Path, durability: str) -> None:
    done = on_a_small_disk(small_disk, sys.executable, CHILD, small_disk, durability)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "all is well"
