"""What a codec costs the dictionaries that learn from it, and what a probe finds.

    python pipelines/codec_study.py --model demo --model smollm2=DIR --model gemma3=DIR \\
        --text FILE                  # writes docs/codecs.json, of which codec_page.py makes
                                     # the second half of docs/codecs.md

The same tokens are stored with every codec. Each dictionary is trained from each store with the
same seed and the same order of rows, so that only the stored numbers differ, and is compared with
the one from float32 in the same way as dictionaries of different seeds are. All are evaluated on
the float32 values of held-out rows, without the rows of special tokens and massive rows.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from arms import digest
from codec_values import MASSIVE, ModelsSettings, described, each_model, write, write_store
from results import start
from torch import Tensor
from tqdm import tqdm

from rkstore.cli.options import Command, options_of
from rkstore.dictionaries import Dictionary, load_dictionary
from rkstore.errors import BadInput
from rkstore.evaluation.evaluate import evaluate
from rkstore.evaluation.record import Row
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.harvest import run as harvest
from rkstore.harvest.settings import HarvestSettings
from rkstore.rkcnn.mine import probe
from rkstore.rkcnn.settings import ProbeSettings
from rkstore.settings import option
from rkstore.store.batches.assemble import read_rows
from rkstore.store.batches.kept import left_out
from rkstore.store.batches.plan import split_chunks
from rkstore.store.codecs import codec_named
from rkstore.store.formats import compression_for
from rkstore.store.manifest import COLUMNS
from rkstore.store.store import Store
from rkstore.training.run import prepare
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

REFERENCE = "float32"

# In place of a codec, where two seeds are compared.
SEEDS = "another seed"


class CodecStudySettings(ModelsSettings):
    """What is stored, and how much is made of it."""

    tokens: int = option(20_480, "Rows to store, rounded down to whole blocks.", least=1)
    site: tuple[str, ...] = option(
        (
            "demo:blocks.2.mlp.hook_post",
            "demo:blocks.6.mlp.hook_post",
            "demo:blocks.10.mlp.hook_post",
            "smollm2:blocks.15.hook_resid_mid",
            "smollm2:blocks.15.mlp.hook_post",
            "gemma3:blocks.9.hook_resid_mid",
        ),
        "Site of a model that dictionaries are trained of, MODEL:HOOK; may be repeated.",
    )
    codec: tuple[str, ...] = option(
        ("float16", "bfloat16", "int8", "int6", "int4"),
        "Codec that is compared with float32; may be repeated.",
    )
    probe: tuple[str, ...] = option(("demo",), "Model whose sites are probed; may be repeated.")
    d_sae: int = option(1024, "Latents of each dictionary.", least=1)
    k: int = option(32, "Active latents of a row.", least=1)
    steps: int = option(200, "Steps of each dictionary.", least=1)
    batch_size: int = option(512, "Rows in a batch.", least=1)
    seeds: int = option(3, "Seeds of the float32 dictionaries.", least=2)

    def model_post_init(self, _: Any) -> None:
        for codec in self.codec:
            codec_named(codec)  # now, and not after an hour

    def sites_of(self, model: str) -> tuple[str, ...]:
        """The sites of a model that dictionaries are trained of."""
        named = [given.partition(":") for given in self.site]
        return tuple(hook for name, _, hook in named if name == model)

    def harvest(self, name: str, **given: Any) -> HarvestSettings:
        if not self.sites_of(name):
            raise BadInput(f"no --site is one of {name}'s")
        return super().harvest(name, hook=self.sites_of(name), codec=REFERENCE, **given)


def recode(store: Store, codec: str, out: Path) -> Store:
    """Write the rows of a float32 store again with another codec."""
    compression = compression_for(store.manifest.format, codec_named(codec).dtype)
    manifest = dataclasses.replace(store.manifest, codec=codec, compression=compression)
    names = manifest.hook_names
    return write_store(
        out,
        manifest,
        lambda rows: (
            {name: store.read(name, rows.start, rows.stop) for name in names},
            {name: store.column(name, rows.start, rows.stop) for name in COLUMNS},
        ),
    )


def probes(stores: dict[str, Store], site: str, work: Path) -> list[Row]:
    """How much of a probe's result each codec leaves as it is with float32.

    ``overlap`` is the share of the top subsets that both chose, ``cosine`` the mean cosine of the
    directions of those subsets.
    """
    found = {}
    for name, store in stores.items():
        settings = ProbeSettings(store=str(store.root), hook=site, out=str(work / "probe"))
        found[name] = probe(settings)[0]
    reference = _directions(found[REFERENCE])
    rows = []
    for name, result in found.items():
        directions = _directions(result)
        common = reference.keys() & directions.keys()
        # The sign of a principal direction is arbitrary.
        cosines = [abs(float(reference[s] @ directions[s])) for s in common]
        row = {"site": site, "codec": name, "overlap": len(common) / len(reference)}
        rows.append(row | {"cosine": float(np.mean(cosines)), "least_cosine": min(cosines)})
    return rows


def _directions(result: Any) -> dict[tuple[int, ...], np.ndarray]:
    pairs = zip(result.top_subsets.tolist(), result.top_directions.numpy(), strict=True)
    return {tuple(subset): direction for subset, direction in pairs}


Trained = dict[tuple[str, int], Dictionary]


def dictionaries(
    stores: dict[str, Store], site: str, settings: CodecStudySettings, work: Path
) -> tuple[list[Row], Trained]:
    """Dictionaries of a site from each store, and of other seeds, with their evaluation."""
    runs = [(name, 0) for name in stores] + [(REFERENCE, seed) for seed in range(1, settings.seeds)]
    measure = EvaluateSettings(store=str(stores[REFERENCE].root), max_norm=MASSIVE, chance=False)
    rows, trained = [], {}
    for codec, seed in tqdm(runs, desc=site, unit="run", disable=None):
        chosen = TrainSettings(
            store=str(stores[codec].root),
            hook=site,
            d_sae=settings.d_sae,
            k=settings.k,
            steps=settings.steps,
            batch_size=settings.batch_size,
            max_norm=MASSIVE,
            seed=seed,
            name=f"{site}-{codec}-{seed}",
            out=str(work),
        )
        order = np.concatenate(list(prepare(chosen).plan.batches(epoch=0)))
        path = train(chosen)
        [result] = evaluate([path], measure)
        row = {"site": site, "codec": codec, "seed": seed, "fvu": result.fvu, "l0": result.l0}
        row |= {"dead": result.dead, "rows": result.rows, "left_out": result.left_out}
        stored = {"codec_fvu": stores[codec].codec_fvu(site), "order_of_rows": digest(order)}
        rows.append(row | stored)
        trained[codec, seed] = load_dictionary(path)[0]
    return rows, trained


def held_out(store: Store, site: str) -> Tensor:
    """The rows that :func:`dictionaries` are evaluated on, float32 ``(rows, d_in)``."""
    chunks = split_chunks(store)[1]
    rows = left_out(store, site, chunks, max_norm=MASSIVE)
    found = [batch.x[site] for batch in read_rows(store, [site], chunks, store.rows, rows)]
    return torch.from_numpy(np.concatenate(found))


def compared(site: str, trained: Trained, x: Tensor, seeds: int) -> Iterator[Row]:
    """Each codec's dictionary compared with that from float32, and all pairs of seeds."""
    codes = {key: one.encode(x).detach() for key, one in trained.items()}

    def pair(one: tuple[str, int], other: tuple[str, int]) -> Row:
        return likeness(
            trained[one].W_dec.detach(), codes[one], trained[other].W_dec.detach(), codes[other]
        )

    for codec, seed in trained:
        if codec != REFERENCE:
            found = pair((REFERENCE, seed), (codec, seed))
            yield {"site": site, "between": codec, "seeds": [seed, seed]} | found
    for one, other in itertools.permutations(range(seeds), 2):
        found = pair((REFERENCE, one), (REFERENCE, other))
        yield {"site": site, "between": SEEDS, "seeds": [one, other]} | found


