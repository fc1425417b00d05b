"""Time constants, forward influence and Lyapunov exponents, held against the loops."""

from itertools import cycle

import numpy as np
import pytest
import torch

from benchmark.data.moving_digits.stream import ClipStream
from benchmark.data.tensors import to_float
from benchmark.evaluation.gradient_probe import measure
from benchmark.evaluation.memory import lyapunov
from benchmark.evaluation.memory.influence import influence
from benchmark.evaluation.memory.lyapunov import exponents, exponents_of, first_directions
from benchmark.evaluation.memory.table import QUANTILES, quantiles
from models.predictor import Predictor
from models.spec import ModelSpec
from tests.reference import cells, measures, network
from tests.reference.cells import details

WIDTHS, FRAME, CONTEXT, HORIZON = (2, 2), 2, 2, 3
BIASES = {"forget_bias": 1.5, "highway_gate_bias": -2.0}
CELLS = {
    "convlstm": {"cell": "convlstm"},
    "st_lstm": {"cell": "st_lstm"},
    "causal_lstm": {"cell": "causal_lstm"},
    "spatial_to_temporal": {"cell": "causal_lstm", "memory_order": "spatial_to_temporal"},
}
SIGMOIDS = {
    "convlstm": "i C o",
    "st_lstm": "i C i' M o",
    "causal_lstm": "i C i' M",
    "spatial_to_temporal": "i' M i C",
}
"""In what order the loops take the sigmoids of a cell; those of forget gates by the memory that they multiply."""


def made(fields, slot=1, scale=0.7):
    """A network with random weights, and the same for the loops: weights, details, shape."""
    spec = ModelSpec(hidden_channels=WIDTHS, frame_size=FRAME, patch_size=1, kernel_size=3, highway_slot=slot, **fields)
    random = torch.Generator().manual_seed(0)
    predictor = Predictor(spec).double()
    for parameter in predictor.parameters():
        parameter.data.normal_(0, scale, generator=random)
    weights = {name: parameter.detach().numpy() for name, parameter in predictor.named_parameters()}
    known = {key: value for key, value in fields.items() if key != "cell"}
    return predictor, weights, details(**known), {"cell": fields["cell"], "slot": slot}


def clips(count, frames=CONTEXT + HORIZON):
    random = torch.Generator().manual_seed(1)
    return torch.randint(256, (count, frames, 1, FRAME, FRAME), generator=random, dtype=torch.uint8)


def mask(context=CONTEXT, horizon=HORIZON):
    return np.array([1] * context + [0] * (horizon - 1))


@pytest.mark.parametrize("order", CELLS)
def test_time_constants_agree_with_the_loops(order, monkeypatch):
    predictor, weights, given, shape = made(CELLS[order] | BIASES)
    noted = []

    def sigmoid(a):
        noted.append(1 / (1 + np.exp(-a)))
        return noted[-1]

    monkeypatch.setattr(cells, "sigmoid", sigmoid)
    chosen = clips(3)
    for frames in to_float(chosen).double().numpy():
        network.roll_out(weights, given, frames, mask(), **shape, widths=WIDTHS, patch_size=1, highway_width=2)
    of_cell = SIGMOIDS[order].split()
    names = [*((name, 1) for name in of_cell), ("Z", 1), *((name, 2) for name in of_cell)]
    assert len(noted) == len(chosen) * (CONTEXT + HORIZON - 1) * len(names)
    kept = {}
    for (name, layer), value in zip(cycle(names), noted, strict=False):
        if name in "CMZ":
            kept.setdefault((name, layer), []).append(1 - value if name == "Z" else value)

    found = measure(predictor, chosen, CONTEXT, 2, "cpu", ("residual",)).time_constants
    assert found.keys() == kept.keys()
    for key, shares in kept.items():
        assert found[key].tolist() == pytest.approx(measures.time_constants(shares), rel=1e-12)


