"""Compare z0 with the real Durable Objects: python -m tests.conformance.run [--only TEXT] [--show] [--write].

Exit code 0 when every scenario ends as docs/conformance.md says, 1 when not, 2 when workerd cannot be had.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.conformance import compare, subject, workerd
from tests.conformance.compare import Compared
from tests.conformance.scenario import Outcome, Scenario
from tests.conformance.scenarios import CHAPTERS, SCENARIOS

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "conformance.md"
RECORD = Path(__file__).parent / "outcomes.json"
# Where there is a RAM disk z0 plays on it: what is compared is not what survives a power cut.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
MODULES = ROOT / "build" / "conformance"


def main() -> int:
    """The exit code."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by an exception, so that workerd is stopped on the way
    logging.getLogger("z0").setLevel(logging.CRITICAL)
    chosen = [one for one in SCENARIOS if options.only in one.name]
    if not chosen:
        print(f"no scenario has {options.only!r} in its name", file=sys.stderr)
        return 2
    try:
        theirs = workerd.play_all(chosen, workerd.install(options.modules))
    except workerd.Unavailable as missing:
        print(f"cannot compare: {missing}", file=sys.stderr)
        return 2
    ours = asyncio.run(play_all(chosen))
    results = compare.compared(chosen, theirs, ours)
    for one in results:
        print(f"{one.verdict:10} {one.scenario.name}")
        if options.show or not one.as_it_should_be:
            _show(one, theirs, ours)
    problems = sum(not one.as_it_should_be for one in results)
    if chosen == SCENARIOS and not problems:
        problems += _keep(results) if options.write else _stale(results)
    listed = sum(one.verdict == "listed" for one in results)
    print(
        f"{len(results)} scenarios against workerd {workerd.VERSION}: {listed} listed differences, {problems} problems"
    )
    return 1 if problems else 0


async def play_all(scenarios: list[Scenario]) -> dict[str, Outcome]:
    """Play scenarios on z0; the outcomes by name."""
    outcomes = {}
    for one in scenarios:
        with tempfile.TemporaryDirectory(prefix="z0-conformance-", dir=MEMORY) as data:
            outcomes[one.name] = await subject.play(one, Path(data))
    return outcomes


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="scenarios with this in their name")
    parser.add_argument("--show", action="store_true", help="print both outcomes, and the errors as they were")
    parser.add_argument("--write", action="store_true", help="renew the page and the recorded outcomes")
    parser.add_argument("--modules", type=Path, default=MODULES, help="where npm installs workerd")
    return parser.parse_args()


def _show(one: Compared, theirs: Mapping[str, Outcome], ours: Mapping[str, Outcome]) -> None:
    for side, outcome, told in (("workerd", one.theirs, theirs), ("z0", one.ours, ours)):
        print(f"    {side:8} {json.dumps(outcome)}")
        for error in told[one.scenario.name]["said"]:
            print(f"             {error}")


def _texts(results: list[Compared]) -> dict[Path, str]:
    """What the two files must hold."""
    page = compare.renewed(PAGE.read_text(), compare.table(CHAPTERS, workerd.VERSION))
    return {PAGE: page, RECORD: compare.recorded(results, workerd.VERSION)}


def _keep(results: list[Compared]) -> int:
    for path, text in _texts(results).items():
        path.write_text(text)
    return 0


def _stale(results: list[Compared]) -> int:
    stale = [path for path, text in _texts(results).items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} says something else: look, and renew it by --write", file=sys.stderr)
    return len(stale)


if __name__ == "__main__":
    sys.exit(main())
