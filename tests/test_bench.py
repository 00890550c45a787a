"""The benchmark: its arithmetic, its floors, and a smoke run of the whole, so that it cannot rot."""

from __future__ import annotations

import asyncio
import json
import random
from array import array
from pathlib import Path

import pytest
from rich.console import Console

import z0
from z0.bench import cli, machine
from z0.bench.cases import CASES
from z0.bench.floors import BareLedger, fold_rows, hash_rows, open_bare
from z0.bench.measure import Series, Stopwatch, Stretch, interleave, joined
from z0.bench.report import Report, show, to_json
from z0.bench.result import Result, Verdict, latency_row, plain_row, throughput_row
from z0.bench.stats import median_of_differences, median_ratio, ordered, percentile
from z0.bench.workload import Account, fact_fields, fact_rows


def stretch(*samples_ns: int, elapsed_ns: int = 1_000, batch: int = 1) -> Stretch:
    return Stretch(samples=array("q", samples_ns), elapsed_ns=elapsed_ns, cpu_ns=500, batch=batch)


@pytest.mark.parametrize(("percent", "expected"), [(0, 10), (50, 30), (99, 49.6), (100, 50), (25, 20), (87.5, 45)])
def test_a_percentile_is_interpolated_between_its_neighbours(percent: float, expected: float) -> None:
    assert percentile([10, 20, 30, 40, 50], percent) == pytest.approx(expected)


def test_a_percentile_of_one_sample_is_that_sample() -> None:
    assert percentile([7], 99.9) == 7


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)
    with pytest.raises(ValueError, match="outside 0 to 100"):
        percentile([1], 101)


def test_a_ratio_is_the_median_of_the_rounds_so_that_drift_cancels_out() -> None:
    assert median_ratio([12, 24, 120], [10, 20, 60]) == pytest.approx(1.2)
    assert median_of_differences([12, 24, 120], [10, 20, 60]) == 4


def test_rounds_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        median_ratio([1, 2], [1])


def test_samples_of_all_rounds_are_ordered_together() -> None:
    assert ordered([array("q", [3, 1]), array("q", [2])]) == [1, 2, 3]


def test_figures_are_per_operation_also_when_a_sample_is_a_batch() -> None:
    one = stretch(2_000, 4_000, 6_000, elapsed_ns=12_000, batch=2)
    assert one.operations == 6
    assert one.p50_us == 2.0
    assert one.per_second == pytest.approx(500_000)
    assert Series("x", [one]).tail_us(100) == [3.0]


def test_slices_of_a_round_become_one_stretch() -> None:
    whole = joined([stretch(1, 2, elapsed_ns=10), stretch(3, elapsed_ns=5)])
    assert list(whole.samples) == [1, 2, 3]
    assert (whole.elapsed_ns, whole.cpu_ns) == (15, 1_000)


def test_rows_carry_the_ratio_to_their_floor() -> None:
    subject = Series("subject", [stretch(2_000, elapsed_ns=100), stretch(6_000, elapsed_ns=100)])
    floor = Series("floor", [stretch(1_000, elapsed_ns=400), stretch(2_000, elapsed_ns=200)])
    row = latency_row(subject, floor=floor)
    assert (row.ratio, row.ratio_low, row.ratio_high, row.floor) == (2.5, 2.0, 3.0, "floor")
    assert throughput_row(subject, floor=floor).ratio == 3.0


def test_a_verdict_is_met_acceptable_or_missed() -> None:
    def outcome(value: float) -> str:
        return Verdict(what="x", value=value, at_most=1.2, acceptable=1.25).outcome

    assert [outcome(1.2), outcome(1.22), outcome(1.3)] == ["met", "acceptable", "missed"]
    assert Verdict(what="x", value=7.0, at_least=7.0).outcome == "met"
    assert Verdict(what="x", value=6.9, at_least=7.0).outcome == "missed"


def test_every_contender_runs_once_in_each_slice_of_each_round_in_an_order_that_the_seed_decides() -> None:
    def order(seed: int) -> str:
        seen: list[str] = []

        async def run(name: str) -> Stretch:
            with Stopwatch() as watch:
                seen.append(name)
            return watch.stretch(array("q", [1]))

        async def all_rounds() -> None:
            contenders = {"a": lambda: run("a"), "b": lambda: run("b"), "c": lambda: run("c")}
            series = await interleave(contenders, rounds=3, slices=2, rng=random.Random(seed))
            assert {name: one.samples for name, one in series.items()} == {"a": 6, "b": 6, "c": 6}

        asyncio.run(all_rounds())
        return "".join(seen)

    assert order(5) == order(5)
    assert len({order(seed) for seed in range(8)}) > 1
    assert all(sorted(order(5)[start : start + 3]) == ["a", "b", "c"] for start in range(0, 18, 3))


