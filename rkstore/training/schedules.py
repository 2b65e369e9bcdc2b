"""How the learning rate, and with it the pressure towards sparsity, changes over a run."""

# The learning rate falls to zero over this last share of the steps.
DECAY = 0.2


def learning_rate(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at a step: up over ``warmup``, flat, down to zero."""
    falling = (steps - step) / max(1.0, DECAY * steps)
    return min(pressure(step, warmup), falling)


def pressure(step: int, warmup: int) -> float:
    """Share of the sparsity losses at a step: up over ``warmup``, then all of it.

    Latents that an early penalty switches off seldom come back.
    """
    return min(1.0, (step + 1) / (warmup + 1))
