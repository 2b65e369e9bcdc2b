"""Pre-activations and the code of every bank: as a matrix, or as a list of what is on.

Prefixes turn the tokens of a list into others: an entry that first counts in prefix ``i`` of token
``t`` is one of token ``i n + t``, with n tokens. So what is summed by token, such as a
reconstruction, comes apart by prefix, with no more work than for one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, repeat

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.selection import Selection
from rkstore.dictionaries.sparse import Code, SparseCode, ascending
from rkstore.training.fast.scratch import Scratch


def pre_activations(
    dictionary: Dictionary, inputs: Sequence[Tensor], scratch: Scratch, dtype: torch.dtype
) -> list[Tensor]:
    """Pre-activations ``(batch, latents)`` of all latents, or of each bank that has its own select.

    Args:
        inputs: what each bank's encoder reads, ``(batch, d_in)``.
    """
    batch, latents = len(inputs[0]), [bank.latents for bank, _ in dictionary.banks]
    sizes = [sum(latents)] if dictionary.wiring.together else latents
    held = scratch.take("pre", (batch * sum(latents),), dtype, inputs[0].device)
    parts = torch.split(held, [batch * size for size in sizes])
    blocks = [part.view(batch, size) for part, size in zip(parts, sizes, strict=True)]
    columns = torch.split(blocks[0], latents, dim=1) if dictionary.wiring.together else blocks
    for x, (_, weights), out in zip(inputs, dictionary.banks, columns, strict=True):
        W_enc, b_enc = weights.W_enc.to(dtype), weights.b_enc.to(dtype)
        if out.is_cuda:  # the bias is added as the product is written
            torch.addmm(b_enc, x.to(dtype), W_enc, out=out)
        else:
            torch.mm(x.to(dtype), W_enc, out=out)
            out += b_enc
    return blocks


def codes(dictionary: Dictionary, blocks: Sequence[Tensor], lists: bool) -> list[Code]:
    """The code of each bank; with a code per written site, those of each site in turn.

    Args:
        blocks: pre-activations, which a code may overwrite.
        lists: whether every code must be a list, also where a matrix would be faster.
    """
    latents = [bank.latents for bank, _ in dictionary.banks]
    found: list[Code] = []
    for pool, pre, c in _ranked(dictionary, blocks):
        code: Code | None = pool.sparse(pre)
        if code is None:
            code = pool.forward_(pre)
        if isinstance(code, Tensor) and (lists or c is not None):
            code = SparseCode.of(code)
        if isinstance(code, SparseCode) and c is not None:
            code = replace(code, values=code.values / c[code.latents])
        found += _of_banks(code, latents if dictionary.wiring.together else [pool.latents])
    return found


def _ranked(
    dictionary: Dictionary, blocks: Sequence[Tensor]
) -> Iterator[tuple[Selection, Tensor, Tensor | None]]:
    """Each select with what it ranks, and what that was weighed by if there is a code norm."""
    pools = dictionary.pools
    if dictionary.wiring.norm == "none":
        yield from zip(pools, blocks, repeat(None))
        return
    widths = [block.shape[1] for block in blocks]
    weights = [torch.split(c, widths) for c in dictionary.weights().clamp_min(1e-12)]
    for pool, (block, c) in zip(
        pools,
        [pair for of_view in weights for pair in zip(blocks, of_view, strict=True)],
        strict=True,
    ):
        yield pool, block * c, c


def _of_banks(code: Code, latents: Sequence[int]) -> list[Code]:
    """The parts of a code that belong to banks of so many latents."""
    if len(latents) == 1:
        return [code]
    if isinstance(code, Tensor):
        return list(torch.split(code, list(latents), dim=1))
    ends = accumulate(latents)
    return [code.part(end - size, end) for size, end in zip(latents, ends, strict=True)]


def by_prefix(of_banks: Sequence[Code], shares: Sequence[float], order: str) -> list[Code]:
    """The codes of one view, lists with the tokens of each prefix in turn (see above).

    Args:
        of_banks: the code of each bank; all are lists if prefixes are by activation.
        shares: the prefixes.
        order: one of :data:`~rkstore.dictionaries.prefixes.ORDERS`.
    """
    lists = [code for code in of_banks if isinstance(code, SparseCode)]
    if order == "latents":
        levels = [_levels_by_latent(code, shares) for code in lists]
    else:
        levels = _levels_by_activation(lists, shares)
    ready = iter([_at_levels(*of_one, len(shares)) for of_one in zip(lists, levels, strict=True)])
    return [next(ready) if isinstance(code, SparseCode) else code for code in of_banks]


def _levels_by_latent(code: SparseCode, shares: Sequence[float]) -> Tensor:
    """The first prefix of each entry, ``(n,)``."""
    ends = [round(code.shape[1] * share) for share in shares]
    return torch.bucketize(code.latents, code.latents.new_tensor(ends), right=True)


def _levels_by_activation(of_banks: Sequence[SparseCode], shares: Sequence[float]) -> list[Tensor]:
    """The first prefix of each entry, where those of a token are ranked over all banks; as
    :func:`~rkstore.dictionaries.prefixes.by_activation` does."""
    tokens = torch.cat([code.tokens for code in of_banks])
    sizes = torch.cat([code.values for code in of_banks]).abs()
    # Of equal ones the latent with the lower number is first.
    bank = torch.cat([torch.full_like(code.tokens, i) for i, code in enumerate(of_banks)])
    latents = torch.cat([code.latents for code in of_banks])
    order = torch.arange(len(tokens), device=tokens.device)
    for key in (latents, bank, -sizes, tokens):
        order = order[ascending(key[order])]
    owners = tokens[order]
    on = torch.bincount(tokens, minlength=of_banks[0].shape[0])
    ranks = torch.arange(len(tokens), device=tokens.device) - (on.cumsum(0) - on)[owners]
    levels = torch.zeros_like(ranks)
    for share in shares[:-1]:
        levels += ranks >= (on * share).round()[owners]
    in_place = torch.empty_like(levels).scatter_(0, order, levels)
    return list(torch.split(in_place, [len(code.tokens) for code in of_banks]))


def _at_levels(code: SparseCode, level: Tensor, levels: int) -> SparseCode:
    tokens = level * code.shape[0] + code.tokens
    order = ascending(tokens)
    shape = (levels * code.shape[0], code.shape[1])
    return SparseCode(tokens[order], code.latents[order], code.values[order], shape)
