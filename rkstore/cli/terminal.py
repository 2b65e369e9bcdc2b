"""A harvest, a store or a probe as text on a terminal."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.cli.streams import plain
from rkstore.errors import few, size
from rkstore.store.codecs import CODECS, SCHEMA_1
from rkstore.store.facts import store_facts
from rkstore.store.manifest import Manifest
from rkstore.store.piece import Piece
from rkstore.store.sites import Pair, block_of, head_of
from rkstore.store.store import Store

if TYPE_CHECKING:
    from rkstore.harvest.cost import DeviceMemory, HarvestCost
    from rkstore.harvest.outline import Outline
    from rkstore.harvest.run import Harvest
    from rkstore.rkcnn import RkCNNResult


def describe_harvest(harvest: "Harvest") -> str:
    """What is about to be written."""
    manifest = harvest.manifest
    widths = sorted({site.width for site in manifest.sites})
    names = dict.fromkeys(pair.name for pair in manifest.pairs)
    pairs = [f"pairs   {len(manifest.pairs)}: {', '.join(names)}"] if names else []
    wide = "/".join(str(width) for width in widths)
    return "\n".join(
        [
            f"model   {harvest.model.name}, {manifest.source['model']['dtype']}",
            f"sites   {len(manifest.sites)}: {_span(manifest.hook_names)}, {wide} wide",
            *pairs,
            f"text    {_text(manifest.source['text'])}",
            f"rows    {_rows(manifest)}{_short(manifest)}",
            *_partner(manifest.source),
            f"store   {harvest.out}, {manifest.codec} in {manifest.format}, "
            f"{_shards(harvest)}, at most {size(harvest.largest_bytes)}{_free(harvest.free_bytes)}",
        ]
    )


def _shards(harvest: "Harvest") -> str:
    whole = harvest.whole
    count = harvest.manifest.shards
    return f"shards {whole.span} of {count}" if isinstance(whole, Piece) else f"{count} shards"


def _free(room: float) -> str:
    """The room on a disk, in parentheses; nothing where there is no end to it."""
    return f" ({size(room)} free)" if math.isfinite(room) else ""


def describe_piece(harvest: "Harvest") -> str:
    """A finished piece of a harvest."""
    return (
        f"{harvest.out}: {_shards(harvest)}, {harvest.rows:,} rows; "
        "'rkstore merge' puts all pieces together"
    )


def describe_cost(plan: "HarvestCost") -> str:
    """What the harvest will cost, in one line."""
    cost = plan.chosen
    by, each = (f" by {plan.engine}", " each") if plan.engine else ("", "")
    return (
        f"cost    about {size(plan.bytes_of(cost))}{_free(plan.free_bytes)}, "
        f"{duration(plan.seconds_of(cost))}{by}, {size(plan.memory_bytes)} of memory{each}"
    )


def describe_plan(plan: "HarvestCost") -> str:
    """What the harvest would cost with each codec, measured on a sample."""
    lines = [
        *([_engine(plan)] if plan.engine else []),
        f"memory  about {size(plan.memory_bytes)}{' for each worker' if plan.engine else ''}",
        *([] if plan.device is None else [_device(plan.device)]),
        *([f"disk    {size(plan.free_bytes)} free"] if math.isfinite(plan.free_bytes) else []),
        "",
        f"{'codec':10}{'bytes':>10}{'time':>10}{'one reading':>14}  pays after",
    ]
    for cost in plan.costs:
        readings = plan.readings(cost)
        pays = "never here" if readings is None else f"{readings} readings"
        lines.append(
            f"{cost.codec:10}{size(plan.bytes_of(cost)):>10}{duration(plan.seconds_of(cost)):>10}"
            f"{duration(plan.reading_seconds_of(cost)):>14}  {pays}"
        )
    model = duration(plan.model_seconds) + (" in one process" if plan.engine else "")
    return "\n".join([*lines, "", f"Running the model again instead of reading takes {model}."])


def _engine(plan: "HarvestCost") -> str:
    """Who makes the shards, and what the times below take for granted."""
    return (
        f"engine  {plan.engine}, {plan.shards_of_one} of {plan.shards} shards each at most; times "
        "are for workers as fast as this process alone"
    )


def _device(device: "DeviceMemory") -> str:
    return f"device  about {size(device.needed_bytes)} of {size(device.total_bytes)}, {device.name}"


def describe_outline(found: "Outline") -> str:
    """What a harvest would store, by the configuration of its model."""
    wide = "/".join(str(width) for width in sorted({site.width for site in found.sites}))
    names = [site.hook_name for site in found.sites]
    lines = [
        f"model   {found.name}, {found.dtype}, {found.parameters:,} parameters, "
        f"{size(found.parameter_bytes)}",
        f"sites   {len(names)}: {_span(names)}, {wide} wide",
        f"rows    {found.rows:,} in blocks of {found.context_size}",
        f"work    {found.operations:.3g} operations to run the model once, 2 a weight and token",
        "",
        f"{'codec':10}{'a row':>10}{'at most':>12}  before compression",
    ]
    for codec in CODECS:
        of_row, of_all = found.bytes_per_row(codec), found.bytes(codec)
        lines.append(f"{codec:10}{size(of_row):>10}{size(of_all):>12}")
    return "\n".join(lines)


def describe_store(store: Store) -> str:
    """A store on one screen."""
    facts, manifest = store_facts(store), store.manifest
    imported = "imported_from" in manifest.source
    rows = f"{store.rows:,}"
    if not store.complete:
        again = "import" if imported else "plant" if "planted" in manifest.source else "harvest"
        rows += f" of {manifest.rows:,} ({again} again to continue)"
    if manifest.more_columns:
        pass  # single rows, which the line of the partner explains
    elif not imported or "tokens" in manifest.source:
        bos = manifest.source.get("tokens", {}).get("prepend_bos")
        rows += (
            f" in blocks of {manifest.context_size}, BOS {'first in each' if bos else 'not added'}"
        )
    elif manifest.context_size > 1:
        rows += f" in blocks of {manifest.context_size}"
    lines = [
        f"{store.where}  {manifest.fingerprint}",
        *_origin(manifest.source),
        f"  rows    {rows}",
        *(f"  {line}" for line in _partner(manifest.source)),
        f"  files   {_codec(manifest)} ({manifest.stored_codec.dtype}, {manifest.compression}) "
        f"in {manifest.format}, {len(store.shards)} shards, {size(facts['bytes'])}",
    ]
    if store.part is not None:
        lines.append(f"  {part_line(store)}")
    if store.aliases:
        lines.append(f"  also    {_also(store.aliases)}")
    if store.pairs:
        lines += ["", *map(_pair_line, store.pairs)]
    if facts["sites"] and store.shards:
        lines += ["", *_site_table(facts["sites"])]
    if short := _short(manifest):
        lines += ["", f"  {manifest.rows:,} rows{short}"]
    return "\n".join(map(plain, lines))


def _rows(manifest: Manifest) -> str:
    rows = f"{manifest.rows:,}"
    return rows if manifest.more_columns else f"{rows} in blocks of {manifest.context_size}"


def _partner(source: dict[str, Any]) -> list[str]:
    """The store whose tokens these are, if there is one, and how many of its rows."""
    partner = source.get("paired_with")
    if not isinstance(partner, dict):
        return []
    line = f"partner {partner.get('name')} (store {partner.get('fingerprint')})"
    share, rows = partner.get("share"), partner.get("rows")
    if isinstance(share, float) and isinstance(rows, int):
        line += f", {share:.1%} of its {rows:,} rows end at the same character"
    return [line]


def part_line(store: Store) -> str:
    """Which part of a store this is."""
    return (
        f"part    {len(store.hook_names)} of {len(store.manifest.sites)} sites, "
        f"rows {store.first_row:,}:{store.stop_row:,} of {store.rows:,}"
    )


def describe_verified(store: Store) -> str:
    """A store whose files are as recorded."""
    lines = [
        f"{store.where}: {len(store.files())} files in {len(store.shards)} shards are as recorded"
    ]
    if store.part is not None:
        lines.append(part_line(store))
    elif not store.complete:
        shards = store.manifest.shards
        lines.append(f"{len(store.records)} of {shards} shards are there: harvest to continue")
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


def duration(seconds: float) -> str:
    """A time for display."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    hours = seconds / 3600
    return f"{hours:.3g} h" if hours < 100 else f"{hours / 24:,.3g} days"


