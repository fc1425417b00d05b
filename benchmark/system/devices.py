"""Which devices there are, which a run uses, and how it is prepared. Imports no torch by itself."""

import ctypes
import functools
import os
import platform
import re
import sys
import uuid
import warnings
from pathlib import Path

from benchmark.system.console import echo
from benchmark.system.errors import UserError


def visible_devices() -> list[str]:
    """The UUIDs of the CUDA devices that the driver shows to this process, in the order of PyTorch's numbers."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    return [_name(driver, number) for number in range(count.value)]


def _name(driver: ctypes.CDLL, number: int) -> str:
    device, found = ctypes.c_int(0), (ctypes.c_ubyte * 16)()
    # The second version tells the parts of a GPU (MIG) apart; old drivers have the first alone.
    ask = getattr(driver, "cuDeviceGetUuid_v2", None) or driver.cuDeviceGetUuid
    if driver.cuDeviceGet(ctypes.byref(device), number) or ask(found, device):
        return f"GPU-number-{number}"
    return f"GPU-{uuid.UUID(bytes=bytes(found))}"


def cuda_count() -> int:
    """Number of CUDA devices that the driver shows to this process."""
    return len(visible_devices())


def resolve_device(asked: str, where: str, *, by_driver_alone: bool = False) -> str:
    """`cpu` or `cuda` for `auto`, `cpu` or `cuda`; says so where `auto` is the CPU though the driver shows a GPU.

    Args:
        asked: what was asked for.
        where: the flag or the file and key that asked, for the message.
        by_driver_alone: do not ask PyTorch, whose import takes seconds, whether it can use what the driver shows.

    Raises:
        UserError: `cuda` was asked for and there is none, or none that PyTorch can use.
    """
    if asked == "cpu":
        return "cpu"
    if not cuda_count():
        if asked == "cuda":
            raise UserError(f"{where}: cuda was asked for, but no CUDA device is visible here; use auto or cpu")
        return "cpu"
    if by_driver_alone or (reason := why_torch_cannot_use_gpus()) is None:
        return "cuda"
    if asked == "cuda":
        raise UserError(f"{where}: cuda was asked for, but {reason}; mend that, or use auto or cpu")
    _say_fallback(f"{where}: auto uses the CPU, since {reason}")
    return "cpu"


@functools.cache
def _say_fallback(line: str) -> None:
    """Once a process."""
    echo(line, sys.stderr)


@functools.cache
def why_torch_cannot_use_gpus() -> str | None:
    """What keeps PyTorch from the GPUs that the driver shows: itself, the driver or a card; None where nothing does."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built for CPUs alone"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if not available:
        said = "; ".join(str(warning.message).strip().partition("\n")[0] for warning in warned)
        why = f" ({said})" if said else ""
        return f"torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use this driver{why}"
    for number in range(torch.cuda.device_count()):
        capability, built = torch.cuda.get_device_capability(number), torch.cuda.get_arch_list()
        if not any(_runs_on(capability, name) for name in built):
            return (
                f"torch {torch.__version__} is not built for {torch.cuda.get_device_name(number)} (compute capability"
                f" {capability[0]}.{capability[1]}; it has {', '.join(built)})"
            )
    return None


def _runs_on(capability: tuple[int, int], name: str) -> bool:
    """Whether code built for `name`, such as sm_86 or compute_90, runs on a card of this compute capability."""
    kind, _, number = name.partition("_")
    digits = re.match(r"\d+", number)
    if digits is None:
        return False
    built = divmod(int(digits[0]), 10)
    return built <= capability and (kind == "compute" or built[0] == capability[0])


def cpu_model() -> str:
    """The CPU's name as the kernel gives it, or its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def prepare_device(device: str, threads: int) -> None:
    """Fix threads and algorithms so that the same run gives the same bits again; fp32 means fp32, without TF32."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error")  # `use_deterministic_algorithms` but for the compiler's import, 3 s
    torch.utils.deterministic.fill_uninitialized_memory = False  # a help in finding faults that costs 3 % of a step  # pyright: ignore[reportAttributeAccessIssue]  # set by torch in a way that hides it
    if device == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False  # sums of products are in fp32
