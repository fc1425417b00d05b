"""Which device a run uses, found out without importing torch."""

import ctypes

from benchmark.errors import UserError


def cuda_count() -> int:
    """Number of CUDA devices that the driver shows to this process."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


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
