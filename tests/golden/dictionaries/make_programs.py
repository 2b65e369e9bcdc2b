"""Makes the golden dictionaries, with the classes of the programs themselves.

Run by the interpreter of their environment, without rkstore, as

    .venv-peers/bin/python tests/golden/dictionaries/make_programs.py PROGRAM [CHECKOUT]

for a ``PROGRAM`` of ``MAKERS``. Those that the package index does not have are read from a
checkout. Each directory has the files as the program writes them; ``expected.safetensors``, which
holds rows ``x``, and the code ``f`` and the reconstruction ``y`` that the program computes; and
``made.json``, with the version or commit. A golden file is never made again by rkstore.
"""

import json
import subprocess
import sys
import types
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

GOLDEN = Path(__file__).parent
D, F, K, LAYERS, ROWS = 6, 10, 3, 3, 8

# Rows of the same token at each layer, and the weights, are from this generator.
SEED = 0


def main(program: str, checkout: str | None) -> None:
    torch.manual_seed(SEED)
    made = {"program": program, "torch": torch.__version__}
    if checkout is None:
        made["version"] = version({"sparsify": "eai-sparsify"}.get(program, program))
    else:
        sys.path.insert(0, checkout)
        done = subprocess.run(
            ["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True
        )
        made["commit"] = done.stdout.strip() or Path(checkout).name

    def keep(name: str, write: Callable[[Path], Any], x: Tensor, f: Tensor, y: Tensor) -> None:
        directory = GOLDEN / name
        directory.mkdir()
        write(directory)
        out = {"x": x, "f": f, "y": y}
        out = {key: tensor.detach().float().contiguous() for key, tensor in out.items()}
        save_file(out, directory / "expected.safetensors")
        (directory / "made.json").write_text(json.dumps(made, indent=2, allow_nan=False) + "\n")

    with torch.no_grad():
        MAKERS[program](keep)


def rows(*shape: int) -> Tensor:
    """Rows with a mean and with scales of their own."""
    return torch.randn(*shape, D) * torch.linspace(0.5, 2, D) + torch.linspace(-1, 1, D)


def scatter(module: nn.Module) -> None:
    """Give each weight and bias a value: a bias of zero would hide a sign."""
    for name, parameter in module.named_parameters():
        parameter.data += torch.randn(parameter.shape) * (0.1 if "weight" in name else 0.3)
        if "threshold" in name or "theta" in name:
            parameter.data.abs_()


def dictionary_learning(keep: Callable[..., None]) -> None:
    """``ae.pt`` and ``config.json`` of every class that ``load_dictionary`` knows."""
    from dictionary_learning import dictionary as plain
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    made = [getattr(plain, name)(D, F) for name in ("AutoEncoder", "AutoEncoderNew")]
    made += [plain.GatedAutoEncoder(D, F), plain.JumpReluAutoEncoder(D, F)]
    made += [AutoEncoderTopK(D, F, K), BatchTopKSAE(D, F, K)]
    made += [MatryoshkaBatchTopKSAE(D, F, K, [2, 3, 5])]
    for ae in made:
        scatter(ae)
        if isinstance(ae, plain.AutoEncoder):
            ae.decoder.weight.data /= ae.decoder.weight.norm(dim=0)
        if hasattr(ae, "k"):
            ae.threshold += 1.4
        name = type(ae).__name__
        trainer = {"dict_class": name, "trainer_class": "Trainer", "lr": 1e-3, "steps": 10}
        trainer |= {"activation_dim": D, "dict_size": F, "layer": 2, "lm_name": "gpt2"}
        trainer |= {"submodule_name": "resid_post_layer_2", "device": "cpu", "seed": 0}
        if hasattr(ae, "k"):
            trainer["k"] = int(ae.k)
        if name.startswith("Matryoshka"):
            trainer |= {"group_fractions": [0.2, 0.3, 0.5], "group_sizes": [2, 3, 5]}
        config = {"trainer": trainer, "buffer": {"d_submodule": D, "io": "out", "ctx_len": 128}}
        x = rows(ROWS)
        f = ae.encode(x)

        def write(directory: Path, ae: nn.Module = ae, config: Any = config) -> None:
            torch.save(ae.state_dict(), directory / "ae.pt")
            (directory / "config.json").write_text(json.dumps(config, indent=4, allow_nan=False))

        keep(f"dictionary-learning-{name}", write, x, f, ae.decode(f))


def sparsify(keep: Callable[..., None]) -> None:
    """An autoencoder, a transcoder, one with a skip, and a run of two hookpoints."""
    from sparsify import SparseCoder, SparseCoderConfig

    def coder(**options: bool) -> Any:
        made = SparseCoder(D, SparseCoderConfig(num_latents=F, k=K, **options))
        scatter(made)
        return made

    def coded(made: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        out = made(x)
        return torch.zeros(len(x), F).scatter(1, out.latent_indices, out.latent_acts), out.sae_out

    kinds = {"sae": {}, "transcoder": {"transcode": True}}
    kinds["skip"] = {"transcode": True, "skip_connection": True}
    for name, options in kinds.items():
        made, x = coder(**options), rows(ROWS)
        keep(f"sparsify-{name}", made.save_to_disk, x, *coded(made, x))
    several, x = {f"layers.{i}": coder() for i in (2, 10)}, rows(2, ROWS)
    out = [coded(made, part) for made, part in zip(several.values(), x, strict=True)]

    def write(directory: Path) -> None:
        for name, made in several.items():
            made.save_to_disk(directory / name)

    f, y = (torch.stack(part) for part in zip(*out, strict=True))
    keep("sparsify-run", write, x, f, y)


def circuit_tracer(keep: Callable[..., None]) -> None:
    """Sets of transcoders and cross-layer transcoders, with ReLU and JumpReLU."""
    import yaml
    from circuit_tracer.transcoder.activation_functions import JumpReLU
    from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder
    from circuit_tracer.transcoder.single_layer_transcoder import (
        SingleLayerTranscoder,
        TranscoderSet,
    )

    device, dtype = torch.device("cpu"), torch.float32
    hooks = {"feature_input_hook": "hook_resid_mid", "feature_output_hook": "hook_mlp_out"}

    def saved(made: Any, kind: str) -> Callable[[Path], None]:
        def write(directory: Path) -> None:
            made.to_safetensors(str(directory))
            config = {"model_name": "gpt2", "model_kind": kind, **hooks}
            (directory / "config.yaml").write_text(yaml.safe_dump(config))

        return write

    for jumps in (False, True):
        act = [JumpReLU(torch.rand(F), 0.1) if jumps else nn.functional.relu for _ in range(LAYERS)]
        made = {
            i: SingleLayerTranscoder(D, F, act[i], i, jumps, device=device, dtype=dtype)
            for i in range(LAYERS)
        }
        for one in made.values():
            scatter(one)
        plt, x = TranscoderSet(made, **hooks), rows(LAYERS, ROWS)
        f, name = plt.encode(x), "jumprelu" if jumps else "relu"
        keep(f"circuit-tracer-set-{name}", saved(plt, "transcoder_set"), x, f, plt.decode(f, x))
        rule = "jump_relu" if jumps else "relu"
        clt = CrossLayerTranscoder(
            LAYERS, F, D, rule, lazy_decoder=False, device=device, dtype=dtype
        )
        scatter(clt)
        f = clt.encode(x)
        keep(
            f"circuit-tracer-clt-{name}", saved(clt, "cross_layer_transcoder"), x, f, clt.decode(f)
        )


def crosscoder(keep: Callable[..., None]) -> None:
    """Both crosscoders of dictionary_learning's fork, with every code norm, and its BatchTopK."""
    from dictionary_learning.dictionary import BatchTopKCrossCoder, BatchTopKSAE, CrossCoder

    mean, std = torch.linspace(-1, 1, 2 * D).view(2, D), torch.linspace(0.5, 2, 2 * D).view(2, D)
    normalised = {"activation_mean": mean, "activation_std": std}
    made = {"relu": CrossCoder(D, F, 2, target_rms=1.0)}
    for norm in ("crosscoder", "sae", "mixed", "none", "decoupled"):
        made[norm] = BatchTopKCrossCoder(D, F, 2, k=K, code_normalization=norm)
    made["normalised"] = BatchTopKCrossCoder(D, F, 2, k=K, target_rms=4.0, **normalised)
    for name, cc in made.items():
        scatter(cc)
        if hasattr(cc, "threshold"):
            cc.threshold += 1.6
        x = rows(ROWS, 2)
        f = cc.encode(x)
        y = cc.decode(f)

        def write(directory: Path, cc: Any = cc, name: str = name) -> None:
            if name in ("relu", "sae", "normalised"):
                arguments = {"activation_dim": D, "dict_size": F, "num_layers": 2}
                arguments |= {"code_normalization": cc.code_normalization.name, "target_rms": 1.0}
                arguments |= {"k": K} if hasattr(cc, "k") else {}
                cc.save_pretrained(directory, config=arguments)
                (directory / "README.md").unlink(missing_ok=True)
                return
            torch.save(cc.state_dict(), directory / "model_final.pt")
            trainer = {"dict_class": "BatchTopKCrossCoder", "trainer_class": "Trainer", "k": K}
            trainer |= {"activation_dim": D, "dict_size": F, "lm_name": "gpt2", "layer": 2}
            trainer |= {"code_normalization": str(cc.code_normalization), "target_rms": 1.0}
            config = {"trainer": trainer, "buffer": {"ctx_len": 64}}
            (directory / "config.json").write_text(json.dumps(config, indent=4, allow_nan=False))

        keep(f"crosscoder-{name}", write, x.transpose(0, 1), f, y.transpose(0, 1))
    sae = BatchTopKSAE(D, F, K, activation_mean=mean[0], activation_std=std[0], target_rms=4.0)
    scatter(sae)
    sae.threshold += 1.6
    x = rows(ROWS)
    f = sae.encode(x)

    def write_sae(directory: Path) -> None:
        torch.save(sae.state_dict(), directory / "model_final.pt")
        trainer = {"dict_class": "BatchTopKSAE", "activation_dim": D, "dict_size": F, "k": K}
        (directory / "config.json").write_text(json.dumps({"trainer": trainer}, allow_nan=False))

    keep("dictionary-learning-normalised", write_sae, x, f, sae.decode(f))


def dedicated(keep: Callable[..., None]) -> None:
    """The crosscoder with dedicated features."""
    from dictionary_learning.dictionary import DedicatedFeatureBatchTopKCrossCoder

    shares = {"model_a_exclusive_pct": 0.2, "model_b_exclusive_pct": 0.3}
    cc = DedicatedFeatureBatchTopKCrossCoder(D, F, 2, K, **shares)
    scatter(cc)
    for part in (cc.encoder, cc.decoder):
        part._initialize_masked_weights()
    cc.threshold += 1.6
    x = rows(ROWS, 2)
    f = cc.encode(x)

    def write(directory: Path) -> None:
        torch.save(cc.state_dict(), directory / "model_final.pt")
        trainer = {"dict_class": "DedicatedFeatureBatchTopKCrossCoder", "k": K}
        trainer |= {"activation_dim": D, "dict_size": F, "lm_name": "gpt2"}
        (directory / "config.json").write_text(json.dumps({"trainer": trainer}, allow_nan=False))

    keep("crosscoder-dedicated", write, x.transpose(0, 1), f, cc.decode(f).transpose(0, 1))


def matryoshka_sae(keep: Callable[..., None]) -> None:
    """The four autoencoders, with and without its norm of the rows."""
    import sae

    kinds = {"topk": "TopKSAE", "batch-topk": "BatchTopKSAE", "vanilla": "VanillaSAE"}
    kinds |= {"jumprelu": "JumpReLUSAE", "global-matryoshka-topk": "GlobalBatchTopKMatryoshkaSAE"}
    for kind, name in kinds.items():
        cfg = {"seed": 0, "act_size": D, "dict_size": F, "device": "cpu", "dtype": torch.float32}
        cfg |= {"sae_type": kind, "top_k": K, "input_unit_norm": kind != "topk", "bandwidth": 0.001}
        cfg |= {"group_sizes": [2, 3, 5], "hook_point": "blocks.8.hook_resid_pre", "l1_coeff": 0}
        cfg |= {"model_name": "gpt2-small", "n_batches_to_dead": 20, "top_k_aux": 2}
        made = getattr(sae, name)(cfg).eval()
        if kind in ("vanilla", "jumprelu"):
            scatter(made)
        else:
            made.b_dec += torch.randn(D)
        if hasattr(made, "threshold"):
            made.threshold += 1.2
        x = rows(ROWS)
        if kind in ("vanilla", "jumprelu"):  # they have only a forward
            out = made(x)
            f, y = out["feature_acts"], out["sae_out"]
        else:
            f = made.encode(x)
            y = made.decode(f)

        def write(directory: Path, made: Any = made, cfg: Any = cfg) -> None:
            torch.save(made.state_dict(), directory / "sae.pt")
            plain = (int, float, str, bool, type(None))
            safe = {key: x if isinstance(x, plain) else str(x) for key, x in cfg.items()}
            (directory / "config.json").write_text(json.dumps(safe, indent=4, allow_nan=False))

        keep(f"matryoshka-sae-{kind}", write, x, f, y)


def matryoshka_transcoder(keep: Callable[..., None]) -> None:
    """Its transcoder, as ``checkpoints/final.pt``."""
    for name in ("transformer_lens", "transformer_lens.utils"):  # for names of hooks
        sys.modules[name] = types.ModuleType(name)
    sys.modules["transformer_lens"].utils = sys.modules["transformer_lens.utils"]
    from src.models.sae import MatryoshkaTranscoder

    cfg = {"seed": 0, "act_size": D, "dict_size": F, "device": "cpu", "dtype": torch.float32}
    cfg |= {"sae_type": "topk", "top_k": K, "input_unit_norm": True, "prefix_sizes": [2, 5, F]}
    cfg |= {"source_hook_point": "blocks.8.hook_mlp_in", "model_name": "gemma-2-2b"}
    cfg |= {"target_hook_point": "blocks.8.hook_mlp_out", "hook_point": "blocks.8.hook_mlp_in"}
    made = MatryoshkaTranscoder(cfg).eval()
    scatter(made)
    made.threshold += 1.2
    x = rows(ROWS)
    f = made.encode(x)

    def write(directory: Path) -> None:
        from src.utils.clean_results import CleanResultsManager

        manager = CleanResultsManager(str(directory / "runs"))
        manager.save_checkpoint(directory, made, cfg, 10, is_final=True)
        (directory / "runs").rmdir()

    keep("matryoshka-sae-transcoder", write, x, f, made.decode(f))


def crosslayer_transcoder(keep: Callable[..., None]) -> None:
    """Every nonlinearity with either decoder, standardisers folded or not."""
    for name in ("crosslayer_transcoder", "crosslayer_transcoder.model"):  # without their data
        package = types.ModuleType(name)
        package.__path__ = [str(Path(sys.path[0], *name.split(".")))]
        sys.modules[name] = package
    from crosslayer_transcoder.model import standardize
    from crosslayer_transcoder.model.clt import (
        CrosslayerDecoder,
        CrossLayerTranscoder,
        Decoder,
        Encoder,
    )
    from crosslayer_transcoder.model.jumprelu import JumpReLU, ReLU
    from crosslayer_transcoder.model.topk import BatchTopK, PerLayerBatchTopK, PerLayerTopK

    sizes = {"d_acts": D, "d_features": F, "n_layers": LAYERS}
    rules = {"relu": ReLU(), "topk": PerLayerTopK(K, n_layers=LAYERS)}
    rules["jumprelu"] = JumpReLU(0.3, 1.0, LAYERS, F)
    rules["batchtopk"] = BatchTopK(K, 0.01, LAYERS)
    rules["per-layer-batchtopk"] = PerLayerBatchTopK(K, 0.01, LAYERS)
    for name, rule in rules.items():
        crosses, kind = name in ("topk", "jumprelu"), "Layerwise"
        shape: dict[str, int] = {"n_layers": LAYERS, "n_exclude": 0}
        if name in ("relu", "jumprelu"):
            kind, shape = "Dimensionwise", {"n_layers": LAYERS, "activation_dim": D}
        standardisers = [
            getattr(standardize, f"{kind}{side}Standardizer")(**shape)
            for side in ("Input", "Output")
        ]
        decoder = (CrosslayerDecoder if crosses else Decoder)(**sizes)
        made = CrossLayerTranscoder(rule, Encoder(**sizes), decoder, *standardisers)
        scatter(made)
        made.initialize_standardizers(rows(64, 2, LAYERS) * 3)
        if hasattr(rule, "threshold"):
            rule.threshold = rule.threshold + torch.linspace(0.1, 0.3, len(rule.threshold))
        x = rows(ROWS, LAYERS)
        acts = made.input_standardizer(x)
        pre = made.encoder(acts)
        # A batch's own code is that of a training; a layer's alone has the threshold.
        if name == "per-layer-batchtopk":
            f = torch.stack([rule(pre, s)[:, s] for s in range(LAYERS)], dim=1)
        else:
            f = rule(pre, 0) if name == "batchtopk" else rule(pre)
        y = made.output_standardizer(made.decoder(f))

        def write(directory: Path, made: Any = made, name: str = name) -> None:
            # Folding needs a number for each dimension.
            made.save_pretrained(directory, fold_standardizers=name == "jumprelu")

        keep(
            f"crosslayer-transcoder-{name}",
            write,
            x.transpose(0, 1),
            f.transpose(0, 1),
            y.transpose(0, 1),
        )


def rkcnn_sae(keep: Callable[..., None]) -> None:
    """Both autoencoders of an experiment, and one with tied weights and without biases."""
    from rkcnn_sae.models.rkcnn_sae import RkCNNSAEConfig, RkCNNSparseAutoencoder
    from rkcnn_sae.models.sae import SAEConfig, SparseAutoencoder

    made = {
        "rkcnn_sae": RkCNNSparseAutoencoder(RkCNNSAEConfig(D, F)),
        "baseline_sae": SparseAutoencoder(SAEConfig(D, F)),
        "tied": SparseAutoencoder(SAEConfig(D, F, tied_weights=True, bias=False)),
    }
    for name, sae in made.items():
        scatter(sae)
        x = rows(ROWS)
        f, y, _ = sae(x)
        file = "baseline_sae.pt" if name == "baseline_sae" else "rkcnn_sae.pt"

        def write(directory: Path, sae: Any = sae, file: str = file) -> None:
            torch.save(sae.state_dict(), directory / file)

        keep(f"rkcnn-sae-{name}", write, x, f, y)


MAKERS: dict[str, Callable[[Callable[..., None]], None]] = {
    "dictionary-learning": dictionary_learning,
    "sparsify": sparsify,
    "circuit-tracer": circuit_tracer,
    "crosscoder": crosscoder,  # jkminder/dictionary_learning
    "dedicated": dedicated,  # superkaiba/dfc_learning
    "matryoshka-sae": matryoshka_sae,  # bartbussmann/matryoshka_sae
    "matryoshka-transcoder": matryoshka_transcoder,  # a1842806/matryoshka_transcoder
    "crosslayer-transcoder": crosslayer_transcoder,  # Goreg12345/crosslayer-transcoder
    "rkcnn-sae": rkcnn_sae,  # stchakwdev/RkCNN_SAE
}

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
