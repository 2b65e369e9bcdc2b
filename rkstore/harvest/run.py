"""Token blocks × model → store: the only run of the language model.

A shard consists of whole batches, so the model sees the same batches whether or not a harvest is
interrupted, and the store has the same bytes.
"""

import importlib.metadata
import math
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rkstore.errors import BadInput
from rkstore.harvest.capture import CAPTURES
from rkstore.harvest.engines import ENGINES
from rkstore.harvest.engines.base import Engine
from rkstore.harvest.engines.local import Local
from rkstore.harvest.from_text import text_tokens
from rkstore.harvest.ignored import check_ignored
from rkstore.harvest.load import check_revision, load_model
from rkstore.harvest.model import Model, nearest
from rkstore.harvest.paired import open_partner, paired_tokens
from rkstore.harvest.pairs import pairs_of, renamed
from rkstore.harvest.settings import HarvestSettings
from rkstore.harvest.tokens import BlockBatch, TokenBlocks, whole_blocks
from rkstore.settings import check_device, check_distinct
from rkstore.store.attached import DOCUMENT_IDS
from rkstore.store.codecs import codec_named
from rkstore.store.files import record_of
from rkstore.store.manifest import Manifest
from rkstore.store.open import open_store
from rkstore.store.piece import Piece, Whole
from rkstore.store.sites import Pair, Site, block_of
from rkstore.store.store import Store
from rkstore.store.writing.whole import manifest_of, rows_bar, writer_at
from rkstore.workers import check_no_number

# A difference in any of these may change the last bit of a value. TransformerLens is recorded
# whoever captures, as it always was; an engine is not, because all engines give the same bytes.
LIBRARIES = ("rkstore", "torch", "transformers", "transformer-lens", "tokenizers", "numpy")


@dataclass(frozen=True)
class Harvest:
    """A harvest that is ready to run: everything is known, nothing is written."""

    settings: HarvestSettings
    model: Model
    blocks: TokenBlocks
    whole: Whole
    """The store that is written, or the piece of it."""
    out: Path | str
    """A directory, or a URL."""
    files: dict[str, bytes]
    """Files of the store besides its shards, by path: the tokenizer, and ids of documents."""

    @property
    def manifest(self) -> Manifest:
        """Of the store, also if a piece of it is written."""
        return self.whole.manifest

    @property
    def engine(self) -> Engine:
        """What computes the shards."""
        return self.settings.options(ENGINES[self.settings.engine])

    @property
    def batch_size(self) -> int:
        """Blocks in one forward pass."""
        return self.settings.batch_size

    @property
    def rows(self) -> int:
        """Rows that are written."""
        first, last = self.whole.shards.start, self.whole.shards.stop
        return self.manifest.rows_recorded(last) - self.manifest.rows_recorded(first)

    def batches(self, shard: int) -> Iterator[BlockBatch]:
        """The batches of blocks that have the rows of a shard."""
        return self.blocks.batches(*self.manifest.rows_of_shard(shard), self.batch_size)

    @property
    def largest_bytes(self) -> int:
        """Bytes of what is written before lossless compression, with the tokenizer."""
        per_row = sum(s.width for s in self.manifest.sites)
        values = self.rows * per_row * codec_named(self.manifest.codec).dtype.itemsize
        return values + sum(map(len, self.files.values()))

    @property
    def free_bytes(self) -> float:
        """Free space on the disk of the store; at a URL there is no end to it."""
        if isinstance(self.out, str):
            return math.inf
        existing = next(p for p in (self.out, *self.out.absolute().parents) if p.exists())
        return shutil.disk_usage(existing).free


def prepare(settings: HarvestSettings) -> Harvest:
    """Load the model, tokenise the text, and describe the store that will be written.

    Raises:
        BadInput, RkstoreError: anything that makes the harvest impossible.
    """
    check_device(settings.device)
    check_ignored(settings)
    check_distinct("--hook", settings.hook)
    check_distinct("--pair", settings.pair)
    # What can be refused before anything is loaded.
    whole_blocks(settings.tokens, settings.context_size)
    partner = None if settings.paired_with is None else open_partner(settings.paired_with)
    settings.options(ENGINES[settings.engine]).check()
    if settings.engine != Local.name:
        check_no_number(settings.device)
    if settings.shards is not None and settings.out is None:
        raise BadInput("--shards needs --out: each piece of a harvest has a directory of its own")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    model = load(settings)
    pairs = pairs_of(model, settings.pair, settings.layers)
    paired = [name for pair in pairs for name in (pair.reads, pair.writes)]
    sites = model.sites([*settings.hooks, *paired], settings.layers)
    if settings.heads == "apart":
        sites = model.apart(sites)
    check_widths(model, sites, settings)
    sites, aliases = model.once(sites)
    pairs = tuple(renamed(pair, aliases) for pair in pairs)
    if partner is None:
        blocks, source, files = text_tokens(model, settings)
    else:
        blocks, source = paired_tokens(partner, model, settings)
        kept = [DOCUMENT_IDS] if DOCUMENT_IDS in partner.manifest.files else []
        files = {path: partner.file(path) for path in kept}
    model.check_tokens(blocks)
    files |= model.files()
    manifest = _manifest(model, sites, pairs, aliases, blocks, source, files, settings)
    whole = Whole(manifest) if settings.shards is None else _piece(manifest, settings.shards)
    out: str | Path = settings.out or Path("stores") / model.name.split("/")[-1]
    out = out if "://" in str(out) else Path(out)
    return Harvest(settings, model, blocks, whole, out, files)


