"""Weights of other code bases under our names, and back: the one place that knows their names and gate orders.

`openstl` is chengtan9907/OpenSTL (ConvLSTM, PredRNN, PredRNN-V2, PredRNN++), `predrnn-pytorch` is
thuml/predrnn-pytorch (PredRNN, PredRNN-V2).
"""

import re
from collections.abc import Collection, Iterable, Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from models.predictor import Predictor
from models.spec import DECOUPLED, DEEPEST, ModelSpec

CODE_BASES = {"openstl": ("convlstm", "st_lstm", "causal_lstm"), "predrnn-pytorch": ("st_lstm",)}
"""Code base -> the cells it has."""

ADAPTER = "adapter.weight"
"""The weight of PredRNN-V2's decoupling loss, here as there: predictions do without it, further training does not."""
_RENAMED = (
    (r"^cells\.", "cell_list."),
    (r"^highway\.", "gradient_highway."),
    (r"^gradient_highway\.conv_([xz])\.", r"gradient_highway.\1_concat."),
    (r"^to_frame\.", "conv_last."),
    (r"\.conv_first_memory\.", ".conv_c2m."),
    (r"\.conv_second_memory\.", ".conv_om."),
    (r"\.conv_memories\.", ".conv_last."),
    (r"\.conv\.", ".0."),
    (r"\.norm\.", ".1."),
)
"""Our names -> theirs, applied in this order."""


def reference_name(name: str) -> str:
    """Their name of our weight: `cells.0.conv_first_memory.norm.bias` is `cell_list.0.conv_c2m.1.bias`."""
    for ours, theirs in _RENAMED:
        name = re.sub(ours, theirs, name)
    return name


