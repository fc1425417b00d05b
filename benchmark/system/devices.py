"""Which devices there are, which a run uses, and how it is prepared. Imports no torch by itself."""

import ctypes
import os
import platform
import uuid
from pathlib import Path

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


def resolve_device(asked: str, where: str) -> str:
    """`cpu` or `cuda` for `auto`, `cpu` or `cuda`.

    Args:
        asked: what was asked for.
        where: the flag or the file and key that asked, for the message.

    Raises:
        UserError: `cuda` was asked for and there is none.
    """
    if asked == "cuda" and not cuda_count():
        raise UserError(f"{where}: cuda was asked for, but no CUDA device is visible here; use auto or cpu")
    if asked == "auto":
        return "cuda" if cuda_count() else "cpu"
    return asked


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
