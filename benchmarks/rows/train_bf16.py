"""Training steps with bfloat16 products against those with float32 products."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.row import Bench, Row, Sides, Target


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    import torch
    from harness.steps import five_products, step

    rounded, _ = step(bench, "relu", l1=0.0, dtype="bfloat16")
    exact, _ = step(bench, "relu", l1=0.0)

    def notes() -> list[str]:
        products = [five_products(bench, dtype) for dtype in (torch.bfloat16, torch.float32)]
        for side in products:
            side()
        ratios = sorted(products[1]() / products[0]() for _ in range(3))
        return [f"The five products alone are {ratios[1]:.2f} times as fast in bfloat16."]

    yield Sides(lambda: 1 / rounded(), lambda: 1 / exact(), notes)


ROW = Row(
    name="train_bf16",
    what="The step of train_relu with bfloat16 products",
    against="The same step in float32",
    unit="steps/s",
    target=Target("at least", 2.0),
    how="Both as in train_relu. Weights, gradients and Adam are float32 on both sides.",
    floor="AVX512-BF16 has twice the arithmetic of float32 and AMX eight times; Adam and what "
    "else touches the weights takes as long as before. Without either, bfloat16 gains nothing.",
    sides=sides,
    repetitions=7,
)
