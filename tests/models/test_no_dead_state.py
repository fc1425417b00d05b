"""Nothing in a network idles: each parameter and each state at each step has a share in the last predicted frame.

A cell that ignores one of its states shows a false vanishing of gradients, and a weight that nothing reads makes the
parameter and MAC counts of the tables wrong.
"""

from functools import cache

import pytest
import torch

from benchmark.config.variants import VARIANTS, Variant, slot_number
from models.counts import count_parameters
from models.predictor import Predictor, build, free_running_mask
from models.spec import CELLS, INITS, NORMS, ModelSpec
from tests.helpers.tiny import random_clips, states_of, tiny_spec

DEPTHS = range(1, 9)
CONTEXT, HORIZON = 2, 1  # the shortest clip in which everything is alive
SETTINGS = [{"norm": norm} for norm in NORMS] + [
    {"equations": "paper"},
    {"conv_bias": False},
    {"init": INITS[1], "norm": "channel"},
]
NETWORKS = VARIANTS | {
    f"{cell}{'-ghu' if slot else ''}": Variant(label=cell, cell=cell, slot=slot)
    for cell in CELLS.keys() - {variant.cell for variant in VARIANTS.values()}
    for slot in (None, "bottom")
}
"""Every variant of the registry, and every cell that none of them has, with and without a highway."""


def variant_spec(variant: str, depth: int, **fields) -> ModelSpec | None:
    """The spec of a variant at a depth, on a 2 x 2 grid; None where its highway has no slot."""
    known = NETWORKS[variant]
    if known.slot and depth < 2:
        return None
    sizes = {"hidden_channels": (2,) * depth, "frame_size": 4, "highway_slot": slot_number(known.slot, depth)}
    return tiny_spec(known.cell, **sizes | known.model | fields)


CASES = [
    (variant, depth, fields)
    for variant in NETWORKS
    for depth in DEPTHS
    for fields in (SETTINGS if depth in (1, 2, 4) else SETTINGS[: len(NORMS)])
    if variant_spec(variant, depth)
]


@cache
def gradients(
    spec: ModelSpec, context: int = CONTEXT
) -> tuple[Predictor, dict[str, torch.Tensor], dict[tuple, torch.Tensor]]:
    """The gradient of the last frame's squared error at every parameter and, by (state, layer, t), at every state.

    In float64: at the authors' initialisation and eight layers it lies below what float32 holds.
    """
    network = build(spec, seed=1).double()
    frames = random_clips(spec, batch=1, frames=context + HORIZON)
    trace = {}
    predictions = network(frames, free_running_mask(1, context, HORIZON, frames), trace)
    states = {(*key, t): state for key, steps in trace.items() for t, state in enumerate(steps, start=1)}
    error = (predictions[:, -1] - frames[:, -1]).square().sum()
    # The adapter of PredRNN-V2 has no share in a prediction, but in its second loss: tests/training/test_decoupling.py.
    weights = {name: weight for name, weight in network.named_parameters() if not name.startswith("adapter.")}
    wanted = weights | states
    found = dict(zip(wanted, torch.autograd.grad(error, wanted.values(), materialize_grads=True), strict=True))
    return network, {name: found[name] for name in weights}, {key: found[key] for key in states}


def case_name(value: str | int | dict) -> str:
    return "-".join(map(str, value.values())) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("variant", "depth", "fields"), CASES, ids=case_name)
def test_every_parameter_and_every_state_gets_gradient(variant, depth, fields):
    spec = variant_spec(variant, depth, **fields)
    network, at_parameters, at_states = gradients(spec)
    steps = range(1, CONTEXT + HORIZON)
    expected = {(name, layer, t) for name in states_of(network) for layer in range(1, depth + 1) for t in steps}
    expected |= {(name, spec.highway_slot, t) for name in "ZS" for t in steps if spec.highway_slot}
    assert set(at_states) == expected
    dead = [key for key, gradient in (at_parameters | at_states).items() if not (gradient != 0).all()]
    assert dead == []


@pytest.mark.parametrize("variant", NETWORKS)
def test_counted_parameters_are_those_with_gradient(variant):
    spec = variant_spec(variant, 4)
    _, at_parameters, _ = gradients(spec)
    assert count_parameters(spec) == sum(int((gradient != 0).sum()) for gradient in at_parameters.values())


def test_in_a_single_step_the_filters_on_zero_states_learn_nothing():
    spec = variant_spec("predrnnpp", 2)
    _, at_parameters, _ = gradients(spec, context=1)
    readers_of_zero = {"cells.0.conv_h", "cells.0.conv_c", "cells.0.conv_m", "cells.1.conv_h", "cells.1.conv_c"}
    dead = {name for name, gradient in at_parameters.items() if (gradient == 0).all()}
    assert dead == {f"{reader}.conv.weight" for reader in readers_of_zero | {"highway.conv_z"}}