def test_keys_are_random_and_the_rest_follows_the_seed() -> None:
    first, second = fact_fields(random.Random(3), 50), fact_fields(random.Random(3), 50)
    assert [fact["amount"] for fact in first] == [fact["amount"] for fact in second]
    keys = [fact["idempotency_key"] for fact in (*first, *second)]
    assert len(set(keys)) == 100
    assert keys[:50] != sorted(keys[:50])


def test_the_bare_ledger_holds_the_rows_it_was_given(tmp_path: Path) -> None:
    ledger = BareLedger(tmp_path / "bare.sqlite")
    rows = fact_rows(random.Random(1), 1, 10)
    ledger.insert(rows[0])
    ledger.insert_many(rows[1:])
    assert list(ledger.connection.execute("SELECT * FROM facts ORDER BY seq")) == rows
    assert fold_rows(ledger.connection) == sum(row[9] for row in rows)
    assert len(hash_rows(ledger.connection)) == 32
    ledger.close()


def test_the_deepest_mount_names_the_file_system(tmp_path: Path) -> None:
    disk = machine.file_system(tmp_path)
    assert disk.kind
    assert not machine.FileSystem("ext4", "/dev/x", "unknown").in_memory
    assert machine.FileSystem("tmpfs", "tmpfs", "unknown").in_memory


def test_the_bare_table_has_the_columns_of_the_real_one(tmp_path: Path) -> None:
    """A floor of fewer columns or indexes would flatter nobody but the floor."""

    async def real() -> Path:
        async with z0.Runtime(tmp_path / "z0") as runtime:
            (fields,) = fact_fields(random.Random(1), 1)
            await runtime.get(Account, "only").append("deposit", **fields)
            await runtime.evict(Account, "only")
        (path,) = (tmp_path / "z0").glob(f"*/{Account.namespace}/*.sqlite")
        return path

    bare = BareLedger(tmp_path / "bare.sqlite")
    ours = open_bare(asyncio.run(real()))
    columns = "SELECT name, type, pk FROM pragma_table_info('facts')"
    indexes = "SELECT \"unique\", partial FROM pragma_index_list('facts')"
    assert list(ours.execute(columns)) == list(bare.connection.execute(columns))
    assert list(ours.execute(indexes)) == list(bare.connection.execute(indexes))
    bare.close()
    ours.close()


@pytest.mark.slow
def test_a_smoke_run_measures_every_case_and_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.bench(smoke=True, as_json=True, directory=tmp_path) == 0
    report = json.loads(capsys.readouterr().out)
    assert [result["name"] for result in report["results"]] == list(CASES)
    first = {result["name"]: result["rows"][0]["p50"] for result in report["results"]}
    assert {name: p50 for name, p50 in first.items() if p50 <= 0} == {}
    assert all(result["verdicts"] == [] for result in report["results"])
    assert report["machine"]["file_system"]["kind"]
    assert list(tmp_path.iterdir()) == []


def test_the_tables_name_the_pacing_the_floor_and_the_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    row = plain_row("subject", [2.0, 4.0], floor="floor", spread=[1.5, 2.5])
    verdict = Verdict(what="promise", value=2.0, at_most=1.0)
    result = Result(name="case", question="?", rows=[row], verdicts=[verdict], notes=["[note]"])
    described = machine.describe(Path.cwd(), z0="0", sqlite="3", priority_raised=False)
    report = Report(machine=described, rounds=2, seed=1, smoke=False, results=[result])
    show(report, Console(width=140))
    shown = capsys.readouterr().out
    for expected in ("back to back", "2.00 [1.50 to 2.50]", "≤ 1 ×", "missed", "[note]"):
        assert expected in shown
    assert json.loads(to_json(report))["results"][0]["verdicts"][0]["outcome"] == "missed"


def test_an_unknown_case_is_refused_with_the_list_of_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.bench(only="nonsense") == 2
    assert "append-64" in capsys.readouterr().err
