"""The fused stages without a GPU: held to the cells in Triton's interpreter, compiled for two, launches counted."""

import collections
import functools
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from models.convolution import GateConv
from models.fast_path.fused_plan import Plan
from models.fast_path.fused_roll_out import RollOut
from models.fast_path.stage_plans import PLANS
from models.predictor import Predictor, to_frames, to_patches
from models.spec import NORMS, ModelSpec

triton = pytest.importorskip("triton", reason="comes with PyTorch on Linux")
ROOT = Path(__file__).parents[2]
SHARED_MEMORY = {80: 163 * 2**10, 90: 227 * 2**10}
"""Compute capability, times ten -> bytes that a program may have."""
BUDGET = 1300
"""Launches of a training step of PredRNN++ in four layers over 19 steps."""
BUDGET_WITH_NORMS = 3700
"""The same where each of its 26 convolutions has a norm."""


def test_in_the_interpreter_the_stages_are_the_cells():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", ""]
    done = subprocess.run(
        [*command, "tests/models/fused_in_interpreter.py"],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 120


def kinds(kernel, low, readers, constants):
    """The type of each argument of a kernel, as a launch gives them."""
    whole = ("bias", "memory", "new", "of_new", "of_memory", "mix_bias", "prediction", "frame", "mask", "of_prediction")
    whole += ("moments", "sums", "scale", "of_scale", "of_shift")
    readings = constants.get("READINGS", 0)
    found = {}
    for name in kernel.arg_names:
        if name in constants:
            continue
        if name == "places":
            found[name] = ("i32",) * (constants["GATES"] * max(readings, 1))
        elif readings and name in ("raws", "row_strides", "biases", "moments", "scales", "shifts"):
            found[name] = ({"raws": f"*{low}", "row_strides": "i32"}.get(name, "*fp32"),) * readings
        elif name in ("targets", "gradients"):
            found[name] = (f"*{low}",) * readers
        elif name == "strides":
            found[name] = ("i32",) * readers
        elif name in ("forget_bias", "gate_bias"):
            found[name] = "fp32"
        elif name in ("rows", "pixels", "scale_rows", "clips") or name.endswith("_stride"):
            found[name] = "i32"
        else:
            found[name] = "*fp32" if name in whole else f"*{low}"
    return found


@functools.cache
def most_readers():
    """Kernel -> how many tensors it writes a state to at most, or adds a gradient up from."""
    found = collections.Counter()
    for cell, slot in itertools.product(PLANS, (0, 1)):
        with torch.device("meta"):
            plan = Plan(Predictor(ModelSpec(cell=cell, hidden_channels=(8,) * 4, frame_size=8, highway_slot=slot)))
        for bound in plan.stages:
            name = "output" if bound.mix is not None else {"z'": "highway"}.get(bound.stage.makes, "update")
            back = bound.stage.makes in ("c'", "m'")  # from W5, too
            found[f"{name}_kernel"] = max(found[f"{name}_kernel"], len(bound.readers))
            found[f"{name}_backward_kernel"] = max(found[f"{name}_backward_kernel"], len(bound.readers) + back)
        for name in ("frame_kernel", "frame_backward_kernel"):
            found[name] = max(found[name], len(plan.input_readers))
    return found


def compiled(kernel, target, low, width, fixed):
    """A kernel compiled for a GPU that is not there."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from models.fast_path import norm_stages, stages

    product = kernel.arg_names[-1] == "BLOCK_DEPTH"
    tile = (stages.PRODUCT_ROWS, stages.PRODUCT_COLUMNS) if product else (stages.ROWS, stages.COLUMNS)
    constants = {"WIDTH": width, "COMPUTE": triton.language.float32, "BLOCK_ROWS": tile[0], "BLOCK_COLUMNS": tile[1]}
    if product:
        operand = {"bf16": triton.language.bfloat16, "fp32": triton.language.float32}[low]
        constants |= {"BLOCK_DEPTH": stages.DEPTH, "OPERAND": operand, "PRECISION": "ieee"}
    constants |= {"REAL": width, "PARTS": norm_stages.PARTS} if "REAL" in kernel.arg_names else {}
    constants |= fixed
    types = kinds(kernel, low, most_readers()[kernel.__name__], constants)
    pointers = [(place,) for place, name in enumerate(kernel.arg_names) if str(types.get(name)).startswith("*")]
    aligned = {place: [["tt.divisibility", 16]] for place in pointers}
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=stages.OPTIONS)


FIXED = {
    "update_kernel": ({"FROM_GATE": a, "WITH_OUTPUT": b} for a, b in ((0, 0), (1, 0), (0, 1))),
    "update_backward_kernel": (
        {"FROM_GATE": a, "WITH_OUTPUT": b, "LAST": c} for a, b, c in ((0, 0, 0), (1, 0, 1), (0, 1, 0))
    ),
    "highway_kernel": ({},),
    "highway_backward_kernel": ({"LAST": 0}, {"LAST": 1}),
    "output_kernel": ({"SIGMOID": 0}, {"SIGMOID": 1}),
    "output_backward_kernel": ({"SIGMOID": 0}, {"SIGMOID": 1}),
    "frame_kernel": ({"DEPTH": 64, "LAST": 0}, {"DEPTH": 64, "LAST": 1}),
    "frame_backward_kernel": ({"DEPTH": 64, "LAST": 0}, {"DEPTH": 64, "LAST": 1}),
    "moments_kernel": ({"GATES": 7},),
    "add_kernel": (
        {"GATES": a, "READINGS": b, "NORMED": c} for a, b, c in ((4, 2, 3), (3, 3, 7), (4, 4, 11), (1, 4, 15))
    ),
    "norm_sums_kernel": ({"GATES": 7}, {"GATES": 1}),
    "norm_backward_kernel": ({"GATES": 7, "NORMED": 1}, {"GATES": 1, "NORMED": 0}),
}
KERNELS = [(name, fixed) for name, several in FIXED.items() for fixed in several]


def test_all_kernels_are_compiled_here():
    from models.fast_path import gate_kernels, norm_kernels, product_kernels

    modules = gate_kernels, norm_kernels, product_kernels
    theirs = {name for module in modules for name in vars(module) if name.endswith("_kernel")}
    assert theirs == set(FIXED)


@pytest.mark.parametrize("target", SHARED_MEMORY)
@pytest.mark.parametrize("low", ["bf16", "fp32"])
@pytest.mark.parametrize(("name", "fixed"), KERNELS, ids=str)
def test_a_kernel_compiles_and_keeps_to_registers_and_shared_memory(name, fixed, low, target, tmp_path):
    from models.fast_path import gate_kernels, norm_kernels, product_kernels

    modules = gate_kernels, norm_kernels, product_kernels
    (kernel,) = (vars(module)[name] for module in modules if name in vars(module))
    width = 16 if name.startswith("frame") else 64
    numbers = "DEPTH", "GATES", "READINGS", *(["NORMED"] if name == "add_kernel" else [])
    made = compiled(kernel, target, low, width, {key: v if key in numbers else bool(v) for key, v in fixed.items()})
    assert made.metadata.shared <= SHARED_MEMORY[target]
    (tmp_path / "kernel.cubin").write_bytes(made.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    command = [tool, "--dump-resource-usage", tmp_path / "kernel.cubin"]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", usage))
    assert (used["STACK"], used["LOCAL"]) == ("0", "0")
    assert low == "fp32" or int(used["REG"]) <= 128  # then four programs of 128 threads share a multiprocessor


class Launches(TorchDispatchMode):
    """Counts what a GPU would launch, and looks at the layout of all convolutions."""

    def __init__(self):
        super().__init__()
        self.found, self.convolved = collections.Counter(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        name = func.name()
        free = ("aten::empty", "aten::new_empty", "aten::detach", "aten::_unsafe_view")
        if func.is_view or name.startswith(free):
            return result
        if "convolution" in name:
            self.convolved += [(name, one) for one in args[: 2 + name.endswith("backward")]]
        if name == "aten::convolution":  # tensors without numbers forget that the result is laid out as the input
            return result.to(memory_format=torch.channels_last)
        self.found[name] += 1
        return result


def step_without_numbers(spec, low):
    """Launches of forward and backward pass at batch 8, 10 frames of context and 10 of horizon."""
    with torch.device("meta"):
        network = Predictor(spec)
        frames, mask = torch.empty(8, 20, 1, spec.frame_size, spec.frame_size), torch.empty(8, 19)
    plan, parameters = Plan(network), list(network.parameters())
    with Launches() as launches:
        patches = RollOut.apply(plan, to_patches(frames, spec.patch_size), mask, low, *parameters)
        loss = (to_frames(patches, spec.patch_size) - frames[:, 1:]).square().mean()
        found = torch.autograd.grad(loss, parameters)
    assert [one.shape for one in found] == [one.shape for one in parameters]
    return launches, parameters


PREDRNNPP = {"cell": "causal_lstm", "hidden_channels": (128, 64, 64, 64), "frame_size": 64, "highway_slot": 1}


def test_a_training_step_keeps_to_its_budget_of_launches():
    launches, parameters = step_without_numbers(ModelSpec(**PREDRNNPP), torch.bfloat16)
    convolutions = sum(1 for name, _ in launches.convolved if name == "aten::convolution") // 2
    around = len(parameters) + 20  # a copy of each gradient; norm, clipping, the guard and Adam
    assert sum(launches.found.values()) + convolutions + around <= BUDGET
    stages = sum(count for name, count in launches.found.items() if name.startswith("deep_in_time::"))
    assert (convolutions, stages) == (13 * 19, 2 * 14 * 19)
    assert launches.found["aten::convolution_backward"] == 13 * 19 + 13  # each kernel's own gradient is taken once


@pytest.mark.parametrize("norm", NORMS[1:])
def test_with_norms_it_keeps_to_a_budget_of_its_own(norm):
    launches, parameters = step_without_numbers(ModelSpec(**PREDRNNPP | {"norm": norm}), torch.bfloat16)
    convolutions = sum(1 for name, _ in launches.convolved if name == "aten::convolution") // 2
    around = len(parameters) + 20
    assert sum(launches.found.values()) + convolutions + around <= BUDGET_WITH_NORMS
    normed = 4 * 6 + 2  # convolutions of a time step, all with a norm
    stages = {name.removeprefix("deep_in_time::"): count for name, count in launches.found.items() if "::" in name}
    assert convolutions == normed * 19
    assert stages["moments"] == stages["norm_sums"] == stages["norm_backward"] == normed * 19
    assert stages["add"] == (4 * 3 + 1) * 19
    assert launches.found["aten::convolution_backward"] == normed * 19 + normed


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("widths", [(128, 64, 64, 64), (111, 77, 75)], ids=str)
@pytest.mark.parametrize("cell", PLANS)
def test_every_convolution_has_its_channels_last_and_their_number_a_multiple_of_8(cell, widths, norm):
    widths = (64,) * len(widths) if cell == "st_lstm" else widths
    spec = ModelSpec(**PREDRNNPP | {"cell": cell, "hidden_channels": widths, "norm": norm})
    launches, _ = step_without_numbers(spec, torch.bfloat16)
    assert launches.convolved
    for name, tensor in launches.convolved:
        assert tensor.is_contiguous(memory_format=torch.channels_last), name
        assert (tensor.dtype, tensor.shape[1] % 8) == (torch.bfloat16, 0), name
    copies = {name for name in launches.found if name in ("aten::clone", "aten::copy_", "aten::cat")}
    laid_out = 0 if norm == "none" else 2 * sum(isinstance(one, GateConv) for one in Predictor(spec).modules())
    assert sum(launches.found[name] for name in copies) < 20 + laid_out  # around the loop, none in it


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_convolution_of_channels_last_gives_channels_last(dtype):
    image = torch.rand(2, 8, 4, 4).to(dtype).to(memory_format=torch.channels_last)
    kernel = torch.rand(8, 8, 3, 3).to(dtype).to(memory_format=torch.channels_last)
    found = torch.nn.functional.conv2d(image, kernel, padding=1)
    assert found.is_contiguous(memory_format=torch.channels_last)
