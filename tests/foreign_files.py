"""What the tests of exchange share: files as other programs leave them."""

import json

import h5py
import numpy as np

from rkstore.share.exchange.exporting import export_store
from rkstore.share.settings import ExportSettings

# Where the files of an export are that an import of the same name takes.
EXPORTED = {"saelens": "", "memmap": "", "npy": "", "hdf5": "activations.h5"}

ROWS, WIDTH, CONTEXT = 48, 6, 8


def rows():
    """Rows of float32, ``(ROWS, WIDTH)``, that float16 and bfloat16 hold exactly."""
    return np.random.default_rng(0).integers(-128, 128, (ROWS, WIDTH)).astype(np.float32) / 16


def export(store, kind, out, **options):
    return export_store(store, ExportSettings(to=kind, out=str(out), **options))


def save_arrow(path, columns, shapes, tokens=None):
    """Save a dataset as ``datasets`` does, with Array2D columns of the shapes."""
    import datasets

    datasets.disable_progress_bars()
    features = {name: datasets.Array2D(shape, "float32") for name, shape in shapes.items()}
    if tokens is not None:
        columns = columns | {"token_ids": tokens}
        features["token_ids"] = datasets.Sequence(datasets.Value("int32"), length=tokens.shape[1])
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    data.save_to_disk(str(path), num_shards=2)
    return path


def save_memmap(directory, number, x, dtype="float32"):
    """Save one shard as the activation cache of dictionary_learning does."""
    directory.mkdir(parents=True, exist_ok=True)
    stored = x.astype(np.float32)
    if dtype == "bfloat16":
        stored = (stored.view(np.uint32) >> 16).astype(np.uint16).view(np.int16)
    else:
        stored = stored.astype(dtype)
    stored.tofile(directory / f"shard_{number}.memmap")
    meta = {"shape": list(x.shape), "dtype": f"torch.{dtype}"}
    (directory / f"shard_{number}.meta").write_text(json.dumps(meta))


def foreign(kind, root, x):
    """Rows as another program would leave them, in files of that format."""
    import torch

    if kind == "saelens":
        blocks = x.reshape(-1, CONTEXT, WIDTH)
        return save_arrow(root / "arrow", {"acts": blocks}, {"acts": blocks.shape[1:]})
    if kind == "memmap":
        for number, part in enumerate(np.split(x, [5, 29])):
            save_memmap(root / "acts", number, part)
        return root / "acts"
    path = root / {"npy": "acts.npy", "pt": "acts.pt", "hdf5": "acts.h5"}[kind]
    if kind == "npy":
        np.save(path, x)
    elif kind == "pt":
        torch.save(torch.from_numpy(x), path)
    else:
        with h5py.File(path, "w") as file:
            file["tensor"] = x
    return path


def foreign_arrays(kind, root, arrays):
    """Several arrays of rows, by name, as another program would leave them."""
    import torch

    root.mkdir(parents=True)
    if kind == "saelens":
        blocks = {name: x.reshape(-1, CONTEXT, x.shape[-1]) for name, x in arrays.items()}
        return save_arrow(root / "arrow", blocks, {n: b.shape[1:] for n, b in blocks.items()})
    for name, x in arrays.items():
        if kind == "memmap":
            for number, part in enumerate(np.array_split(x, 12)):
                save_memmap(root / name, number, part)
        elif kind == "npy":
            np.save(root / f"{name}.npy", x)
        elif kind == "pt":
            torch.save(torch.from_numpy(x), root / f"{name}.pt")
        else:
            with h5py.File(root / "acts.h5", "a") as file:
                file[name] = x
    return root / "acts.h5" if kind == "hdf5" else root
