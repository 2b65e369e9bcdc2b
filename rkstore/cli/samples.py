"""``samples`` and ``latents``."""

from pathlib import Path

import click

from rkstore.cli.options import PATH, Command, options_of
from rkstore.cli.streams import echo, plain
from rkstore.evaluation.samples.settings import LatentsSettings, SamplesSettings


@click.command(cls=Command)
@click.argument("checkpoint", type=PATH)
@options_of(SamplesSettings)
def samples(settings: SamplesSettings, checkpoint: str) -> None:
    """One pass over the store; the model is loaded for logits alone. The output is complete or
    absent.
    """
    from rkstore.evaluation.samples.write import write_samples

    found, out, notes = write_samples(checkpoint, settings)
    for note in notes:
        echo(plain(f"{checkpoint}: {note}"), err=True)
    dead = int((found.fired == 0).sum())
    silent = f", {dead:,} of which never fire" if dead else ""
    echo(
        f"{len(found.row):,} samples of {found.d_sae:,} latents{silent}, on {found.rows:,} rows of "
        f"{found.hook_name}"
    )
    echo(out)


@click.command(cls=Command)
@click.argument("checkpoint", type=PATH)
@options_of(LatentsSettings)
def latents(settings: LatentsSettings, checkpoint: str) -> None:
    """Their samples, which latents are like them, groups of such, and with --against the nearest
    latents of another dictionary beside them: a page of Markdown, and its numbers as JSON.
    """
    from rkstore.evaluation.report.described import as_dict, page, words
    from rkstore.evaluation.report.tables import table
    from rkstore.evaluation.samples.describe import describe
    from rkstore.evaluation.samples.samples import check_new
    from rkstore.store.files import named, write_together
    from rkstore.store.jsontext import to_json

    out = Path("results/latents") / named(checkpoint).resolve().name
    out = named(settings.out) if settings.out else out
    check_new(out)
    made = describe(checkpoint, settings)
    for note in made.notes:
        echo(plain(note), err=True)
    found = made.found.samples
    rows = [
        [
            str(latent),
            f"{found.fired[latent] / found.rows:.2%}",
            f"{found.largest[latent]:.3g}",
            plain(" ".join(repr(word) for word, _ in words(made.found, latent)[:3])),
        ]
        for latent in made.latents
    ]
    echo(table(["latent", "density", "largest", "words"], rows))
    files = {out / "latents.md": page(made), out / "latents.json": to_json(as_dict(made), indent=1)}
    write_together({path: text.encode() for path, text in files.items()})
    for path in files:
        echo(path)
