"""The rows, one file each, in the order of the table.

To add one: write its file, which defines ``ROW``, and name it here. Heavy libraries are
imported inside the function that makes the sides, so that listing the rows takes no time.
"""

import importlib

from harness.row import Row

NAMES = (
    "harvest_fp32",
    "harvest_bf16",
    "harvest_saelens",
    "bytes_per_value",
    "codec_error",
    "batches_saelens",
    "batches_h5py",
    "batches_discbuffer",
    "batches_uncompressed",
    "batches_cold",
    "batches_throttled",
    "probe_kurtosis",
    "probe_knn",
    "probe_separation",
    "wait_for_data",
    "train_relu",
    "train_topk",
    "train_batchtopk",
    "train_bf16",
    "many_dictionaries",
    "end_to_end",
)


def row_named(name: str) -> Row:
    """The row of the file of that name."""
    row: Row = importlib.import_module(f"rows.{name}").ROW
    return row
