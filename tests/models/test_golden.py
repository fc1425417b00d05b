"""Cells and networks agree with numbers from other people's code, under the bounds of tests/golden."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.evaluation.gradient_probe import gradient_norms, roll_out
from models.causal_lstm import CausalLSTMCell
from models.convlstm import ConvLSTMCell
from models.decoupling import decoupling
from models.gradient_highway import GradientHighwayUnit
from models.predictor import Predictor, free_running_mask, to_frames, to_patches
from models.spec import ModelSpec
from models.st_lstm import SpatioTemporalLSTMCell

GOLDEN = Path(__file__).parents[1] / "golden"
BOUND = 1e-9
CONTEXT, HORIZON = 4, 3
UNUSED = {"causal_lstm": {"conv_o"}, "convlstm": {"conv_o", "conv_memories"}, "st_lstm": set()}
"""Convolutions that the other code has and never uses."""
RENAMED = {"conv_c2m": "conv_first_memory", "conv_om": "conv_second_memory", "x_concat": "conv_x", "z_concat": "conv_z"}
RENAMED |= {"conv_last": "conv_memories", "cell_list": "cells", "gradient_highway": "highway"}
CELLS = {"convlstm": ConvLSTMCell, "st_lstm": SpatioTemporalLSTMCell, "causal_lstm": CausalLSTMCell}
CELL_CASES = [f"{cell}_cell{ln}" for cell in CELLS for ln in ("", "_ln")]
NETWORK_CASES = {
    "convlstm_network": {"cell": "convlstm", "forget_bias": 0.0},
    "predrnn_network": {"cell": "st_lstm"},
    "predrnn_network_ln": {"cell": "st_lstm", "norm": "element"},
    "predrnnpp_network": {"cell": "causal_lstm", "highway_slot": 1},
}
DECOUPLED_CASES = ("predrnn_v2_network", "predrnn_v2_network_reverse")
"""With scheduled and with reverse scheduled sampling: the mask of the latter begins at the second step."""
NETWORK_CASES |= {case: {"cell": "st_lstm", "adapter": True} for case in DECOUPLED_CASES}


def load(case: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{case}.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def under(arrays: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def in_our_names(arrays: dict[str, torch.Tensor], cell: str) -> dict[str, torch.Tensor]:
    """Weights, or their gradients, under our names and with our order of gates (theirs of `conv_c2m` is i g f o)."""
    ours = {}
    for name, array in arrays.items():
        parts = [RENAMED.get(part, part) for part in name.split(".")]
        is_frame = parts[0] == "conv_memories" and len(array) == array.shape[1] and "cell_list" in "".join(arrays)
        if is_frame:
            parts[0] = "to_frame"
        elif UNUSED[cell] & set(parts):
            continue
        if "conv_first_memory" in parts:
            i, g, f, o = array.chunk(4)
            array = torch.cat([i, f, g, o])
        name = ".".join(parts)
        ours[re.sub(r"(conv_\w+)\.([01])\.", lambda m: f"{m[1]}.{('conv', 'norm')[int(m[2])]}.", name)] = array
    return ours


def assert_agree(ours: torch.Tensor, reference: torch.Tensor, name: str) -> None:
    error = (ours.detach() - reference).abs().max() / max(reference.abs().max().item(), 1e-12)
    assert error < BOUND, name


def assert_gradients_agree(module: torch.nn.Module, arrays: dict[str, torch.Tensor], cell: str) -> None:
    reference = in_our_names(under(arrays, "grad.param."), cell)
    assert set(reference) == {name for name, _ in module.named_parameters()}
    for name, parameter in module.named_parameters():
        assert_agree(parameter.grad, reference[name], name)


@pytest.mark.parametrize("case", [*CELL_CASES, "ghu"])
def test_one_step_of_a_cell(case):
    arrays = load(case)
    inputs, outputs = under(arrays, "input."), under(arrays, "output.")
    _, channels, size, _ = inputs["x"].shape
    width = outputs["z" if case == "ghu" else "h"].shape[1]
    cell = "causal_lstm" if case == "ghu" else case.split("_cell")[0]
    spec = ModelSpec(
        cell=cell,
        hidden_channels=(width, width),
        frame_size=size,
        patch_size=1,
        highway_slot=1,
        norm="element" if case.endswith("_ln") else "none",
        conv_bias=False,
        forget_bias=0.0 if cell == "convlstm" else 1.0,
    )
    module = GradientHighwayUnit(spec, channels) if case == "ghu" else CELLS[cell](spec, channels, width, width)
    module.double().load_state_dict(in_our_names(under(arrays, "param."), cell))
    for tensor in inputs.values():
        tensor.requires_grad_()
    found = module(*inputs.values(), *([None] if cell == "convlstm" else []))
    found = dict(zip("z" if case == "ghu" else "hcm", found, strict=False))
    for name, reference in outputs.items():
        assert_agree(found[name], reference, name)
    sum((found[name] * weight).sum() for name, weight in under(arrays, "weight.").items()).backward()
    assert_gradients_agree(module, arrays, cell)
    for name, tensor in inputs.items():
        assert_agree(tensor.grad, arrays[f"grad.input.{name}"], name)


def network_of(case: str, arrays: dict[str, torch.Tensor]) -> tuple[Predictor, torch.Tensor]:
    """The network with the reference's weights, and its clips."""
    patches = arrays["input.frames"].permute(0, 1, 4, 2, 3)
    layers = len({name.split(".")[2] for name in arrays if name.startswith("param.cell_list.")})
    spec = ModelSpec(
        hidden_channels=(4,) * layers,
        frame_size=2 * patches.shape[-1],
        patch_size=2,
        kernel_size=3,
        conv_bias=False,
        **NETWORK_CASES[case],
    )
    network = Predictor(spec).double()
    network.load_state_dict(in_our_names(under(arrays, "param."), spec.cell))
    return network, to_frames(patches, 2)


