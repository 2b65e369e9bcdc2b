"""The benchmark's rows are all listed and complete, and its table says what was measured."""

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from harness.measure import Measurement, measure
from harness.page import from_numbers, page, table, to_numbers
from harness.row import Bench, NotMeasured, Row, Sides, Target
from harness.scaling import section
from rows import NAMES, row_named
from rows.device import HARVESTS, SELECTS
from rows.steps import ARCHITECTURES, KINDS

ROWS = Path(__file__).parents[1] / "benchmarks" / "rows"
MACHINE = {"cpu": "abacus", "cores": 2, "memory_gb": 1, "threads": 2, "python": "3.11"}


def row_of(ours, theirs, *, target=1.35, repetitions=5, notes=list):
    """A row whose sides return the figures one after another."""
    left, right = iter(ours), iter(theirs)

    @contextmanager
    def sides(_bench: Bench) -> Iterator[Sides]:
        if not ours:
            raise NotMeasured("there is no peer")
        yield Sides(lambda: next(left), lambda: next(right), notes)

    return Row(
        name="reading",
        what="Ours",
        against="Theirs",
        unit="rows/s",
        target=Target("at least", target),
        how="How.",
        floor="Floor.",
        sides=sides,
        repetitions=repetitions,
    )


def test_every_file_of_rows_is_read_and_every_row_is_in_the_list():
    written = [
        function.name
        for path in ROWS.glob("*.py")
        for function in ast.parse(path.read_text("utf-8")).body
        if isinstance(function, ast.FunctionDef)
        and any("compared" in ast.unparse(decorator) for decorator in function.decorator_list)
    ]
    tables = [*(f"step_{kind}" for kind in KINDS), *(f"saelens_{name}" for name in ARCHITECTURES)]
    tables += [*(f"step_cuda_{select}" for select in SELECTS), *HARVESTS]
    assert sorted([*written, *tables]) == sorted(NAMES)
    assert NAMES[0] == "harvest_fp32"
    assert NAMES[-1] == "end_to_end"


@pytest.mark.parametrize("name", NAMES)
def test_every_row_says_what_it_compares_and_what_it_has_to_reach(name):
    row = row_named(name)
    assert row.name == name
    assert all([row.what, row.against, row.unit, row.how, row.floor])
    assert row.target.ratio > 0
    assert row.repetitions == 1 or row.repetitions >= 5


def test_the_median_of_ratios_counts_and_the_warm_up_does_not(tmp_path):
    row = row_of([9, 2, 4, 6, 8, 30], [1, 1, 2, 2, 4, 10], notes=lambda: ["Also 7."])
    found = measure(row, Bench(tmp_path))
    assert found.ratios == [2, 2, 3, 2, 3]
    assert (found.ratio, found.spread) == (2, (2, 3))
    assert found.notes == ["Also 7."]


def test_what_is_counted_runs_once(tmp_path):
    found = measure(row_of([6], [32], repetitions=1), Bench(tmp_path))
    assert found.ratios == [6 / 32]


def test_a_missing_peer_and_a_broken_row_are_reasons_and_no_figures(tmp_path, capsys):
    assert measure(row_of([], []), Bench(tmp_path)).reason == "there is no peer"
    broken = measure(row_of([1, 1], [1, 0, 0]), Bench(tmp_path, quick=True))
    assert broken.reason is not None
    assert broken.reason.startswith("failed: StopIteration")
    assert broken.ours == []
    assert "StopIteration" in capsys.readouterr().err


def test_the_table_shows_ratio_range_target_and_whether_it_is_met():
    row = row_of([1], [1])
    text = table([row], {"reading": Measurement("reading", [2000.0, 3000.0], [1000.0, 1000.0])})
    cells = [cell.strip() for cell in text.splitlines()[-1].strip("|").split("|")]
    assert cells == ["reading", "2,500", "1,000", "rows/s", "2.5", "2–3", "≥ 1.35", "yes"]
    assert len({len(line) for line in text.splitlines()}) == 1


def test_a_missed_target_is_called_missed_and_a_reason_is_given():
    row = row_of([1], [1])
    machine = MACHINE | {"libraries": {"numpy": "2"}}
    missed = page([row], {"reading": Measurement("reading", [1.0], [1.0])}, machine, None)
    assert "1 (counted once), missed" in missed
    absent = page([row], {"reading": Measurement("reading", reason="no peer")}, machine, None)
    assert "**Not measured**: no peer" in absent
    assert "abacus, 2 cores" in absent


def test_numbers_come_back_as_they_were_written():
    found = {"reading": Measurement("reading", [1.0], [2.0], ["Note."], None, "2026-01-01", 3.0)}
    assert from_numbers({"rows": to_numbers(found)}) == found


def test_at_most_is_met_from_below():
    assert Target("at most", 0.02).met(0.01)
    assert not Target("at most", 0.02).met(0.03)
    assert str(Target("at most", 1.5e-4)) == "≤ 0.00015"


def test_a_billion_rows_follow_from_the_last_two_sizes():
    sizes = [
        {
            "rows": rows,
            "harvest_per_second": 1000.0,
            "harvest_bytes": 2**20,
            "store_bytes": 400 * rows,
            "read_per_second": 2000.0,
            "read_bytes": 2**20 + 8 * rows,
        }
        for rows in (1000, 10_000)
    ]
    text = section({"site": "s", "d_in": 512, "batch_rows": 4096, "sizes": sizes})
    assert "400 bytes a row to 400.0 GB" in text
    assert "memory did not grow while harvesting" in text
    assert "grew by 8.0 bytes a row, which would make 8.0 GB, while reading" in text


def test_a_row_of_a_device_names_it_and_is_not_measured_without_one(tmp_path, monkeypatch):
    row = replace(row_of([2.0] * 6, [1.0] * 6), device=True)
    monkeypatch.setattr("harness.measure.device", lambda: "an abacus of glass")
    found = measure(row, Bench(tmp_path))
    assert found.device == "an abacus of glass"
    assert "on an abacus of glass" in page(
        [row], {row.name: found}, MACHINE | {"libraries": {}}, None
    )

    def missing() -> str:
        raise NotMeasured("it needs a CUDA device")

    monkeypatch.setattr("harness.measure.device", missing)
    assert measure(row, Bench(tmp_path)).reason == "it needs a CUDA device"
