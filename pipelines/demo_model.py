"""Train rkstore's bundled GPT-2 on the text that ships with CPython.

    python pipelines/demo_model.py --out rkstore/assets/demo --steps 3000

Twelve layers, 128 wide, 4,096 tokens: GPT-2's shape in a few megabytes, so that "all 12 layers"
means the same thing in the demo as in a real run. What it learned is measured on held-out documents
against a unigram model of the same tokens, and both losses are saved with the weights.
"""

import json
import math
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import click
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from rkstore.cli.options import Command
from rkstore.harvest.text.python import python_documents

END = "<|endoftext|>"
CONTEXT = 256


def train_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE, GPT-2's scheme, learned from the training documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for _, text in python_documents("train")), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, model_max_length=CONTEXT
    )


def tokenize(tokenizer: PreTrainedTokenizerFast, part: str) -> torch.Tensor:
    """All documents of one part as one stream of token ids, ``END`` between documents."""
    ids: list[int] = []
    for _, text in python_documents(part):  # type: ignore[arg-type]
        ids.append(tokenizer.bos_token_id)
        ids.extend(tokenizer.backend_tokenizer.encode(text).ids)
    return torch.tensor(ids)


def batches(stream: torch.Tensor, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Blocks ``(size, CONTEXT)`` that start at random places, without end."""
    while True:
        starts = torch.randint(len(stream) - CONTEXT, (size,), generator=generator)
        yield stream[starts[:, None] + torch.arange(CONTEXT)]


def optimizers(model: GPT2LMHeadModel, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for all other parameters.

    Keller Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024): it
    reaches a loss in fewer tokens, and tokens are what a small machine is short of.
    """
    inside = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    chosen = {id(p) for p in inside}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(inside, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def schedule(step: int, steps: int) -> float:
    """A short warm-up, then a constant rate, then a linear decay over the last half."""
    return min(1.0, (step + 1) / 100, 2 * (1 - step / steps))


def mean_loss(model: GPT2LMHeadModel, stream: torch.Tensor) -> float:
    """Cross-entropy in nats per token over disjoint blocks of the whole stream."""
    blocks = stream[: len(stream) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    total = 0.0
    with torch.no_grad():
        for part in blocks.split(16):  # type: ignore[no-untyped-call]
            total += model(part, labels=part).loss.item() * len(part)
    return total / len(blocks)


def unigram_loss(train: torch.Tensor, held_out: torch.Tensor, vocabulary: int) -> float:
    """What the training frequencies alone would score, add-one smoothed, in nats per token."""
    counts = torch.bincount(train, minlength=vocabulary).double() + 1
    return -(counts / counts.sum()).log()[held_out].mean().item()


def shape(tokenizer: PreTrainedTokenizerFast, vocabulary: int) -> GPT2Config:
    """GPT-2's shape in small."""
    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=CONTEXT,
        n_embd=128,
        n_layer=12,
        n_head=4,
        # The same function as GPT-2's "gelu_new" in one fused kernel.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def fit(model: GPT2LMHeadModel, data: Iterator[torch.Tensor], steps: int, lr: float) -> None:
    """Train the model in place, with products in bfloat16."""
    optims = optimizers(model, lr)
    for step in (bar := tqdm(range(steps), unit="step", disable=None)):
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = lr * schedule(step, steps)
        batch = next(data).to(model.device)
        with torch.autocast(model.device.type, torch.bfloat16):
            logits = model(batch).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if step % 100 == 0 and bar.disable:
            click.echo(f"step {step} loss {loss.item():.3f}", err=True)


@click.command(cls=Command)
@click.option("--out", type=Path, required=True, help="Directory for the model and tokenizer.")
@click.option("--steps", default=3000, show_default=True)
@click.option("--batch-size", default=16, show_default=True, help=f"Blocks of {CONTEXT} tokens.")
@click.option("--lr", default=4e-3, show_default=True)
@click.option("--vocabulary", default=4096, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True)
def main(
    out: Path, steps: int, batch_size: int, lr: float, vocabulary: int, seed: int, device: str
) -> None:
    """Train the demo model and write it, its tokenizer and what it scored to OUT."""
    tokenizer = train_tokenizer(vocabulary)
    train, held_out = tokenize(tokenizer, "train"), tokenize(tokenizer, "held-out")
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(shape(tokenizer, vocabulary)).to(device)
    data = batches(train, batch_size, torch.Generator().manual_seed(seed))
    began = time.monotonic()
    fit(model, data, steps, lr)
    # Half precision on disk is half the size: what is written is measured after rounding.
    model = model.cpu().half().float().eval()
    model.config.activation_function = "gelu_new"
    report = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seed": seed,
        "steps": steps,
        "training_tokens": steps * batch_size * CONTEXT,
        "corpus_tokens": {"train": len(train), "held_out": len(held_out)},
        "parameters": sum(p.numel() for p in model.parameters()),
        "nats_per_token": {
            "train": round(mean_loss(model, train[: 400 * CONTEXT]), 4),
            "held_out": round(mean_loss(model, held_out), 4),
            "held_out_unigram": round(unigram_loss(train, held_out, vocabulary), 4),
            "uniform": round(math.log(vocabulary), 4),
        },
        "characters_per_token": round(
            sum(len(text) for _, text in python_documents("held-out")) / len(held_out), 3
        ),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "training.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
    click.echo(json.dumps(report, indent=2, allow_nan=False))


if __name__ == "__main__":
    main()
