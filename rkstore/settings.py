"""Every option of every command, once: its name, its default and the reason, its type.

The command line makes its options from these classes and a YAML file is checked
against them, so both know the same names. Importing this module is cheap.
"""

import math
import os
import re
import types
import typing
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, replace
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import yaml

from rkstore.errors import BadInput, for_yaml
from rkstore.store.files import expanded

T = TypeVar("T", bound="Settings")

KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list of texts",
}


# Numbers are handed on to libraries that count in 64 bits.
MOST = 2**63 - 1

# A number as people and programs write it; 1_000, 0x10 and 1:30 are none.
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    path: bool = False,
) -> Any:
    """A field with what its option needs to know besides its type.

    Args:
        path: whether it is a path, or may be one: ``~`` is then the home directory.
    """
    metadata = {"help": help, "choices": choices, "least": least, "path": path}
    if isinstance(default, (list, tuple)):
        return field(default_factory=lambda: tuple(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that check themselves.

    A text of a number will do where a number is asked for, and the other way round; a number
    that is whole (1e5) where a whole number is asked for; one text where several may be given.

    Raises:
        BadInput: a value is of the wrong type, too small or not one of the choices.
    """

    def __post_init__(self) -> None:
        for spec in fields(self):
            given = getattr(self, spec.name)
            kind, optional = value_type(spec.type)
            if given is None and optional:
                continue
            value = read_as(kind, given, path=spec.metadata["path"])
            object.__setattr__(self, spec.name, value)
            self._check(spec, kind, value, given)

    def _check(self, spec: Any, kind: type[Any], value: Any, given: Any) -> None:
        flag, choices, least = flag_of(spec.name), spec.metadata["choices"], spec.metadata["least"]
        texts = value if kind is tuple else ()
        finite = kind is not float or (type(value) is float and math.isfinite(value))
        if type(value) is not kind or not finite or not all(type(text) is str for text in texts):
            shown = list(given) if isinstance(given, tuple) else given
            raise BadInput(f"{flag} takes {KINDS[kind]}, not {shown!r}")
        if kind is int and abs(value) > MOST:
            raise BadInput(f"{flag} is {given}: it must be at most {MOST}")
        if choices and value not in choices:
            raise BadInput(f"{flag} is '{value}': choose one of {', '.join(choices)}")
        if least is not None and value < least:
            raise BadInput(f"{flag} is {value}: it must be at least {least}")


def read_as(kind: type[Any], value: Any, *, path: bool = False) -> Any:
    """What a value says as text, number or tuple of texts; the value itself if it is no such."""
    if kind is tuple:
        several = value if isinstance(value, list | tuple) else (value,)
        return tuple(read_as(str, item, path=path) for item in several)
    if kind is str and path and isinstance(value, str | os.PathLike):
        return expanded(value)
    number = isinstance(value, Real) and not isinstance(value, bool)
    written = isinstance(value, str) and NUMBER.fullmatch(value)
    with suppress(ValueError, OverflowError):  # nan, inf, more digits than a number can have
        if kind is str and number and math.isfinite(value):
            return str(value)
        if kind is float and (number or written):
            return float(value)
        if kind is int and (number or written):
            return _whole(value)
    return value


def _whole(number: Any) -> Any:
    """The number as ``int``; itself if it is not whole."""
    if isinstance(number, Integral):
        return int(number)
    exact = Fraction(number if isinstance(number, str) else float(number))
    return int(exact) if exact.denominator == 1 else number


def value_type(annotation: Any) -> tuple[type, bool]:
    """The type behind ``X``, ``X | None`` or ``tuple[X, ...]``, and whether None is allowed."""
    optional = False
    if isinstance(annotation, types.UnionType):
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        annotation, optional = inner[0], True
    return typing.get_origin(annotation) or annotation, optional


class _Loader(yaml.SafeLoader):
    """YAML whose words are texts, null apart: an option knows what it asks for.

    YAML itself reads ``10:50`` as 650, ``010`` as 8, ``no`` as false and ``1e5`` as a text, and
    keeps the last of two values of one key.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        first: [(tag, pattern) for tag, pattern in known if tag == "tag:yaml.org,2002:null"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise BadInput(f"'{key}' is given twice: give it once")
        return super().construct_mapping(node, deep)


def from_yaml(settings: type[T], path: Path, given: dict[str, Any]) -> T:
    """Settings from a YAML file of option names, overridden by what was ``given``.

    Raises:
        BadInput: the file cannot be read, or has an unknown key, a key twice or a value of the
            wrong type.
    """
    names = {spec.name.rstrip("_"): spec for spec in fields(settings)}
    try:
        document = yaml.load(path.read_text("utf-8"), _Loader)
    except BadInput as error:
        raise BadInput(f"{path}: {for_yaml(error.sentence)}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise BadInput(f"cannot read {path}: {' '.join(str(error).split())}") from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise BadInput(f"{path} must hold 'option: value' lines")
    unknown = [str(key) for key in document if key not in names]
    if unknown:
        raise BadInput(f"{path} has an unknown key '{unknown[0]}': it may have {', '.join(names)}")
    try:
        values = {names[key].name: _word(names[key], value) for key, value in document.items()}
        read = settings(**values)
    except BadInput as error:
        raise BadInput(f"{path}: {for_yaml(error.sentence)}") from None
    return replace(read, **given)


def _word(spec: Any, value: Any) -> Any:
    """What a word of YAML says to an option."""
    kind, _ = value_type(spec.type)
    if kind is bool and isinstance(value, str):
        return yaml.SafeLoader.bool_values.get(value.lower(), value)
    if kind in (int, float) and isinstance(value, str) and re.match("[+-]?0[0-9]", value):
        raise BadInput(f"{flag_of(spec.name)} is {value}: write it without the zero it begins with")
    return value


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
CODECS = ("float32", "float16", "bfloat16", "int8", "int6", "int4")
COMPRESSIONS = ("auto", "zstd", "blosc-zstd", "blosc-lz4", "deflate", "none")
COMPRESSION_HELP = (
    "Lossless compression of the stored numbers; auto takes the smallest for the codec. "
    "deflate is HDF5's; none makes float32 a view of the mapped file."
)


@dataclass(frozen=True, kw_only=True)
class HarvestSettings(Settings):
    """What to run over which text, and how to store it."""

    model: str = option("gpt2", "Hub name or local directory of the model.", path=True)
    revision: str | None = option(None, "Revision of the model on the Hub.")
    tokenizer: str | None = option(
        None, "Hub name or directory of the tokenizer, if not the model's.", path=True
    )
    layers: str = option("all", "Blocks to store: 'all', or a list such as 0-3,8.")
    hook: tuple[str, ...] = option(
        ("mlp.hook_post",),
        "TransformerLens hook: the part behind the block, a full name, or a glob; may be repeated.",
    )
    d_in: int | None = option(None, "Refuse sites that are not this wide.", least=1)
    text: tuple[str, ...] = option(
        (),
        "Plain text in UTF-8, one document a file, instead of a dataset: files, or directories, "
        "whose .txt files are read in natural order.",
        path=True,
    )
    dataset: str = option(
        "Salesforce/wikitext",
        "Dataset on the Hub, a local directory, or a file of rows (.jsonl, .parquet, .csv), whose "
        "'text' column is read, one document a row; text files are one document each.",
        path=True,
    )
    dataset_config: str | None = option(
        None, "Configuration of the dataset; wikitext-103-raw-v1 for wikitext."
    )
    split: str = option(
        "train", "Split of the dataset, or a slice of it: train[:1000], train[10%:20%]."
    )
    fallback: tuple[str, ...] = option(
        (),
        "Datasets to try in this order if the one before cannot be had, NAME or NAME:CONFIG; "
        "the outcome is printed and recorded.",
        path=True,
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
    out: str | None = option(None, "Directory of the store; stores/<model> by default.", path=True)


SPECIAL_TOKENS_HELP = (
    "Use the rows of special tokens, such as BOS, too; they are left out by default, for they "
    "are massive or all the same."
)
MAX_NORM_HELP = (
    "Leave out rows whose norm is more than so many times the site's median; 10 leaves out "
    "attention sinks that are no special tokens."
)


@dataclass(frozen=True, kw_only=True)
class SiteSettings(Settings):
    """Which site of which store."""

    store: str | None = option(
        None,
        "Store, a directory or a URL; may be left out if stores/ holds exactly one.",
        path=True,
    )
    layer: int | None = option(None, "Transformer block of the site.", least=0)
    hook: str | None = option(None, "Hook of the site, if the store has several at that layer.")
    special_tokens: bool = option(False, SPECIAL_TOKENS_HELP)
    max_norm: float | None = option(None, MAX_NORM_HELP, least=1.0)


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
    out: str | None = option(
        None, "Directory of the result; results/probe/<site> by default.", path=True
    )


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

    layers: str | None = option(
        None,
        "Train one dictionary a layer, one after the other: 'all', or a list such as 0-3,8.",
    )
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
        "twentieth of the tokens of the run if that is less.",
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
    directions: str | None = option(
        None,
        "Result of a probe of this site, whose directions --init rkcnn and rkcnn-decoder begin at, "
        "the best first, in place of mining their own: as many latents as it has directions, at "
        "most --rkcnn-fraction of them.",
        path=True,
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
    name: str | None = option(
        None, "Name of the run, with / for directories; made of site, kind and init by default."
    )
    out: str = option("checkpoints", "Directory under which checkpoints are written.", path=True)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(Settings):
    """What to measure dictionaries on."""

    store: str | None = option(
        None,
        "Store, a directory or a URL; may be left out if stores/ holds exactly one.",
        path=True,
    )
    rows: int | None = option(None, "Held-out rows to use; all by default.", least=1)
    special_tokens: bool = option(False, SPECIAL_TOKENS_HELP)
    max_norm: float | None = option(None, MAX_NORM_HELP, least=1.0)
    any_model: bool = option(
        False, "Measure dictionaries of another model, too: those are refused otherwise."
    )
    batch_size: int = option(4096, "Rows at a time.", least=1)
    device: str = option("cpu", "Torch device.")
    out: str = option("results/evaluate", "Directory of table, JSON and picture.", path=True)


@dataclass(frozen=True, kw_only=True)
class ImportSettings(Settings):
    """How to read the files of another program, and how to store them."""

    from_: str | None = option(
        None, "What the files are.", choices=("saelens", "memmap", "npy", "pt", "hdf5")
    )
    hook_name: tuple[str, ...] = option(
        (),
        "Name of the site; once for each array, in their order: layer_2 before layer_10, or that "
        "of --dataset. With saelens, the columns to read. The arrays' own names by default.",
    )
    dataset: tuple[str, ...] = option(
        (), "HDF5 dataset to read; by default 'tensor', or else all of the file, in natural order."
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
    out: str | None = option(None, "Directory of the store; stores/<name> by default.", path=True)


@dataclass(frozen=True, kw_only=True)
class ExportSettings(Settings):
    """Which sites to write, and for which program."""

    to: str | None = option(None, "What to write.", choices=("saelens", "npy", "hdf5"))
    layer: int | None = option(None, "Transformer block of the sites; all by default.", least=0)
    hook: tuple[str, ...] = option(
        (), "Hook of the sites, the part behind the block, a full name, or a glob; all by default."
    )
    dtype: str = option("float32", "Numbers to write.", choices=("float32", "float16"))
    out: str | None = option(
        None, "Directory to write; exports/<store>-<to> by default.", path=True
    )


@dataclass(frozen=True, kw_only=True)
class PullSettings(Settings):
    """Which part of a store to bring here, and where."""

    layers: str = option("all", "Blocks to pull: 'all', or a list such as 0-3,8.")
    hook: tuple[str, ...] = option(
        (), "Hook: the part behind the block, a full name, or a glob; may be repeated."
    )
    rows: str | None = option(
        None, "Rows to pull, FIRST:LAST+1, rounded outward to whole shards; all by default."
    )
    out: str | None = option(
        None, "Directory of the store; stores/<last of the URL> by default.", path=True
    )
