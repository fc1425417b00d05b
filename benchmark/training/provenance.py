"""Where a result comes from: source files, git commit, versions, device. Imports no torch by itself."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from benchmark.config.code_sources import code_hash, short_hash
from benchmark.config.protocol import RunConfig
from benchmark.data.prepared_folder import read_data_record
from benchmark.system import processes
from benchmark.system.devices import cpu_model
from benchmark.system.installation import INSTALLED, ROOT

DATA_KEYS = ("source", "about", "digits_sha256", "train_sha256", "validation_sha256", "test_sha256")
"""Of what `data.json` says of digits or of videos, what results keep."""
PACKAGES = ("torch", "numpy", "scipy", "pandas", "scikit-learn", "scikit-image", "lpips", "safetensors")
"""Packages whose version may change a number."""


def git(*arguments: str) -> str | None:
    """Output of a git command at the top level; None outside a git checkout.

    What pip installed is none, also where its environment lies in a checkout of something else.
    """
    if INSTALLED:
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode(errors="backslashreplace").strip()


def provenance(run: RunConfig, data_folder: Path, device: str) -> dict[str, Any]:
    """What `provenance.json` holds: no path of a machine and no host name."""
    import torch

    from models.precision import tensor_cores

    data = read_data_record(data_folder)
    accelerator = torch.cuda.get_device_name() if device == "cuda" else cpu_model()
    if device == "cuda" and processes.count() > 1:  # each has one
        accelerator = f"{processes.count()} x {accelerator}"
    with tensor_cores(run.training.precision, device):
        products = torch.get_float32_matmul_precision()
    changes = git("diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--no-textconv")
    return {
        "git_commit": git("rev-parse", "HEAD"),
        "git_dirty": None if changes is None else bool(changes),
        "git_diff_hash": short_hash(changes) if changes else None,
        "code_hash": code_hash("train", run.model),
        "config_hash": run.identity(),
        "data_hash": data["data_hash"],
        "data": {name: data[name] for name in DATA_KEYS if name in data},
        "device": device,
        "accelerator": accelerator,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "determinism": {
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "float32_matmul_precision": products,
            "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
            "threads": torch.get_num_threads(),
        },
        "command": (
            f"{' '.join(processes.launcher())} train --protocol {run.protocol} --variant {run.variant}"
            f" --seed {run.seed} --device {device}"
        ),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
    }
