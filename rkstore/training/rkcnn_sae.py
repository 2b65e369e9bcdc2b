"""The autoencoder of the RkCNN-SAE code, under its names, for scripts that were written for it.

``loss = mean (x - x̂)² + l1 · mean |f|``, both means also over dimensions and latents: a weight of
1e-3 is next to no penalty (``selects/relu.py``). Mined directions go into the decoder alone, as
there. For anything else use ``rkstore train``, where ``--init rkcnn-decoder`` begins like this;
:meth:`SparseAutoencoder.dictionary` gives the weights as a dictionary that can be saved.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.selects import select_named
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.rkcnn.mine import mine_directions
from rkstore.settings import Settings, option
from rkstore.store.sites import Site


class SAEConfig(Settings):
    """What a :class:`SparseAutoencoder` is made of."""

    d_model: int = option(..., "Width of the activations.", least=1)
    n_latents: int = option(..., "Latents.", least=1)
    l1_coefficient: float = option(1e-3, "Weight of the mean of |f|.", least=0.0)
    tied_weights: bool = option(False, "Decode with the transposed encoder, without a bias.")
    normalize_decoder: bool = option(True, "Let normalize_decoder() give latents norm 1.")
    activation: str = option("relu", "Kind of code.", choices=("relu", "topk"))
    k: int | None = option(None, "Active latents of a topk code.", least=1)
    bias: bool = option(True, "Biases of encoder and decoder.")


class RkCNNSAEConfig(SAEConfig):
    """What a :class:`RkCNNSparseAutoencoder` is made of."""

    rkcnn_subset_size: int | None = option(None, "Dimensions of a subset; √d_model.", least=1)
    rkcnn_n_subsets: int = option(1000, "Random subsets.", least=1)
    rkcnn_score_method: str = option("kurtosis", "How subsets are scored.")
    rkcnn_directions_fraction: float = option(0.5, "Latents to be mined.", least=0.0)
    init_scale: float = option(1.0, "Norm of a mined latent.", least=0.0)


class SparseAutoencoder(nn.Module):
    """``f = act(W_enc x + b_enc)``, ``x̂ = W_dec f + b_dec``; Xavier weights.

    Args:
        seed: of the weights.

    Raises:
        BadInput: a topk code without a ``k``, or with more than there are latents.
    """

    def __init__(self, config: SAEConfig, seed: int = 0) -> None:
        super().__init__()
        if config.activation == "topk" and not 1 <= (config.k or 0) <= config.n_latents:
            raise BadInput(f"k is {config.k}: a topk code needs one up to {config.n_latents}")
        self.config = config
        d, n, bias = config.d_model, config.n_latents, config.bias
        self.encoder = _linear(d, n, bias)
        self.decoder = None if config.tied_weights else _linear(n, d, bias)
        generator = torch.Generator().manual_seed(seed)
        for layer in filter(None, (self.encoder, self.decoder)):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if bias:
                nn.init.zeros_(layer.bias)

    def encode(self, x: Tensor) -> Tensor:
        """Activations ``(..., d_model)`` → pre-activations ``(..., n_latents)``."""
        pre: Tensor = self.encoder(x)
        return pre

    def activate(self, pre: Tensor) -> Tensor:
        """Pre-activations → code."""
        if self.config.activation == "relu":
            return pre.relu()
        values, indices = pre.topk(self.config.k or 1, dim=-1)
        return torch.zeros_like(pre).scatter(-1, indices, values.relu())

    def decode(self, latents: Tensor) -> Tensor:
        """Code → activations."""
        if self.decoder is None:
            return F.linear(latents, self.encoder.weight.T)
        decoded: Tensor = self.decoder(latents)
        return decoded

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Code, reconstruction and pre-activations."""
        pre = self.encode(x)
        latents = self.activate(pre)
        return latents, self.decode(latents), pre

    def compute_loss(
        self, x: Tensor, latents: Tensor, reconstructed: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss, a scalar, and ``total``, ``reconstruction`` and ``l1`` as numbers."""
        error, l1 = F.mse_loss(reconstructed, x), latents.abs().mean()
        total = error + self.config.l1_coefficient * l1
        named = {"total": total, "reconstruction": error, "l1": l1}
        return total, {name: loss.item() for name, loss in named.items()}

    @torch.no_grad()
    def normalize_decoder(self) -> None:
        """Give the decoder of each latent norm 1, unless tied or not asked for."""
        if self.config.normalize_decoder and self.decoder is not None:
            W_dec = self.decoder.weight
            W_dec.div_(W_dec.norm(dim=0, keepdim=True).clamp_min(1e-12))

    def get_decoder_directions(self) -> Tensor:
        """A row for each latent, ``(n_latents, d_model)``."""
        rows = self.encoder.weight if self.decoder is None else self.decoder.weight.T
        return rows.detach()

    @torch.no_grad()
    def dictionary(self, hook_name: str = "x") -> Dictionary:
        """The same as a :class:`rkstore.Dictionary` of a site, with a copy of the weights."""
        config, site = self.config, (Site(hook_name, self.config.d_model),)
        options: dict[str, Any] = {} if config.k is None else {"k": config.k}
        select = select_named(config.activation, options)
        made = Dictionary(Wiring((Bank(config.n_latents, site, site),)), select)
        made.W_enc.copy_(self.encoder.weight.T)
        made.W_dec.copy_(self.get_decoder_directions())
        if config.bias:
            made.b_enc.copy_(self.encoder.bias)
            if self.decoder is not None:
                made.b_dec.copy_(self.decoder.bias)
        return made


class RkCNNSparseAutoencoder(SparseAutoencoder):
    """One whose first latents may be mined directions."""

    def __init__(self, config: RkCNNSAEConfig, seed: int = 0) -> None:
        super().__init__(config, seed)
        self.rkcnn_config = config
        self.rkcnn_initialized_mask: Tensor | None = None
        """Which latents were mined, bool ``(n_latents,)``."""
        self.mined_directions: Tensor | None = None
        """``(n, d_model)``, the best first."""

    @torch.no_grad()
    def initialize_with_rkcnn(
        self,
        activations: Tensor,
        device: str = "cpu",
        seed: int | None = None,
        show_progress: bool = True,
    ) -> int:
        """Put directions mined in activations ``(n, d_model)`` into the first latents.

        Into their decoder, or their encoder where weights are tied.

        Returns:
            How many: their fraction of the latents, at most as many as subsets.

        Raises:
            BadInput: the activations are not of this width, or too few subsets have a score.
        """
        config = self.rkcnn_config
        wanted = int(config.n_latents * config.rkcnn_directions_fraction)
        wanted = min(wanted, config.n_latents, config.rkcnn_n_subsets)
        if wanted == 0:
            return 0
        self.mined_directions = mine_directions(
            activations,
            config.d_model,
            n_directions=wanted,
            subset_size=config.rkcnn_subset_size,
            n_subsets=config.rkcnn_n_subsets,
            score_method=config.rkcnn_score_method,
            device=device,
            seed=seed,
            show_progress=show_progress,
        )
        scaled = self.mined_directions * config.init_scale
        if self.decoder is None:
            self.encoder.weight[:wanted] = scaled
        else:
            self.decoder.weight[:, :wanted] = scaled.T
        self.rkcnn_initialized_mask = torch.arange(config.n_latents) < wanted
        return wanted

    def get_rkcnn_latent_stats(self, latents: Tensor, threshold: float = 0.0) -> dict[str, Any]:
        """How mined latents (``rkcnn_…``) and the others (``random_…``) fire in a code.

        ``n``, how many; ``dead_rate``, the share never above the threshold; ``activity_rate``, the
        share of activations above it, and their mean, ``mean_when_active``.

        Args:
            latents: ``(n, n_latents)``.

        Raises:
            BadInput: nothing was mined.
        """
        if self.rkcnn_initialized_mask is None:
            raise BadInput("no latent was mined: call initialize_with_rkcnn first")
        mask = self.rkcnn_initialized_mask.to(latents.device)
        found: dict[str, Any] = {}
        for name, of in (("rkcnn", mask), ("random", ~mask)):
            code = latents[:, of]
            found[f"{name}_n"] = code.shape[1]
            if code.numel():
                on = code > threshold
                found[f"{name}_dead_rate"] = (~on.any(dim=0)).float().mean().item()
                found[f"{name}_activity_rate"] = on.float().mean().item()
                found[f"{name}_mean_when_active"] = code[on].mean().item() if on.any() else 0.0
        return found


def create_rkcnn_sae(
    d_model: int,
    expansion_factor: int = 8,
    l1_coefficient: float = 1e-3,
    rkcnn_fraction: float = 0.5,
    **options: Any,
) -> RkCNNSparseAutoencoder:
    """One with ``d_model · expansion_factor`` latents.

    Raises:
        BadInput: there is no such option of :class:`RkCNNSAEConfig`.
    """
    config = RkCNNSAEConfig(
        d_model=d_model,
        n_latents=d_model * expansion_factor,
        l1_coefficient=l1_coefficient,
        rkcnn_directions_fraction=rkcnn_fraction,
        **options,
    )
    return RkCNNSparseAutoencoder(config)


class SAETrainer:
    """Adam on the loss of an autoencoder; latents get norm 1 after each step, if asked for."""

    def __init__(self, sae: SparseAutoencoder, lr: float = 1e-3, device: str = "cpu") -> None:
        self.sae, self.device = sae.to(device), device
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=lr)

    def train_step(self, batch: Tensor) -> dict[str, float]:
        """One step on activations ``(n, d_model)``; the losses before it."""
        x = batch.to(self.device)
        latents, reconstructed, _ = self.sae(x)
        loss, named = self.sae.compute_loss(x, latents, reconstructed)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.sae.normalize_decoder()
        return named

    def train_epoch(self, batches: Iterable[Any], epoch: int = 0) -> dict[str, float]:  # noqa: ARG002
        """A step on every batch; the mean of each loss."""
        self.sae.train()
        return _means([self.train_step(_rows(batch)) for batch in batches])

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Any]) -> tuple[dict[str, float], Tensor, Tensor, Tensor]:
        """The mean of each loss, and code, reconstruction and activations of all rows."""
        self.sae.eval()
        losses, parts = [], []
        for batch in batches:
            x = _rows(batch).to(self.device)
            latents, reconstructed, _ = self.sae(x)
            losses.append(self.sae.compute_loss(x, latents, reconstructed)[1])
            parts.append([part.cpu() for part in (latents, reconstructed, x)])
        means = _means(losses)
        latents, reconstructed, x = (torch.cat(part) for part in zip(*parts, strict=True))
        return means, latents, reconstructed, x


def _linear(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    """A layer without weights yet: torch's own would be drawn from its global generator."""
    made: nn.Linear = skip_init(nn.Linear, inputs, outputs, bias=bias)  # type: ignore[no-untyped-call]
    return made


def _rows(batch: Any) -> Tensor:
    """The activations of a batch, which may be the first of several tensors."""
    rows: Tensor = batch[0] if isinstance(batch, list | tuple) else batch
    return rows


def _means(losses: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each loss over batches."""
    if not losses:
        raise BadInput("there are no batches: give at least one")
    return {name: sum(one[name] for one in losses) / len(losses) for name in losses[0]}
