"""Where a result comes from: source files, git commit, versions, device. Imports no torch by itself."""

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from benchmark import processes
from benchmark.config import RunConfig
from benchmark.data.prepared import read_record
from models.spec import CELLS, ModelSpec

ROOT = Path(__file__).parents[1]

STREAM = ("benchmark/data/counter.py", "benchmark/data/stream.py", "benchmark/data/windows.py")
STAGES = {
    "plan": ("benchmark/plan.py", "benchmark/cost.py"),
    "backbone": ("benchmark/backbone.py",),
    "data": (
        "benchmark/data/digits.py",
        "benchmark/data/clips.py",
        "benchmark/data/prepare.py",
        "benchmark/data/prepared.py",
        "benchmark/data/prepared_videos.py",
        "benchmark/data/film_sets.py",
        "benchmark/data/film_files.py",
        "benchmark/data/clip_files.py",
        "benchmark/data/clip_layouts.py",
        "benchmark/data/single_clips.py",
        "benchmark/data/kth.py",
        "benchmark/data/frame_bank.py",
        *STREAM,
    ),
    "train": (
        "benchmark/train.py",
        "benchmark/feed.py",
        "benchmark/trainee.py",
        "benchmark/engine.py",
        "benchmark/steps.py",
        "benchmark/parts.py",
        "benchmark/distributed.py",
        "benchmark/guard.py",
        "benchmark/curriculum.py",
        "benchmark/data/clips.py",
        "benchmark/data/occlusion.py",
        *STREAM,
    ),
    "evaluate": (
        "benchmark/evaluate.py",
        "benchmark/engine.py",
        "benchmark/distributed.py",
        "benchmark/metrics.py",
        "benchmark/data/occlusion.py",
    ),
    "probe": ("benchmark/probe.py", "benchmark/decay.py", "benchmark/saturation.py", "benchmark/engine.py"),
    "record": ("benchmark/record.py", "benchmark/metrics.py", "benchmark/stages.py"),
    "tables": (
        "benchmark/tables.py",
        "benchmark/score_tables.py",
        "benchmark/comparison_table.py",
        "benchmark/cost_table.py",
        "benchmark/probe_tables.py",
        "benchmark/reach_error.py",
        "benchmark/reach_tables.py",
        "benchmark/rate_table.py",
        "benchmark/ablations.py",
        "benchmark/stages.py",
        "benchmark/beyond_table.py",
        "benchmark/paper_table.py",
        "benchmark/published/published.csv",
        "benchmark/notes.py",
        "benchmark/rendering.py",
        "benchmark/metrics.py",
        "benchmark/statistics.py",
    ),
    "figures": (
        "benchmark/figures.py",
        "benchmark/score_figures.py",
        "benchmark/ablation_figures.py",
        "benchmark/beyond_figure.py",
        "benchmark/ablations.py",
        "benchmark/gradient_figures.py",
        "benchmark/gradient_maps.py",
        "benchmark/reach_error.py",
        "benchmark/reach_figures.py",
        "benchmark/reach_at_init.py",
        "benchmark/questions.py",
        "benchmark/stages.py",
        "benchmark/films.py",
        "benchmark/drawing.py",
        "benchmark/figures.mplstyle",
        "benchmark/rendering.py",
        "benchmark/metrics.py",
        "benchmark/statistics.py",
    ),
}
"""Source files that decide the numbers of each stage, besides those of its network.

The clips reach the other stages through `data.json` and its hashes. What only checks, stores, shows or mirrors results
is left out: changing it reruns nothing.
"""

SILENT = {"annotation", "returns", "type_comment", "type_params", "kind"}
"""Fields of a syntax tree that say what something is, not what is done with it."""
DATA_KEYS = ("source", "about", "digits_sha256", "train_sha256", "validation_sha256", "test_sha256")
"""Of what `data.json` says of digits or of films, what results keep."""
PACKAGES = ("torch", "numpy", "scipy", "pandas", "scikit-learn", "scikit-image", "lpips", "safetensors")
"""Packages whose version may change a number."""


def network_sources(spec: ModelSpec) -> list[str]:
    """The source files of the network of `spec`."""
    cell = CELLS[spec.cell].split(":")[0].replace(".", "/") + ".py"
    highway = ["models/gradient_highway.py"] if spec.highway_slot else []
    shared = ("models/predictor.py", "models/convolution.py", "models/merged.py", "models/winograd.py")
    return [*shared, cell, *highway]


def sources(stage: str, spec: ModelSpec | None = None) -> list[str]:
    """Source files, below the top level, that decide the result of `stage` for `spec` (none = a baseline)."""
    return [*STAGES[stage], *(network_sources(spec) if spec else [])]


def code_hash(stage: str, spec: ModelSpec) -> str:
    """Hash of what `sources` do: comments, layout, docstrings and annotations may change without it."""
    digest = hashlib.sha256()
    for name in sources(stage, spec):
        digest.update(f"{name}\0{source_outline((ROOT / name).read_bytes())}\0".encode())
    return digest.hexdigest()[:16]


@functools.cache
def source_outline(source: bytes) -> str:
    """`outline` of a whole file: many runs share their sources."""
    return outline(ast.parse(source))


def outline(node: object) -> str:
    """A syntax tree in one line, the same in every version of Python, without `SILENT` fields and bare strings."""
    if isinstance(node, list):
        return f"[{','.join(outline(item) for item in node if not is_bare_string(item))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.JoinedStr):  # Python 3.12 adds empty parts
        node = ast.JoinedStr([part for part in node.values if getattr(part, "value", None) != ""])
    fields = [(name, value) for name, value in ast.iter_fields(node) if name not in SILENT and value not in (None, [])]
    return f"{type(node).__name__}({','.join(f'{name}={outline(value)}' for name, value in fields)})"


def is_bare_string(node: object) -> bool:
    """Whether a statement is a docstring, or a string that stands where one may."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def short_hash(text: str) -> str:
    """The first 16 digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cpu_model() -> str:
    """The CPU's name as the kernel gives it, or its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def git(*arguments: str) -> str | None:
    """Output of a git command at the top level; None outside a git checkout."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode(errors="backslashreplace").strip()


def provenance(run: RunConfig, data_folder: Path, device: str) -> dict[str, Any]:
    """What `provenance.json` holds: no path of a machine and no host name."""
    import torch

    data = read_record(data_folder)
    accelerator = torch.cuda.get_device_name() if device == "cuda" else cpu_model()
    if device == "cuda" and processes.count() > 1:  # each has one
        accelerator = f"{processes.count()} x {accelerator}"
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
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
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
