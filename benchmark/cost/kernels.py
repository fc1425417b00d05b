"""What a device does in one call: its kernels, counted and timed by PyTorch's profiler."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmark.cost.stopwatch import synchronise

LAYOUT = ("transpose", "nchwtonhwc", "nhwctonchw", "nchw2nhwc", "nhwc2nchw", "permute")
"""Parts of the names of kernels that lay a tensor out anew, in small letters."""
LISTED = 20
"""Kernels that are told by name, those that take longest."""


def kernels(work: Callable[[], Any], device: str, trace: Path) -> dict[str, Any]:
    """The kernels that one call of `work` runs on a GPU; on a CPU the operators that it calls.

    Args:
        work: has been called before, so that nothing is compiled or captured any more.
        trace: takes all of it, for a viewer such as Perfetto.

    Returns:
        Their number, the time that they take together in s, number and time of each of the `LISTED` names that take
        longest; on a GPU the number of those that only lay out anew, and the same of each of their names.
    """
    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    synchronise(device)
    with profile(activities=activities) as recorded:
        work()
        synchronise(device)
    recorded.export_chrome_trace(str(trace))
    counts: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for event in recorded.events() or []:
        if on_gpu and (event.device_type != DeviceType.CUDA or event.is_user_annotation):
            continue
        counts[event.name] += 1
        times[event.name] += (event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total) / 1e6

    def listed(names: list[str]) -> dict[str, dict[str, float]]:
        return {name: {"count": counts[name], "total_s": times[name]} for name in names}

    longest = listed([name for name, _ in times.most_common(LISTED)])
    found = {"kernels": counts.total(), "kernels_s": sum(times.values()), "longest_kernels": longest}
    if on_gpu:
        layout = [name for name in counts if only_lays_out(name)]
        found |= {"layout_kernels": sum(counts[name] for name in layout), "layout_kernels_by_name": listed(layout)}
    return found


def only_lays_out(name: str) -> bool:
    """Whether a kernel of this name lays a tensor out anew and computes nothing."""
    return any(part in name.lower() for part in LAYOUT)
