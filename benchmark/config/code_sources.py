"""Which source files decide the numbers of each stage, and a hash of what they do."""

import ast
import functools
import hashlib
from collections.abc import Mapping
from types import MappingProxyType

from benchmark.system.installation import OWN, ROOT
from models.forecasters.outside import is_outside, source_files
from models.forecasters.spec import ForecasterSpec, Spec
from models.spec import CELLS

PACKAGES_HERE = ("benchmark", "deep_in_time", "models")
"""The packages of this project."""

STREAM = (
    "benchmark/data/counter_rng.py",
    "benchmark/data/tensors.py",
    "benchmark/data/still_digits/stream.py",
    "benchmark/data/moving_digits/stream.py",
    "benchmark/data/recall/stream.py",
    "benchmark/data/videos/windows.py",
)
STAGES = {
    "plan": ("benchmark/cost/plan.py", "models/counts.py"),
    "backbone": ("benchmark/evaluation/lpips_backbone.py",),
    "data": (
        "benchmark/data/still_digits/bank.py",
        "benchmark/data/pixels.py",
        "benchmark/data/clips.py",
        "benchmark/data/clip_source.py",
        "benchmark/data/still_digits/prepare.py",
        "benchmark/data/still_digits/clips.py",
        "benchmark/data/recall/clips.py",
        "benchmark/data/moving_digits/prepare.py",
        "benchmark/data/moving_digits/clips.py",
        "benchmark/data/videos/clips.py",
        "benchmark/data/prepared_folder.py",
        "benchmark/data/videos/prepare.py",
        "benchmark/data/videos/datasets.py",
        "benchmark/data/videos/video_files.py",
        "benchmark/data/videos/containers.py",
        "benchmark/data/videos/clip_files.py",
        "benchmark/data/videos/layouts.py",
        "benchmark/data/videos/single_clips.py",
        "benchmark/data/videos/kth.py",
        "benchmark/data/videos/frame_bank.py",
        *STREAM,
    ),
    "train": (
        "benchmark/training/train.py",
        "benchmark/training/cohort.py",
        "benchmark/training/acceleration/cuda_streams.py",
        "benchmark/training/job.py",
        "benchmark/training/batches.py",
        "benchmark/training/run_state.py",
        "benchmark/training/step.py",
        "benchmark/system/devices.py:prepare_device",
        "benchmark/training/acceleration/captured_step.py",
        "benchmark/training/acceleration/stacked_step.py",
        "benchmark/training/acceleration/seeded_step.py",
        "models/stack.py",
        "benchmark/training/acceleration/cpu_parallel.py",
        "benchmark/training/distributed.py",
        "benchmark/training/divergence_guard.py",
        "benchmark/training/masks.py",
        "benchmark/data/clips.py",
        "benchmark/data/clip_source.py",
        "benchmark/data/still_digits/clips.py",
        "benchmark/data/moving_digits/clips.py",
        "benchmark/data/recall/clips.py",
        "benchmark/data/videos/clips.py",
        "benchmark/data/moving_digits/occlusion.py",
        *STREAM,
    ),
    "evaluate": (
        "benchmark/evaluation/evaluate.py",
        "benchmark/evaluation/forecasts.py",
        "benchmark/system/devices.py:prepare_device",
        "benchmark/training/distributed.py",
        "benchmark/config/metrics.py",
        "benchmark/evaluation/metric_functions.py",
        "benchmark/evaluation/recall_scores.py",
        "benchmark/data/still_digits/clips.py",
        "benchmark/data/moving_digits/clips.py",
        "benchmark/data/recall/clips.py",
        "benchmark/data/recall/stream.py",
        "benchmark/data/moving_digits/occlusion.py",
    ),
    "probe": (
        "benchmark/evaluation/gradient_probe.py",
        "benchmark/evaluation/gradient_decay.py:summarise_norms,decay",
        "benchmark/evaluation/gate_saturation.py",
        "benchmark/evaluation/memory/measure.py",
        "benchmark/evaluation/memory/time_constants.py",
        "benchmark/evaluation/memory/influence.py",
        "benchmark/evaluation/memory/lyapunov.py",
        "benchmark/evaluation/memory/table.py",
        "benchmark/data/moving_digits/clips.py",
        "benchmark/data/moving_digits/stream.py",
        "benchmark/data/recall/stream.py",
        "benchmark/data/still_digits/clips.py",
        "benchmark/data/still_digits/stream.py",
        "benchmark/system/devices.py:prepare_device",
    ),
    "baselines": (
        "benchmark/evaluation/baseline_errors.py",
        "benchmark/evaluation/forecasts.py",
        "benchmark/training/batches.py",
        "benchmark/data/moving_digits/occlusion.py",
        "benchmark/data/tensors.py",
    ),
    "floor": (
        "benchmark/evaluation/floor.py",
        "benchmark/data/moving_digits/starts.py",
        "benchmark/data/counter_rng.py",
        "benchmark/data/still_digits/stream.py",
        "benchmark/data/moving_digits/stream.py",
    ),
    "record": (
        "benchmark/reporting/record.py",
        "benchmark/evaluation/mean_scores.py",
        "benchmark/evaluation/memory/table.py",
        "benchmark/config/metrics.py",
        "benchmark/config/probe_stages.py",
    ),
    "tables": (
        "benchmark/reporting/registry.py",
        "benchmark/reporting/protocol_results.py",
        "benchmark/reporting/tables/write_tables.py",
        "benchmark/reporting/tables/scores.py",
        "benchmark/reporting/tables/differences.py",
        "benchmark/reporting/tables/floor.py",
        "benchmark/reporting/tables/cost.py",
        "benchmark/reporting/tables/gradients.py",
        "benchmark/reporting/tables/memory.py",
        "benchmark/reporting/tables/occlusion.py",
        "benchmark/reporting/reach_and_error.py",
        "benchmark/evaluation/gradient_decay.py",
        "benchmark/reporting/tables/reach_effects.py",
        "benchmark/reporting/tables/learning_rates.py",
        "benchmark/reporting/rate_choice.py",
        "benchmark/config/variant_groups.py",
        "benchmark/config/probe_stages.py",
        "benchmark/reporting/tables/long_horizon.py",
        "benchmark/reporting/tables/published.py",
        "benchmark/reporting/tables/published_numbers/published.csv",
        "benchmark/reporting/tables/notes.py",
        "benchmark/data/moving_digits/kind.py",
        "benchmark/data/recall/kind.py",
        "benchmark/data/videos/kind.py",
        "benchmark/reporting/tables/rendering.py",
        "benchmark/reporting/tables/templates/table.html",
        "benchmark/reporting/tables/templates/table_sort.js",
        "benchmark/config/metrics.py",
        "benchmark/reporting/statistics.py",
    ),
    "figures": (
        "benchmark/evaluation/gradient_decay.py",
        "benchmark/reporting/registry.py",
        "benchmark/reporting/protocol_results.py",
        "benchmark/evaluation/ideal_line.py",
        "benchmark/reporting/figures/write_figures.py",
        "benchmark/reporting/figures/figure_data.py",
        "benchmark/reporting/figures/scores.py",
        "benchmark/reporting/figures/ablations.py",
        "benchmark/reporting/figures/long_horizon.py",
        "benchmark/reporting/figures/influence.py",
        "benchmark/config/variant_groups.py",
        "benchmark/reporting/figures/gradient_norms.py",
        "benchmark/reporting/figures/gradient_maps.py",
        "benchmark/reporting/reach_and_error.py",
        "benchmark/reporting/figures/reach.py",
        "benchmark/reporting/figures/reach_at_init.py",
        "benchmark/reporting/figures/clips.py",
        "benchmark/reporting/figures/occlusion.py",
        "benchmark/reporting/figures/openness.py",
        "benchmark/config/probe_stages.py",
        "benchmark/evaluation/clip_images.py",
        "benchmark/reporting/figures/style.py",
        "benchmark/reporting/figures/style.mplstyle",
        "benchmark/reporting/figures/templates/animation.html",
        "benchmark/reporting/tables/rendering.py",
        "benchmark/config/metrics.py",
        "benchmark/reporting/statistics.py",
    ),
}
"""Source files that decide the numbers of each stage, besides those of its network.

The clips reach the other stages through `data.json` and its hashes. What only checks, stores, shows or mirrors results
is left out: changing it reruns nothing. `file.py:name,name` stands for these definitions of the file.
"""