@pytest.mark.parametrize("reference", [True, False], ids=["reference", "optimised"])
@pytest.mark.parametrize("case", [case for case in NETWORK_CASES if case not in DECOUPLED_CASES])
def test_network_and_its_loss(case, reference):
    arrays = load(case)
    network, frames = network_of(case, arrays)
    network.reference_path = reference
    mask = torch.cat([torch.ones(len(frames), CONTEXT, dtype=torch.float64), arrays["input.coin"]], dim=1)
    predictions = network(frames, mask)
    assert_agree(to_patches(predictions, 2).permute(0, 1, 3, 4, 2), arrays["output.next_frames"], "next_frames")
    loss = (predictions - frames[:, 1:]).square().mean()
    assert_agree(loss, arrays["output.loss"], "loss")
    loss.backward()
    assert_gradients_agree(network, arrays, network.spec.cell)


@pytest.mark.parametrize("way", ["reference", "optimised", "recomputed"])
@pytest.mark.parametrize("case", DECOUPLED_CASES)
def test_network_and_its_decoupling_loss(case, way):
    arrays = load(case)
    network, frames = network_of(case, arrays)
    network.reference_path, network.recompute = way == "reference", way == "recomputed"
    true = frames.new_ones(len(frames), frames.shape[1] - 1 - arrays["input.coin"].shape[1])
    overlaps = []
    predictions = network(frames, torch.cat([true, arrays["input.coin"]], dim=1), overlaps=overlaps)
    assert_agree(to_patches(predictions, 2).permute(0, 1, 3, 4, 2), arrays["output.next_frames"], "next_frames")
    error = (predictions - frames[:, 1:]).square().mean()
    assert_agree(error, arrays["output.mse"], "mse")
    loss = error + arrays["config.decouple_beta"] * decoupling(overlaps).mean()
    assert_agree(loss, arrays["output.loss"], "loss")
    loss.backward()
    assert_gradients_agree(network, arrays, "st_lstm")


@pytest.mark.parametrize("reference", [True, False], ids=["reference", "optimised"])
@pytest.mark.parametrize("case", [case for case in NETWORK_CASES if case not in DECOUPLED_CASES])
def test_probe(case, reference):
    arrays = load(case)
    network, frames = network_of(case, arrays)
    network.reference_path = reference
    predictions = network(frames, free_running_mask(len(frames), CONTEXT, HORIZON, frames))
    assert_agree(to_patches(predictions, 2).permute(0, 1, 3, 4, 2), arrays["probe.next_frames"], "next_frames")
    norms = gradient_norms(roll_out(network, frames, CONTEXT))
    reference = under(arrays, "probe.norm.")
    assert {"X" if state == "X" else f"{state}.{layer}" for state, layer in norms} == set(reference)
    for (state, layer), found in norms.items():
        name = "X" if state == "X" else f"{state}.{layer}"
        assert_agree(found, reference[name], name)
