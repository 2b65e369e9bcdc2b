"""What the RkCNN-SAE project published, shown beside new numbers, and what is wrong with it.

https://github.com/stchakwdev/RkCNN_SAE at 3c72db9: the files under ``results/``, and what its
code does. GPT-2 small, autoencoders with eight latents a dimension, one seed, 42.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SOURCE = "https://github.com/stchakwdev/RkCNN_SAE at 3c72db9"


def record(faults: Sequence[str], **numbers: Any) -> dict[str, Any]:
    """The published numbers as a record has them."""
    return {"source": SOURCE, **numbers, "faults": faults}


def notes(faults: Sequence[str]) -> list[str]:
    """The last lines of a page."""
    return ["", f"Published: {SOURCE}.", *(f"- {fault}" for fault in faults)]


PHASE1: dict[str, Any] = {
    "top_score": 0.8503,
    "recovery": 0.30,
    "variation": 0.0146,
    "passed": True,
}

PHASE2: dict[str, dict[str, float]] = {
    "random": {"dead": 50, "d_sae": 6144, "l0": 2979.5, "mse": 1.0701, "explained": -0.8978},
    "rkcnn": {"dead": 43, "d_sae": 6144, "l0": 2955.0, "mse": 1.0707, "explained": -0.8988},
}


@dataclass(frozen=True)
class Layer:
    """Both arms of a layer, of 24,576 latents each, on 10,000 tokens."""

    dead: tuple[int, int]
    """Baseline, RkCNN."""
    l0: tuple[int, int]
    explained: tuple[float, float]


MULTI_LAYER = (
    Layer((22674, 22222), (436, 665), (0.821, 0.868)),
    Layer((22300, 22948), (999, 894), (0.901, 0.887)),
    Layer((22222, 22830), (1083, 1001), (0.926, 0.919)),
    Layer((23708, 23267), (334, 337), (0.653, 0.653)),
    Layer((23626, 23117), (271, 419), (0.637, 0.699)),
    Layer((20079, 21126), (451, 484), (0.707, 0.713)),
    Layer((21947, 20640), (1219, 1349), (0.852, 0.867)),
    Layer((20946, 20903), (711, 706), (0.756, 0.755)),
    Layer((20784, 21178), (583, 264), (0.735, 0.627)),
    Layer((17446, 17814), (1111, 808), (0.833, 0.785)),
    Layer((14830, 17048), (1018, 320), (0.847, 0.717)),
    Layer((17401, 17112), (182, 389), (0.522, 0.772)),
)
MULTI_LAYER_D_SAE = 24576

# 54 pairs of layer 6: dead latents of 24,576, and how many per cent fewer RkCNN has.
SWEEP: dict[str, Any] = {
    "pairs": 54,
    "d_sae": 24576,
    "baseline_dead": {"mean": 21262, "sd": 943},
    "rkcnn_dead": {"mean": 21097, "sd": 824},
    "improvement": {"mean": 0.61, "sd": 5.45, "best": 11.9, "worst": -14.1},
    "by_score": {"kurtosis": 0.63, "knn": -1.37, "variance_ratio": 2.57},
}

# Of all that trained on GPT-2.
TRAINING_FAULTS = (
    "r = h: as many subsets are kept as are drawn, so no score ever decided anything.",
    "The arms are not paired: each has its own weights and its own order of rows. There is one "
    "seed, and no measure of what another seed would change.",
    "Directions initialise only the decoder; the encoder is independent of them.",
    "L1 is a mean over latents, so the arms stop at different L0, in the hundreds or thousands: "
    "these are not sparse codes, and dead latents are compared at unequal sparsity.",
)
PHASE1_FAULTS = (
    "100 subsets are drawn of 10 that exist, and repetitions kept: the ten best are eight times "
    "one subset and twice another.",
    "The score sees the true labels, and a third of the rows have no feature on and lie all in "
    "one point, which makes them each other's neighbours.",
    "A low variation rewards a score that tells no subset from another.",
    "No chance level is given for any of the numbers.",
)
PHASE2_FAULTS = (
    "MSE and explained variance compare reconstructions in shuffled order with inputs in order, "
    "and mean nothing: about +0.90 is printed as -0.90.",
    "50 and 43 dead latents differ by less than counting noise (√93 = 9.6).",
    "It trained on hook_mlp_out, 768 wide, and not on mlp.hook_post.",
    *TRAINING_FAULTS,
)
MULTI_LAYER_FAULTS = (
    "Dead latents are counted on 10,000 tokens, which calls rare ones dead.",
    "In 10 of 12 layers the arm with the lower L0 has the more dead latents: sparsity was "
    "compared, not the initialisation.",
    *TRAINING_FAULTS,
)
SWEEP_FAULTS = (
    "With r = h the three scores and the three fractions are the same algorithm: 'by score' is the "
    "size of noise, and the best of 54 is the luckiest of 54.",
    "The improvement correlates with the dead latents of its own baseline (+0.71): regression to "
    "the mean.",
    *TRAINING_FAULTS,
)
