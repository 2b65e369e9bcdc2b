"""Twenty latents of a real model, drawn with a seed and named by hand: ``docs/latents_smollm2.md``.

    make smollm2
    rkstore harvest --model models/smollm2 --text valid.txt --layers 15 --hook hook_resid_post \\
        --tokens 250000 --out stores/smollm2
    rkstore train --store stores/smollm2 --layer 15 --hook hook_resid_post --max-norm 10 \\
        --d-sae 4608 --k 32 --auxk 256 --steps 1500 --batch-size 1024 --name smollm2-15
    python pipelines/latents_page.py checkpoints/sae/smollm2/smollm2-15_1500 --store stores/smollm2

The text is the valid.txt of wikitext-2. The names belong to this one dictionary: with other
versions of the libraries, or another seed, other latents are drawn and mean other things.
"""

from pathlib import Path

import click
from results import put, start

from rkstore.cli.options import Command
from rkstore.errors import BadInput
from rkstore.evaluation.report.described import page
from rkstore.evaluation.samples.describe import describe
from rkstore.evaluation.samples.settings import LatentsSettings

BEGIN, END = "<!-- drawn -->", "<!-- end of drawn -->"


@click.command(cls=Command)
@click.argument("checkpoint", type=Path)
@click.option("--store", type=Path, required=True)
@click.option("--max-norm", default=10.0, show_default=True, help="As of 'rkstore train'.")
@click.option("--draw", default=20, show_default=True, help="Latents, of those that fire.")
@click.option("--seed", default=0, show_default=True)
@click.option("--names", type=Path, default="docs/latents_smollm2.json", show_default=True)
@click.option("--out", type=Path, default="docs/latents_smollm2.md", show_default=True)
def main(
    checkpoint: Path,
    store: Path,
    max_norm: float,
    draw: int,
    seed: int,
    names: Path,
    out: Path,
) -> None:
    """Write the latents between the two markers of the page; all that are drawn, named or not."""
    settings = LatentsSettings(
        store=str(store),
        max_norm=max_norm,
        draw=draw,
        seed=seed,
        names=str(names),
        # Six of the strongest, and one from each band.
        max_samples_per_feature=11,
        samples_per_quantile=1,
    )
    made = describe(checkpoint, settings)
    if without := [latent for latent in made.latents if str(latent) not in made.names]:
        raise BadInput(
            f"{names} has no name for {', '.join(map(str, without))}: all latents that are drawn "
            "get one, also those that mean nothing"
        )
    title, _, rest = page(made).partition("\n\n")
    put(out, BEGIN, END, rest.rpartition("\n\n## Groups")[0])
    click.echo(f"{title.removeprefix('# ')}\n{out}")


if __name__ == "__main__":
    start(main)
