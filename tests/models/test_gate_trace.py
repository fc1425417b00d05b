"""Gates are recorded as the nonlinearities take them."""

import pytest
import torch

from models.predictor import build
from models.spec import ModelSpec

GATES = {
    "convlstm": {"i", "f", "g", "o"},
    "st_lstm": {"i", "f", "g", "i'", "f'", "g'", "o"},
    "causal_lstm": {"i", "f", "g", "i'", "f'", "g'", "w3", "o"},
}


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("reference", [True, False])
def test_every_gate_of_every_layer_and_step_is_recorded(cell, reference):
    spec = ModelSpec(cell=cell, hidden_channels=(3, 3), frame_size=8, patch_size=4, kernel_size=3, highway_slot=1)
    network, gates = build(spec, 1), {}
    network.reference_path = reference
    frames = torch.rand(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 3)
    traced = network(frames, mask, gate_trace=gates)
    assert set(gates) == {(name, layer) for name in GATES[cell] for layer in (1, 2)} | {("p", 1), ("s", 1)}
    assert {(len(steps), step.shape) for steps in gates.values() for step in steps} == {(3, (2, 3, 2, 2))}
    torch.testing.assert_close(traced, network(frames, mask), rtol=0, atol=0)


def test_switch_of_the_highway_is_the_sigmoid_of_its_gate():
    spec = ModelSpec(
        cell="convlstm", hidden_channels=(2, 2), frame_size=8, kernel_size=3, highway_slot=1, highway_gate_bias=-2.0
    )
    states, gates = {}, {}
    frames = torch.rand(1, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    build(spec, 1)(frames, torch.ones(1, 3), states, gate_trace=gates)
    for switch, gate in zip(states["S", 1], gates["s", 1], strict=True):
        torch.testing.assert_close(switch, torch.sigmoid(gate - 2), rtol=0, atol=0)
