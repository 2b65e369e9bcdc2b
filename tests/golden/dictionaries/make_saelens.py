"""Make the golden dictionaries of SAELens with its own classes, in its own environment.

    .venv-saelens/bin/python tests/golden/dictionaries/make_saelens.py

Each is trained for a moment, saved by SAELens, loaded by it again, and put beside what SAELens then
computes: ``expected.safetensors`` has rows ``x``, the code ``f``, the reconstruction ``y``, and
the ``target`` of a transcoder; ``made.json`` the FVU, the L0 and the version. Those that are there
already are left alone.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from sae_lens import SAE
from sae_lens.evals import ExplainedVarianceCalculator
from sae_lens.registry import get_sae_class, get_sae_training_class
from sae_lens.saes.sae import SAEMetadata, TrainStepInput
from sae_lens.training.activation_scaler import ActivationScaler
from safetensors.torch import save_file

GOLDEN = Path(__file__).parent
D_IN, D_OUT, D_SAE, ROWS, STEPS = 8, 6, 24, 64, 300
PLACES = {"model_name": "gpt2", "hook_name": "blocks.0.mlp.hook_in", "context_size": 8}

AUTOENCODERS = {
    "standard": {"l1_coefficient": 0.05},
    "gated": {"l1_coefficient": 0.05},
    "topk": {"k": 4},
    "abstopk": {"k": 4},
    "jumprelu": {"l0_coefficient": 0.02, "jumprelu_bandwidth": 0.1},
    "batchtopk": {"k": 4, "rescale_acts_by_decoder_norm": False},
    "matryoshka_batchtopk": {"k": 4, "matryoshka_widths": [6, 12, D_SAE]},
}
TRANSCODERS = ["transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"]
NORMALISED = [
    "expected_average_only_in",
    "constant_norm_rescale",
    "layer_norm",
    "covariance_whitening",
]
REFUSED = ["matching_pursuit", "temporal"]


def rows(seed: int, n: int = ROWS) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of a few directions, and what a layer makes of them."""
    fixed = torch.Generator().manual_seed(0)
    directions = torch.randn(20, D_IN, generator=fixed)
    layer = torch.randn(D_IN, D_OUT, generator=fixed)
    drawn = torch.Generator().manual_seed(seed)
    strength = torch.rand(n, 20, generator=drawn) * (torch.rand(n, 20, generator=drawn) < 0.15)
    x = strength @ directions + 0.3
    return x, (x @ layer).relu() + 0.1


def trained(architecture: str, normalisation: str, options: dict) -> tuple:
    """An autoencoder after a few steps, and the scaler that it was trained with."""
    kind, config = get_sae_training_class(architecture)
    torch.manual_seed(0)
    cfg = config(d_in=D_IN, d_sae=D_SAE, normalize_activations=normalisation, **options)
    cfg.metadata = SAEMetadata(**PLACES)
    sae, scaler = kind(cfg), ActivationScaler()
    batches = iter(lambda: rows(0, 512)[0], None)
    if normalisation == "expected_average_only_in":
        scaler.estimate_scaling_factor(D_IN, batches, 4)
    if normalisation == "covariance_whitening":
        scaler.estimate_whitening(D_IN, batches, 4)
    adam = torch.optim.Adam(sae.parameters(), 1e-2)
    coefficients = {
        name: getattr(value, "value", value) for name, value in sae.get_coefficients().items()
    }
    for step in range(STEPS):
        x = scaler(rows(step + 1)[0])
        out = sae.training_forward_pass(TrainStepInput(x, coefficients, None, step, False))
        adam.zero_grad()
        out.loss.backward()
        adam.step()
    return sae, scaler


def transcoder(architecture: str):
    """A transcoder after a few steps on its error and an L1 penalty: SAELens trains none."""
    kind, config = get_sae_class(architecture)
    torch.manual_seed(0)
    cfg = config(d_in=D_IN, d_sae=D_SAE, d_out=D_OUT, apply_b_dec_to_input=False)
    cfg.metadata = SAEMetadata(**PLACES, hook_name_out="blocks.0.hook_mlp_out")
    sae = kind(cfg)
    if "jumprelu" in architecture:
        sae.threshold.data.uniform_(0.02, 0.2)
    adam = torch.optim.Adam(sae.parameters(), 1e-2)
    for step in range(STEPS):
        x, y = rows(step + 1)
        error = (sae(x) - y).square().sum(dim=-1).mean()
        adam.zero_grad()
        (error + 0.02 * sae.encode(x).sum(dim=-1).mean()).backward()
        adam.step()
    return sae


@torch.no_grad()
def keep(directory: Path, sae, scaler: ActivationScaler | None) -> None:
    """Save a dictionary as SAELens does, and what it then computes."""
    directory.mkdir(parents=True)
    getattr(sae, "save_inference_model", sae.save_model)(directory)
    if scaler is not None:
        scaler.save(str(directory / "activation_scaler.json"))
    loaded = SAE.load_from_disk(directory, device="cpu")
    if scaler is not None and scaler.scaling_factor is not None:
        loaded.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    if scaler is not None and scaler.whitening is not None:
        white = scaler.whitening
        loaded.fold_activation_whitening(white.mean, white.matrix, white.inverse_matrix)
    x, written = rows(10**6)
    target = {"target": written} if hasattr(loaded.cfg, "d_out") else {}
    f, y = loaded.encode(x), loaded(x)
    variance = ExplainedVarianceCalculator()
    variance.add_batch(y, target.get("target", x))
    found = {"x": x, "f": f, "y": y} | target
    save_file({k: t.contiguous() for k, t in found.items()}, directory / "expected.safetensors")
    made = {
        "program": "sae-lens",
        "torch": torch.__version__,
        "version": version("sae-lens"),
        "fvu": 1 - variance.compute(),
        "l0": (f != 0).sum(dim=-1).float().mean().item(),
    }
    text = json.dumps(made, indent=1, allow_nan=False) + "\n"
    (directory / "made.json").write_text(text, "utf-8")


def refused(directory: Path, architecture: str) -> None:
    """One that rkstore is to refuse."""
    kind, config = get_sae_class(architecture)
    torch.manual_seed(0)
    more = {"n_heads": 1, "bottleneck_factor": 1} if architecture == "temporal" else {}
    cfg = config(d_in=D_IN, d_sae=D_SAE, **more)
    cfg.metadata = SAEMetadata(**PLACES)
    directory.mkdir(parents=True)
    kind(cfg).save_model(directory)


def main() -> None:
    """Make those that are missing."""
    made = {
        f"saelens-{name}": lambda name=name: trained(name, "none", AUTOENCODERS[name])
        for name in AUTOENCODERS
    }
    made |= {
        f"saelens-topk-{name}": lambda name=name: trained("topk", name, AUTOENCODERS["topk"])
        for name in NORMALISED
    }
    made |= {f"saelens-{name}": lambda name=name: (transcoder(name), None) for name in TRANSCODERS}
    for name, make in made.items():
        if not (GOLDEN / name).exists():
            sae, scaler = make()
            keep(GOLDEN / name, sae, scaler)
            print(name)
    for name in REFUSED:
        if not (GOLDEN / f"saelens-{name}").exists():
            refused(GOLDEN / f"saelens-{name}", name)
            print(name)


if __name__ == "__main__":
    main()
