"""Where a result comes from: source files, git commit, versions, device. Imports no torch by itself."""

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmark import processes
from benchmark.config import RunConfig
from benchmark.data.prepared import read_record
from models.spec import CELLS, ModelSpec

ROOT = Path(__file__).parents[1]
PACKAGES_HERE = ("benchmark", "models")
"""The packages of this project."""

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
    """Hash of what `sources` do: comments, layout, docstrings and annotations may change without it.

    It is of the definitions by name, so that it does not depend on the file in which one stands.
    """
    found = {definition for name in sources(stage, spec) for definition in definitions((ROOT / name).read_bytes())}
    return short_hash("\0".join(sorted(found)))


@functools.cache
def definitions(source: bytes) -> tuple[str, ...]:
    """The outline of every statement of a module but its imports; many runs share their sources."""
    tree = ast.parse(source)
    names = imported_names(tree)
    return tuple(outline(node, names) for node in tree.body if not (is_bare_string(node) or is_import(node)))


def imported_names(tree: ast.AST) -> dict[str, str]:
    """Name that an import binds anywhere in `tree` -> what it stands for.

    Of ours that is the bare name, and nothing (`""`) for a module, whose attributes then stand for themselves; of other
    packages the whole path, so that an import from elsewhere is noticed where it is used.
    """
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                bound = one.asname or one.name.partition(".")[0]
                found[bound] = "" if is_ours(one.name) else (one.name if one.asname else bound)
        elif isinstance(node, ast.ImportFrom):
            for one in node.names:
                path = f"{node.module}.{one.name}"
                ours = is_ours(path)
                found[one.asname or one.name] = ("" if is_module(path) else one.name) if ours else path
    return found


def is_ours(path: str) -> bool:
    """Whether a dotted path is of this project."""
    return path.partition(".")[0] in PACKAGES_HERE


def is_module(path: str) -> bool:
    """Whether a dotted path of this project is that of a module or package."""
    place = ROOT.joinpath(*path.split("."))
    return place.is_dir() or place.with_suffix(".py").is_file()


def outline(node: object, names: Mapping[str, str] = MappingProxyType({})) -> str:
    """A syntax tree in one line, the same in every version of Python, without imports, `SILENT` fields, bare strings.

    Args:
        node: of the tree.
        names: what imported names stand for, as `imported_names` finds them.
    """
    if isinstance(node, list):
        kept = (item for item in node if not (is_bare_string(item) or is_import(item)))
        return f"[{','.join(outline(item, names) for item in kept)}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        own = own_names(node)
        names = {name: path for name, path in names.items() if name not in own}
    if isinstance(node, ast.JoinedStr):  # Python 3.12 adds empty parts
        node = ast.JoinedStr([part for part in node.values if getattr(part, "value", None) != ""])
    if isinstance(node, ast.Name | ast.Attribute):
        node = resolved(node, names)
    fields = [(name, value) for name, value in ast.iter_fields(node) if name not in SILENT and value not in (None, [])]
    return f"{type(node).__name__}({','.join(f'{name}={outline(value, names)}' for name, value in fields)})"


def resolved(node: ast.Name | ast.Attribute, names: Mapping[str, str]) -> ast.Name | ast.Attribute:
    """`node` with what an import binds in place of its name, and `module.name` of ours as `name`."""
    if isinstance(node, ast.Name):
        return ast.Name(names.get(node.id, node.id), node.ctx)
    of_module = isinstance(node.value, ast.Name) and names.get(node.value.id) == ""
    return ast.Name(node.attr, node.ctx) if of_module else node


def own_names(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    """The names that are arguments of a function or are bound inside it, other than by an import."""
    inside = list(ast.walk(function))
    bound = {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return bound | {node.arg for node in inside if isinstance(node, ast.arg)}


def is_import(node: object) -> bool:
    """Whether a statement is an import."""
    return isinstance(node, ast.Import | ast.ImportFrom)


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
