"""Which roll-outs go through the fused stages on a GPU, and what each of the others says: on pretended tensors."""

import contextlib
import importlib.util

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from models.fast_path import fused_roll_out
from models.fast_path.fused_roll_out import why_no_kernels
from models.fast_path.stage_plans import PLANS
from models.predictor import Cut, Truncation, build
from models.spec import CELLS, NORMS
from models.stack import Stack
from tests.helpers.pretended import pretended_gpu
from tests.helpers.tiny import tiny_spec

pytest.importorskip("triton", reason="comes with PyTorch on Linux")
BATCH, STEPS = 2, 3


class Stages(TorchDispatchMode):
    """Counts the launches of stages."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.name().startswith("deep_in_time::")
        return func(*args, **kwargs or {})


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    monkeypatch.setattr(fused_roll_out, "why_no_kernels", lambda: None)
    with pretended_gpu():
        yield


def rolled(network, runs=(), gradient=False, **given):
    """Launches of stages in a roll-out, and why there are none."""
    side = network.spec.frame_size
    frames = torch.rand(*runs, BATCH, STEPS + 1, 1, side, side, dtype=network.to_frame.weight.dtype)
    frames.requires_grad_(gradient)
    with Stages() as stages:
        predictions = network(frames, torch.ones_like(frames[..., 1:, 0, 0, 0]), **given)
    assert predictions.shape == (*runs, BATCH, STEPS, 1, side, side)
    return stages.count, network.why_unfused(frames)


def network_of(cell="convlstm", **fields):
    return build(tiny_spec(cell, **{"highway_slot": 1} | fields), seed=1)


@pytest.mark.parametrize("way_back", [True, False])
@pytest.mark.parametrize("cell", PLANS)
def test_a_roll_out_on_a_gpu_goes_through_the_stages(cell, way_back):
    network = network_of(cell)
    stages = {"convlstm": 1, "st_lstm": 3, "causal_lstm": 3}[cell] * len(network.cells) + 2  # highway and frame
    with contextlib.nullcontext() if way_back else torch.no_grad():
        assert rolled(network) == (stages * STEPS, None)


@pytest.mark.parametrize(("way_back", "trained", "steps"), [(True, True, STEPS), (True, False, 1), (False, True, 1)])
def test_all_time_steps_are_kept_for_a_way_back_alone(monkeypatch, way_back, trained, steps):
    tapes = []

    class Noted(fused_roll_out.Tape):
        def run(self, *given):
            tapes.append(self)
            return super().run(*given)

    monkeypatch.setattr(fused_roll_out, "Tape", Noted)
    with torch.set_grad_enabled(way_back):
        assert rolled(network_of().requires_grad_(trained))[1] is None
    (tape,) = tapes
    assert (tape.depth, bool(tape.gates)) == (steps, steps > 1)


@pytest.mark.parametrize("cell", sorted(CELLS.keys() - PLANS.keys()))
def test_a_cell_without_stages_is_computed_as_it_reads(cell):
    reason = f"the cell {cell} has no stages in models/fast_path/stage_plans.py"
    assert rolled(network_of(cell)) == (0, reason)


@pytest.mark.parametrize("norm", NORMS[1:])
@pytest.mark.parametrize("cell", PLANS)
def test_a_norm_takes_two_more_passes_in_the_stages(cell, norm):
    network = network_of(cell, norm=norm)
    layers, stages = len(network.cells), {"convlstm": 1, "st_lstm": 3, "causal_lstm": 3}[cell]
    convolutions = {"convlstm": 2, "st_lstm": 4, "causal_lstm": 6}[cell] * layers + 2  # highway
    assert rolled(network) == ((2 * (stages * layers + 1) + convolutions + 1) * STEPS, None)


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [
        ("reference_path", "the reference path is asked for"),
        ("recompute", "recompute: true computes step by step"),
    ],
)
def test_what_is_asked_of_the_network_is_kept_to(attribute, reason):
    network = network_of()
    setattr(network, attribute, True)
    assert rolled(network) == (0, reason)


def test_a_network_with_the_decoupling_loss_is_fused_where_it_only_predicts():
    network, plain = network_of("st_lstm", adapter=True), network_of("st_lstm")
    with torch.no_grad():
        assert rolled(network) == rolled(plain)
        assert rolled(network)[0] > 0
    launched, reason = rolled(network, overlaps=[])
    assert (launched, reason) == (
        0,
        "the decoupling loss reads what each step adds to C and M, which the stages do not give",
    )


@pytest.mark.parametrize(
    "given",
    [
        lambda: {"trace": {}},
        lambda: {"gate_trace": {}},
        lambda: {"cut": Cut("memory", 1)},
        lambda: {"cut": Truncation(torch.ones(BATCH, STEPS))},
    ],
    ids=["trace", "gate_trace", "cut", "truncation"],
)
def test_what_looks_into_a_roll_out_is_given_what_it_looks_for(given):
    asked = given()
    assert rolled(network_of(), **asked)[0] == 0
    assert all(asked.values())


def test_a_gradient_at_the_frames_is_computed():
    reason = "a gradient at the frames is asked for"
    assert rolled(network_of(), gradient=True) == (0, reason)
    with torch.no_grad():
        assert rolled(network_of(), gradient=True)[1] is None


def test_runs_that_are_stacked_have_weights_side_by_side():
    spec = tiny_spec("convlstm", highway_slot=1)
    joint = Stack([build(spec, seed) for seed in (1, 2)]).joint
    assert rolled(joint, runs=(2,)) == (0, "the weights of several runs stand side by side")


def test_double_precision_is_not_for_the_kernels_of_a_gpu():
    torch.set_default_dtype(torch.float64)
    try:
        assert rolled(network_of()) == (0, "its weights are in float64, not in float32")
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_card_that_is_too_old_is_told(monkeypatch):
    network = network_of()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for capability, reason in (((7, 5), "its kernels need a GPU of compute capability 8.0 or later"), ((8, 0), None)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda capability=capability: capability)
        assert rolled(network)[1] == reason


def test_a_cpu_keeps_to_what_it_computed_before():
    frames = torch.rand(BATCH, STEPS + 1, 1, 8, 8, device="cpu")
    assert network_of().why_unfused(frames) == "its stages are fused on a GPU alone"


NO_HEADERS = "Triton needs the C headers of Python, and there is no /nowhere/Python.h"


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        ((), "Triton, which comes with PyTorch on Linux, is not installed"),
        (("triton",), "Triton needs a C compiler, gcc, clang or what CC names, and none is found"),
        (("triton", "gcc"), NO_HEADERS),
        (("triton", "clang"), NO_HEADERS),
        (("triton", "gcc", "headers"), None),
    ],
    ids=str,
)
def test_a_machine_that_cannot_start_kernels_says_what_it_lacks(monkeypatch, tmp_path, there, reason):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in there else None)
    monkeypatch.setattr(fused_roll_out.shutil, "which", lambda name: name if name in there else None)
    (tmp_path / "Python.h").touch()
    folder = str(tmp_path) if "headers" in there else "/nowhere"
    monkeypatch.setattr(fused_roll_out.sysconfig, "get_path", lambda *_: folder)
    assert why_no_kernels.__wrapped__() == reason