def to_reference(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights, or their gradients, under their names and in their order of gates."""
    return {reference_name(name): _swap_gates(name, tensor) for name, tensor in tensors.items()}


def from_reference(weights: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The weights that we call `names`, out of theirs; others are left out."""
    return {name: _swap_gates(name, weights[reference_name(name)]) for name in names}


def _swap_gates(name: str, tensor: Tensor) -> Tensor:
    """The filters of C in the causal LSTM are i' f' g' o here and i' g' f' o there; its own inverse."""
    if ".conv_first_memory." not in name:
        return tensor
    i, f, g, o = tensor.chunk(4)
    return torch.cat([i, g, f, o])


def unused(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight that they carry and no step of theirs uses."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, d in enumerate(spec.hidden_channels):
        cell = f"cell_list.{layer}"
        if spec.cell in ("convlstm", "causal_lstm"):
            shapes[f"{cell}.conv_o.0.weight"] = (d, 2 * d, spec.kernel_size, spec.kernel_size)
            if spec.norm == "element":
                shapes[f"{cell}.conv_o.1.weight"] = shapes[f"{cell}.conv_o.1.bias"] = (d, spec.patches, spec.patches)
        if spec.cell == "convlstm":
            shapes[f"{cell}.conv_last.weight"] = (d, 2 * d, 1, 1)
    return shapes


def import_network(
    weights: Mapping[str, Tensor],
    code_base: str,
    *,
    patch_size: int | None = None,
    channels: int | None = None,
    frame_size: int | None = None,
) -> tuple[Predictor, dict[str, list[str]]]:
    """The network of a whole state dict, and the names of weights that were dropped, by the reason why.

    Args:
        weights: under their names, without prefix.
        code_base: one of `CODE_BASES`.
        patch_size, channels, frame_size: see `read_spec`.

    Raises:
        ValueError: keys are missing or too many, or shapes do not fit one network.
    """
    cell = recognise(weights)
    check_names(weights, network_names(weights))
    if cell not in CODE_BASES[code_base]:
        raise ValueError(f"the keys are those of {cell}; {code_base} has only {', '.join(CODE_BASES[code_base])}")
    spec = read_spec(weights, patch_size=patch_size, channels=channels, frame_size=frame_size)
    dropped = unused(spec)
    with torch.device("meta"):  # no memory is taken for sizes that the weights do not have
        expected = {name: tuple(tensor.shape) for name, tensor in to_reference(Predictor(spec).state_dict()).items()}
    expected |= dropped
    wrong = [
        f"{name} {tuple(weights[name].shape)} in place of {shape}"
        for name, shape in expected.items()
        if tuple(weights[name].shape) != shape
    ]
    if wrong:
        raise ValueError(f"shapes that do not fit one {cell} network: {'; '.join(wrong)}")
    network = Predictor(spec)
    network.load_state_dict(from_reference(weights, network.state_dict()))
    return network, {f"as {code_base} never uses them": sorted(dropped)} if dropped else {}


def export_network(network: Predictor, code_base: str) -> dict[str, Tensor]:
    """The state dict of `network` as `code_base` names it, with zeros for what is never used there.

    Raises:
        ValueError: the code base cannot express the network.
    """
    spec = network.spec
    if spec.cell not in CODE_BASES[code_base]:
        raise ValueError(f"{code_base} cannot express cell {spec.cell} (there {', '.join(CODE_BASES[code_base])})")
    allowed = {"norm": " or ".join(_norms(spec)), "hidden_channels": "two layers or more of one width"}
    faults = []
    for field, value in changes_to_export(spec).items():
        ours = getattr(spec, field)
        faults.append(f"{field} {[*ours] if field == 'hidden_channels' else ours} (there {allowed.get(field, value)})")
    if faults:
        raise ValueError(f"{code_base} cannot express {'; '.join(faults)}")
    zeros = {name: torch.zeros(shape) for name, shape in unused(spec).items()}
    return to_reference(network.state_dict()) | zeros


def changes_to_export(spec: ModelSpec) -> dict[str, Any]:
    """The fields of `spec`, and what they must be, for the code bases that have its cell; empty where all are so."""
    widths = spec.hidden_channels
    if spec.cell == "causal_lstm":
        widths = (widths[0],) * max(len(widths), 2)
    needed = _fixed(spec.cell, widths, spec.kernel_size)
    if spec.norm not in _norms(spec):
        needed["norm"] = "none"
    needed["hidden_channels"] = widths
    return {field: value for field, value in needed.items() if getattr(spec, field) != value}


def _norms(spec: ModelSpec) -> tuple[str, ...]:
    """The norms that they have for such a network."""
    # OpenSTL's highway with a norm stops at its first step: its shapes do not fit one another.
    return ("none",) if spec.cell == "causal_lstm" else ("none", "element")


def recognise(names: Iterable[str]) -> str:
    """The cell whose weights have these names."""
    parts = {part for name in names for part in name.split(".")}
    if "conv_c2m" in parts:
        return "causal_lstm"
    return "st_lstm" if "conv_m" in parts else "convlstm"


def network_names(names: Iterable[str]) -> set[str]:
    """All names that a whole network has whose weights have some of these `names`.

    Raises:
        ValueError: none of them is the name of a weight of a cell.
    """
    layers = [int(found[1]) for name in names if (found := re.match(r"cell_list\.(\d+)\.", name))]
    if not layers:
        some = [*names][:3]
        shown = f"they are {', '.join(some)}{', ...' * (len([*names]) > 3)}" if some else "there is none"
        raise ValueError(f"no key begins with cell_list.0, as those of OpenSTL and predrnn-pytorch do: {shown}")
    if max(layers) >= DEEPEST:
        raise ValueError(f"keys of layer {max(layers)}, counted from 0; the deepest network here has {DEEPEST} layers")
    cell, widths = recognise(names), (1,) * (max(layers) + 1)
    norm = "element" if _has_norm(names) else "none"
    spec = ModelSpec(
        cell=cell,
        hidden_channels=widths,
        frame_size=1,
        patch_size=1,
        kernel_size=3,
        norm=norm,
        adapter=_has_adapter(names, cell),
        **_fixed(cell, widths, 3),
    )
    with torch.device("meta"):
        return {reference_name(name) for name in Predictor(spec).state_dict()} | unused(spec).keys()


def check_names(names: Collection[str], expected: Collection[str]) -> None:
    """Raise ValueError with a list of all `names` that are missing or too many, if any."""
    lists = {"missing": sorted(set(expected) - set(names)), "surplus": sorted(set(names) - set(expected))}
    faults = [f"{fault} keys: {', '.join(found)}" for fault, found in lists.items() if found]
    if faults:
        raise ValueError("; ".join(faults))


def read_spec(
    weights: Mapping[str, Tensor],
    *,
    patch_size: int | None = None,
    channels: int | None = None,
    frame_size: int | None = None,
) -> ModelSpec:
    """The spec of their weights, every size read off the shapes.

    Args:
        weights: of a whole network, or of one cell under `cell_list.0.`.
        patch_size, channels: only patch_size² channels shows in the weights; one channel if neither is given.
        frame_size: shows only where there is a norm; elsewhere it changes nothing and is 16 patches if not given.

    Raises:
        ValueError: a size that is given is not that of the weights, or they fit no network of ours.
    """
    flat = [name for name, tensor in weights.items() if tensor.ndim != (3 if _is_norm(name) else 4)]
    if flat:
        raise ValueError(f"neither weights of a convolution nor of a norm: {', '.join(flat)}")
    cell, layers = recognise(weights), sum(name.endswith(".conv_h.0.weight") for name in weights)
    widths = tuple(weights[f"cell_list.{layer}.conv_h.0.weight"].shape[1] for layer in range(layers))
    folded, kernel_size = weights["cell_list.0.conv_x.0.weight"].shape[1:3]
    if _has_norm(weights) and kernel_size == 1:
        raise ValueError("kernel_size 1 with a norm: 1x1 convolutions are never normalised here")
    given = f"patch_size {patch_size or 'not given'}, channels {channels or 'not given'}"
    if patch_size is None:
        patch_size = isqrt(folded // max(channels or 1, 1))
    if channels is None:
        channels = folded // max(patch_size, 1) ** 2
    if patch_size**2 * channels != folded:
        raise ValueError(
            f"a patch has {folded} values in the weights, which is not patch_size² times channels ({given})"
        )
    if _has_norm(weights):
        seen = weights["cell_list.0.conv_h.1.weight"].shape[1] * patch_size
        if frame_size not in (None, seen):
            raise ValueError(f"frame_size {frame_size}: the norms are of frames of {seen}")
        frame_size = seen
    return ModelSpec(
        cell=cell,
        hidden_channels=widths,
        frame_size=16 * patch_size if frame_size is None else frame_size,
        channels=channels,
        patch_size=patch_size,
        kernel_size=kernel_size,
        norm="element" if _has_norm(weights) else "none",
        adapter=_has_adapter(weights, cell),
        **_fixed(cell, widths, kernel_size),
    )


def _fixed(cell: str, widths: tuple[int, ...], kernel_size: int) -> dict[str, Any]:
    """Fields of `ModelSpec` that have one value in all their networks of these sizes."""
    fixed: dict[str, Any] = {"conv_bias": False, "highway_slot": 0, "forget_bias": 0.0 if cell == "convlstm" else 1.0}
    if cell != "causal_lstm":
        return fixed
    fixed |= {"memory_order": "temporal_to_spatial", "first_gates_see_c": True, "o_sees_h": True, "g2_sees_m": False}
    fixed |= {"w3_kernel": kernel_size}
    if len(widths) == 1:  # a single cell
        return fixed
    return fixed | {"highway_slot": 1, "highway_channels": widths[0], "highway_gate_bias": 0.0}


def _is_norm(name: str) -> bool:
    return name.endswith((".1.weight", ".1.bias"))


def _has_adapter(names: Iterable[str], cell: str) -> bool:
    return cell in DECOUPLED and ADAPTER in names


def _has_norm(names: Iterable[str]) -> bool:
    return any(map(_is_norm, names))
