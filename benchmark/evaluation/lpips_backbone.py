"""The pretrained backbone of LPIPS: found on disk, downloaded only on demand, recorded by name and hash."""

import hashlib
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.config.lpips_backbones import BACKBONES
from benchmark.system.errors import UserError
from benchmark.system.files import write_json


def find_backbone(net: str, data_dir: Path | None) -> Path | None:
    """The file with the weights of backbone `net` in `data_dir`/lpips or torch's hub cache, or None."""
    names = BACKBONES[net].file_names
    return next((path for name in names for path in _places(name, data_dir) if path.is_file()), None)


def look_for(net: str, data_dir: Path | None, download: bool) -> dict[str, str]:
    """Find the backbone `net`.

    Args: `download`: fetch torchvision's weights into torch's hub cache where there is no file.
    Returns: {net, status: "found", file, sha256}, or {net, status: "not measured: no backbone", how}.
    Raises: UserError for an unknown net, a damaged file or a failed download.
    """
    if net not in BACKBONES:
        raise UserError(f"evaluation.lpips_backbone is {net!r}: allowed are {', '.join(BACKBONES)}")
    path = find_backbone(net, data_dir)
    if path is None and download:
        _download(net)
        path = find_backbone(net, data_dir)
    if path is None:
        names = " or ".join(BACKBONES[net].file_names)
        how = f"put {names} into <data_dir>/lpips/ or run again with --config download=true"
        return {"net": net, "status": "not measured: no backbone", "how": how}
    return {"net": net, "status": "found", "file": path.name, "sha256": _sha256(path)}


def prepare(net: str, data_dir: Path | None, out: Path, download: bool) -> dict[str, str]:
    """Look for the backbone `net`, check that LPIPS can be built with it and write its record to `out`.

    Returns: what `look_for` found.
    Raises: UserError as `look_for`, or for a file that is not that backbone.
    """
    record = look_for(net, data_dir, download)
    load_lpips(record, data_dir, "cpu")
    print(f"LPIPS {net}: {record['status']}{'; ' if 'how' in record else ' '}{record.get('how') or record['file']}")
    write_json(out, record)
    return record


def load_lpips(record: dict[str, str], data_dir: Path | None, device: torch.device | str) -> torch.nn.Module | None:
    """Build LPIPS with the very weights of `record` (see `prepare`), without network access.

    Returns: the lpips package's module, frozen and in evaluation mode; None where the record has no backbone.
    Raises: UserError where the file is gone, has another hash, or is not that backbone.
    """
    if record["status"] != "found":
        return None
    path = next((path for path in _places(record["file"], data_dir) if path.is_file()), None)
    if path is None:
        places = " or ".join(str(place) for place in _places(record["file"], data_dir))
        raise UserError(f"the recorded LPIPS backbone is gone from {places}: run the verb backbone again")
    if _sha256(path) != record["sha256"]:
        raise UserError(f"{path}: SHA-256 is not {record['sha256']} as recorded: run the verb backbone again")
    network = _untrained_lpips(record["net"])
    network.net.load_state_dict(_slice_weights(path, record["net"], network.net.state_dict()), strict=True)  # pyright: ignore[reportAttributeAccessIssue]  # a module
    return network.requires_grad_(False).eval().to(device)


def weights_url(net: str) -> str:
    """Address of torchvision's weights of backbone `net`."""
    from torchvision.models import get_model_weights  # 1.5 s to import, seldom needed

    return get_model_weights(BACKBONES[net].architecture)["IMAGENET1K_V1"].url


def _places(name: str, data_dir: Path | None) -> list[Path]:
    cache = Path(torch.hub.get_dir()) / "checkpoints" / name
    return [cache] if data_dir is None else [data_dir / "lpips" / name, cache]


def _download(net: str) -> None:
    url = weights_url(net)
    try:
        torch.hub.load_state_dict_from_url(url, check_hash=True, progress=False, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        name = BACKBONES[net].torchvision_file
        raise UserError(f"downloading {name} failed: {error}; put the file into <data_dir>/lpips/") from error


def _sha256(path: Path) -> str:
    """SHA-256 of a file of weights, held against the digits that torchvision puts into its names."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    promised = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    if promised and not digest.startswith(promised[1]):
        raise UserError(f"{path}: damaged, SHA-256 does not start with {promised[1]}; get the file again")
    return digest


def _untrained_lpips(net: str) -> torch.nn.Module:
    """LPIPS with its trained heads on an untrained backbone, which alone it builds without network access."""
    import lpips  # imports torchvision: 2 s

    deprecated = r"The parameter 'pretrained' is deprecated|Arguments other than a weight enum or `None`"
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", deprecated, UserWarning, module=r"torchvision\.models\._utils")
        return lpips.LPIPS(net=net, pnet_rand=True, verbose=False)


def _slice_weights(path: Path, net: str, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights in `path` under the names of `expected`: `features.3.bias` becomes `slice2.3.bias`.

    torchvision's classifier, which LPIPS does not use, is passed over; anything else that does not fit is an
    error, as is a wrong shape.
    """
    weights = {name: value for name, value in _read(path).items() if not name.startswith("classifier.")}
    names = {name: re.sub(r"^slice\d+", "features", name) for name in expected}
    faults = [f"no {name}" for name in sorted(names.values() - weights.keys())]
    faults += [f"unknown {name}" for name in sorted(weights.keys() - names.values())]
    faults += [
        f"{name} of shape {tuple(weights[name].shape)} in place of {tuple(expected[ours].shape)}"
        for ours, name in names.items()
        if name in weights and weights[name].shape != expected[ours].shape
    ]
    if faults:
        raise UserError(
            f"{path}: not the weights of {BACKBONES[net].architecture} for LPIPS {net}: "
            f"{faults[0]}{f' and {len(faults) - 1} more' if faults[1:] else ''}"
        )
    return {ours: weights[name] for ours, name in names.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its parsers do
        raise UserError(f"{path}: not a file of weights that torch can read safely; get it again") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path}: holds no dictionary of tensors; get it again")
    return weights
