"""PyTorch: one tensor in a ``.pt`` file, memory-mapped; no code in it is run."""

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.errors import BadInput
from rkstore.share.exchange.base import Floats, Importer, Source
from rkstore.share.exchange.files import of_files
from rkstore.share.exchange.matrices import Matrix, check_shape

if TYPE_CHECKING:
    from rkstore.share.settings import ImportSettings

DTYPES = ("float32", "float16", "bfloat16", "float64")


class Pt(Importer):
    """Reads what ``torch.save(tensor)`` wrote: one file, or a directory in natural order."""

    name = "pt"

    def open(self, path: Path, settings: "ImportSettings") -> Source:
        return of_files(path, settings, ".pt", _matrix, load_ids)


def load_ids(path: Path) -> Any:
    """The tensor in a file as an array of NumPy.

    Raises:
        BadInput: see :func:`load_tensor`; or NumPy lacks their type.
    """
    tensor = load_tensor(path)
    if tensor.is_floating_point():
        raise BadInput(f"{path} holds {tensor.dtype}: token ids are integers")
    return tensor.numpy()


def load_tensor(path: Path) -> Any:
    """The tensor in a file, memory-mapped.

    Raises:
        BadInput: the file is truncated or is not one plain tensor. No code in it is run: a pickle
        may contain any program.
    """
    import torch

    if path.is_dir():
        raise BadInput(f"{path} is a directory: give one .pt file")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise BadInput(
            f"{path} is a pickle of more than tensors, which could run any program: save the "
            "tensor alone, with torch.save(tensor, path)"
        ) from None
    except (RuntimeError, ValueError, EOFError, KeyError, TypeError):
        raise BadInput(
            f"{path} is truncated, or not what torch.save writes since version 1.6: save the "
            f"tensor again"
        ) from None
    if not isinstance(loaded, torch.Tensor):
        raise BadInput(
            f"{path} holds a {type(loaded).__name__}, not a tensor: save the tensor alone, with "
            "torch.save(tensor, path)"
        )
    if loaded.layout != torch.strided or loaded.device.type != "cpu":
        raise BadInput(f"{path} holds a sparse or empty tensor: save it dense")
    return loaded.detach()


def _matrix(path: Path) -> Matrix:
    tensor = load_tensor(path)
    dtype = str(tensor.dtype).removeprefix("torch.")
    check_shape(str(path), tensor.shape)
    if dtype not in DTYPES:
        raise BadInput(f"{path} holds {dtype}: activations are {', '.join(DTYPES)}")
    return Matrix(tensor, _floats, dtype)


def _floats(tensor: Any) -> Floats:
    floats: Floats = tensor.float().numpy()
    return floats
