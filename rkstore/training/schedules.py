"""Schedules of the learning rate and the sparsity pressure over a run."""

# The learning rate decays to zero over this last fraction of the steps.
DECAY = 0.2


def learning_rate(step: int, steps: int, warmup: int) -> float:
    """Fraction of the peak learning rate at a step: up over ``warmup``, flat, down to zero."""
    falling = (steps - step) / max(1.0, DECAY * steps)
    return min(pressure(step, warmup), falling)


def pressure(step: int, warmup: int) -> float:
    """Fraction of the sparsity losses at a step: up over ``warmup``, then 1.

    Latents that an early penalty switches off rarely recover.
    """
    return min(1.0, (step + 1) / (warmup + 1))