def _site_table(sites: list[dict[str, Any]]) -> list[str]:
    width = max(len(site["hook_name"]) for site in sites)
    numbers = "bits/value  × float32  codec FVU     mean     std      γ  massive"
    head = f"  {'site':{width}}  {'d_in':>5}  {numbers}"
    lines = [
        f"  {site['hook_name']:{width}}  {site['d_in']:>5}  {site['bits_per_value']:>10.2f}  "
        f"{site['ratio_to_float32']:>9.2f}  {site['codec_fvu']:>9.1e}  "
        f"{site['mean']:>7.3f}  {site['std']:>6.3f}  {_or_dash(site['gamma'], '.2f'):>5}  "
        f"{site['massive_rows']:>7,}"
        for site in sites
    ]
    if any(site["massive_rows"] for site in sites):
        worst = max(site["massive_error"] for site in sites)
        lines += [
            "",
            "  Massive rows are ten times as far from the mean as others. All numbers but bits are",
            f"  of the others; of the massive ones the codec loses {worst:.0e} of ‖x‖² at most.",
        ]
    return [head, *lines]


def _pair_line(pair: Pair) -> str:
    return f"  pair    {pair.name} of layer {pair.layer}: {pair.reads} → {pair.writes}"


def _also(aliases: Mapping[str, str]) -> str:
    """The other names of the sites, each hook once, without its block and head."""
    parts = dict.fromkeys(head_of(block_of(alias)[1])[0] for alias in aliases)
    return f"{few(list(parts), 3)} (other names of the same numbers)"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _codec(manifest: Manifest) -> str:
    """The codec's name, marked in stores of schema 1, where it was another codec."""
    first = manifest.schema == 1 and manifest.codec in SCHEMA_1
    return f"{manifest.codec} of schema 1" if first else manifest.codec


