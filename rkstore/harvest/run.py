"""Token blocks × model → store: the only run of the language model.

A shard consists of whole batches, so the model sees the same batches whether or not a harvest is
interrupted, and the store has the same bytes.
"""

import importlib.metadata
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rkstore.errors import BadInput
from rkstore.harvest.from_text import text_tokens
from rkstore.harvest.load import load_model
from rkstore.harvest.model import Model, nearest
from rkstore.harvest.paired import open_partner, paired_tokens
from rkstore.harvest.pairs import pairs_of, renamed
from rkstore.harvest.settings import HarvestSettings
from rkstore.harvest.text.ignored import check_text
from rkstore.harvest.tokens import TokenBlocks, whole_blocks
from rkstore.settings import check_distinct
from rkstore.store.attached import DOCUMENT_IDS
from rkstore.store.codecs import codec_named
from rkstore.store.files import record_of
from rkstore.store.manifest import Manifest
from rkstore.store.sites import Pair, Site, block_of
from rkstore.store.store import Store
from rkstore.store.writing.encoder import Floats, ShardEncoder
from rkstore.store.writing.whole import Advance, manifest_of, write_store

# A difference in any of these may change the last bit of a value.
LIBRARIES = ("rkstore", "torch", "transformers", "transformer-lens", "tokenizers", "numpy")

# Activations of a batch by site, by the number of its first block.
Left = dict[int, Mapping[str, Floats]]


@dataclass(frozen=True)
class Harvest:
    """A harvest that is ready to run: everything is known, nothing is written."""

    model: Model
    blocks: TokenBlocks
    manifest: Manifest
    out: Path
    batch_size: int
    files: dict[str, bytes]
    """Files of the store besides its shards, by path: the tokenizer, and ids of documents."""

    @property
    def largest_bytes(self) -> int:
        """Bytes of the store before lossless compression, with its tokenizer."""
        per_row = sum(s.width for s in self.manifest.sites)
        values = self.manifest.rows * per_row * codec_named(self.manifest.codec).dtype.itemsize
        return values + sum(map(len, self.files.values()))

    def activations(self, ids: np.ndarray) -> Mapping[str, Floats]:
        """What the model makes of blocks of tokens at each site, where it is to be encoded."""
        sites = list(self.manifest.sites)
        if self.model.device == "cuda":
            return self.model.computed(ids, sites)
        return self.model.activations(ids, sites)

    @property
    def free_bytes(self) -> int:
        """Free space on the disk of the store."""
        existing = next(p for p in (self.out, *self.out.absolute().parents) if p.exists())
        return shutil.disk_usage(existing).free


def prepare(settings: HarvestSettings) -> Harvest:
    """Load the model, tokenise the text, and describe the store that will be written.

    Raises:
        BadInput, RkstoreError: anything that makes the harvest impossible.
    """
    check_text(settings)
    check_distinct("--hook", settings.hook)
    check_distinct("--pair", settings.pair)
    # What can be refused before anything is loaded.
    whole_blocks(settings.tokens, settings.context_size)
    partner = None if settings.paired_with is None else open_partner(settings.paired_with)
    model = load_model(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        revision=settings.revision,
        tokenizer=settings.tokenizer,
    )
    pairs = pairs_of(model, settings.pair, settings.layers)
    paired = [name for pair in pairs for name in (pair.reads, pair.writes)]
    sites = model.sites([*settings.hooks, *paired], settings.layers)
    if settings.heads == "apart":
        sites = model.apart(sites)
    _check_widths(model, sites, settings)
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
    out = Path(settings.out or Path("stores") / model.name.split("/")[-1])
    return Harvest(model, blocks, manifest, out, settings.batch_size, files)


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
            "run": {"batch_size": settings.batch_size, "device": settings.device},
            "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        },
    )


def run(harvest: Harvest, on_shard: Callable[[int], object] = lambda _: None) -> Store:
    """Write the missing shards and return the store.

    Args:
        on_shard: called with the number of each shard once it is recorded.

    Raises:
        BadInput: the directory holds something else, or an activation is not finite.
        RkstoreError: the disk is full.
    """
    left: Left = {}
    return write_store(
        harvest.out,
        harvest.manifest,
        lambda shard, advance: _fill(shard, harvest, left, advance),
        shown="harvest",
        unit="tok",
        files=harvest.files,
        on_shard=on_shard,
        # On a CPU the model and the threads that write would compete for the same cores.
        ahead=not harvest.manifest.source["run"]["device"].startswith("cpu"),
    )


def _fill(shard: ShardEncoder, harvest: Harvest, left: Left, advance: Advance) -> None:
    """Run the model over the blocks of one shard; each batch is encoded immediately.

    Args:
        left: what was computed of a batch for the previous shard, and the same for the next one.
    """
    manifest = harvest.manifest
    rows = manifest.rows_of_shard(shard.shard)
    for batch in harvest.blocks.batches(*rows, harvest.batch_size):
        x = left.pop(batch.first, None)
        if x is None:
            x = harvest.activations(batch.ids)
        if batch.cut:
            left[batch.first] = x
        if batch.rows is not None:
            x = {name: values[batch.rows] for name, values in x.items()}
        shard.add(x, batch.columns)
        # An accelerator computes the next batch meanwhile. On a CPU, the model and the threads
        # that encode would compete for the same cores.
        if harvest.model.device == "cpu":
            shard.settle()
        advance(len(batch.columns["token_id"]))


def _check_widths(model: Model, sites: list[Site], settings: HarvestSettings) -> None:
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