FUSED = tuple(
    f"models/fast_path/{name}.py"
    for name in (
        "fused_roll_out",
        "fused_plan",
        "stage_plans",
        "joined_weights",
        "stages",
        "gate_kernels",
        "product_kernels",
        "normed_gates",
        "norm_stages",
        "norm_kernels",
    )
)
"""Source files of the roll-out in fused stages."""
OF_FORECASTERS = ("models/forecasters/network.py", "models/precision.py")
"""Source files of what stands around a model outside the benchmark."""

SILENT = {"annotation", "returns", "type_comment", "type_params", "kind"}
"""Fields of a syntax tree that say what something is, not what is done with it."""


def network_sources(spec: Spec) -> list[str]:
    """The source files of the network of `spec`; of a class outside the benchmark also those that it imports.

    Raises:
        ForecasterError: there is no such class.
    """
    if isinstance(spec, ForecasterSpec):
        return [*OF_FORECASTERS, *map(str, source_files(spec.model))]
    if is_outside(spec.cell):
        cells = [str(path) for path in source_files(spec.cell)]
    else:
        cells = [CELLS[spec.cell].split(":")[0].removeprefix(OWN).replace(".", "/") + ".py"]
    highway = ["models/gradient_highway.py"] if spec.highway_slot else []
    shared = (
        "models/predictor.py",
        "models/convolution.py",
        "models/precision.py",
        "models/fast_path/merged_gates.py",
        "models/fast_path/winograd.py",
        *FUSED,
    )
    decoupling = ["models/decoupling.py"] if spec.adapter else []
    return [*shared, *cells, *highway, *decoupling]


