"""A little of what ``make torture`` does at length: each of its parts, and its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TORTURE = Path(__file__).parent / "torture"


PARTS = ("kills", "flips", "forgeries", "disks", "signals", "pairs", "readers", "network")


def torture(tmp_path: Path, **amounts: int) -> dict[str, Any]:
    """Its report. A process of its own, because it forks, and bounds its memory."""
    amounts = dict.fromkeys(PARTS, 0) | amounts
    arguments = ["--no-s3"]  # whose library alone is a second for every command
    arguments += [f"--{name}={amount}" for name, amount in amounts.items()]
    # In memory: a kill loses nothing that a disk has not yet written.
    at = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    result = subprocess.run(
        [sys.executable, str(TORTURE), "--json", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"TMPDIR": str(at), "OMP_NUM_THREADS": "1"},
    )
    assert result.stdout, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_harvests_killed_at_random_instants_end_with_the_files_of_one_undisturbed(tmp_path):
    found = torture(tmp_path, kills=5)["kills"]
    assert found["different"] == []
    assert found["finished"] >= 1
    assert len(found["landed"]) == 5
    # They did not all die at the same point.
    assert len({kill["moment"] for kill in found["landed"]}) >= 3
    assert len(found["by_shard"]) >= 2


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return torture(tmp_path_factory.mktemp("damaged"), flips=20, forgeries=400)


def test_every_flipped_bit_is_found_and_none_changes_a_value(damaged):
    found = damaged["flips"]
    assert (found["done"], found["missed"], found["wrong"]) == (20, [], [])
    assert found["refused"] > 0
    assert found["answered"] > 0


def test_forged_stores_are_refused_in_words_or_read_in_bounds(damaged):
    found = damaged["forgeries"]
    assert found["bad"] == []
    assert sum(found["done"].values()) == 400
    assert len(found["done"]) == 8
    assert 100 < found["refused"] < 400


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    # Shared by what follows: what all of it imports takes longest.
    amounts = {"disks": 2, "signals": 1, "pairs": 1, "readers": 4, "network": 1, "faults": 3}
    return torture(tmp_path_factory.mktemp("disturbed"), **amounts)


@pytest.mark.parametrize(
    ("part", "least"),
    [("disks", 12), ("signals", 6), ("writers", 7), ("readers", 4), ("network", 12)],
)
def test_nothing_is_wrong_lost_or_left_unsaid(disturbed, part, least):
    tallies = disturbed[part].values()
    for failed in ("wrong", "lost", "unsaid"):
        assert [line for tally in tallies for line in tally[failed]] == []
    tried = sum(tally["tried"] for tally in tallies)
    assert tried >= least
    assert tried <= sum(tally["survived"] + tally["refused"] for tally in tallies)


def test_of_two_writers_one_is_refused(disturbed):
    assert all(tally["survived"] == 1 for tally in disturbed["writers"].values())
    assert sum(tally["refused"] for tally in disturbed["writers"].values()) >= 5


def test_whatever_disk_fails_it_is_noticed(disturbed):
    assert sum(tally["refused"] for tally in disturbed["disks"].values()) >= 6


def test_every_reader_of_a_small_cache_reads_everything(disturbed):
    (tally,) = disturbed["readers"].values()
    assert tally["survived"] == 4


def test_the_figures_of_the_page_are_those_of_the_long_run():
    docs = Path(__file__).parents[1] / "docs"
    page = (docs / "sharing.md").read_text("utf-8")
    for part, found in json.loads((docs / "torture.json").read_text("utf-8")).items():
        if part in ("network", "disks", "signals", "writers", "readers"):
            keys = ("kinds", "tried", "survived", "refused", "wrong", "lost")
            [row] = [line for line in page.splitlines() if line.startswith(f"| {part}: ")]
            assert row.endswith("| " + " | ".join(f"{found[key]:,}" for key in keys) + " |")
            assert (found["wrong"], found["lost"], found["unsaid"]) == (0, 0, 0)
