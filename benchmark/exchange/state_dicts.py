"""Files of weights of other code bases: read without running code in them, written as their own loaders read them."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.exchange import inert_pickle
from benchmark.system.errors import UserError
from benchmark.system.files import atomic_buffer
from benchmark.training.weight_files import load_weights, save_weights
from models.foreign_weights import export_network, import_network
from models.spec import ModelSpec

_FORMS = {"openstl": ("state_dict", "model."), "predrnn-pytorch": ("net_param", "")}
"""Code base -> the key of the state dict in its files, and the prefix of its names."""
SECTIONS = ("state_dict", "net_param", "model_state_dict", "ema_state_dict", "model", "module", "network")
"""Keys under which training programs keep the state dict, beside optimisers and settings."""
WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "net.")
"""Prefixes that wrappers put before every name, in any order and number: DDP and DataParallel, `torch.compile`,
Lightning and other holders of a model."""
COUNTERS = ("n_averaged",)
"""What averaged weights (`torch.optim.swa_utils.AveragedModel`) hold beside the weights."""


def import_weights(
    code_base: str,
    source: Path,
    target: Path,
    *,
    patch_size: int | None = None,
    channels: int | None = None,
    frame_size: int | None = None,
    context: int | None = None,
    tensors_only: bool = False,
) -> str:
    """Bring the weights in `source` into `target`, ours with their spec, and say what they are.

    Args:
        code_base: one of `models.foreign_weights.CODE_BASES`.
        patch_size, channels, frame_size: what the shapes leave open, see `models.foreign_weights.read_spec`.
        context: number of frames they were trained to see first; kept beside the weights.
        tensors_only: read the tensors of a file that holds other things, too; these are passed over, never run.

    Raises:
        UserError: the file cannot be read safely, or holds no network of that code base.
    """
    weights, wrapped = unwrapped(read_state_dict(source, tensors_only=tensors_only))
    check_numbers(weights, source)
    try:
        network, dropped = import_network(
            weights, code_base, patch_size=patch_size, channels=channels, frame_size=frame_size
        )
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
    save_weights(target, network, context=context)
    lines = [f"{target}: {summary(network.spec)}"]
    if wrapped:
        lines.append(f"taken off every name: {wrapped}")
    lines += [f"dropped, {why}: {', '.join(names)}" for why, names in dropped.items()]
    return "\n".join(lines)


def export_weights(code_base: str, source: Path, target: Path) -> str:
    """Write our weights in `source` to `target` as the loader of `code_base` reads them, and say what they are.

    Raises:
        UserError: no weights of ours, or a network that the code base cannot express.
    """
    network = load_weights(source)
    try:
        weights = export_network(network, code_base)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
    section, prefix = _FORMS[code_base]
    with atomic_buffer(target) as file:
        torch.save({section: {prefix + name: tensor.contiguous() for name, tensor in weights.items()}}, file)
    return f"{target}: {summary(network.spec)}, under {section!r} for {code_base}"


def read_state_dict(path: Path, *, tensors_only: bool = False) -> dict[str, Tensor]:
    """The state dict in a file of `torch.save`, plain or under one of `SECTIONS`; nothing in the file is run as code.

    Args:
        path: the file.
        tensors_only: pass over what is no tensor, number or text, such as numpy arrays, paths and settings.

    Raises:
        UserError: no such file, damaged, no state dict, or, without `tensors_only`, with anything else in it.
    """
    try:
        if zipfile.is_zipfile(path):  # torch.load passes over the checksums in the archive
            with zipfile.ZipFile(path) as archive:
                if archive.testzip():
                    raise zipfile.BadZipFile(f"{archive.testzip()} is damaged")
        safe: dict[str, Any] = {"weights_only": True}
        if tensors_only:
            safe = {"weights_only": False, "pickle_module": inert_pickle}
        stored = torch.load(path, map_location="cpu", **safe)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # torch.load raises whatever its parsers do
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not found:
            raise UserError(
                f"{path}: cannot be read safely as a file of torch.save; it is damaged or holds more than tensors"
            ) from None
        raise UserError(
            f"{path}: refused, since it holds more than tensors, which could run code ({found[1]}); --tensors-only"
            " reads the tensors alone and runs nothing"
        ) from None
    found = stored
    while isinstance(found, dict) and (inner := next((key for key in SECTIONS if is_section(found.get(key))), None)):
        found = found[inner]
    if not is_section(found):
        raise UserError(f"{path}: holds no state dict, neither plain nor under {', '.join(SECTIONS)}{held(stored)}")
    return {name: tensor for name, tensor in found.items() if name not in COUNTERS}


def is_section(value: Any) -> bool:
    """Whether a value is a state dict, or a dictionary that keeps one under one of `SECTIONS`."""
    if not isinstance(value, dict) or not value:
        return False
    if all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()):
        return True
    return any(is_section(value.get(key)) for key in SECTIONS)


def held(stored: Any) -> str:
    """What a file holds in place of a state dict, for a message."""
    if not isinstance(stored, dict):
        return f"; it holds {type(stored).__name__}"
    names = [str(name) for name in stored]
    return f"; its keys are {', '.join(names[:8])}{' and more' * (len(names) > 8)}" if names else "; it is empty"


def unwrapped(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """`weights` without what wrappers put before every name, and that prefix; see `WRAPPERS`."""
    taken = ""
    while prefix := next((one for one in WRAPPERS if weights and all(name.startswith(one) for name in weights)), ""):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
        taken += prefix
    return {**weights}, taken


def check_numbers(weights: Mapping[str, Tensor], source: Path) -> None:
    """Refuse weights that are no finite floating-point numbers, quantised ones for instance.

    Raises:
        UserError: names the first such tensor and its type.
    """
    for name, tensor in weights.items():
        if tensor.is_quantized or not tensor.is_floating_point():
            raise UserError(
                f"{source}: {name} holds {tensor.dtype}, not floating-point weights; save the network before it is"
                " quantised"
            )
        if not tensor.isfinite().all():
            count = int((~tensor.isfinite()).sum())
            raise UserError(f"{source}: {name} has {count} values that are NaN or infinite; take another checkpoint")


def summary(spec: ModelSpec) -> str:
    """The sizes of a network in one line."""
    widths = ", ".join(map(str, spec.hidden_channels))
    patches = f"patches of {spec.patch_size}x{spec.patch_size}x{spec.channels}"
    norm = f"norm {spec.norm}" + (f" for frames of {spec.frame_size} pixels" if spec.norm == "element" else "")
    highway = f", highway above layer {spec.highway_slot}" if spec.highway_slot else ""
    return f"{spec.cell} of {widths} hidden channels{highway}, kernel {spec.kernel_size}, {patches}, {norm}"
