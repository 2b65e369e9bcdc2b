"""What the default codec takes on the disk, and what it costs in accuracy: counted, not timed."""

from collections.abc import Iterator

from harness.harvests import demo_store
from harness.row import Bench, Sides, Target, compared
from harness.synthetic import bytes_under

from rkstore.share.exchange.exporting import export_store
from rkstore.share.settings import ExportSettings


@compared(
    what="Default codec on the demo model's activations, every file of the store",
    against="The same values as SAELens caches them, float32 in Arrow",
    unit="bits/value",
    target=Target("at most", 6.2 / 32),
    how="rkstore harvest --model demo --dataset python --tokens 65536 --layers all. The bytes of "
    "all files of the store (values, scales, statistics, columns, manifest, journal) over "
    "all values; theirs are the bytes of one layer written by rkstore export --to saelens. "
    "Counted, not timed. The target is 6.2 bits of 32.",
    floor="Eight bits hold codes of a range set by the largest of 512 values, so most codes are "
    "near zero; their entropy bounds lossless compression, and a coarser code "
    "would miss the target of codec_error.",
    repetitions=1,
)
def bytes_per_value(bench: Bench) -> Iterator[Sides]:
    store = demo_store(bench)
    widths = {name: store.manifest.width(name) for name in store.hook_names}
    cache = export_store(
        store, ExportSettings(to="saelens", layer=6, out=str(bench.work / "demo-saelens"))
    )

    def ours() -> float:
        return 8 * bytes_under(store.root) / (store.rows * sum(widths.values()))

    def theirs() -> float:
        # Without document and position, 4 bytes a row each, which SAELens does not keep.
        return 8 * (bytes_under(cache) - 8 * store.rows) / (store.rows * widths[store.site(6)])

    def notes() -> list[str]:
        bits = [8 * store.stored_bytes(name) / (store.rows * widths[name]) for name in widths]
        return [
            f"A layer's values and scales alone take {min(bits):.2f} to {max(bits):.2f} bits a "
            f"value, {sum(bits) / len(bits):.2f} on average over {len(bits)} layers; the rest is "
            f"statistics, columns and journal. {store.rows:,} rows."
        ]

    yield Sides(ours, theirs, notes)


@compared(
    what="Squared error of the default codec, the store of bytes_per_value",
    against="The variance of the same activations",
    unit="of the variance",
    target=Target("at most", 1.5e-4),
    how="The error is summed while the store is written, over all rows and against the float32 "
    "values; the mean over layers of error ÷ variance (FVU). Counted, not timed; theirs is 1 by "
    "definition.",
    floor="A step of the code is a 255th of the range of 512 values in each dimension; a uniform "
    "error within half a step has a variance of a twelfth of its square.",
    repetitions=1,
)
def codec_error(bench: Bench) -> Iterator[Sides]:
    store = demo_store(bench)
    fvu = [store.codec_fvu(name) for name in store.hook_names]

    def notes() -> list[str]:
        return [f"From {min(fvu):.1e} to {max(fvu):.1e} over {len(fvu)} layers."]

    yield Sides(lambda: sum(fvu) / len(fvu), lambda: 1.0, notes)
