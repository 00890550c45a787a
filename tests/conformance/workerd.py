"""The real Durable Objects: workerd, installed by npm as the lock file says, one process on a free port.

Nothing outlives the `with` block: not the process, not its data.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from tests.conformance.scenario import RESTART, Outcome, Scenario

HERE = Path(__file__).parent
CONFIG = HERE / "workerd.capnp"
VERSION: str = json.loads((HERE / "package.json").read_text())["dependencies"]["workerd"]

_AT_ONCE = 24  # so few that alarms and pauses of some tens of milliseconds keep their order
_ANSWER_SECONDS = 120.0
_STOP_SECONDS = 3.0


class Unavailable(Exception):
    """What is missing, and what to do."""


def install(folder: Path) -> Path:
    """The workerd program, put into the folder by npm when it is not there yet. Raises Unavailable."""
    stamp, locked = folder / "installed", (HERE / "package-lock.json").read_text()
    if not stamp.exists() or stamp.read_text() != locked or not _programs(folder):
        _npm_ci(folder)
        stamp.write_text(locked)  # the last step: an installation that was cut short is made anew
    programs = _programs(folder)
    if not programs:
        raise Unavailable(f"there is no workerd for this machine ({platform.system()}, {platform.machine()})")
    return programs[0]


def _programs(folder: Path) -> list[Path]:
    return sorted(folder.glob("node_modules/@cloudflare/workerd-*/bin/workerd"))


def _npm_ci(folder: Path) -> None:
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if missing:
        raise Unavailable(f"{' and '.join(missing)} not found: install Node.js 20 or newer, which brings npm")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        raise Unavailable(f"npm could not install workerd {VERSION}; it said:\n{done.stderr.strip()}")


def play_all(scenarios: list[Scenario], program: Path) -> dict[str, Outcome]:
    """Play scenarios, many at once and each on objects of its own; the outcomes by name. Raises Unavailable."""
    outcomes: dict[str, Outcome] = {one.name: {"outcome": {"steps": [], "log": []}, "said": []} for one in scenarios}
    longest_first = sorted(scenarios, key=lambda one: -sum(step.get("wait", 0) for step in one.steps))
    with tempfile.TemporaryDirectory(prefix="z0-workerd-") as data:
        for act in range(max(len(one.acts()) for one in scenarios)):
            playing = [one for one in longest_first if act < len(one.acts())]
            with ThreadPoolExecutor(_AT_ONCE) as threads, _running(program, Path(data)) as port:
                told = threads.map(lambda one: _post(port, one.name, one.acts()[act]), playing)  # noqa: B023
                for one, its in zip(playing, told, strict=True):
                    _add(outcomes[one.name], its)
    return outcomes


def _add(whole: Outcome, act: Outcome) -> None:
    whole["outcome"]["steps"] += act["outcome"]["steps"]
    whole["outcome"]["log"] += act["outcome"]["log"]
    whole["said"] += act["said"]


def _post(port: int, name: str, steps: list[Any]) -> Outcome:
    assert RESTART not in steps
    body = json.dumps({"scenario": name, "steps": steps}).encode()
    open_without_proxy = build_opener(ProxyHandler({})).open
    try:
        with open_without_proxy(Request(f"http://127.0.0.1:{port}/", body), timeout=_ANSWER_SECONDS) as answer:
            outcome: Outcome = json.load(answer)
            return outcome
    except (OSError, ValueError) as error:
        raise Unavailable(f"workerd did not answer {name!r}: {error}") from error


@contextmanager
def _running(program: Path, data: Path) -> Iterator[int]:
    """The port that workerd listens on; it has ended when the block is left."""
    with open(data / "stderr", "ab") as noise:
        process = subprocess.Popen(
            [program, "serve", CONFIG, f"--directory-path=disk={data}", "--control-fd=1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=noise,
        )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "listen":
                yield event["port"]
                return
        raise Unavailable(f"workerd ended at once; it said:\n{(data / 'stderr').read_text().strip()}")
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
