"""The dictionary: encode activations to a sparse code, decode the code to activations."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rkstore.dictionaries.rownorm import ROW_NORMS
from rkstore.dictionaries.selects import Select
from rkstore.errors import BadInput


class Dictionary(nn.Module):
    """``f = select((x - b_dec) W_enc + b_enc)``, ``x̂ = f W_dec + b_dec``.

    The layout is SAELens': ``W_enc (d_in, d_sae)``, ``b_enc (d_sae,)``,
    ``W_dec (d_sae, d_in)``, ``b_dec (d_in,)``. Rows of ``W_dec`` have norm 1.
    """

    def __init__(self, d_in: int, d_sae: int, select: Select, norm: str = "none") -> None:
        """Make a dictionary of zeros; an init fills it.

        Args:
            norm: what is done to each row before and undone behind, one of ``ROW_NORMS``.

        Raises:
            BadInput: a size is not positive, or the select needs more latents.
        """
        super().__init__()
        if d_in < 1 or d_sae < 1:
            raise BadInput(f"a dictionary needs positive sizes, not d_in {d_in}, d_sae {d_sae}")
        select.fit(d_sae)
        self.d_in, self.d_sae, self.select, self.norm = d_in, d_sae, select, norm
        # In memory W_enc is its transpose: a latent's weights lie side by side, as in W_dec,
        # and the gradients of both are sums of such rows.
        self.W_enc = nn.Parameter(torch.zeros(d_sae, d_in).T)
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(torch.zeros(d_sae, d_in))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    def encode(self, x: Tensor) -> Tensor:
        """Activations ``(..., d_in)`` → code ``(..., d_sae)``, non-negative and sparse."""
        self._check_width(x)
        if self.norm != "none":
            mean, divisor, _ = ROW_NORMS[self.norm](x)
            x = (x - mean) / divisor
        code: Tensor = self.select(F.linear(x - self.b_dec, self.W_enc.T, self.b_enc))
        return code

    def decode(self, f: Tensor) -> Tensor:
        """Code ``(..., d_sae)`` → activations ``(..., d_in)``.

        Raises:
            BadInput: rows were normalised, so the code alone does not say how long they are.
        """
        if self.norm != "none":
            raise BadInput(f"a code of rows under {self.norm} has lost their size: use reconstruct")
        return F.linear(f, self.W_dec.T, self.b_dec)

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Code ``(..., d_sae)`` and reconstruction ``(..., d_in)`` of activations."""
        f = self.encode(x)
        if self.norm == "none":
            return f, self.decode(f)
        mean, _, factor = ROW_NORMS[self.norm](x)
        return f, F.linear(f, self.W_dec.T, self.b_dec) * factor + mean

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruction ``(..., d_in)`` of activations ``(..., d_in)``."""
        return self.reconstruct(x)[1]

    def _check_width(self, x: Tensor) -> None:
        if x.shape[-1] != self.d_in:
            raise BadInput(f"the dictionary takes activations {self.d_in} wide, not {x.shape[-1]}")

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Give the rows of ``W_dec`` norm 1."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12))

    @torch.no_grad()
    def project_decoder_gradient(self) -> None:
        """Remove from the gradient of ``W_dec`` what would only change its rows' norms.

        Bricken et al. (2023), "Towards Monosemanticity", appendix on training.
        """
        if self.W_dec.grad is not None:
            along = torch.einsum("fd,fd->f", self.W_dec.grad, self.W_dec)
            self.W_dec.grad.addcmul_(self.W_dec, along.unsqueeze(1), value=-1)

    @torch.no_grad()
    def rescaled(self, scale: float) -> "Dictionary":
        """The dictionary for ``x`` of this one, which was trained on ``scale * x``.

        Every select is positively homogeneous but for its threshold, so only the biases and
        that change and the rows of ``W_dec`` keep norm 1: ``x̂(x) = x̂'(scale * x) / scale``.
        """
        other = copy.deepcopy(self)
        other.b_enc.div_(scale)
        other.b_dec.div_(scale)
        other.select.rescale(scale)
        return other
