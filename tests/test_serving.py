"""A service built as documented ends as it is told to: with SIGTERM well, with a second one or a kill at once."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from z0 import inspect
from z0.check import check_all

ROOT = Path(__file__).parent.parent
STUBBORN = """
import asyncio
import service, z0

class Mule(z0.Actor):
    async def stay(self):
        await asyncio.Event().wait()

async def serve(runtime):
    asyncio.create_task(runtime.get(Mule, "m").stay())
    await selling(runtime)

selling, service.serve = service.serve, serve
asyncio.run(service.main())
"""
Service = subprocess.Popen[str]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts the service of the documentation in a folder of its own, and waits until it sells."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.DOTALL)
    (tmp_path / "service.py").write_text(code)
    running: list[Service] = []

    def start(*arguments: str) -> Service:
        environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": ""}
        command = [sys.executable, *(arguments or ("service.py",))]
        pipe = subprocess.PIPE
        service = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True)
        running.append(service)
        assert service.stdout is not None
        sold = [service.stdout.readline() for _ in range(100)]
        assert all(line.startswith("sold") for line in sold), service.communicate()
        (tmp_path / "sold").write_text("".join(sold))
        return service

    yield start
    for service in running:
        service.kill()
        service.communicate()


def told(service: Service, folder: Path, seconds: float) -> tuple[str, str]:
    """What the service still says until it ends, within so many seconds."""
    out, err = service.communicate(timeout=seconds)
    with (folder / "sold").open("a") as file:
        file.write(out)
    return out, err


def assert_kept(folder: Path) -> None:
    """What was acknowledged is in the files, all of which are whole."""
    lines = [line.split() for line in (folder / "sold").read_text().splitlines(keepends=True) if line.endswith("\n")]
    acknowledged = Counter(name for _, name, _ in lines)
    for name, sales in acknowledged.items():
        facts = list(inspect.facts(folder / "var" / "service" / "default" / "Till" / f"{name}.sqlite"))
        assert len(facts) >= sales
    assert [each.problem for each in check_all(folder / "var" / "service") if each.problem] == []


def test_sigterm_under_load_answers_closes_every_file_and_exits_with_0(
    started: Callable[..., Service], tmp_path: Path
) -> None:
    service = started()
    service.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, errors = told(service, tmp_path, 20)
    assert (service.returncode, errors) == (0, "")
    assert time.monotonic() - began < 10
    assert list((tmp_path / "var").rglob("*-wal")) == []
    assert_kept(tmp_path)


def test_what_does_not_end_is_reset_in_time_and_the_service_still_exits_with_0(
    started: Callable[..., Service], tmp_path: Path
) -> None:
    program = tmp_path / "service.py"
    program.write_text(program.read_text().replace("close_seconds=8", "close_seconds=0.5"))
    service = started("-c", STUBBORN)
    service.send_signal(signal.SIGTERM)
    told(service, tmp_path, 20)
    assert service.returncode == 0
    assert_kept(tmp_path)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGKILL])
def test_a_second_signal_ends_it_at_once_and_loses_nothing(
    started: Callable[..., Service], tmp_path: Path, second: signal.Signals
) -> None:
    service = started("-c", STUBBORN)  # would take 8 seconds
    service.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert service.poll() is None
    began = time.monotonic()
    service.send_signal(second)
    told(service, tmp_path, 20)
    assert service.returncode == -second
    assert time.monotonic() - began < 4
    assert_kept(tmp_path)
    again = started()
    again.send_signal(signal.SIGTERM)
    told(again, tmp_path, 20)
    assert again.returncode == 0
    assert_kept(tmp_path)
