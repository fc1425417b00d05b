"""Files of weights of other code bases: read without running code in them, written as their own loaders read them."""

import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from benchmark.system.errors import UserError
from benchmark.system.files import atomic_buffer
from benchmark.training.weight_files import load_weights, save_weights
from models.foreign_weights import export_network, import_network
from models.spec import ModelSpec

_FORMS = {"openstl": ("state_dict", "model."), "predrnn-pytorch": ("net_param", "")}
"""Code base -> the key of the state dict in its files, and the prefix of its names."""


def import_weights(
    code_base: str,
    source: Path,
    target: Path,
    *,
    patch_size: int | None = None,
    channels: int | None = None,
    frame_size: int | None = None,
    context: int | None = None,
) -> str:
    """Bring the weights in `source` into `target`, ours with their spec, and say what they are.

    Args:
        code_base: one of `models.foreign_weights.CODE_BASES`.
        patch_size, channels, frame_size: what the shapes leave open, see `models.foreign_weights.read_spec`.
        context: number of frames they were trained to see first; kept beside the weights.

    Raises:
        UserError: the file cannot be read safely, or holds no network of that code base.
    """
    weights = read_state_dict(source)
    try:
        network, dropped = import_network(
            weights, code_base, patch_size=patch_size, channels=channels, frame_size=frame_size
        )
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
    save_weights(target, network, context=context)
    said = f"{target}: {summary(network.spec)}"
    return f"{said}\ndropped, as {code_base} never uses them: {', '.join(dropped)}" if dropped else said


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


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of `torch.save`: plain, under `net_param`, or Lightning's with its prefix taken off.

    Raises:
        UserError: no such file, damaged, not a state dict, or with anything in it that would run code.
    """
    try:
        if zipfile.is_zipfile(path):  # torch.load passes over the checksums in the archive
            with zipfile.ZipFile(path) as archive:
                if archive.testzip():
                    raise zipfile.BadZipFile(f"{archive.testzip()} is damaged")
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # torch.load raises whatever its parsers do
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not found:
            raise UserError(
                f"{path}: cannot be read safely as a file of torch.save; it is damaged or holds more than tensors"
            ) from None
        keep = "save the state dict alone where you trust the file: torch.save(network.state_dict(), ...)"
        raise UserError(
            f"{path}: refused, since it holds more than tensors, which could run code ({found[1]}); {keep}"
        ) from None
    sections = [section for section, _ in _FORMS.values()]
    for section in sections:
        if isinstance(stored, dict) and section in stored:
            stored = stored[section]
    if not isinstance(stored, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in stored.items()
    ):
        raise UserError(f"{path}: holds no state dict, neither plain nor under {' or '.join(sections)}")
    prefix = "model." if all(name.startswith("model.") for name in stored) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in stored.items()}


def summary(spec: ModelSpec) -> str:
    """The sizes of a network in one line."""
    widths = ", ".join(map(str, spec.hidden_channels))
    patches = f"patches of {spec.patch_size}x{spec.patch_size}x{spec.channels}"
    norm = f"norm {spec.norm}" + (f" for frames of {spec.frame_size} pixels" if spec.norm == "element" else "")
    highway = f", highway above layer {spec.highway_slot}" if spec.highway_slot else ""
    return f"{spec.cell} of {widths} hidden channels{highway}, kernel {spec.kernel_size}, {patches}, {norm}"
