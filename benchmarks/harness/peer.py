"""Programs of other environments, kept alive and run one repetition at a time.

A peer has its own versions of everything, so it cannot be imported; and starting it takes
longer than what is measured, so it is started once. ``peers/answer.py`` is the other end.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.row import THREADS, Bench, NotMeasured, Side

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "benchmarks" / "peers"

# Targets of the Makefile that make an environment, and where each of them is.
ENVIRONMENTS = {"saelens": ".venv-saelens", "peers": ".venv-peers", "readers": ".venv-readers"}


def python_of(environment: str) -> Path:
    """The interpreter of an environment, which is made if it is missing.

    Raises:
        NotMeasured: it cannot be installed here.
    """
    made = subprocess.run(
        ["make", "--directory", str(ROOT), environment, f"PYTHON={sys.executable}"],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        said = [line for line in made.stderr.splitlines() if line.startswith("ERROR")]
        why = (said or made.stderr.splitlines() or [f"status {made.returncode}"])[-1]
        raise NotMeasured(f"'make {environment}' failed: {why.strip()}")
    return ROOT / ENVIRONMENTS[environment] / "bin" / "python"


@contextmanager
def peer(bench: Bench, python: Path | str, program: str, *arguments: object) -> Iterator[Side]:
    """Start ``peers/<program>``; the side runs one repetition and returns what it measured.

    Raises:
        NotMeasured: the program ended; says with what words.
    """
    log = bench.work / f"{Path(program).stem}.log"
    with (
        log.open("a") as errors,
        subprocess.Popen(
            [str(python), str(PEERS / program), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1"},
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        answers, requests = process.stdout, process.stdin

        def repeat() -> float:
            requests.write("go\n")
            requests.flush()
            answer = answers.readline()
            if not answer:
                words = [line for line in log.read_text("utf-8").splitlines() if line.strip()]
                raise NotMeasured(f"{program} ended: {words[-1] if words else 'without a word'}")
            figure: float = json.loads(answer)
            return figure

        try:
            yield repeat
        finally:
            requests.close()
            process.wait()