def likeness(decoder: Tensor, code: Tensor, other_decoder: Tensor, other_code: Tensor) -> Row:
    """How similar the latents of two dictionaries are, on the same rows.

    Over the latents that fire: the mean cosine of the rows of ``W_dec (d_sae, d_in)`` and the mean
    correlation of the codes ``(rows, d_sae)``, between latents with the same index, and between
    each latent and the one whose row of ``W_dec`` is most similar. The correlation with a latent
    that never fires is 0.
    """
    fires = (code > 0).any(dim=0).nonzero().squeeze(1)
    cosine = decoder[fires] @ other_decoder.T
    best, match = cosine.max(dim=1)
    standard, other = _standard(code)[:, fires], _standard(other_code)
    return {
        "latents": len(fires),
        "cosine": cosine[torch.arange(len(fires)), fires].mean().item(),
        "matched_cosine": best.mean().item(),
        "correlation": (standard * other[:, fires]).sum(dim=0).mean().item(),
        "matched_correlation": (standard * other[:, match]).sum(dim=0).mean().item(),
    }


def _standard(code: Tensor) -> Tensor:
    """Centred columns of norm 1; zero where they are constant."""
    centred = code.double() - code.double().mean(dim=0)
    return torch.nn.functional.normalize(centred, dim=0)


def study(settings: CodecStudySettings) -> Row:
    """Everything that is measured, for JSON. The stores are temporary."""
    chosen = ("tokens", "d_sae", "k", "steps", "batch_size", "seeds")
    document: Row = {name: getattr(settings, name) for name in chosen}
    document |= {"codecs": list(settings.codec), "max_norm": MASSIVE, "models": {}}
    document |= {"refused": [], "probes": [], "dictionaries": [], "pairs": []}
    for name, ready in each_model(settings):
        document["models"][name] = described(ready)
        if isinstance(ready, str):
            continue
        with tempfile.TemporaryDirectory() as place:
            work = Path(place)
            stores = {REFERENCE: harvest.run(dataclasses.replace(ready, out=work / REFERENCE))}
            for codec in settings.codec:
                try:
                    stores[codec] = recode(stores[REFERENCE], codec, work / codec)
                except BadInput as error:
                    refused = {"model": name, "codec": codec, "refused": str(error)}
                    document["refused"].append(refused)
            for site in settings.sites_of(name):
                made, trained = dictionaries(stores, site, settings, work)
                x = held_out(stores[REFERENCE], site)
                found = {
                    "probes": probes(stores, site, work) if name in settings.probe else [],
                    "dictionaries": made,
                    "pairs": list(compared(site, trained, x, settings.seeds)),
                }
                for key, rows in found.items():
                    document[key] += [{"model": name} | row for row in rows]
    return document


@click.command("codec_study", cls=Command)
@options_of(CodecStudySettings)
def main(settings: CodecStudySettings) -> None:
    """Train dictionaries from every codec, and compare them."""
    write(study(settings), Path(settings.out) / "codecs.json")


if __name__ == "__main__":
    start(main)