def sources(stage: str, spec: Spec | None = None) -> list[str]:
    """Source files, below the top level, that decide the result of `stage` for `spec` (none = a baseline)."""
    return [name.partition(":")[0] for name in _parts(stage, spec)]


def _parts(stage: str, spec: Spec | None) -> list[str]:
    return [*STAGES[stage], *(network_sources(spec) if spec else [])]


def code_hash(stage: str, spec: Spec | None) -> str:
    """Hash of what `sources` do: comments, layout, docstrings and annotations may change without it.

    It is of the definitions by name, so that it does not depend on the file in which one stands.
    """
    found = set()
    for part in _parts(stage, spec):
        name, _, chosen = part.partition(":")
        found |= {
            text
            for defined, text in definitions((ROOT / name).read_bytes())
            if not chosen or defined & {*chosen.split(",")}
        }
    return short_hash("\0".join(sorted(found)))


@functools.cache
def definitions(source: bytes) -> tuple[tuple[frozenset[str], str], ...]:
    """The names that each statement of a module defines, and its outline; imports are left out."""
    tree = ast.parse(source)
    names = imported_names(tree)
    kept = [node for node in tree.body if not (is_bare_string(node) or is_import(node))]
    return tuple((frozenset(defined_names(node)), outline(node, names)) for node in kept)


def defined_names(node: ast.stmt) -> set[str]:
    """The names that a statement at the top level of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}


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
    place = ROOT.joinpath(*path.removeprefix(OWN).split("."))
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
