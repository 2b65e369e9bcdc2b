"""What only some dictionaries have, each as a Markdown table of its own."""

from collections.abc import Iterator, Sequence

from rkstore.evaluation.measure import Evaluation
from rkstore.evaluation.metrics.decoders import DecoderNumbers
from rkstore.evaluation.metrics.partition import PartitionNumbers
from rkstore.evaluation.metrics.scaling import ScalingNumbers
from rkstore.evaluation.metrics.sources import SourceNumbers
from rkstore.evaluation.metrics.sparsity import SparsityNumbers
from rkstore.evaluation.metrics.truth import TruthNumbers
from rkstore.evaluation.report import tables
from rkstore.evaluation.report.tables import number_or_large as number
from rkstore.store.sites import block_of, briefly

Named = Sequence[tuple[str, Evaluation]]


def details(named: Named) -> Iterator[str]:
    """The tables, in order.

    Args:
        named: the results, and the random dictionaries beside them.
    """
    yield from _activity(named)
    yield from _truth(named)
    for name, result in named:
        if result.sites:
            yield _sites(name, result)
        if result.of_prefix:
            yield _prefixes(name, result)
        yield from _of_banks(name, result)


def _activity(named: Named) -> Iterator[str]:
    """L1, activations, and how alike the decoder rows are."""
    head = ["dictionary", "norm ratio", "bias", "L1", "mean active", "max cosine", "redundant"]
    rows, mined = [], []
    for name, result in named:
        sparsity, decoders = result.metrics.get("sparsity"), result.metrics.get("decoders")
        if not isinstance(sparsity, SparsityNumbers) or not isinstance(decoders, DecoderNumbers):
            continue
        numbers = (result.norm_ratio, result.bias, sparsity.l1, sparsity.mean_active)
        cells = [number(value, ".4g") for value in (*numbers, decoders.max_cosine)]
        rows.append([name, *cells, str(decoders.redundant)])
        if sparsity.mined:
            own = (sparsity.mined.mean_active, sparsity.mined.mean_active_others)
            mined.append([name, str(sparsity.mined.latents), *(number(x, ".4g") for x in own)])
    if rows:
        yield tables.table(head, rows)
    if mined:
        yield tables.table(["mined latents of", "latents", "mean active", "of the others"], mined)


def _truth(named: Named) -> Iterator[str]:
    """Scores against planted features, in the columns of SynthSAEBench."""
    head = ["planted", "MCC", "by chance", "uniqueness", "precision", "recall", "F1", "by chance"]
    rows = []
    for name, result in named:
        found = result.metrics.get("planted")
        if isinstance(found, TruthNumbers):
            firing, code = found.code.firing, found.code
            directions = (found.directions.mcc, found.chance.mcc, found.directions.uniqueness)
            fires = (firing.precision, firing.recall, firing.f1, code.chance.f1, code.shrinkage)
            sparse = [number(value, ".1f") for value in (code.l0, code.true_l0)]
            rows.append([name, *(number(x, ".3f") for x in (*directions, *fires)), *sparse])
    if rows:
        yield tables.table([*head, "shrinkage", "L0", "true L0"], rows)


def _sites(name: str, result: Evaluation) -> str:
    head = [f"site of {name}", "FVU", "floor", "explained", "MSE", "cosine", "norm ratio", "bias"]
    rows = [
        [
            hook_name,
            number(site.fvu, ".4f"),
            number(site.codec_fvu, ".1e"),
            number(1 - site.fvu, ".4f"),
            number(site.mse, ".4g"),
            *(number(value, ".4f") for value in (site.cosine, site.norm_ratio, site.bias)),
        ]
        for hook_name, site in result.sites.items()
    ]
    return tables.table(head, rows)


def _prefixes(name: str, result: Evaluation) -> str:
    rows = [
        [
            f"{prefix.share:g}",
            number(prefix.l0, ".1f"),
            *(number(x, ".4f") for x in (prefix.fvu, 1 - prefix.fvu)),
        ]
        for prefix in result.of_prefix
    ]
    return tables.table([f"prefix of {name}", "L0", "FVU", "explained"], rows)


def _of_banks(name: str, result: Evaluation) -> Iterator[str]:
    """What several sites or several banks bring."""
    scaling, sources, partition = (
        result.metrics.get(key) for key in ("scaling", "sources", "partition")
    )
    if isinstance(scaling, ScalingNumbers):
        yield _scaling(name, scaling)
    if isinstance(sources, SourceNumbers):
        reads = list(dict.fromkeys(key for each in sources.explained.values() for key in each))
        by = [f"by {source}" for source in _sources(reads)]
        rows = [
            [
                hook_name,
                *(number(shares.get(key), ".4f") for key in reads),
                number(-sources.offset[hook_name], ".4f"),
            ]
            for hook_name, shares in sources.explained.items()
        ]
        yield tables.table([f"explained of {name}", *by, "offset"], rows)
    if isinstance(partition, PartitionNumbers):
        most = max(partition.encoder_max, partition.decoder_max)
        how = f"is violated, by {most:.3g}" if most else "holds"
        yield f"The partition of {name} {how}."


def _scaling(name: str, found: ScalingNumbers) -> str:
    """The latents that one of two sites alone seems to have."""
    head = [f"only at this site of {name}", "latents", "error ν", "reconstruction ν", "specific"]
    rows = [
        [
            hook_name,
            str(own.latents),
            *(number(value, ".3f") for value in (own.error, own.reconstruction)),
            str(own.specific),
        ]
        for hook_name, own in found.sites.items()
    ]
    return tables.table(head, rows)


def _sources(reads: Sequence[str]) -> list[str]:
    """Short names of what each bank reads: its layer, if that says which."""
    layers = [block_of(read)[0] for read in reads]
    if None not in layers and len(set(layers)) == len(reads):
        return [f"layer {layer}" for layer in layers]
    return [briefly(read.split(",")) for read in reads]
