"""Options of importing, exporting and pulling."""

from rkstore.settings import Settings, combined, option
from rkstore.share.exchange import EXPORTERS, IMPORTERS
from rkstore.store.codecs import CODECS
from rkstore.store.formats import COMPRESSION_HELP, COMPRESSIONS, FORMATS
from rkstore.store.sites import HOOK_HELP, LAYERS_HELP


@combined(from_=IMPORTERS)
class ImportSettings(Settings):
    """How to read the files of another program, and how to store them."""

    from_: str | None = option(None, "What the files are.", choices=IMPORTERS)
    hook_name: tuple[str, ...] = option(
        (),
        "Name of the site; once for each array, in natural order, or that of --dataset. With "
        "saelens, the columns to read. The arrays' own names by default.",
    )
    context_size: int | None = option(
        None, "Rows in a block, if the files do not say; 1 by default.", least=1
    )
    d_in: int | None = option(None, "Refuse sites that are not this wide.", least=1)
    model_name: str | None = option(None, "Name of the model of the activations, to be recorded.")
    codec: str = option("int8", "Codec of the stored values.", choices=CODECS)
    format: str = option("zarr", "Files.", choices=FORMATS)
    compression: str = option("auto", COMPRESSION_HELP, choices=COMPRESSIONS)
    shard_rows: int = option(
        8192, "About how many rows per file; a killed import repeats at most this many.", least=1
    )
    out: str | None = option(None, "Directory of the store; stores/NAME by default.", path=True)


@combined(to=EXPORTERS)
class ExportSettings(Settings):
    """Which sites to write, and for which program."""

    to: str | None = option(None, "What to write.", choices=EXPORTERS)
    layer: str | None = option(None, LAYERS_HELP, also="layers")
    hook: tuple[str, ...] = option((), HOOK_HELP)
    dtype: str = option("float32", "Numbers to write.", choices=("float32", "float16"))
    out: str | None = option(None, "Directory to write; exports/STORE-TO by default.", path=True)


class PullSettings(Settings):
    """Which part of a store to fetch, and where to."""

    layers: str = option("all", LAYERS_HELP, also="layer")
    hook: tuple[str, ...] = option((), HOOK_HELP)
    rows: str | None = option(
        None, "Rows to pull, FIRST:LAST+1, rounded outward to whole shards; all by default."
    )
    out: str | None = option(
        None,
        "Directory of the store; stores/NAME by default, with the last part of the URL.",
        path=True,
    )
