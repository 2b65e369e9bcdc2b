"""Options of a harvest."""

from rkstore.harvest.capture import CAPTURES, TransformerLens
from rkstore.harvest.engines import ENGINES
from rkstore.harvest.pairs import PAIR_HELP, PAIRS
from rkstore.settings import Settings, combined, option
from rkstore.store.codecs import CODECS
from rkstore.store.formats import COMPRESSION_HELP, COMPRESSIONS, FORMATS
from rkstore.store.sites import HOOK_HELP, LAYERS_HELP

# The layer inside the MLP: what RkCNN was made for.
USUAL_HOOK = "mlp.hook_post"

DTYPES = ("float32", "bfloat16", "float16")

# Of Accelerate: how layers are shared out.
DEVICE_MAPS = ("auto", "balanced", "sequential")

DEVICE_MAP_HELP = (
    "How Accelerate spreads the layers of a model over all accelerators, if it is too large for "
    "one; in place of --device."
)

CAPTURE_HELP = (
    "Whose hooks give the activations, under TransformerLens' names: transformers hooks into the "
    "plain modules, also of a model that TransformerLens does not know."
)


@combined(engine=ENGINES)
class HarvestSettings(Settings):
    """The model, the text, and how to store the activations."""

    model: str = option("gpt2", "Hub name or local directory of the model.", path=True)
    revision: str | None = option(None, "Revision of the model on the Hub.")
    tokenizer: str | None = option(
        None, "Hub name or directory of the tokenizer, if not the model's.", path=True
    )
    layers: str = option("all", LAYERS_HELP, also="layer")
    hook: tuple[str, ...] = option((), f"{HOOK_HELP} {USUAL_HOOK} without --hook and --pair.")
    pair: tuple[str, ...] = option((), PAIR_HELP, choices=PAIRS)
    heads: str = option(
        "flat",
        "Hooks with heads, such as attn.hook_z: flat stores the heads of a token as one row, apart "
        "each head as a site of its own, attn.hook_z.h5.",
        choices=("flat", "apart"),
    )
    d_in: int | None = option(None, "Refuse sites that are not this wide.", least=1)
    text: tuple[str, ...] = option(
        (),
        "Plain text in UTF-8, one document a file, instead of a dataset: files (also .gz), "
        "directories, whose .txt files are read in natural order, quoted patterns such as "
        "'data/**/*.txt', or - for standard input.",
        path=True,
    )
    dataset: str = option(
        "Salesforce/wikitext",
        "Dataset on the Hub, a local directory, or a file of rows (.jsonl, .json, .parquet, .csv, "
        "also .gz), whose 'text' column is read, one document a row; text files are one document "
        "each.",
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
        "Datasets to try in this order if the previous one is not available, NAME or NAME:CONFIG; "
        "the one used is printed and recorded.",
        path=True,
    )
    text_column: str = option("text", "Column of the dataset whose texts are the documents.")
    chat_column: str | None = option(
        None,
        "Column of the dataset with chats, lists of role and content: the tokenizer's own template "
        "makes a document of each.",
    )
    tokenized_by: str | None = option(
        None,
        "Hub name or directory of the tokenizer whose ids the dataset holds instead of texts; it "
        "must have the vocabulary of the model's. A .npy file is then also a dataset.",
        path=True,
    )
    ids_column: str | None = option(
        None, "Column of the dataset with those ids; by default, input_ids or tokens."
    )
    whole_contexts: bool = option(
        False,
        "The ids of the dataset are cut into contexts already: each row is one block, as it is. "
        "A set that SAELens tokenised always is.",
    )
    id_column: str | None = option(
        None, "Column of the dataset with the documents' own ids, which are kept in the store."
    )
    shuffle_buffer: int | None = option(
        None,
        "Stream the dataset, and shuffle by --seed within this many rows. By default, local rows "
        "are shuffled as a whole, and those on the Hub within a thousand.",
        least=1,
    )
    paired_with: str | None = option(
        None,
        "Store of another model, whose tokens are run through this one instead of a text: row i "
        "of both is then the same token.",
        path=True,
    )
    align: str | None = option(
        None,
        "With another tokenizer than that of --paired-with: text pairs rows whose tokens end at "
        "the same character, and stores only those.",
        choices=("text",),
    )
    partner_tokenizer: str | None = option(
        None,
        "Hub name or directory of the tokenizer of --paired-with, for --align; by default, that "
        "of its model.",
        path=True,
    )
    tokens: int = option(100_000, "Rows to store, rounded down to whole blocks.", least=1)
    context_size: int = option(128, "Tokens in one context.", least=2)
    prepend_bos: bool = option(True, "Start every block with the BOS token.")
    batch_size: int = option(32, "Blocks in one forward pass.", least=1)
    dtype: str = option("float32", "Precision of the model.", choices=DTYPES)
    codec: str = option("int8", "Codec of the stored values.", choices=CODECS)
    format: str = option("zarr", "Files.", choices=FORMATS)
    compression: str = option("auto", COMPRESSION_HELP, choices=COMPRESSIONS)
    shard_rows: int = option(
        8192, "About how many rows per file; a killed harvest repeats at most this many.", least=1
    )
    device: str = option("cpu", "Torch device of the model.")
    device_map: str | None = option(None, DEVICE_MAP_HELP, choices=DEVICE_MAPS)
    capture: str = option(TransformerLens.name, CAPTURE_HELP, choices=CAPTURES)
    seed: int = option(0, "Seed of the order of documents; 0 keeps their order.", least=0)
    out: str | None = option(
        None,
        "Directory of the store, or a URL (s3://, sftp://); stores/MODEL by default.",
        path=True,
    )
    threads: int | None = option(
        None,
        "Threads of torch, which the last bits of a value depend on; recorded. By default, as many "
        "as torch takes, and each worker as many as this process.",
        least=1,
    )
    shards: str | None = option(
        None,
        "Harvest only these shards, FIRST:LAST+1, as a piece that 'rkstore merge' puts together "
        "with the others.",
    )
    engine: str = option("local", "What computes the shards.", choices=ENGINES)

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks to store besides the pairs."""
        return self.hook or (() if self.pair else (USUAL_HOOK,))


class HooksSettings(Settings):
    """Which hooks of a model to list."""

    revision: str | None = option(None, "Revision of the model on the Hub.")
    tokenizer: str | None = option(
        None, "Hub name or directory of the tokenizer, if not the model's.", path=True
    )
    layers: str = option("all", LAYERS_HELP, also="layer")
    hook: tuple[str, ...] = option((), HOOK_HELP)
    dtype: str = option("float32", "Precision of the model.", choices=DTYPES)
    device: str = option("cpu", "Torch device of the model.")
    capture: str = option(TransformerLens.name, CAPTURE_HELP, choices=CAPTURES)
