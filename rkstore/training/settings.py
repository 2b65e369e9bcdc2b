"""Options of a training."""

from rkstore.dictionaries.norms import NORMS
from rkstore.dictionaries.prefixes import ORDERS
from rkstore.dictionaries.selects import SELECTS
from rkstore.dictionaries.wirings import WIRINGS
from rkstore.rkcnn.settings import SiteSettings
from rkstore.settings import combined, option
from rkstore.store.batches.orders import ORDERS as ROW_ORDERS
from rkstore.training.controls import CONTROLS, PLAIN
from rkstore.training.engines import ENGINES
from rkstore.training.helpers import HELPERS
from rkstore.training.inits import INITS
from rkstore.training.inits.rkcnn import RkCNN
from rkstore.training.schedules import DECAY, SHAPES
from rkstore.training.sitenorms import SITE_NORMS
from rkstore.training.tracking import TRACKERS

TRAINED = tuple(SELECTS)


@combined(
    dictionary=SELECTS,
    init=INITS,
    wiring=WIRINGS,
    norm=SITE_NORMS,
    helpers=HELPERS,
    engine=ENGINES,
)
class TrainSettings(SiteSettings):
    """One dictionary and how it is trained."""

    layers: str | None = option(
        None,
        "Train one dictionary per layer, in turn, or one of all of them where the wiring takes "
        "several: 'all', or a list such as 0-3,8.",
    )
    dictionary: str = option(
        "topk",
        "Kind of sparse code. topk sets L0 exactly, without a weight to tune.",
        choices=TRAINED,
        also="select",
    )
    wiring: str = option(
        "sae",
        "Which sites the latents read and write: sae, their own; transcoder, per-layer and clt, "
        "from what a part of the model reads what it writes; crosscoder and dfc, several.",
        choices=WIRINGS,
    )
    code_norm: str = option(
        "none",
        "Decoder norms that weigh a latent's activation where latents are ranked and penalised; "
        "decoupled is a code for each site.",
        choices=NORMS,
        newer=True,
    )
    prefixes: tuple[float, ...] = option(
        (1.0,),
        "Shares of the latents that are to reconstruct by themselves, rising to 1, as in a "
        "Matryoshka dictionary: 0.125,0.25,0.5,1.",
        least=0.0,
        newer=True,
    )
    prefix_order: str = option(
        "latents",
        "Whose first part a prefix is: the latents', or a token's activations' from the largest "
        "(one dictionary for every k up to its own).",
        choices=ORDERS,
        newer=True,
    )
    prefix_draws: int = option(
        0, "Draw so many prefixes anew for each batch, besides 1.", least=0, newer=True
    )
    unit_decoder: bool = option(
        True,
        "Keep the rows of the decoder at norm 1, with Adam on the projected gradient "
        "(ConstrainedAdam), which no code can evade by growing; else penalties need a --code-norm.",
        newer=True,
    )
    from_: str | None = option(
        None,
        "Checkpoint of a trained dictionary, of the same sites, wiring, latents and kind, to start "
        "from instead of an --init. Optimiser and schedules begin anew.",
        path=True,
        newer=True,
    )
    init: str = option(
        "datapoint",
        "How the latents are initialised. datapoint explains more than random directions in the "
        "same steps, and of those far fewer die.",
        choices=INITS,
    )
    center: str | None = option(
        None,
        "Initial b_dec, and what encoders begin relative to: the store's mean, the geometric "
        "median of a sample of rows, or zero (none). By default zero for random and rkcnn-decoder, "
        "whose encoders do not depend on the data, and the mean for all others.",
        choices=("mean", "geometric-median", "none"),
    )
    init_bias: str = option(
        "zero",
        "Initial encoder biases; quantile makes each latent's pre-activation positive on a "
        "fraction k / d_sae of a sample of rows.",
        choices=("zero", "quantile"),
    )
    init_scale: str | None = option(
        None,
        "Initial encoder scale: reconstruction gives the first reconstructions of a sample of rows "
        "the norm of the rows, both relative to b_dec; none keeps the init's own. By default "
        "reconstruction for the inits that use rows of the data (datapoint and the rkcnn inits "
        "except rkcnn-decoder) and none for all others.",
        choices=("none", "reconstruction"),
    )
    expansion: float = option(
        8.0, "Latents for each dimension of the widest site that is read.", least=0.0
    )
    d_sae: int | None = option(
        None,
        "Latents, overrides --expansion; of per-layer and clt in each layer.",
        least=1,
    )
    norm: str = option(
        "d_in",
        "How each site is normalised for training: scaled so that the mean of ‖x‖² is d_in, its "
        "number of dimensions, or one; none; centre also subtracts the mean; standardise divides "
        "each dimension by its deviation; whiten removes the covariances. With d_in, weights of "
        "losses mean the same at every site. A dictionary is saved for inputs as they are.",
        choices=SITE_NORMS,
    )
    steps: int = option(
        2000, "Batches to train on. The default is a first look: raise it before all else.", least=1
    )
    batch_size: int = option(1024, "Rows in a batch.", least=1)
    accumulate: int = option(
        1,
        "Micro-batches that a batch is computed in, one after the other, for batches too large for "
        "the memory. What is of a batch as a whole, such as the selection of batchtopk, is then of "
        "a micro-batch.",
        least=1,
        newer=True,
    )
    shard_latents: bool = option(
        False,
        "Give each of several processes some of the latents and all rows, in place of some of the "
        "rows: for a dictionary too wide for one device. For relu, topk and batchtopk codes, "
        "also with --auxk. In one process it changes nothing.",
        identity=False,
        newer=True,
    )
    order: str = option(
        "rows",
        "What stays together in the shuffled batches: nothing, rows being alike to most losses; "
        "pairs, a row and the one before it in its document, as --temporal needs; sequences, "
        "whole blocks in order.",
        choices=ROW_ORDERS,
        newer=True,
    )
    lr: float = option(
        3e-3,
        "Peak learning rate of Adam. The default is for some thousand steps; long runs have 1e-4 "
        "to 5e-4.",
        least=0.0,
    )
    warmup: int = option(
        100,
        "Steps over which the learning rate rises, and, without --sparsity-warmup, the sparsity "
        "losses.",
        least=0,
    )
    lr_schedule: str = option(
        "linear",
        "How the learning rate falls to zero in the last part of the run; constant does not fall. "
        "Linear, as in dictionary_learning: it ends with small steps whatever the length of the "
        "run. Cosine usually falls over all of a run, with --decay 1.",
        choices=SHAPES,
        newer=True,
    )
    decay: float | None = option(
        None,
        "Share of the steps, the last ones, over which the learning rate falls; by default "
        f"{DECAY}, as in dictionary_learning: most steps are made at the full rate, and the fall "
        "removes the noise that it leaves.",
        newer=True,
    )
    sparsity_warmup: int | None = option(
        None,
        "Steps over which the sparsity losses rise to their weights; by default --warmup. A longer "
        "one leaves more latents alive.",
        least=0,
        newer=True,
    )
    clip: float | None = option(
        None,
        "Largest norm of the gradient of all weights together, to which a larger one is scaled. "
        "By default it is not, as Adam already divides by the size of gradients. "
        "dictionary_learning has 1, which in short runs lowers the error and may leave more "
        "latents dead.",
        newer=True,
    )
    ema: float | None = option(
        None,
        "Coefficient of a moving average of the weights, which is then what is saved for use; "
        "0.999 in Gao et al. By default there is none: the fall of the learning rate does the "
        "same.",
        newer=True,
    )
    control: str = option(
        "none",
        "Make it a control arm: its decoder frozen at its random start, or each row within a "
        "cosine of 0.8 of it, or its encoder frozen. A score counts for as much as it is above "
        "those of the arms.",
        choices=(PLAIN.name, *CONTROLS),
        newer=True,
    )
    controls: bool = option(
        False,
        "Train also the three control arms of each dictionary, in the same pass over the store. "
        "Off by default: each costs as much as the dictionary.",
        identity=False,
        newer=True,
    )
    dead_after: int | None = option(
        None,
        "Tokens without firing after which a latent is dead; by default 10 million, or a "
        "twentieth of the tokens of the run if that is less.",
        least=1,
    )
    checkpoint_every: int = option(1000, "Steps between checkpoints.", least=1, identity=False)
    track: tuple[str, ...] = option(
        (),
        "Program that follows the training, besides the JSONL file that is always written: wandb, "
        "tensorboard. May be repeated.",
        choices=TRACKERS,
        identity=False,
        newer=True,
    )
    seed: int = option(0, "Seed of weights, subsets and the order of the rows.", least=0)
    seeds: str | None = option(
        None,
        "Train a dictionary for each of these seeds: a list such as 0-7 or 0,3,5. With --data-seed "
        "those of a layer see the same rows, and share a pass over the store.",
        identity=False,
        newer=True,
    )
    data_seed: int | None = option(
        None, "Seed of the order of the rows; --seed by default.", least=0
    )
    dtype: str = option(
        "float32",
        "Precision of the matrix products; weights are always float32.",
        choices=("float32", "bfloat16"),
    )
    device: str = option("cpu", "Torch device.", identity=False)
    engine: str = option(
        "local",
        "What carries out the passes over the store, of which --layers and --seeds make several: "
        "this process one after another, or workers of Ray.",
        choices=ENGINES,
        identity=False,
        newer=True,
    )
    name: str | None = option(
        None,
        "Name of the run, with / for directories; by default from site, kind and init.",
        identity=False,
    )
    out: str = option(
        "checkpoints", "Directory under which checkpoints are written.", path=True, identity=False
    )


def directions_given(settings: TrainSettings) -> str | None:
    """The result of a probe to initialise latents with, for the inits that can."""
    return settings.options(RkCNN).directions