def _span(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _origin(source: dict[str, Any]) -> list[str]:
    """Where the values came from: a model over a text, the files of another program, or both; or
    planted features.
    """
    if "planted" in source:
        of = source["planted"]["settings"]
        told = f"{of.get('kind')}, {of.get('features')} features, seed {of.get('seed')}"
        return [f"  planted {told}"]
    model, imported = source.get("model", {}), "imported_from" in source
    name = f"  model   {model.get('name', 'unknown')}"
    if not imported or "weights_sha256" in model:
        weights = str(model.get("weights_sha256", "unknown"))[:12]
        name += f", {model.get('dtype', 'unknown')}, weights {weights}"
    lines = [name]
    if not imported or "text" in source:
        lines.append(f"  text    {_text(source.get('text', {}))}")
    if imported:
        names = [str(file["name"]) for file in source.get("files", [])]
        lines.append(f"  from    {source['imported_from']}, {source.get('dtype')}: {few(names, 3)}")
    if "stored_before" in source:
        before = source["stored_before"]
        lines.append(
            f"  before  {before.get('codec')} in store {before.get('fingerprint')}, whose error "
            "is counted"
        )
    return lines


def _short(manifest: Manifest) -> str:
    asked = manifest.source.get("tokens", {}).get("asked")
    return f", not the {asked:,} requested: the text has no more" if type(asked) is int else ""


def _text(source: dict[str, Any]) -> str:
    if "files" in source and "dataset" not in source:
        return few([str(file["name"]) for file in source["files"]], 3)
    parts = [source.get("dataset"), source.get("config"), source.get("split")]
    return " ".join(str(part) for part in parts if part) or "unknown"
