"""Settings that would be ignored with others: each is refused."""

from collections.abc import Callable, Sequence

from rkstore.errors import BadInput
from rkstore.harvest.settings import HarvestSettings
from rkstore.harvest.text.python import PYTHON_CORPUS
from rkstore.settings import flag_of, options_in, unread

# Settings that come with the tokens of another store.
OF_TOKENS = ("tokens", "context_size", "prepend_bos", "seed")

# Settings of rows. Text files and the corpus of Python have none.
OF_ROWS = (
    "text_column",
    "chat_column",
    "tokenized_by",
    "ids_column",
    "whole_contexts",
    "id_column",
)
OF_STREAMS = ("shuffle_buffer",)

# Settings of a dataset, which text files do not need; the corpus of Python needs its name only.
OF_DATASETS: tuple[str, ...] = (
    *("dataset", "dataset_config", "split", "fallback"),
    *OF_ROWS,
    *OF_STREAMS,
)

# What the meta device has no use for: there is no text, nothing is computed or written, and the
# hooks are those of plain modules. Sizes are told for every codec.
OF_NUMBERS = (
    *("text", "paired_with", "align", "partner_tokenizer", "tokenizer", "prepend_bos", "seed"),
    *("heads", "batch_size", "codec", "format", "compression", "shard_rows", "device_map", "out"),
    *("capture", "threads", "shards", "engine"),
)

# With this, where it applies, those are ignored.
INSTEAD: tuple[tuple[str, Callable[[HarvestSettings], bool], tuple[str, ...]], ...] = (
    ("--paired-with", lambda s: s.paired_with is not None, ("text", *OF_DATASETS, *OF_TOKENS)),
    ("--device meta", lambda s: s.device == "meta", (*OF_NUMBERS, *OF_DATASETS)),
    ("--engine ray", lambda s: s.engine == "ray", ("device_map",)),
    ("--text", lambda s: bool(s.text), OF_DATASETS),
    (f"--dataset {PYTHON_CORPUS}", lambda s: s.dataset == PYTHON_CORPUS, OF_DATASETS[1:]),
    ("--tokenized-by", lambda s: s.tokenized_by is not None, ("text_column", "chat_column")),
    ("--chat-column", lambda s: s.chat_column is not None, ("text_column",)),
)

# Without the second, the first is ignored.
NEEDS = {
    "align": "paired_with",
    "partner_tokenizer": "align",
    "ids_column": "tokenized_by",
    "whole_contexts": "tokenized_by",
    "shuffle_buffer": "seed",
}


def check_ignored(settings: HarvestSettings) -> None:
    """Raise BadInput if a setting would be ignored."""
    for instead, applies, ignored in INSTEAD:
        if applies(settings):
            refuse(settings, ignored, instead)
    for name, family in unread(settings).items():
        refuse(settings, [name], f"{flag_of(family)} {getattr(settings, family)}")
    for name, needed in NEEDS.items():
        if _given(settings, name) and not _given(settings, needed):
            raise BadInput(f"{flag_of(name)} would be ignored without {flag_of(needed)}: give both")


def refuse(settings: HarvestSettings, ignored: Sequence[str], instead: str) -> None:
    """Raise BadInput if one of these settings is given, which ``instead`` does not need."""
    given = [flag_of(name) for name in ignored if _given(settings, name)]
    if given:
        raise BadInput(f"{' and '.join(given)} would be ignored with {instead}: leave out one")


def _given(settings: HarvestSettings, name: str) -> bool:
    return bool(getattr(settings, name) != options_in(type(settings))[name].default)
