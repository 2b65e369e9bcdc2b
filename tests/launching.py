"""Trainings in several processes: started by torchrun with a JSON file of their settings."""

import json
import os
import subprocess
import sys
from pathlib import Path


def launched(*words: object, processes: int = 2, launcher: str = "torch.distributed.run"):
    """Run a program, or with ``-m`` a module, in processes that a launcher starts together."""
    own = (
        [f"--nproc-per-node={processes}", "--master-port=0", "--standalone"]
        if launcher == "torch.distributed.run"
        else ["--multi_gpu", f"--num_processes={processes}", "--main_process_port=0"]
    )
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    return subprocess.run(
        [sys.executable, "-m", launcher, *own, *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def train_listed(path: Path) -> None:
    """Train each of a list of settings; one with ``stop`` is broken off after so many steps."""
    from rkstore.errors import BadInput
    from rkstore.training.settings import TrainSettings
    from rkstore.training.train import train_all

    for given in json.loads(path.read_text()):
        stop = given.pop("stop", None)

        def stopping(step, _, stop=stop):
            if step == stop:
                raise BadInput("stopped")

        try:
            train_all([TrainSettings(**given)], [] if stop is None else [stopping])
        except BadInput as error:
            if error.sentence != "stopped":
                raise


if __name__ == "__main__":
    train_listed(Path(sys.argv[1]))
