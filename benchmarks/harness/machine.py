"""What the numbers were measured on."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from harness.peer import ENVIRONMENTS, ROOT
from harness.row import THREADS, NotMeasured

LIBRARIES = (
    "rkstore",
    "torch",
    "transformers",
    "transformer-lens",
    "numpy",
    "numcodecs",
    "zarr",
    "h5py",
    "datasets",
    "pyarrow",
)
PEER_LIBRARIES = (
    *("sae-lens", "dictionary-learning", "eai-delphi", "sae-dashboard"),
    *("torch", "transformer-lens", "datasets"),
)


def machine() -> dict[str, Any]:
    """Processor, memory, and the versions of everything that takes part."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "threads": THREADS,
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "peers": {name: _peer_libraries(ROOT / path) for name, path in ENVIRONMENTS.items()},
    }


def device() -> str:
    """The CUDA device, the processor beside it, and what computes on them.

    Raises:
        NotMeasured: there is none.
    """
    import torch

    if not torch.cuda.is_available():
        raise NotMeasured("it needs a CUDA device")
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{torch.cuda.get_device_name()} beside {os.cpu_count()} cores, {libraries}"


def _cpu() -> str:
    """The model's name, with family and model where the name alone says little."""
    said = subprocess.run(["lscpu"], capture_output=True, text=True, env={"LC_ALL": "C"}).stdout
    fields = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    name, family, model = (
        fields.get(key, "").strip() for key in ("Model name", "CPU family", "Model")
    )
    return f"{name} (family {family}, model {model})" if name else platform.machine()


def _peer_libraries(environment: Path) -> dict[str, str]:
    packages = [str(path) for path in environment.glob("lib/python*/site-packages")]
    found = importlib.metadata.distributions(path=packages) if packages else ()
    versions = {
        distribution.metadata["Name"].lower(): distribution.version for distribution in found
    }
    return {name: versions[name] for name in PEER_LIBRARIES if name in versions}
