"""Dictionaries × held-out rows → metrics, in the units of the activations."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from rkstore.dictionaries.disk import UNNAMED, load_dictionary
from rkstore.errors import BadInput, few
from rkstore.evaluation.checkpoints import doubts, mined_of, names, prefixes_of
from rkstore.evaluation.measure import DENSITY_EDGES, Evaluation, Measure
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.settings import check_device
from rkstore.store.batches.assemble import Batch, read_rows
from rkstore.store.batches.kept import LeftOut, at_any, left_out
from rkstore.store.batches.plan import split_chunks
from rkstore.store.files import write_together
from rkstore.store.jsontext import to_json
from rkstore.store.open import open_readable
from rkstore.store.readable import Readable
from rkstore.store.sites import Site, head_of


def evaluate(paths: Iterable[str | Path], settings: EvaluateSettings) -> list[Evaluation]:
    """Evaluate dictionaries on the held-out rows of a store, reading each set of sites once.

    Raises:
        BadInput: a path holds no dictionary or is given twice, one of its sites is not in the
            store or has another width, it is of another model, or there are no held-out rows.
    """
    return [result for result, _ in measured(paths, settings)]


def measured(
    paths: Iterable[str | Path], settings: EvaluateSettings
) -> list[tuple[Evaluation, Measure]]:
    """The results of :func:`evaluate`, each with its sums."""
    check_device(settings.device)
    store = open_readable(settings.store, settings.paired_with)
    chunks = _first_chunks(store, split_chunks(store)[1], settings.rows)
    if not chunks:
        raise BadInput(
            f"the store at {store.where} has no held-out rows in its rows "
            f"{store.first_row}:{store.stop_row}: pull more of them"
        )
    given = list(paths)
    if not given:
        raise BadInput("there is nothing to evaluate: give at least one checkpoint")
    together = [_prepare(*each, store, settings) for each in zip(given, names(given), strict=True)]
    passed_over = {}
    for sites in dict.fromkeys(one.sites for one in together):
        rows = _left_out(store, sites, chunks, settings)
        passed_over[sites] = len(rows.rows)
        for batch in _held_out(store, sites, chunks, settings.batch_size, rows):
            x = {name: torch.from_numpy(batch.x[name]).to(settings.device) for name in sites}
            for one in together:
                if one.sites == sites:
                    one.measure.add(x)
    found = []
    for one in together:
        codec_fvu = {name: store.codec_fvu(name) for name in one.measure.by_site}
        result = one.measure.result(one.name, codec_fvu)
        out = passed_over[one.sites]
        result = replace(result, path=one.path, notes=one.notes, left_out=out)
        if one.mined:
            result = replace(result, dead_mined=int((one.measure.fired[one.mined] == 0).sum()))
        found.append((result, one.measure))
    return found


@dataclass(frozen=True)
class _Measured:
    """One of several dictionaries that are evaluated together."""

    path: str
    name: str
    sites: tuple[str, ...]
    """Those that it reads or writes, in the order of the store."""
    notes: tuple[str, ...]
    measure: Measure
    mined: list[int]
    """Latents that began as mined directions."""


def _prepare(path: str | Path, name: str, store: Readable, settings: EvaluateSettings) -> _Measured:
    """Load a dictionary, or raise BadInput if it cannot be measured on that store."""
    dictionary, metadata = load_dictionary(path)
    for site in dictionary.wiring.sites:
        check_site(path, site, metadata, store)
    needed = {site.hook_name for site in dictionary.wiring.sites}
    sites = tuple(hook_name for hook_name in store.hook_names if hook_name in needed)
    notes = doubts(path, metadata, store, any_model=settings.any_model)
    measure = Measure(dictionary.to(settings.device), prefixes_of(path, metadata))
    mined = mined_of(path, metadata, dictionary.d_sae)
    return _Measured(str(path), name, sites, tuple(notes), measure, mined)


def check_site(path: str | Path, site: Site, metadata: dict[str, Any], store: Readable) -> None:
    """Raise BadInput unless the store has the site of a dictionary, in its width."""
    if site.hook_name not in store.hook_names:
        if site.hook_name == UNNAMED and not metadata.get("hook_name"):
            raise BadInput(
                f"{path} does not say what it is for: write the hook_name of its activations into "
                "the metadata of its cfg.json"
            )
        raise BadInput(
            f"'{site.hook_name}' is not in the store at {store.where}, which has "
            f"{few(store.hook_names)}, and {path} needs it: {_remedy(site.hook_name, store)}"
        )
    width = store.manifest.width(site.hook_name)
    if site.width != width:
        raise BadInput(
            f"{path} is for activations {site.width} wide, "
            f"{site.hook_name} in {store.where} is {width} wide"
        )


def _remedy(hook_name: str, store: Readable) -> str:
    """What to do about a site that is not in a store."""
    of_pair, paired = ":" in hook_name, any(":" in name for name in store.hook_names)
    if of_pair and not paired:
        return "it is for two stores, so give the second one with --paired-with"
    if paired and not of_pair:
        return "it is for one store, so leave out --paired-with"
    own, head = head_of(hook_name.rpartition(":")[2])
    apart = "" if head is None else " --heads apart"
    return f"harvest it with --hook {own}{apart}, or pull it if this is a part of a store"


def write_results(results: list[Evaluation], store: Readable, path: Path) -> None:
    """Write the metrics as JSON, with the fingerprint of the store."""
    document = {
        "store_fingerprint": store.manifest.fingerprint,
        "density_log10_edges": DENSITY_EDGES.tolist(),
        "results": [result.as_dict() for result in results],
    }
    write_together({path: (to_json(document, indent=2) + "\n").encode()})


def _left_out(
    store: Readable, sites: Sequence[str], chunks: list[int], settings: EvaluateSettings
) -> LeftOut:
    """The rows that are left out at any of some sites, as in training."""
    special_tokens, max_norm = settings.special_tokens, settings.max_norm
    rows = at_any(
        [
            left_out(store, site, chunks, special_tokens=special_tokens, max_norm=max_norm)
            for site in sites
        ]
    )
    if len(rows.rows) == _count(store, chunks):
        raise BadInput(
            f"every held-out row of {store.where} is left out at one of {few(sites)}: "
            "use --special-tokens, or a larger --max-norm"
        )
    return rows


def _held_out(
    store: Readable, sites: Sequence[str], chunks: list[int], size: int, rows: LeftOut
) -> Iterable[Batch]:
    shown = f"evaluate {few(sites, 1)}"
    with tqdm(total=_count(store, chunks), unit="row", desc=shown, disable=None) as bar:
        for batch in read_rows(store, sites, chunks, size, rows):
            yield batch
            bar.update(len(batch.rows))


def _count(store: Readable, chunks: list[int]) -> int:
    """Rows of some chunks."""
    return sum(stop - start for start, stop in map(store.rows_of_chunk, chunks))


def _first_chunks(store: Readable, chunks: list[int], rows: int | None) -> list[int]:
    """The first chunks that hold at least ``rows`` rows; all by default."""
    if rows is None:
        return chunks
    lengths = [stop - start for start, stop in map(store.rows_of_chunk, chunks)]
    needed = int(np.searchsorted(np.cumsum(lengths), rows)) + 1
    return chunks[:needed]
