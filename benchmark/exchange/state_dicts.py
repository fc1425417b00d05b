"""Files of weights of other code bases: read without running code in them, written as their own loaders read them."""

import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from benchmark.config.variants import VARIANTS
from benchmark.exchange import inert_pickle
from benchmark.exchange.input_clips import check_apart
from benchmark.system.errors import UserError
from benchmark.system.files import atomic_buffer
from benchmark.training.weight_files import load_weights, save_weights
from models.foreign_weights import CODE_BASES, changes_to_export, export_network, import_network
from models.spec import ModelSpec

_FORMS = {"openstl": ("state_dict", "model."), "predrnn-pytorch": ("net_param", "")}
"""Code base -> the key of the state dict in its files, and the prefix of its names."""
SECTIONS = ("state_dict", "net_param", "model_state_dict", "ema_state_dict", "model", "module", "network")
"""Keys under which training programs keep the state dict, beside optimisers and settings."""
WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "net.")
"""Prefixes that wrappers put before every name, in any order and number: DDP and DataParallel, `torch.compile`,
Lightning and other holders of a model."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of weights; those of 8 bits are quantised and need a scale that the tensor does not have."""
ZIP_START = b"PK\x03\x04"
"""How torch.load tells a zip archive."""
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
    check_apart(target, source)
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
    check_apart(target, source)
    network = load_weights(source)
    try:
        weights = export_network(network, code_base)
    except ValueError as error:
        raise UserError(f"{source}: {error}{how_to_train(network.spec, code_base)}") from None
    section, prefix = _FORMS[code_base]
    with atomic_buffer(target) as file:
        torch.save({section: {prefix + name: tensor.contiguous() for name, tensor in weights.items()}}, file)
    return f"{target}: {summary(network.spec)}, under {section!r} for {code_base}"


def how_to_train(spec: ModelSpec, code_base: str) -> str:
    """The end of a message: the variant of a protocol whose network `code_base` can express; empty where none can."""
    if spec.cell not in CODE_BASES[code_base]:
        return ""
    slot = "bottom" if spec.cell == "causal_lstm" else None
    model = {"adapter": True} if spec.adapter else {}
    base = next(name for name, one in VARIANTS.items() if (one.cell, one.slot, one.model) == (spec.cell, slot, model))
    changes = changes_to_export(spec)
    changes.pop("highway_slot", None)  # that of the base
    entry = {"id": f"{base}-{code_base}", "base": base} | changes
    entry = {key: [*value] if isinstance(value, tuple) else value for key, value in entry.items()}
    text = yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=1000).strip()
    return f"; train one that it can with this entry under variants: of a protocol\n  - {text}"


def read_state_dict(path: Path, *, tensors_only: bool = False) -> dict[str, Tensor]:
    """The state dict in a file of `torch.save`, plain or under one of `SECTIONS`; nothing in the file is run as code.

    Args:
        path: the file.
        tensors_only: pass over what is no tensor, number or text, such as numpy arrays, paths and settings.

    Raises:
        UserError: no such file, damaged, no state dict, or, without `tensors_only`, with anything else in it.
    """
    try:
        check_container(path)
        safe: dict[str, Any] = {"weights_only": True}
        if tensors_only:
            safe = {"weights_only": False, "pickle_module": inert_pickle}
        stored = torch.load(path, map_location="cpu", **safe)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UserError:
        raise
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
    found = next((part for part in sections(stored) if is_state_dict(part)), None)
    if found is None:
        raise UserError(
            f"{path}: holds no state dict, neither plain nor under {', '.join(SECTIONS)}; {contents(stored)}"
        )
    return {name: tensor for name, tensor in found.items() if name not in COUNTERS}


def check_container(path: Path) -> None:
    """Refuse what torch would read as something else than plain tensors, before anything in the file is read.

    Raises:
        UserError: an archive of a compiled network, of the form of before 2017, or compressed, which torch.save never
            writes and which could fill the memory.
        zipfile.BadZipFile: a part of the archive is damaged; torch.load passes over its checksums.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == ZIP_START
    if not is_zip:
        if tarfile.is_tarfile(path):
            raise UserError(f"{path}: is a tar archive, as torch wrote them before 2017; save it again with torch.save")
        return
    if "constants.pkl" in torch._C.PyTorchFileReader(str(path)).get_all_records():  # pyright: ignore[reportAttributeAccessIssue]  # not in torch's stubs; sees what torch.load will see
        raise UserError(f"{path}: is a network compiled by torch.jit, which holds code; save its state dict instead")
    with zipfile.ZipFile(path) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise UserError(f"{path}: is a compressed archive, which torch.save never writes; unpack it first")
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} is damaged")


def sections(stored: Any) -> Iterator[Any]:
    """What a file holds, then what lies there under `SECTIONS`, to any depth; a part that holds itself comes once."""
    waiting, seen = [stored], set()
    while waiting:
        part = waiting.pop(0)
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            waiting += [part[key] for key in SECTIONS if isinstance(part, dict) and key in part]


def is_state_dict(value: Any) -> bool:
    """Whether a value is a dictionary of tensors by name, with one at least."""
    if not isinstance(value, dict) or not value:
        return False
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())


def contents(stored: Any) -> str:
    """What a file holds in place of a state dict, for a message."""
    if not isinstance(stored, dict):
        return f"it holds {type(stored).__name__}"
    names = [name if isinstance(name, str) else type(name).__name__ for name in stored]
    return f"its keys are {', '.join(names[:8])}{' and more' * (len(names) > 8)}" if names else "it is empty"


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
        UserError: names the first such tensor and what it is.
    """
    for name, tensor in weights.items():
        if tensor.is_quantized or tensor.dtype not in FLOATS:
            raise UserError(
                f"{source}: {name} holds {tensor.dtype}, not floating-point weights; save the network before it is"
                " quantised"
            )
        if (kind := unusual(tensor)) is not None:
            raise UserError(f"{source}: {name} is {kind}, not an array of numbers; save a plain copy of it")
        wrong = ~tensor.float().isfinite()
        if wrong.any():
            raise UserError(
                f"{source}: {name} has {int(wrong.sum())} values that are NaN, infinite or too large for float32; take"
                " another checkpoint"
            )


def unusual(tensor: Tensor) -> str | None:
    """In what a tensor differs from an array that lies in memory number by number; None where it does not."""
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout != torch.strided:
        return f"a tensor of layout {tensor.layout}"
    if tensor.is_meta:
        return "a tensor without values (meta)"
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return f"a {type(tensor).__name__}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"{tuple(tensor.shape)} by repeating fewer numbers"
    return None


def summary(spec: ModelSpec) -> str:
    """The sizes of a network in one line."""
    widths = ", ".join(map(str, spec.hidden_channels))
    patches = f"patches of {spec.patch_size}x{spec.patch_size}x{spec.channels}"
    norm = f"norm {spec.norm}" + (f" for frames of {spec.frame_size} pixels" if spec.norm == "element" else "")
    highway = f", highway above layer {spec.highway_slot}" if spec.highway_slot else ""
    adapter = ", with the adapter of the decoupling loss" if spec.adapter else ""
    return f"{spec.cell} of {widths} hidden channels{highway}{adapter}, kernel {spec.kernel_size}, {patches}, {norm}"
