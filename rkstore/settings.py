"""Every option of every command, once: its name, its default and the reason, its type.

The command line makes its options from these classes and a YAML file is checked
against them, so both know the same names. Importing this module is cheap.
"""

import math
import re
import types
import typing
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from rkstore.errors import BadInput

T = TypeVar("T", bound="Settings")

KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list of texts",
}


def option(
    default: Any, help: str, *, choices: tuple[str, ...] = (), least: float | None = None
) -> Any:
    """A field with what its option needs to know besides its type."""
    metadata = {"help": help, "choices": choices, "least": least}
    if isinstance(default, (list, tuple)):
        return field(default_factory=lambda: tuple(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that check themselves.

    Raises:
        BadInput: a value is of the wrong type, too small or not one of the choices.
    """

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            kind, optional = value_type(spec.type)
            if value is None and optional:
                continue
            if kind is float and type(value) is int:
                object.__setattr__(self, spec.name, value := float(value))
            if kind is tuple and isinstance(value, list):
                object.__setattr__(self, spec.name, value := tuple(value))
            self._check(spec.name, value, kind, spec.metadata)

    def _check(self, name: str, value: Any, kind: type[Any], metadata: Any) -> None:
        flag = flag_of(name)
        if type(value) is not kind:
            raise BadInput(f"{flag} takes {KINDS[kind]}, not {value!r}")
        if isinstance(value, tuple) and not all(type(item) is str for item in value):
            raise BadInput(f"{flag} takes {KINDS[kind]}, not {list(value)!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"{flag} takes {KINDS[kind]}, not {value}")
        if metadata["choices"] and value not in metadata["choices"]:
            raise BadInput(f"{flag} is '{value}': choose one of {', '.join(metadata['choices'])}")
        if metadata["least"] is not None and value < metadata["least"]:
            raise BadInput(f"{flag} is {value}: it must be at least {metadata['least']}")


def value_type(annotation: Any) -> tuple[type, bool]:
    """The type behind ``X``, ``X | None`` or ``tuple[X, ...]``, and whether None is allowed."""
    optional = False
    if isinstance(annotation, types.UnionType):
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        annotation, optional = inner[0], True
    return typing.get_origin(annotation) or annotation, optional


def from_yaml(settings: type[T], path: Path, given: dict[str, Any]) -> T:
    """Settings from a YAML file of option names, overridden by what was ``given``.

    Raises:
        BadInput: the file cannot be read, or has an unknown key or a value of the wrong type.
    """
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"cannot read {path}: {' '.join(str(error).split())}") from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise BadInput(f"{path} must hold 'option: value' lines")
    names = {spec.name.rstrip("_"): spec.name for spec in fields(settings)}
    unknown = [str(key) for key in document if key not in names]
    if unknown:
        raise BadInput(f"{path} has an unknown key '{unknown[0]}': it may have {', '.join(names)}")
    try:
        return settings(**({names[key]: value for key, value in document.items()} | given))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def flag_of(name: str) -> str:
    """The option of a field; ``from_`` is ``--from``, which no field can be called."""
    return "--" + name.rstrip("_").replace("_", "-")


def default_of(spec: Any) -> Any:
    """The default of a dataclass field."""
    return spec.default if spec.default is not MISSING else spec.default_factory()


def parse_layers(text: str, layers: int) -> list[int]:
    """The layers that ``all`` or a list such as ``0-3,8`` names, each once, in order.

    Raises:
        BadInput: the text is no such list, or the model has no such layer.
    """
    if text == "all":
        return list(range(layers))
    chosen: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first:
            raise BadInput(f"--layers is '{text}': give 'all' or a list such as 0-3,8")
        if last >= layers:
            raise BadInput(f"--layers is '{text}': the model has layers 0-{layers - 1}")
        chosen |= set(range(first, last + 1))
    return sorted(chosen)


DTYPES = ("float32", "bfloat16", "float16")
CODECS = ("float32", "float16", "bfloat16", "int8", "int6")
COMPRESSIONS = ("auto", "zstd", "blosc-zstd", "blosc-lz4", "deflate", "none")
COMPRESSION_HELP = (
    "Lossless compression of the stored numbers; auto takes the smallest for the codec. "
    "deflate is HDF5's; none makes float32 a view of the mapped file."
)


@dataclass(frozen=True, kw_only=True)
class HarvestSettings(Settings):
    """What to run over which text, and how to store it."""

    model: str = option("gpt2", "Hub name or local directory of the model.")
    revision: str | None = option(None, "Revision of the model on the Hub.")
    tokenizer: str | None = option(
        None, "Hub name or directory of the tokenizer, if not the model's."
    )
    layers: str = option("all", "Blocks to store: 'all', or a list such as 0-3,8.")
    hook: str = option(
        "mlp.hook_post",
        "TransformerLens hook: the part behind the block, a full name, or a glob.",
    )
    d_in: int | None = option(None, "Refuse sites that are not this wide.", least=1)
    text: tuple[str, ...] = option((), "UTF-8 text files, one document each, instead of a dataset.")
    dataset: str = option("Salesforce/wikitext", "Dataset on the Hub, or a local directory.")
    dataset_config: str | None = option(
        None, "Configuration of the dataset; wikitext-103-raw-v1 for wikitext."
    )
    split: str = option("train", "Split of the dataset.")
    fallback: tuple[str, ...] = option(
        (),
        "Datasets to try in this order if the one before cannot be had, NAME or NAME:CONFIG; "
        "the outcome is printed and recorded.",
    )
    tokens: int = option(100_000, "Rows to store, rounded down to whole blocks.", least=1)
    context_size: int = option(128, "Tokens that the model sees at once.", least=2)
    prepend_bos: bool = option(True, "Begin every block with the BOS token.")
    batch_size: int = option(32, "Blocks in one forward pass.", least=1)
    dtype: str = option("float32", "Precision of the model.", choices=DTYPES)
    codec: str = option("int8", "Stored numbers.", choices=CODECS)
    format: str = option("zarr", "Files.", choices=("zarr", "hdf5"))
    compression: str = option("auto", COMPRESSION_HELP, choices=COMPRESSIONS)
    shard_rows: int = option(
        8192, "Rows in one file, about; a killed harvest repeats at most so many.", least=1
    )
    device: str = option("cpu", "Torch device of the model.")
    seed: int = option(
        0, "Seed of the order of documents; 0 keeps the order they come in.", least=0
    )
    out: str | None = option(None, "Directory of the store; stores/<model> by default.")


@dataclass(frozen=True, kw_only=True)
class SiteSettings(Settings):
    """Which site of which store."""

    store: str | None = option(
        None, "Store, a directory or a URL; may be left out if stores/ holds exactly one."
    )
    layer: int | None = option(None, "Transformer block of the site.", least=0)
    hook: str | None = option(None, "Hook of the site, if the store has several at that layer.")


SCORES = (
    "kurtosis",
    "knn",
    "variance_ratio",
    "separation",
    "max_activation",
    "random",
    "projection_kurtosis",
    "projection_negentropy",
    "projection_skewness",
)


@dataclass(frozen=True, kw_only=True)
class ProbeSettings(SiteSettings):
    """How RkCNN looks for directions."""

    m: int | None = option(None, "Dimensions in a subset; the root of d_in by default.", least=1)
    h: int = option(600, "Random subsets.", least=1)
    r: int = option(200, "Subsets to keep.", least=1)
    subsets: str = option(
        "coordinates",
        "Random dimensions, random partitions of them, or columns of random rotations.",
        choices=("coordinates", "partitions", "bases"),
    )
    score: str = option(
        "kurtosis", "How a subset is scored; projection_… score its direction.", choices=SCORES
    )
    directions: str = option(
        "principal", "How directions are found in a subset.", choices=("principal", "ica", "mixing")
    )
    components: int = option(1, "Directions of a subset.", least=1)
    whiten: bool = option(
        False, "Scale dimensions to variance 1 before principal directions are found."
    )
    rounds: int = option(
        1, "Probe so many times, each with the directions found before taken out.", least=1
    )
    max_cosine: float = option(
        1.0,
        "Of two directions of a larger |cosine| keep only the better; 0.9 drops near-duplicates.",
        least=0.0,
    )
    k_neighbors: int = option(5, "Neighbours of the knn score.", least=1)
    device: str = option("cpu", "Torch device on which rows are compared.")
    labels: str | None = option(
        None,
        "Column that labels the rows, for knn and separation; the next token of a block's last row "
        "is a class of its own.",
        choices=("token_id", "document", "position", "next_token"),
    )
    sample_rows: int = option(
        2000,
        "Rows, spread over the store, that knn and separation compare, on which ica works and "
        "projections are scored; the cost of knn grows with their square.",
        least=2,
    )
    query_rows: int | None = option(
        None,
        "Rows that ask knn for their neighbours among all of sample_rows; all by default. Fewer "
        "estimate the score, with a standard error that falls with their root.",
        least=1,
    )
    seed: int = option(0, "Seed of the subsets.", least=0)
    out: str | None = option(None, "Directory of the result; results/probe/<site> by default.")


INITS = (
    "random",
    "tied",
    "datapoint",
    "subspace",
    "rkcnn",
    "rkcnn-decoder",
    "rkcnn-unscored",
    "sparse-random",
)


@dataclass(frozen=True, kw_only=True)
class TrainSettings(SiteSettings):
    """One dictionary and how it is trained."""

    dictionary: str = option("topk", "Kind of sparse code.", choices=("relu", "topk", "batchtopk"))
    init: str = option("datapoint", "How the latents begin.", choices=INITS)
    center: str | None = option(
        None,
        "Where b_dec begins: at the store's mean, at the geometric median of a sample of rows, or "
        "at zero (none). By default at zero for random and rkcnn-decoder, whose encoders know "
        "nothing of the data, and at the mean for all others.",
        choices=("mean", "geometric-median", "none"),
    )
    init_bias: str = option(
        "zero",
        "Encoder biases to begin with; quantile makes each latent's pre-activation positive on a "
        "share of k / d_sae of a sample of rows.",
        choices=("zero", "quantile"),
    )
    init_scale: str | None = option(
        None,
        "Encoder's scale to begin with: reconstruction makes the first reconstructions of a "
        "sample of rows as long as the rows, both relative to b_dec; none leaves the init's own. "
        "By default reconstruction for the inits that begin at rows of the data (datapoint and "
        "the rkcnn inits but rkcnn-decoder) and none for all others.",
        choices=("none", "reconstruction"),
    )
    expansion: float = option(8.0, "Latents for each input dimension.", least=0.0)
    d_sae: int | None = option(None, "Latents; overrides --expansion.", least=1)
    k: int = option(32, "Active latents of a topk code; of a batchtopk code on average.", least=1)
    l1: float = option(
        1.0,
        "Weight of the L1 penalty of a relu code, per token, with inputs scaled as --norm says.",
        least=0.0,
    )
    norm: str = option(
        "d_in",
        "Mean of ‖x‖² that inputs are scaled to for training: the number of dimensions, one, or "
        "none for values as they are stored. A dictionary is written for unscaled inputs.",
        choices=("d_in", "one", "none"),
    )
    steps: int = option(2000, "Batches to train on.", least=1)
    batch_size: int = option(1024, "Rows in a batch.", least=1)
    lr: float = option(3e-3, "Peak learning rate of Adam.", least=0.0)
    warmup: int = option(100, "Steps over which the learning rate (and l1) rises.", least=0)
    auxk: int = option(
        0,
        "Dead latents of a token that learn to reconstruct what the living leave over, the "
        "auxiliary loss of Gao et al.; 0 is off.",
        least=0,
    )
    resample_every: int = option(
        0,
        "Steps between resamplings, at which dead latents begin again as rows that are "
        "reconstructed badly (Bricken et al.); none while the learning rate falls. 0 is off.",
        least=0,
    )
    dead_after: int | None = option(
        None,
        "Tokens without firing after which a latent is dead; by default 10 million, or a "
        "twentieth of the run if that is less.",
        least=1,
    )
    datapoint_share: float | None = option(
        None,
        "How much of a latent is a row of the data, the rest being a direction that is random or "
        "mined. By default 0.8 for --init datapoint, 0.5 for the rkcnn inits but rkcnn-decoder, "
        "which has none.",
        least=0.0,
    )
    subspace_dim: int | None = option(
        None,
        "Dimensions of --init subspace; as many as hold 99 % of the variance by default.",
        least=1,
    )
    rkcnn_fraction: float = option(
        0.5, "Share of the latents that the rkcnn inits take from the probe.", least=0.0
    )
    rkcnn_h: int = option(
        600, "Subsets that --init rkcnn-decoder draws; it mines no more latents.", least=1
    )
    rkcnn_oversample: float = option(
        4.0,
        "Subsets that --init rkcnn draws for each one kept: below 1 there is nothing to select.",
        least=1.0,
    )
    rkcnn_m: int | None = option(
        None, "Dimensions in a subset; the root of d_in by default.", least=1
    )
    rkcnn_score: str = option(
        "kurtosis",
        "How the rkcnn inits score a subset: any score that needs no labels.",
        choices=tuple(score for score in SCORES if score != "separation"),
    )
    checkpoint_every: int = option(1000, "Steps between checkpoints.", least=1)
    seed: int = option(0, "Seed of weights, subsets and the order of the rows.", least=0)
    data_seed: int | None = option(
        None, "Seed of the order of the rows; --seed by default.", least=0
    )
    dtype: str = option(
        "float32",
        "Numbers of the matrix products; weights are float32 in either case.",
        choices=("float32", "bfloat16"),
    )
    device: str = option("cpu", "Torch device.")
    name: str | None = option(None, "Name of the run; made of site, kind and init by default.")
    out: str = option("checkpoints", "Directory under which checkpoints are written.")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(Settings):
    """What to measure dictionaries on."""

    store: str | None = option(
        None, "Store, a directory or a URL; may be left out if stores/ holds exactly one."
    )
    rows: int | None = option(None, "Held-out rows to use; all by default.", least=1)
    any_model: bool = option(
        False, "Measure dictionaries of another model, too: those are refused otherwise."
    )
    batch_size: int = option(4096, "Rows at a time.", least=1)
    device: str = option("cpu", "Torch device.")
    out: str = option("results/evaluate", "Directory of table, JSON and picture.")


@dataclass(frozen=True, kw_only=True)
class ImportSettings(Settings):
    """How to read the files of another program, and how to store them."""

    from_: str | None = option(
        None, "What the files are.", choices=("saelens", "memmap", "npy", "pt", "hdf5")
    )
    hook_name: tuple[str, ...] = option(
        (),
        "Name of the site; once for each array, in their order. With saelens, the columns to "
        "read. The arrays' own names by default.",
    )
    dataset: tuple[str, ...] = option(
        (), "HDF5 dataset to read; by default 'tensor', or else all of the file."
    )
    context_size: int | None = option(
        None, "Rows in a block, if the files do not say; 1 by default.", least=1
    )
    d_in: int | None = option(None, "Refuse sites that are not this wide.", least=1)
    model_name: str | None = option(None, "Model that the activations are of, for the record.")
    codec: str = option("int8", "Stored numbers.", choices=CODECS)
    format: str = option("zarr", "Files.", choices=("zarr", "hdf5"))
    compression: str = option("auto", COMPRESSION_HELP, choices=COMPRESSIONS)
    shard_rows: int = option(
        8192, "Rows in one file, about; a killed import repeats at most so many.", least=1
    )
    out: str | None = option(None, "Directory of the store; stores/<name> by default.")


@dataclass(frozen=True, kw_only=True)
class ExportSettings(Settings):
    """Which sites to write, and for which program."""

    to: str | None = option(None, "What to write.", choices=("saelens", "npy", "hdf5"))
    layer: int | None = option(None, "Transformer block of the sites; all by default.", least=0)
    hook: str | None = option(None, "Hook of the sites; all by default.")
    dtype: str = option("float32", "Numbers to write.", choices=("float32", "float16"))
    out: str | None = option(None, "Directory to write; exports/<store>-<to> by default.")


@dataclass(frozen=True, kw_only=True)
class PullSettings(Settings):
    """Which part of a store to bring here, and where."""

    layers: str = option("all", "Blocks to pull: 'all', or a list such as 0-3,8.")
    hook: str | None = option(None, "Hook: the part behind the block, a full name, or a glob.")
    rows: str | None = option(
        None, "Rows to pull, FIRST:LAST+1, rounded outward to whole shards; all by default."
    )
    out: str | None = option(None, "Directory of the store; stores/<last of the URL> by default.")
