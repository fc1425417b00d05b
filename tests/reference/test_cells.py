"""Each cell and the highway, held against the loops: outputs, gradients, and gradcheck besides."""

import numpy as np
import pytest
import torch

from models.gradient_highway import GradientHighwayUnit
from models.predictor import cell_class
from models.spec import ModelSpec
from tests.reference.cells import CELLS, details, highway
from tests.reference.complex_step import derivative

NORMS = ("none", "channel", "element")
TWO = [{"equations": equations} for equations in ("code", "paper")]
FOUR = [fields | {"memory_order": order} for fields in TWO for order in ("temporal_to_spatial", "spatial_to_temporal")]
ALONE = [  # single fields against the defaults of their equations
    {"first_gates_see_c": False},
    {"memory_order": "spatial_to_temporal", "first_gates_see_c": False},
    {"o_sees_h": False},
    {"g2_sees_m": True},
    {"w3_kernel": 1},
    {"w3_kernel": 5},
    {"forget_bias": 0.3},
    {"conv_bias": False},
    {"kernel_size": 1},
    {"kernel_size": 5},
    {"equations": "paper", "o_sees_h": True},
    {"equations": "paper", "w3_kernel": 3},
    {"equations": "paper", "forget_bias": 1.0},
    {"memory_order": "spatial_to_temporal", "g2_sees_m": False},
]
FOR_ALL = [{"forget_bias": 0.3}, {"conv_bias": False}, {"kernel_size": 1}, {"kernel_size": 5}]


def with_norms(*choices: dict) -> list[dict]:
    return [fields | {"norm": norm} for fields in choices for norm in NORMS]


CASES = [
    *(("convlstm", fields) for fields in with_norms(*TWO, *FOR_ALL)),
    *(("st_lstm", fields) for fields in with_norms(*TWO, *FOR_ALL)),
    *(("causal_lstm", fields) for fields in with_norms(*FOUR, *ALONE)),
    *(("conv_gru", fields) for fields in with_norms(*TWO, *FOR_ALL)),
    *(("linear_recurrence", fields) for fields in with_norms(*TWO, *FOR_ALL)),
    *(("highway", fields) for fields in with_norms({}, {"highway_gate_bias": -2.0}, {"conv_bias": False})),
]
GRID = 3
IN, WIDTH, BELOW = 2, 2, 3


def case_name(case: tuple[str, dict]) -> str:
    return "-".join([case[0], *(f"{name}={value}" for name, value in case[1].items())])