def load(settings: HarvestSettings) -> Model:
    """The model of a harvest.

    Raises:
        BadInput, RkstoreError: see :func:`load_model`; or a directory is given a revision.
    """
    check_revision(settings.model, settings.revision)
    return load_model(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        revision=settings.revision,
        tokenizer=settings.tokenizer,
        capture=settings.capture,
        device_map=settings.device_map,
    )


def libraries(capture: str) -> dict[str, str]:
    """The version of each library on which a value of that capture depends."""
    names = (*LIBRARIES, *CAPTURES[capture].libraries)
    return {name: importlib.metadata.version(name) for name in names}


def _piece(manifest: Manifest, asked: str) -> Piece:
    """The piece that ``--shards`` names."""
    found = re.fullmatch(r"([0-9]{0,18}):([0-9]{0,18})", asked, re.ASCII)
    first, last = (int(found[1] or 0), int(found[2] or manifest.shards)) if found else (0, 0)
    if not 0 <= first < last <= manifest.shards:
        raise BadInput(
            f"--shards is '{asked}', not FIRST:LAST+1 within the {manifest.shards} shards of this "
            f"harvest, such as 0:{max(1, manifest.shards // 2)}"
        )
    return Piece(manifest, range(first, last), {"threads": torch.get_num_threads()})


def _manifest(
    model: Model,
    sites: list[Site],
    pairs: tuple[Pair, ...],
    aliases: dict[str, str],
    blocks: TokenBlocks,
    source: dict[str, Any],
    files: dict[str, bytes],
    settings: HarvestSettings,
) -> Manifest:
    return manifest_of(
        settings,
        rows=blocks.rows,
        context_size=blocks.rows_in_block,
        sites=tuple(sites),
        pairs=pairs,
        more_columns=blocks.more_columns,
        aliases=aliases,
        files={path: record_of(content) for path, content in files.items()},
        source={
            **model.describe(),
            **source,
            "run": {
                "batch_size": settings.batch_size,
                "device": _device(settings),
                # Written only if given: earlier stores lacked the key.
                **({} if settings.threads is None else {"threads": settings.threads}),
            },
            "libraries": libraries(settings.capture),
        },
    )


def _device(settings: HarvestSettings) -> str:
    return settings.device if settings.device_map is None else f"map {settings.device_map}"


def run(harvest: Harvest, on_shard: Callable[[int], object] = lambda _: None) -> Store:
    """Write the missing shards and return the store.

    Args:
        on_shard: called with the number of each shard once it is recorded.

    Raises:
        BadInput: the directory holds something else, or an activation is not finite; or it is a
            piece of a harvest (see :func:`write`), which is no store.
        RkstoreError: the disk is full.
    """
    write(harvest, on_shard)
    return open_store(harvest.out)


def write(harvest: Harvest, on_shard: Callable[[int], object] = lambda _: None) -> None:
    """Write the missing shards of a store, or of a piece of one; see :func:`run`."""
    with (
        writer_at(harvest.out, harvest.whole, harvest.files) as writer,
        rows_bar(writer, "harvest", "tok") as advance,
        # Closed in any case, and first: workers must not outlive what they work for.
        closing(harvest.engine.shards(harvest, writer, advance)) as shards,
    ):
        for shard in shards:
            on_shard(shard)


def check_widths(model: Model, sites: list[Site], settings: HarvestSettings) -> None:
    """Raise BadInput if a site is not as wide as ``--d-in`` says."""
    width = settings.d_in
    other = next((site for site in sites if width is not None and site.width != width), None)
    if other is None:
        return
    fitting = [
        hook
        for hook in nearest(block_of(other.hook_name)[1], model.hooks(settings.layers))
        if all(site.width == width for site in model.sites(hook, settings.layers))
    ]
    there = (
        f"--hook {' or '.join(fitting[:3])} would be"
        if fitting
        else f"no hook is, with --layers {settings.layers}"
    )
    raise BadInput(f"{other.hook_name} is {other.width} wide, not {width} as requested; {there}")
