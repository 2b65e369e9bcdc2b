"""Read samples with the program that they were written for: ``samples_read.py PROGRAM PATH``.

It prints what of them the program finds, as JSON.
"""

import importlib.util
import json
import sys
from importlib.metadata import files
from pathlib import Path


def module(package, name):
    """One file of a package, without what the package itself needs to be imported."""
    [file] = [file for file in files(package) if str(file).endswith(name)]
    spec = importlib.util.spec_from_file_location("peer", file.locate())
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def saedashboard(path):
    """The features of a batch."""
    batch = module("sae-dashboard", "neuronpedia/neuronpedia_dashboard.py")
    read = batch.NeuronpediaDashboardBatch(**json.loads(Path(path).read_text("utf-8")))
    return read.to_dict()["features"]


def saedashboard_logits(path):
    """The table and the histogram that it makes of logits: an array, a row for each latent."""
    import numpy as np
    import torch
    from sae_dashboard.components import LogitsHistogramData
    from sae_dashboard.components_config import LogitsHistogramConfig, LogitsTableConfig
    from sae_dashboard.data_parsing_fns import get_logits_table_data

    found = []
    for row in torch.from_numpy(np.load(path)).float():
        table = get_logits_table_data(row, LogitsTableConfig().n_rows)
        bins = LogitsHistogramConfig().n_bins
        bars = LogitsHistogramData.from_data(row, bins, tickmode="5 ticks", title=None)
        found.append({**vars(table), "heights": bars.bar_heights, "values": bars.bar_values})
    return found


def circuit_tracer(path):
    """A feature."""
    models = module("circuit-tracer", "frontend/feature_models.py")
    return models.Model.model_validate_json(Path(path).read_text("utf-8")).model_dump()


def delphi(path):
    """How often each latent of each module fires."""
    from delphi.config import ConstructorConfig, SamplerConfig
    from delphi.latents.loader import LatentDataset

    nothing = object()
    data = LatentDataset(path, SamplerConfig(), ConstructorConfig(), tokenizer=nothing)
    found = {}
    for buffer in data.buffers:
        latents, _, activations = buffer.load_data_per_latent()
        own = found.setdefault(buffer.module_path, {})
        own.update(zip(latents.tolist(), map(len, activations), strict=True))
    return found


READERS = {
    "saedashboard": saedashboard,
    "saedashboard-logits": saedashboard_logits,
    "circuit-tracer": circuit_tracer,
    "delphi": delphi,
}

if __name__ == "__main__":
    print(json.dumps(READERS[sys.argv[1]](sys.argv[2]), allow_nan=False))
