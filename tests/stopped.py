"""A training that is stopped in the middle and taken up again."""

from pathlib import Path

import pytest

from rkstore.training import train as module
from rkstore.training.checkpoint import STATE
from rkstore.training.train import train, train_all

FILES = ("sae_weights.safetensors", "cfg.json", "training.json", STATE)


def train_until(step, runs):
    """Train, but break off when the first run comes to that step."""
    real = module.step

    def stopping(run, *batch):
        if run.step == step:
            raise KeyboardInterrupt
        real(run, *batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train_all(runs)


def assert_goes_on_to_the_same_bytes(
    settings, chosen, through: Path, at: int = 25, every: int = 10
) -> Path:
    """Stop a run some steps behind a checkpoint, and compare it with one in one go.

    Args:
        settings: makes a training's settings from options.
        through: directory for the run in one go, which is returned.
        at: the step at which it is stopped.
        every: steps between its checkpoints.
    """
    whole = train(settings(**chosen, out=str(through)))
    stopping = settings(**chosen, checkpoint_every=every)
    train_until(at, [stopping])
    taken_up = train(stopping)
    for name in FILES:
        assert (taken_up / name).read_bytes() == (whole / name).read_bytes(), name
    return whole
