"""What a harvest, a store or a probe looks like to a person, and to a program."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.codecs import codec_named
from rkstore.store import Store

if TYPE_CHECKING:
    from rkstore.harvest import Harvest
    from rkstore.rkcnn import RkCNNResult


def describe_harvest(harvest: "Harvest") -> str:
    """What is about to be written."""
    manifest = harvest.manifest
    widths = sorted({site.d_in for site in manifest.sites})
    wide = "/".join(str(width) for width in widths)
    return "\n".join(
        [
            f"model   {harvest.model.name}, {manifest.source['model']['dtype']}",
            f"sites   {len(manifest.sites)}: {_span(manifest.hook_names)}, {wide} wide",
            f"text    {_text(manifest.source['text'])}",
            f"rows    {manifest.rows:,} in blocks of {manifest.context_size}",
            f"store   {harvest.out}, {manifest.codec} in {manifest.format}, "
            f"{manifest.shards} shards, at most {size(harvest.largest_bytes)} "
            f"({size(harvest.free_bytes)} free)",
        ]
    )


def store_facts(store: Store) -> dict[str, Any]:
    """Everything known of a store without reading its shards."""
    manifest = store.manifest
    sites = []
    for site in manifest.sites:
        facts: dict[str, Any] = {"hook_name": site.hook_name, "d_in": site.d_in}
        if store.rows:
            statistics = store.statistics(site.hook_name)
            stored = store.stored_bytes(site.hook_name)
            values = store.rows * site.d_in
            facts |= {
                "bytes": stored,
                "bits_per_value": 8 * stored / values,
                "ratio_to_float32": 4 * values / stored,
                "codec_fvu": store.codec_fvu(site.hook_name),
                "mean_square_norm": statistics.mean_square_norm,
                "mean": float(statistics.mean.mean()),
                "std": float(statistics.variance.mean() ** 0.5),
                "min": float(statistics.min.min()),
                "max": float(statistics.max.max()),
                "positive": float((statistics.positive / statistics.count).mean()),
            }
        sites.append(facts)
    return {
        "path": str(store.root),
        "fingerprint": manifest.fingerprint,
        "rows": store.rows,
        "rows_when_complete": manifest.rows,
        "complete": store.complete,
        "context_size": manifest.context_size,
        "codec": manifest.codec,
        "format": manifest.format,
        "shards": len(store.records),
        "shard_rows": manifest.shard_rows,
        "chunk_rows": manifest.chunk_rows,
        "bytes": store.stored_bytes(),
        "sites": sites,
        "source": manifest.source,
    }


def describe_store(store: Store) -> str:
    """A store on one screen."""
    facts, manifest = store_facts(store), store.manifest
    model, tokens = manifest.source.get("model", {}), manifest.source.get("tokens", {})
    rows = f"{store.rows:,}"
    if not store.complete:
        rows += f" of {manifest.rows:,} (harvest again to go on)"
    lines = [
        f"{store.root}  {manifest.fingerprint}",
        f"  model   {model.get('name', 'unknown')}, {model.get('dtype', 'unknown')}, "
        f"weights {str(model.get('weights_sha256', 'unknown'))[:12]}",
        f"  text    {_text(manifest.source.get('text', {}))}",
        f"  rows    {rows} in blocks of {manifest.context_size}, "
        f"BOS {'first in each' if tokens.get('prepend_bos') else 'not added'}",
        f"  files   {manifest.codec} ({codec_named(manifest.codec).dtype}) in {manifest.format}, "
        f"{len(store.records)} shards, {size(facts['bytes'])}",
    ]
    if store.rows:
        lines += ["", _site_table(facts["sites"])]
    return "\n".join(lines)


def describe_probe(result: "RkCNNResult", path: Path) -> str:
    """The scores of a probe, kept against all."""
    told = result.summary()
    lines = [
        f"kept {told['kept']} of {told['subsets']} subsets of {result.top_subsets.shape[1]} "
        "dimensions",
        f"scores {told['lowest_kept']:.4f} to {told['highest']:.4f} kept; "
        f"all {told['lowest']:.4f} to {told['highest']:.4f}, "
        f"mean {told['mean']:.4f} ± {told['standard_deviation']:.4f}",
    ]
    if told["undefined"]:
        lines.append(f"{told['undefined']} subsets do not vary and have no score")
    return "\n".join([*lines, str(path)])


def size(count: float) -> str:
    """Bytes for a person, in powers of ten as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def _site_table(sites: list[dict[str, Any]]) -> str:
    width = max(len(site["hook_name"]) for site in sites)
    numbers = "bits/value  × float32  codec FVU     mean     std"
    head = f"  {'site':{width}}  {'d_in':>5}  {numbers}"
    lines = [
        f"  {site['hook_name']:{width}}  {site['d_in']:>5}  {site['bits_per_value']:>10.2f}  "
        f"{site['ratio_to_float32']:>9.2f}  {site['codec_fvu']:>9.1e}  "
        f"{site['mean']:>7.3f}  {site['std']:>6.3f}"
        for site in sites
    ]
    return "\n".join([head, *lines])


def _span(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _text(source: dict[str, Any]) -> str:
    if "files" in source:
        return ", ".join(str(file["name"]) for file in source["files"])
    parts = [source.get("dataset"), source.get("config"), source.get("split")]
    return " ".join(str(part) for part in parts if part) or "unknown"
