"""Rows of a store in batches.

``plan`` decides which rows form which batch, without reading; ``orders`` which of them stay
together; ``kept`` which rows are left out, such as those of special tokens; ``assemble`` reads and
decodes them in threads. A run that is resumed at batch ``n`` gets the same batches as without the
interruption.
"""

from rkstore.store.batches.assemble import Batch, read_batches, read_rows
from rkstore.store.batches.kept import ALL_KEPT, LeftOut, left_out
from rkstore.store.batches.plan import BatchPlan, plan_batches, split_chunks

__all__ = ["ALL_KEPT", "Batch", "BatchPlan", "LeftOut", "left_out"]
__all__ += ["plan_batches", "read_batches", "read_rows", "split_chunks"]
