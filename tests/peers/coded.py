"""What a program computes with a dictionary: ``coded.py PROGRAM DIRECTORY ROWS OUT``, for each
directory in turn.

``ROWS`` has ``x (n, d)``, or ``(layers, n, d)``. ``OUT`` gets the code ``f`` and the
reconstruction ``y``. Each is loaded as the program's own readers do it.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def dictionary_learning(directory, x):
    from dictionary_learning.utils import load_dictionary

    ae, _ = load_dictionary(str(directory), device="cpu")
    f = ae.encode(x)
    return f, ae.decode(f)


def sparsify(directory, x):
    from sparsify import SparseCoder

    alone = (directory / "cfg.json").is_file()
    several = {"": SparseCoder.load_from_disk(directory)} if alone else None
    several = several or SparseCoder.load_many(str(directory), local=True)
    parts = [x] if alone else x
    fs, ys = [], []
    for coder, part in zip(several.values(), parts, strict=True):
        out = coder(part)
        zeros = torch.zeros(len(part), coder.num_latents)
        fs.append(zeros.scatter(1, out.latent_indices, out.latent_acts))
        ys.append(out.sae_out)
    return (fs[0], ys[0]) if alone else (torch.stack(fs), torch.stack(ys))


def circuit_tracer(directory, x):
    import yaml
    from circuit_tracer.transcoder.cross_layer_transcoder import load_clt
    from circuit_tracer.transcoder.single_layer_transcoder import (
        load_relu_transcoder,
        load_transcoder_set,
    )

    config = yaml.safe_load((directory / "config.yaml").read_text())
    hooks = {key: config[key] for key in ("feature_input_hook", "feature_output_hook")}
    plain = {"device": torch.device("cpu"), "dtype": torch.float32}
    if config["model_kind"] == "cross_layer_transcoder":
        clt = load_clt(str(directory), **hooks, **plain)
        f = clt.encode(x)
        return f, clt.decode(f)
    files = sorted(directory.glob("layer_*.safetensors"))
    if len(files) == 1:
        layer = int(files[0].stem.removeprefix("layer_"))
        one = load_relu_transcoder(str(files[0]), layer, **plain)
        f = one.encode(x)
        return f, one.decode(f, x)
    paths = {i: str(directory / f"layer_{i}.safetensors") for i in range(len(files))}
    plt = load_transcoder_set(paths, scan="here", **hooks, **plain)
    f = plt.encode(x)
    return f, plt.decode(f, x)


READERS = {
    "dictionary-learning": dictionary_learning,
    "sparsify": sparsify,
    "circuit-tracer": circuit_tracer,
}

program, *files = sys.argv[1:]
for directory, rows, out in zip(files[::3], files[1::3], files[2::3], strict=True):
    with torch.no_grad():
        f, y = READERS[program](Path(directory), load_file(rows)["x"])
    save_file({"f": f.contiguous(), "y": y.contiguous()}, out)
