"""A second model for comparisons: a copy of one, tuned on other text for some steps."""

from collections.abc import Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from rkstore.errors import BadInput
from rkstore.harvest.load import load_plain
from rkstore.store.files import write_together
from rkstore.store.jsontext import to_json

# The file that says how a copy was made.
RECORD = "tuned.json"

# One block in so many is held out, to measure what was learned.
HELD_OUT = 20


def readmes() -> Iterator[str]:
    """The descriptions of the installed Python packages, by name: English prose about software."""
    found = {str(one.metadata["Name"]): one.read_text("METADATA") for one in distributions()}
    for _, text in sorted(found.items()):
        # After the first empty line, as in a mail.
        if text and (body := text.partition("\n\n")[2].strip()):
            yield body


def tune(
    name: str,
    texts: Iterable[str],
    out: Path,
    *,
    steps: int,
    batch_size: int = 8,
    context_size: int = 128,
    lr: float = 3e-4,
    seed: int = 0,
) -> dict[str, Any]:
    """Tune a copy of a model with AdamW on random blocks of text, and write it with its tokenizer.

    Args:
        name: of the model, as in ``rkstore harvest --model``.
        out: directory, which must be empty or missing.
        lr: peak learning rate; it falls linearly to zero, so that a short run ends settled.

    Returns:
        How it was made, with the loss on held-out blocks before and after, in nats per token; the
        same is in ``tuned.json``.

    Raises:
        BadInput: the directory is not empty, the texts are too short, or the model cannot be
            loaded.
    """
    if out.exists() and any(out.iterdir()):
        raise BadInput(f"{out} is not empty: give --out a new directory")
    model, tokenizer = load_plain(name)
    held_out, blocks = _blocks(tokenizer, texts, context_size)
    before = _mean_loss(model, held_out)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    with torch.enable_grad():
        for step in tqdm(range(steps), unit="step", desc=f"tune {name}", disable=None):
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 - step / steps)
            chosen = torch.randint(len(blocks), (batch_size,), generator=generator)
            optimizer.zero_grad()
            _loss(model, blocks[chosen]).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    record = {
        "model": Path(name).name,
        "steps": steps,
        "batch_size": batch_size,
        "context_size": context_size,
        "lr": lr,
        "seed": seed,
        "tokens_seen": steps * batch_size * context_size,
        "loss_before": round(before, 4),
        "loss_after": round(_mean_loss(model, held_out), 4),
    }
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    write_together({out / RECORD: (to_json(record, indent=1) + "\n").encode()})
    return record


def _blocks(tokenizer: Any, texts: Iterable[str], context_size: int) -> tuple[Tensor, Tensor]:
    """All text as blocks of tokens ``(blocks, context_size)``: held out, and to train on."""
    ids: list[int] = []
    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    for text in texts:
        ids += [first, *tokenizer.encode(text, add_special_tokens=False, verbose=False)]
    count = len(ids) // context_size
    if count < 2 * HELD_OUT:
        raise BadInput(f"there are {len(ids)} tokens of text to tune on: give more")
    blocks = torch.tensor(ids[: count * context_size]).view(count, context_size)
    out = torch.arange(count) % HELD_OUT == 0
    return blocks[out], blocks[~out]


def _loss(model: torch.nn.Module, tokens: Tensor) -> Tensor:
    """Cross-entropy of the next token, in nats, mean over the blocks ``(n, context_size)``."""
    logits = model(tokens).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())


def _mean_loss(model: torch.nn.Module, blocks: Tensor) -> float:
    blocks = blocks[:64]
    with torch.no_grad():
        losses = [_loss(model, part).item() * len(part) for part in torch.split(blocks, 8)]
    return sum(losses) / len(blocks)
