"""Dictionaries × held-out rows → metrics, in the units of the activations."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from rkstore.dictionaries import Dictionary, load_dictionary
from rkstore.errors import BadInput
from rkstore.evaluation.checkpoints import doubts, names
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.settings import check_device
from rkstore.store.batches.assemble import Batch, read_rows
from rkstore.store.batches.kept import LeftOut, left_out
from rkstore.store.batches.plan import split_chunks
from rkstore.store.files import write_together
from rkstore.store.jsontext import existing, to_json
from rkstore.store.open import open_store
from rkstore.store.statistics import Statistics
from rkstore.store.store import Store

# Edges of the histogram of firing frequency: log10 of the fraction of tokens.
DENSITY_EDGES = np.arange(-6.0, 0.25, 0.25)


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one dictionary on the held-out rows of its site."""

    name: str
    """The shortest suffix of the checkpoint's path that no other checkpoint has."""
    hook_name: str
    rows: int
    d_in: int
    d_sae: int
    l0: float
    """Latents that are on, not zero, mean over tokens."""
    dead: int
    """Latents that fired on none of the ``rows`` tokens, which are the window."""
    dense: int
    """Latents that fired on more than a tenth of the tokens."""
    fvu: float
    """Σ‖x - x̂‖² / Σ‖x - μ‖², with μ the mean of all rows evaluated."""
    mse: float
    """Mean over tokens of ‖x - x̂‖²."""
    cosine: float
    """Mean cosine of x and x̂ over the tokens with x ≠ 0; the cosine is 0 where x̂ = 0."""
    norm_ratio: float
    """Mean of ‖x̂‖ / ‖x‖ over the same tokens; below 1 the dictionary shrinks its input."""
    codec_fvu: float
    """FVU of the stored values themselves, which limits the accuracy of ``fvu``."""
    density: tuple[int, ...]
    """Latents that never fired, then the latents in each bin of ``DENSITY_EDGES`` (log10 of the
    fraction of tokens; the first bin includes everything rarer).
    """
    zero_rows: int
    """Tokens with x = 0, which ``cosine`` and ``norm_ratio`` leave out."""
    left_out: int = 0
    """Held-out rows not measured: of special tokens, or with a norm above ``--max-norm``."""
    path: str = ""
    """The checkpoint, as the caller named it."""
    notes: tuple[str, ...] = ()
    """Reasons to doubt the comparison: another text, weights that are not verified."""

    @property
    def explained_variance(self) -> float:
        """1 - FVU: 1 for the identity, 0 for the mean of all rows."""
        return 1 - self.fvu

    @property
    def dead_share(self) -> float:
        return self.dead / self.d_sae

    def as_dict(self) -> dict[str, Any]:
        """Every metric, for JSON; None for one that is not finite."""
        numbers = asdict(self) | {
            "explained_variance": self.explained_variance,
            "dead_share": self.dead_share,
        }
        found: dict[str, Any] = existing(numbers)
        return found