def make(cell: str, fields: dict) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A cell or highway in float64, all weights random and of order 1, and random inputs for two clips."""
    kind = "convlstm" if cell == "highway" else cell
    slot = {"highway_slot": 1, "highway_channels": WIDTH} if cell == "highway" else {}
    spec = ModelSpec(
        cell=kind,
        hidden_channels=(WIDTH, WIDTH),
        frame_size=GRID,
        patch_size=1,
        **{"kernel_size": 3} | fields | slot,
    )
    below = BELOW if cell == "causal_lstm" else WIDTH
    of_states = {"H": ("h", WIDTH), "C": ("c", WIDTH), "M": ("m", below)}
    read = [("z", WIDTH)] if cell == "highway" else [of_states[state] for state in cell_class(cell).states]
    sizes = {"x": IN} | dict(read)
    module = GradientHighwayUnit(spec, IN) if cell == "highway" else cell_class(cell)(spec, IN, WIDTH, below)
    random = torch.Generator().manual_seed(0)
    for parameter in module.double().parameters():
        parameter.data.normal_(0, 0.5, generator=random)
    draw = {"generator": random, "dtype": torch.float64}
    return module, {name: torch.randn(2, channels, GRID, GRID, **draw) for name, channels in sizes.items()}


def absent(inputs: dict) -> list[None]:
    """Stands for the states that the cell does not have."""
    return [] if "z" in inputs else [None] * len({"h", "c", "m"} - inputs.keys())


def apply(module: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    outputs = module(*inputs.values(), *absent(inputs))
    return [output for output in outputs if output is not None]


def apply_loops(cell: str, fields: dict, weights: dict, inputs: dict) -> list[np.ndarray]:
    """The outputs (B, D, h, w) of the loops, clip by clip."""
    function, nothing = (highway if cell == "highway" else CELLS[cell]), absent(inputs)
    clips = [function(weights, details(**fields), *clip, *nothing) for clip in zip(*inputs.values(), strict=True)]
    return [np.stack(output) for output in zip(*clips, strict=True) if output[0] is not None]


def as_arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@pytest.mark.parametrize(("cell", "fields"), CASES, ids=map(case_name, CASES))
def test_outputs_agree_with_the_loops(cell, fields):
    module, inputs = make(cell, fields)
    expected = apply_loops(cell, fields, as_arrays(dict(module.named_parameters())), as_arrays(inputs))
    for ours, loops in zip(apply(module, inputs), expected, strict=True):
        assert np.abs(ours.detach().numpy() - loops).max() < 1e-10 * np.abs(loops).max()


@pytest.mark.parametrize(("cell", "fields"), CASES, ids=map(case_name, CASES))
def test_gradients_agree_with_complex_steps(cell, fields):
    module, inputs = make(cell, fields)
    random = np.random.default_rng(0)
    parameters = dict(module.named_parameters())
    tensors = parameters | {name: tensor.requires_grad_() for name, tensor in inputs.items()}
    outputs = apply(module, inputs)
    cotangents = [random.standard_normal(output.shape) for output in outputs]
    torch.autograd.backward(outputs, [torch.from_numpy(cotangent) for cotangent in cotangents])

    def scalar(arrays):
        given = {name: arrays[name] for name in inputs}
        made = apply_loops(cell, fields, {name: arrays[name] for name in parameters}, given)
        return sum((output * cotangent).sum() for output, cotangent in zip(made, cotangents, strict=True))

    for names in (*([name] for name in inputs), list(parameters), list(parameters)):
        direction = {name: random.standard_normal(tensors[name].shape) for name in names}
        expected = derivative(scalar, as_arrays(tensors), direction)
        ours = sum((tensors[name].grad.numpy() * direction[name]).sum() for name in names)
        scale = max(tensors[name].grad.abs().max() for name in names)
        assert abs(ours - expected) < 1e-10 * scale, names


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("cell", [*CELLS, "highway"])
def test_gradcheck(cell, norm):
    module, inputs = make(cell, {"norm": norm})
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    packed = torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).requires_grad_()

    def function(packed, *given):
        parts = packed.split([shape.numel() for shape in shapes.values()])
        weights = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        outputs = torch.func.functional_call(module, weights, (*given, *absent(inputs)))
        return tuple(output for output in outputs if output is not None)

    given = [tensor.requires_grad_() for tensor in inputs.values()]
    assert torch.autograd.gradcheck(function, (packed, *given), fast_mode=True)


def test_the_gradient_through_time_of_the_linear_recurrence_is_the_product_of_its_gates():
    module, _ = make("linear_recurrence", {})
    random = torch.Generator().manual_seed(0)
    clip = torch.randn(6, 2, IN, GRID, GRID, generator=random, dtype=torch.float64)
    first = torch.randn(2, WIDTH, GRID, GRID, generator=random, dtype=torch.float64, requires_grad=True)
    h, product = first, torch.ones_like(first)
    for x in clip:
        f, _ = module.conv_x(x).chunk(2, dim=1)
        product = product * torch.sigmoid(f + module.forget_bias).detach()
        h, _, _ = module(x, h, None, None)
    cotangent = torch.randn(h.shape, generator=random, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((h * cotangent).sum(), first)
    torch.testing.assert_close(gradient, product * cotangent, rtol=1e-12, atol=0)
    assert product.max() < 1