@pytest.mark.parametrize("count", [1, 2, 9, 10, 99, 100, 101, 128])
def test_quantiles_of_time_constants_agree_with_the_loops(count):
    values = np.random.default_rng(count).lognormal(size=count)
    values[: count // 20] = np.inf
    assert quantiles(values) == [measures.quantile(list(values), share) for share in QUANTILES]


@pytest.mark.parametrize("order", CELLS)
def test_influence_agrees_with_the_loops(order):
    predictor, weights, given, shape = made(CELLS[order])
    frames, others = to_float(clips(2)).double(), to_float(clips(2).flip(0)).double()[:, :CONTEXT]
    found = influence(predictor, frames, others)

    def run(one):
        return network.roll_out(weights, given, one, mask(), **shape, widths=WIDTHS, patch_size=1, highway_width=2)

    for clip in range(2):
        expected = measures.influence(run, frames[clip].numpy(), others[clip].numpy())
        for ours, theirs in zip(found, expected, strict=True):
            assert ours[clip].tolist() == pytest.approx(theirs, rel=1e-9)
    assert (found[0] > 1e-4).all()


@pytest.mark.parametrize(("order", "slot"), [*((order, 1) for order in CELLS), ("convlstm", 0)])
def test_lyapunov_exponents_agree_with_an_explicit_jacobian(order, slot, monkeypatch):
    warm_up, steps = 2, 4
    monkeypatch.setattr(lyapunov, "WARM_UP", warm_up)
    monkeypatch.setattr(lyapunov, "STEPS", steps)
    predictor, weights, given, shape = made(CELLS[order], slot)
    frames = to_float(clips(2, CONTEXT)).double()
    found = exponents_of(predictor, frames)
    assert found.shape == (2, 8)

    has_m = order != "convlstm"
    layers = range(1, len(WIDTHS) + 1)

    def pack(x, states):
        H, C, M, Z = states
        parts = [x, *(each[k] for k in layers for each in (H, C)), *([M[2]] if has_m else []), *([Z] if slot else [])]
        return np.concatenate([part.ravel() for part in parts])

    def unpack(flat):
        taken = iter(flat.reshape(-1, FRAME, FRAME))
        take = lambda channels: np.stack([next(taken) for _ in range(channels)])  # noqa: E731
        x, H, C = take(1), {}, {}
        for k in layers:
            H[k], C[k] = take(2), take(2)
        M = {2: take(2)} if has_m else {2: np.zeros((2, FRAME, FRAME))}
        return x, (H, C, M, take(2) if slot else np.zeros((2, FRAME, FRAME)))

    def step(flat):
        return pack(*network.step(weights, given, *unpack(flat), **shape))

    for clip in range(2):
        states = network.zero_states((FRAME, FRAME), WIDTHS, 2)
        for frame in frames[clip].numpy():
            x, states = network.step(weights, given, frame, states, **shape)
        start = pack(x, states)
        directions = first_directions(torch.from_numpy(start)[None])[0].numpy()
        expected = measures.lyapunov(step, start, directions, warm_up, steps)
        assert found[clip].tolist() == pytest.approx(expected, rel=1e-7, abs=1e-8)


def test_lyapunov_exponents_of_a_linear_system_are_the_logs_of_its_eigenvalues():
    random = np.random.default_rng(0)
    values = 1.3 * 0.6 ** np.arange(10) * random.choice([-1, 1], 10)
    basis = np.linalg.qr(random.standard_normal((10, 10)))[0] + 0.1 * random.standard_normal((10, 10))
    matrix = torch.from_numpy(basis @ np.diag(values) @ np.linalg.inv(basis))
    found = exponents(lambda state: state @ matrix.T, torch.ones(2, 10, dtype=torch.float64), 60, 20)
    assert found.numpy() == pytest.approx(np.tile(np.log(np.abs(values[:8])), (2, 1)), abs=1e-9)


def test_an_exchanged_frame_has_another_digit_in_place_of_the_first():
    frames, size, digits = 6, 9, np.random.default_rng(0).integers(1, 256, (5, 4, 4), dtype=np.uint8)
    stream = ClipStream(digits, seed=0, split="test", frame_size=size, num_digits=2, frames=frames)
    numbers = torch.arange(20)
    top, left = (places.numpy() for places in stream.positions(numbers))
    clips = stream.clips(numbers).numpy()

    def pasted(clip, t, first, second):
        frame = np.zeros((size, size), np.uint8)
        for digit, image in enumerate((first, second)):
            for row, column in np.ndindex(image.shape):
                place = top[clip, digit, t] + row, left[clip, digit, t] + column
                frame[place] = max(frame[place], image[row, column])
        return frame

    def pairs(frame_of):
        """The pairs of digits that make every frame of a clip."""
        return [
            {
                (one, two)
                for one in range(5)
                for two in range(5)
                if all((pasted(clip, t, digits[one], digits[two]) == frame_of(clip, t)).all() for t in range(frames))
            }
            for clip in range(20)
        ]

    exchanged = [stream.exchanged(numbers, t).numpy() for t in range(frames)]
    own, other = pairs(lambda clip, t: clips[clip, t, 0]), pairs(lambda clip, t: exchanged[t][clip, 0])
    assert {len(found) for found in own + other} == {1}
    for (was,), (now,) in zip(own, other, strict=True):
        assert now[0] != was[0]
        assert now[1] == was[1]
    apart = {(now[0] - was[0]) % 5 for (was,), (now,) in zip(own, other, strict=True)}
    assert apart == {1, 2, 3, 4}