class Measure:
    """The sums over batches behind an :class:`Evaluation`, in float64.

    Input and reconstruction of a row come from the same batch, so they cannot be mispaired:
    comparing shuffled reconstructions with unshuffled inputs once turned an explained variance of
    +0.90 into -0.90.
    """

    def __init__(self, dictionary: Dictionary) -> None:
        self.dictionary = dictionary
        self.fired = torch.zeros(dictionary.d_sae, dtype=torch.int64)
        self.squared_error = self.cosine = self.norm_ratio = 0.0
        self.with_norm = 0
        self.statistics: Statistics | None = None

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Measure one batch of activations ``(n, d_in)``."""
        f, reconstruction = self.dictionary.reconstruct(x)
        self.fired += (f != 0).sum(dim=0).cpu()
        x64, found = x.double(), reconstruction.double()
        self.squared_error += (found - x64).square().sum().item()
        norms = x64.norm(dim=-1)
        self.with_norm += int((norms > 0).sum())
        # A row with x = 0 has neither number: it adds zero to both sums and is not counted.
        ratio = torch.where(norms > 0, found.norm(dim=-1) / norms, 0)
        self.norm_ratio += ratio.sum().item()
        along = (x64 * found).sum(dim=-1) / (norms * found.norm(dim=-1))
        self.cosine += torch.where((norms > 0) & (ratio > 0), along, 0).sum().item()
        of_batch = Statistics.of(x.cpu().numpy())
        self.statistics = self.statistics.merge(of_batch) if self.statistics else of_batch

    def result(self, name: str, hook_name: str, codec_fvu: float) -> Evaluation:
        """The metrics over all rows added so far.

        Raises:
            BadInput: all rows are identical.
        """
        assert self.statistics is not None
        n, variation = self.statistics.count, float(self.statistics.m2.sum())
        if variation == 0:
            raise BadInput(f"{hook_name} is constant over the held-out rows: FVU has no meaning")
        fired = self.fired.numpy()
        share = np.log10(fired[fired > 0] / n).clip(DENSITY_EDGES[0], -1e-9)
        histogram = np.histogram(share, DENSITY_EDGES)[0]
        return Evaluation(
            name=name,
            hook_name=hook_name,
            rows=n,
            d_in=self.dictionary.d_in,
            d_sae=self.dictionary.d_sae,
            l0=float(fired.sum() / n),
            dead=int((fired == 0).sum()),
            dense=int((fired > n / 10).sum()),
            fvu=self.squared_error / variation,
            mse=self.squared_error / n,
            cosine=self.cosine / self.with_norm,
            norm_ratio=self.norm_ratio / self.with_norm,
            codec_fvu=codec_fvu,
            density=(int((fired == 0).sum()), *(int(count) for count in histogram)),
            zero_rows=n - self.with_norm,
        )


def evaluate(paths: Iterable[str | Path], settings: EvaluateSettings) -> list[Evaluation]:
    """Evaluate dictionaries on the held-out rows of a store, reading each site once.

    Raises:
        BadInput: a path holds no dictionary or is given twice, its site is not in the store or
            has another width, it is of another model, or there are no held-out rows.
    """
    return [result for result, _ in measured(paths, settings)]


def measured(
    paths: Iterable[str | Path], settings: EvaluateSettings
) -> list[tuple[Evaluation, Measure]]:
    """The results of :func:`evaluate`, each with its sums."""
    check_device(settings.device)
    store = open_store(settings.store)
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
    special_tokens, max_norm = settings.special_tokens, settings.max_norm
    passed_over = {}
    for hook_name in dict.fromkeys(one.hook_name for one in together):
        rows = left_out(store, hook_name, chunks, special_tokens=special_tokens, max_norm=max_norm)
        passed_over[hook_name] = len(rows.rows)
        for batch in _held_out(store, hook_name, chunks, settings.batch_size, rows):
            x = torch.from_numpy(batch.x[hook_name]).to(settings.device)
            for one in together:
                if one.hook_name == hook_name:
                    one.measure.add(x)
    found = []
    for one in together:
        result = one.measure.result(one.name, one.hook_name, store.codec_fvu(one.hook_name))
        out = passed_over[one.hook_name]
        result = replace(result, path=one.path, notes=one.notes, left_out=out)
        found.append((result, one.measure))
    return found


@dataclass(frozen=True)
class _Measured:
    """One of several dictionaries that are evaluated together."""

    path: str
    name: str
    hook_name: str
    notes: tuple[str, ...]
    measure: Measure


def _prepare(path: str | Path, name: str, store: Store, settings: EvaluateSettings) -> _Measured:
    """Load a dictionary, or raise BadInput if it cannot be measured on that store."""
    dictionary, metadata = load_dictionary(path)
    if len(dictionary.wiring.sites) > 1:
        raise BadInput(
            f"{path} reads or writes {len(dictionary.wiring.sites)} sites: only autoencoders of "
            "one site can be measured so far"
        )
    hook_name = str(metadata.get("hook_name"))
    store.check_site(hook_name)
    width = store.manifest.width(hook_name)
    if dictionary.d_in != width:
        raise BadInput(
            f"{path} is for activations {dictionary.d_in} wide, "
            f"{hook_name} in {store.where} is {width} wide"
        )
    notes = doubts(path, metadata, store, any_model=settings.any_model)
    measure = Measure(dictionary.to(settings.device))
    return _Measured(str(path), name, hook_name, tuple(notes), measure)


def write_results(results: list[Evaluation], store: Store, path: Path) -> None:
    """Write the metrics as JSON, with the fingerprint of the store."""
    document = {
        "store_fingerprint": store.manifest.fingerprint,
        "density_log10_edges": DENSITY_EDGES.tolist(),
        "results": [result.as_dict() for result in results],
    }
    write_together({path: (to_json(document, indent=2) + "\n").encode()})


def _held_out(
    store: Store, hook_name: str, chunks: list[int], size: int, rows: LeftOut
) -> Iterable[Batch]:
    total = sum(stop - start for start, stop in map(store.rows_of_chunk, chunks))
    with tqdm(total=total, unit="row", desc=f"evaluate {hook_name}", disable=None) as bar:
        for batch in read_rows(store, [hook_name], chunks, size, rows):
            yield batch
            bar.update(len(batch.rows))


def _first_chunks(store: Store, chunks: list[int], rows: int | None) -> list[int]:
    """The first chunks that hold at least ``rows`` rows; all by default."""
    if rows is None:
        return chunks
    lengths = [stop - start for start, stop in map(store.rows_of_chunk, chunks)]
    needed = int(np.searchsorted(np.cumsum(lengths), rows)) + 1
    return chunks[:needed]
