"""The dictionary: encode activations to a sparse code, decode the code to activations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rkstore.dictionaries.norms import NORMS
from rkstore.dictionaries.pretrained import Pretrained
from rkstore.dictionaries.rownorm import OF_INPUT, ROW_NORMS
from rkstore.dictionaries.rows import Rows, alone, side_by_side, split
from rkstore.dictionaries.selection import Selection, selected
from rkstore.dictionaries.selects import Select
from rkstore.dictionaries.sparse import Code, SparseCode, latents_of, product
from rkstore.dictionaries.unit import normalise_, project_
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.store.sites import Site


class Weights(NamedTuple):
    """The weights of one bank: ``W_enc (d_in, latents)``, ``b_enc (latents,)``,
    ``W_dec (latents, d_out)``."""

    W_enc: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter


class Dictionary(Pretrained, nn.Module):
    """``pre = Σ_reads x W_enc + b_enc``, ``f = select(pre)``, ``ŷ = Σ_banks f W_dec + b_dec``.

    If the wiring is centred, encoders read ``x - b_dec``; if it has a skip, ``ŷ`` has another
    term, ``W_skip x``; if it has a norm, ``f = select(pre · c) / c`` with ``c`` from the norms of
    the decoders (``norms.py``). With one bank the parameters have
    SAELens' names and layout: ``W_enc (d_in, d_sae)``, ``b_enc (d_sae,)``, ``W_dec (d_sae,
    d_out)``, ``b_dec (d_out,)``, ``W_skip (d_out, d_in)``, with several sites concatenated; with
    more, ``W_enc_0``, ``b_enc_0``, ``W_dec_0`` and so on.
    """

    W_enc: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter

    def __init__(self, wiring: Wiring, select: Select, row_norm: str = "none") -> None:
        """Make a dictionary of zeros; an init fills it.

        Args:
            row_norm: normalisation of each row that is read, one of ``ROW_NORMS``; undone after
                decoding if the wiring is centred, and so writes what it reads.

        Raises:
            BadInput: the select needs more latents.
        """
        super().__init__()
        self.wiring, self.row_norm, self.metadata = wiring, row_norm, {}
        pools = [wiring.latents] if wiring.together else [bank.latents for bank in wiring.banks]
        pools *= wiring.views
        if len(pools) == 1:
            self.select = Selection(select, pools[0])
        else:
            self.selects = nn.ModuleList(Selection(select, latents) for latents in pools)
        for i, bank in enumerate(wiring.banks):
            # In memory W_enc is its transpose: a latent's weights are contiguous, as in W_dec, and
            # the gradients of both are sums of such rows.
            made = (
                torch.zeros(bank.latents, bank.d_in).T,
                torch.zeros(bank.latents),
                torch.zeros(bank.latents, bank.d_out),
            )
            for name, zeros in zip(self._names(i), made, strict=True):
                self.register_parameter(name, nn.Parameter(zeros))
            if wiring.skip:
                zeros = torch.zeros(bank.d_out, bank.d_in)
                self.register_parameter(self._named("W_skip", i), nn.Parameter(zeros))
        if wiring.norm != "none":
            # A decoder that was rescaled keeps the norms it was trained with.
            self.register_buffer("units", torch.ones(len(wiring.writes)))
        self.b_dec = nn.Parameter(torch.zeros(sum(site.width for site in wiring.writes)))

    @classmethod
    def of_site(
        cls, d_in: int, d_sae: int, select: Select, row_norm: str = "none", hook_name: str = "x"
    ) -> "Dictionary":
        """An autoencoder of one site, of zeros.

        Raises:
            BadInput: a size is not positive, or the select needs more latents.
        """
        site = (Site(hook_name, d_in),)
        return cls(Wiring((Bank(d_sae, site, site),), centred=True), select, row_norm)

    @property
    def d_sae(self) -> int:
        """Latents of all banks."""
        return self.wiring.latents

    @property
    def d_in(self) -> int:
        """Width of all sites that are read."""
        return sum(site.width for site in self.wiring.reads)

    @property
    def pools(self) -> Sequence[Selection]:
        """The selects, each with its own latents; with a code per site, those of each in turn."""
        if "select" in self._modules:
            return [self.select]
        return [pool for pool in self.selects if isinstance(pool, Selection)]

    @property
    def banks(self) -> list[tuple[Bank, Weights]]:
        """Each bank with its weights."""
        return [(bank, self._weights(i)) for i, bank in enumerate(self.wiring.banks)]

    def skip(self, i: int) -> nn.Parameter:
        """The linear map beside bank ``i``, ``W_skip (d_out, d_in)``."""
        return self.get_parameter(self._named("W_skip", i))

    def bias(self, sites: Sequence[Site]) -> Tensor:
        """``b_dec`` of some written sites, concatenated; a view if it is all of it."""
        if tuple(sites) == self.wiring.writes:
            return self.b_dec
        widths = [site.width for site in self.wiring.writes]
        parts = dict(zip(self.wiring.writes, torch.split(self.b_dec, widths), strict=True))
        return torch.cat([parts[site] for site in sites])

    def encode(self, x: Tensor | Rows) -> Tensor:
        """Activations ``(..., d_in)``, of several sites by name → code ``(..., d_sae)``.

        Raises:
            BadInput: a site is missing, or a width is wrong.
        """
        return self.code(self.pre(x))

    def pre(self, x: Tensor | Rows) -> Tensor:
        """Activations → pre-activations ``(..., d_sae)``."""
        rows = self.rows(x)
        parts = [F.linear(self.read(rows, bank), w.W_enc.T, w.b_enc) for bank, w in self.banks]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def read(self, rows: Rows, bank: Bank) -> Tensor:
        """The input of a bank's encoder, ``(..., d_in)``."""
        x = side_by_side(rows, bank.reads)
        if self.row_norm != "none":
            mean, divisor, _ = ROW_NORMS[self.row_norm](x)
            x = (x - mean) / divisor
        return x - self.bias(bank.reads) if self.wiring.centred else x

    def code(self, pre: Tensor) -> Tensor:
        """Pre-activations ``(..., d_sae)`` → code, sparse.

        With a code per written site (the norm decoupled) ``(sites, ..., d_sae)``.
        """
        if self.wiring.norm == "none":
            return selected(pre, self.pools)
        pools, views = self.pools, []
        each = len(pools) // self.wiring.views
        for i, c in enumerate(self.weights().detach().clamp_min(1e-12)):
            views.append(selected(pre * c, pools[i * each : (i + 1) * each]) / c)
        return torch.stack(views) if len(views) > 1 else views[0]

    def weights(self) -> Tensor:
        """What activations are ranked and penalised by, ``(views, d_sae)``: 1 without a norm."""
        by_bank = [NORMS[self.wiring.norm](norms) for norms in self.decoder_norms()]
        return torch.cat(by_bank, dim=-1)

    def decoder_norms(self) -> list[Tensor]:
        """Norms of each bank's decoder rows at each site it writes, ``(writes, latents)``.

        In the units of the training.
        """
        latents = [bank.latents for bank in self.wiring.banks]
        found, units = [], torch.split(self.units_of_latents(), latents, dim=1)
        for (bank, weights), unit in zip(self.banks, units, strict=True):
            of = dict(zip(self.wiring.writes, unit, strict=True))
            parts = split(weights.W_dec, bank.writes)
            found.append(torch.stack([part.norm(dim=1) * of[site] for site, part in parts]))
        return found

    def units_of_latents(self) -> Tensor:
        """What multiplies the norms of the decoder rows at each site, ``(writes, latents)``."""
        return self.site_units.reshape(len(self.wiring.writes), -1).expand(-1, self.d_sae)

    def decode(self, f: Tensor) -> Tensor | dict[str, Tensor]:
        """Code ``(..., d_sae)`` → activations, ``(..., width)``; of several sites by name.

        Raises:
            BadInput: the code alone does not give them: rows were normalised, so their norm is
                not in it, or the wiring has a skip.
        """
        if self.wiring.skip:
            raise BadInput("a code without its input lacks what the skip adds: use reconstruct")
        if self._undoes:
            raise BadInput(
                f"a code of rows under {self.row_norm} has lost their norm: use reconstruct"
            )
        (decoded,) = self.decodings(f)
        return decoded if len(decoded) > 1 else alone(decoded)

    def decodings(
        self,
        f: Code,
        shares: Sequence[float] = (1.0,),
        *,
        rows: Rows | None = None,
        bias: bool = True,
        frozen: bool = False,
    ) -> Iterator[dict[str, Tensor]]:
        """Reconstructions by the first latents of every bank, for each share of them.

        Running sums: no more products than for all latents at once.

        Args:
            shares: of the latents of each bank, ascending.
            rows: the input, for what a skip adds.
            bias: whether ``b_dec`` is added, and what a skip adds.
            frozen: whether no gradient reaches the decoders and ``b_dec``.
        """
        hold = torch.Tensor.detach if frozen else lambda x: x
        total: dict[str, Tensor] = {}
        if bias and self.wiring.skip:
            total = self._skipped(rows, hold)
        before = 0.0
        for share in shares:
            first = 0
            for bank, weights in self.banks:
                a, b = (round(bank.latents * end) for end in (before, share))
                own = latents_of(f, first + a, first + b)
                first += bank.latents
                W_dec, start = hold(weights.W_dec[a:b]), None
                if bias and not total.keys() & {site.hook_name for site in bank.writes}:
                    start = hold(self.bias(bank.writes))
                for site, y in self._decoded(own, W_dec, start, bank.writes):
                    name = site.hook_name
                    if name in total:
                        y = total[name] + y
                    elif bias and start is None:
                        y = y + hold(self.bias((site,)))
                    total[name] = y
            before = share
            yield dict(total)

    def _decoded(
        self, f: Code, W_dec: Tensor, bias: Tensor | None, writes: Sequence[Site]
    ) -> list[tuple[Site, Tensor]]:
        """A part of a code, decoded for each site; a code per site each by its own columns."""
        if self.wiring.views == 1 or isinstance(f, SparseCode):
            return split(product(f, W_dec, bias), writes)
        columns = split(W_dec, writes)
        biases = [part for _, part in split(bias, writes)] if bias is not None else [None] * len(f)
        return [
            (site, F.linear(code, part.T, start))
            for (site, part), code, start in zip(columns, f, biases, strict=True)
        ]

    def _skipped(self, rows: Rows | None, hold: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """``b_dec`` and what the skips add, by written site."""
        if rows is None:
            raise BadInput("a dictionary with a skip is decoded with its input: give the rows")
        total: dict[str, Tensor] = {}
        for i, (bank, _) in enumerate(self.banks):
            W_skip = hold(self.skip(i))
            x = self.read(rows, bank) if self.wiring.centred else side_by_side(rows, bank.reads)
            for site, y in split(F.linear(x, W_skip), bank.writes):
                name = site.hook_name
                total[name] = y + (total[name] if name in total else hold(self.bias((site,))))
        return total

    @overload
    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]: ...
    @overload
    def reconstruct(self, x: Rows) -> tuple[Tensor, dict[str, Tensor]]: ...
    def reconstruct(self, x: Tensor | Rows) -> tuple[Tensor, Tensor | dict[str, Tensor]]:
        """Code ``(..., d_sae)`` and reconstruction, in the form of ``x``."""
        rows = self.rows(x)
        f = self.code(self.pre(rows))
        decoded = self.restored(f, rows)
        return f, alone(decoded) if isinstance(x, Tensor) else decoded

    def restored(self, f: Code, rows: Rows) -> dict[str, Tensor]:
        """The reconstruction of rows from their code or its list, by written site."""
        (decoded,) = self.decodings(f, rows=rows)
        if self._undoes:
            reads = {site.hook_name for site in self.wiring.reads}
            for name, y in decoded.items():
                # What is written and not read gets mean and factor of what was read.
                source = rows[name] if name in reads else side_by_side(rows, self.wiring.reads)
                mean, _, factor = ROW_NORMS[self.row_norm](source)
                decoded[name] = y * factor + mean
        return decoded

    def forward(self, x: Tensor | Rows, output_features: bool = False) -> Any:
        """Reconstruction of activations, in the form of ``x``: a tensor, or a dict by site.

        Args:
            output_features: whether to give also the code, as ``(reconstruction, code)``.
        """
        f, decoded = self.reconstruct(x)
        return (decoded, f) if output_features else decoded

    def loss(self, x: Tensor | Rows, pressure: float = 1.0) -> dict[str, Tensor]:
        """The losses of a batch by name, scalars whose sum is minimised.

        Those of the error and of the select; a training may add some (``training.objective``).

        Args:
            x: activations of every site that is read or written.
            pressure: fraction of the sparsity losses to apply.
        """
        from rkstore.dictionaries.losses import losses

        return losses(self, self.rows(x), pressure)

    def rows(self, x: Tensor | Rows) -> Rows:
        """Activations by site; a tensor stands for the only site that is read.

        Raises:
            BadInput: a site is missing, or a width is wrong.
        """
        reads = self.wiring.reads
        if isinstance(x, Tensor):
            if len(reads) > 1:
                raise BadInput(
                    f"the dictionary reads {', '.join(site.hook_name for site in reads)}: "
                    "give a mapping from site to activations"
                )
            x = {reads[0].hook_name: x}
        for site in reads:
            if site.hook_name not in x:
                raise BadInput(f"the dictionary reads {site.hook_name}, which is missing")
            width = x[site.hook_name].shape[-1]
            if width != site.width:
                raise BadInput(f"the dictionary takes activations {site.width} wide, not {width}")
        return x

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Give the rows of every decoder norm 1."""
        for _, (_, _, W_dec) in self.banks:
            normalise_(W_dec)

    @torch.no_grad()
    def project_decoder_gradient(self) -> None:
        """Remove from the gradient of every decoder the part along its rows."""
        for _, (_, _, W_dec) in self.banks:
            if W_dec.grad is not None:
                project_(W_dec.grad, W_dec)

    def rescaled(self, scales: Mapping[str, float]) -> "Dictionary":
        """The dictionary for ``x`` of this one, which was trained on ``scale · x`` at each site:
        :func:`rkstore.dictionaries.affine.rescaled`."""
        from rkstore.dictionaries.affine import rescaled

        return rescaled(self, scales)

    @property
    def site_units(self) -> Tensor:
        """By what norms at each written site are multiplied to be those of the training,
        ``(writes,)``, or ``(writes, latents)`` where each latent has its own."""
        if self.wiring.norm == "none":
            return self.b_dec.new_ones(len(self.wiring.writes))
        return self.get_buffer("units")

    @property
    def _undoes(self) -> bool:
        """Whether decoding undoes the normalisation of rows."""
        centred = self.row_norm != "none" and self.wiring.centred
        return centred or self.row_norm == OF_INPUT

    def _named(self, name: str, i: int) -> str:
        """The name of a parameter of a bank."""
        return f"{name}_{i}" if len(self.wiring.banks) > 1 else name

    def _names(self, i: int) -> list[str]:
        return [self._named(name, i) for name in Weights._fields]

    def _weights(self, i: int) -> Weights:
        return Weights(*(self.get_parameter(name) for name in self._names(i)))
