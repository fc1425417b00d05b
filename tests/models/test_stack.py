"""Networks side by side in one: each predicts, and has the gradients, that it has alone, bit for bit on a CPU."""

import pytest
import torch

from models.decoupling import decoupling
from models.predictor import build, predict
from models.spec import ModelSpec
from models.stack import Stack, common_form, whole_vectors

SMALL = {"hidden_channels": (5, 5), "frame_size": 16, "patch_size": 4, "kernel_size": 3}
FORMS = {
    **{cell: {"cell": cell} for cell in ("convlstm", "st_lstm", "causal_lstm")},
    **{f"{cell}-ghu": {"cell": cell, "highway_slot": 1} for cell in ("convlstm", "st_lstm", "causal_lstm")},
    "memory-first": {"cell": "causal_lstm", "memory_order": "spatial_to_temporal"},
    "of-the-paper": {"cell": "causal_lstm", "equations": "paper", "highway_slot": 1},
    "without-bias": {"cell": "causal_lstm", "conv_bias": False},
    "norm": {"cell": "st_lstm", "norm": "channel", "highway_slot": 1},
    "norm-by-element": {"cell": "convlstm", "norm": "element"},
    "grid-of-five": {"cell": "causal_lstm", "frame_size": 20, "hidden_channels": (16, 16)},
    "kernel-5": {"cell": "causal_lstm", "kernel_size": 5},
    "kernel-7": {"cell": "convlstm", "kernel_size": 7},
    "unequal-widths": {"cell": "causal_lstm", "hidden_channels": (6, 3, 4), "highway_slot": 2},
}
RUNS, BATCH, FRAMES = 3, 2, 4


def clips(spec, generator):
    """Clips and feed masks of all runs."""
    frames = torch.rand(RUNS, BATCH, FRAMES, 1, spec.frame_size, spec.frame_size, generator=generator)
    mask = (torch.rand(RUNS, BATCH, FRAMES - 1, generator=generator) > 0.4).float()
    mask[..., 0] = 1
    return frames, mask


def gradients(network, loss):
    """The gradient at every weight."""
    return torch.autograd.grad(loss, list(network.parameters()), materialize_grads=True)


def held_against_alone(networks, reference_path=False, recompute=False):
    """Hold a stack of `networks` against each alone."""
    for network in networks:
        network.reference_path, network.recompute = reference_path, recompute
    stack = Stack(networks)
    frames, mask = clips(networks[0].spec, torch.Generator().manual_seed(3))
    found = stack.joint(frames, mask)
    losses = [(one - true[:, 1:]).square().mean() for one, true in zip(found, frames, strict=True)]
    of_all = gradients(stack.joint, torch.stack(losses).sum())
    for run, network in enumerate(networks):
        alone = network(frames[run], mask[run])
        assert torch.equal(found[run], alone)
        expected = gradients(network, (alone - frames[run][:, 1:]).square().mean())
        for (name, _), stacked, own in zip(network.named_parameters(), of_all, expected, strict=True):
            assert torch.equal(stacked[run], own), name


@pytest.mark.parametrize("name", FORMS)
def test_each_network_of_a_stack_is_the_network_alone(name):
    spec = ModelSpec(**SMALL | FORMS[name])
    assert whole_vectors(spec, BATCH)
    held_against_alone([build(spec, seed) for seed in range(RUNS)])


def test_a_stack_whose_states_leave_numbers_over_is_near_each_network_alone():
    """Of 25 x 2 x 5 numbers some are left over by vectors of a CPU; in float64 the bound is 1e-9."""
    spec = ModelSpec(**SMALL | {"cell": "causal_lstm", "frame_size": 20})
    assert not whole_vectors(spec, BATCH)
    networks = [build(spec, seed).double() for seed in range(RUNS)]
    frames, mask = (given.double() for given in clips(spec, torch.Generator().manual_seed(3)))
    for run, one in enumerate(Stack(networks).joint(frames, mask)):
        torch.testing.assert_close(one, networks[run](frames[run], mask[run]), rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("way", ["reference_path", "recompute"])
def test_the_other_ways_to_compute_stack_as_well(way):
    spec = ModelSpec(**SMALL | FORMS["causal_lstm-ghu"])
    held_against_alone([build(spec, seed) for seed in range(RUNS)], **{way: True})


@pytest.mark.parametrize("recompute", [False, True])
def test_each_network_of_a_stack_has_the_decoupling_loss_that_it_has_alone(recompute):
    spec = ModelSpec(**SMALL | FORMS["st_lstm"] | {"adapter": True})
    networks = [build(spec, seed) for seed in range(RUNS)]
    for network in networks:
        network.recompute = recompute
    joint = Stack(networks).joint
    frames, mask = clips(spec, torch.Generator().manual_seed(3))
    of_all: list[torch.Tensor] = []
    joint(frames, mask, overlaps=of_all)
    together = decoupling(of_all)  # (R, B)
    assert together.shape == (RUNS, BATCH)
    gradients_of_all = gradients(joint, together.sum())
    for run, network in enumerate(networks):
        overlaps: list[torch.Tensor] = []
        network(frames[run], mask[run], overlaps=overlaps)
        alone = decoupling(overlaps)
        assert torch.equal(together[run], alone)
        own_gradients = gradients(network, alone.sum())
        for (name, _), stacked, own in zip(network.named_parameters(), gradients_of_all, own_gradients, strict=True):
            assert torch.equal(stacked[run], own), name
        assert own_gradients[-1].abs().max() > 0  # of the adapter


def test_each_network_of_a_stack_may_have_biases_of_its_own():
    forms = ({"forget_bias": 0.0}, {"forget_bias": 3.0, "highway_gate_bias": -1.0}, {"highway_gate_bias": 2.0})
    for cell in ("convlstm", "st_lstm", "causal_lstm"):
        specs = [ModelSpec(**SMALL, cell=cell, highway_slot=1, **form) for form in forms]
        assert len({common_form(spec) for spec in specs}) == 1
        held_against_alone([build(spec, seed) for seed, spec in enumerate(specs)])


def test_a_stack_predicts_what_each_network_predicts():
    spec = ModelSpec(**SMALL | FORMS["causal_lstm-ghu"])
    networks = [build(spec, seed) for seed in range(RUNS)]
    frames, _ = clips(spec, torch.Generator().manual_seed(5))
    found = predict(Stack(networks).joint, frames, 3, "fp32")
    assert found.shape == (RUNS, BATCH, 3, 1, 16, 16)
    for run, network in enumerate(networks):
        assert torch.equal(found[run], predict(network, frames[run], 3, "fp32"))


def test_a_stack_takes_over_the_weights_that_its_networks_have_now():
    spec = ModelSpec(**SMALL | FORMS["convlstm"])
    networks = [build(spec, seed) for seed in range(RUNS)]
    stack = Stack(networks)
    with torch.no_grad():
        networks[1].to_frame.weight.add_(1.0)
    stack.read_weights()
    for run, network in enumerate(networks):
        assert torch.equal(stack.joint.to_frame.weight[run], network.to_frame.weight)


def test_networks_of_several_forms_do_not_stack():
    specs = [ModelSpec(**SMALL | FORMS[name]) for name in ("convlstm", "convlstm-ghu")]
    with pytest.raises(ValueError, match="networks of several forms"):
        Stack([build(spec, 1) for spec in specs])
