"""How close reconstructions are to their rows: at each written site, and side by side."""

from dataclasses import dataclass

from rkstore.evaluation.metrics.compared import Compared


@dataclass(frozen=True)
class SiteEvaluation:
    """Metrics of the reconstruction of one site, as in
    :class:`rkstore.evaluation.measure.Evaluation`."""

    fvu: float
    mse: float
    cosine: float
    norm_ratio: float
    codec_fvu: float
    codec_mse: float = 0.0
    bias: float = 1.0


class ReconstructionSums:
    """Sums over rows of how a reconstruction compares with them.

    A row with y = 0 has neither cosine nor ratio of norms: it adds zero and is not counted.
    """

    def __init__(self) -> None:
        self.squared_error = self.cosine = self.norm_ratio = self.product = self.square = 0.0
        self.with_norm = 0

    def add(self, rows: Compared) -> None:
        self.squared_error += rows.squared_error
        self.with_norm += int((rows.norms > 0).sum())
        self.norm_ratio += rows.ratios.sum().item()
        self.cosine += rows.cosines.sum().item()
        self.product += rows.products.sum().item()
        self.square += rows.found.square().sum().item()

    def merge(self, other: "ReconstructionSums") -> None:
        """Add the sums over other rows."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def result(self, rows: int, variation: float, codec_fvu: float) -> SiteEvaluation:
        """The metrics over ``rows`` rows whose ``Σ‖y - μ‖²`` is ``variation``."""
        nothing = float("nan")
        return SiteEvaluation(
            fvu=self.squared_error / variation,
            mse=self.squared_error / rows,
            cosine=self.cosine / self.with_norm,
            norm_ratio=self.norm_ratio / self.with_norm,
            codec_fvu=codec_fvu,
            codec_mse=codec_fvu * variation / rows,
            bias=self.square / self.product if self.product else nothing,
        )
