"""A GPU that the driver shows and PyTorch cannot use: `auto` is the CPU and says why, `cuda` is refused in one line."""

import types
import warnings

import pytest
import torch

from benchmark.system import devices
from benchmark.system.errors import UserError


def fake_cuda(available=True, capabilities=((8, 0),), built=("sm_80", "sm_90"), said=None):
    """What PyTorch says of the GPUs of a machine."""

    def is_available():
        if said:
            warnings.warn(said, stacklevel=2)
        return available

    return types.SimpleNamespace(
        is_available=is_available,
        device_count=lambda: len(capabilities),
        get_device_capability=lambda number: capabilities[number],
        get_device_name=lambda number: f"Card {number}",
        get_arch_list=lambda: list(built),
    )


CASES = {
    "fits": (fake_cuda(), "13.0", None),
    "newer minor": (fake_cuda(capabilities=[(8, 6)]), "13.0", None),
    "compiled when it is loaded": (fake_cuda(capabilities=[(12, 0)], built=["sm_90", "compute_90"]), "13.0", None),
    "arch with a letter": (fake_cuda(capabilities=[(9, 0)], built=["sm_90a"]), "13.0", None),
    "for CPUs": (fake_cuda(available=False), None, "is built for CPUs alone"),
    "old driver": (
        fake_cuda(available=False, said="The NVIDIA driver on your system is too old (found version 11040).\nUpdate"),
        "13.0",
        "(CUDA 13.0) cannot use this driver (The NVIDIA driver on your system is too old (found version 11040).)",
    ),
    "old card": (
        fake_cuda(capabilities=[(8, 0), (3, 7)]),
        "13.0",
        "is not built for Card 1 (compute capability 3.7; it has sm_80, sm_90)",
    ),
    "new card": (fake_cuda(capabilities=[(12, 0)]), "13.0", "is not built for Card 0 (compute capability 12.0"),
}


@pytest.fixture(params=CASES)
def machine(request, monkeypatch):
    """A machine whose driver shows two GPUs; what keeps PyTorch from them."""
    cuda, version, reason = CASES[request.param]
    monkeypatch.setattr(devices, "visible_devices", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(torch.version, "cuda", version)
    asked, said = devices.why_torch_cannot_use_gpus, devices._say_fallback
    for once in (asked, said):
        once.cache_clear()
    yield reason
    for once in (asked, said):
        once.cache_clear()


def test_auto_is_the_cpu_where_pytorch_cannot_use_the_gpu_and_says_why_once(machine, capsys):
    chosen = {devices.resolve_device("auto", "--device") for _ in range(3)}
    said = capsys.readouterr().err
    if machine is None:
        assert (chosen, said) == ({"cuda"}, "")
        return
    assert chosen == {"cpu"}
    assert said.startswith("--device: auto uses the CPU, since torch ")
    assert (machine in said, said.count("\n")) == (True, 1), said


def test_cuda_is_refused_in_one_line_where_pytorch_cannot_use_it(machine):
    if machine is None:
        assert devices.resolve_device("cuda", "--device") == "cuda"
        return
    with pytest.raises(UserError) as raised:
        devices.resolve_device("cuda", "--device")
    said = str(raised.value)
    assert said.startswith("--device: cuda was asked for, but torch ")
    assert said.endswith("; mend that, or use auto or cpu")
    assert (machine in said, said.count("\n")) == (True, 0), said


def test_pytorch_is_not_asked_about_a_cpu_or_where_the_driver_is_to_decide(machine, monkeypatch):
    monkeypatch.setattr(devices, "why_torch_cannot_use_gpus", lambda: pytest.fail("PyTorch was asked"))
    assert devices.resolve_device("cpu", "--device") == "cpu"
    assert devices.resolve_device("auto", "--device", by_driver_alone=True) == "cuda"


def test_a_gpu_takes_sums_of_products_in_single_precision():
    flags = {torch.backends.cudnn: ("allow_tf32", "benchmark"), torch.backends.cuda.matmul: ("allow_tf32",)}
    flags[torch.backends.cuda.matmul] += ("allow_bf16_reduced_precision_reduction",)
    before = {(place, name): getattr(place, name) for place, names in flags.items() for name in names}
    mode, threads = torch.get_deterministic_debug_mode(), torch.get_num_threads()
    try:
        for place, name in before:
            setattr(place, name, True)
        devices.prepare_device("cuda", threads)
        assert {getattr(place, name) for place, name in before} == {False}
    finally:
        torch.set_deterministic_debug_mode(mode)
        for (place, name), value in before.items():
            setattr(place, name, value)
