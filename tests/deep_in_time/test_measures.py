"""Reach of any model is that of the probe; a model that cannot be measured is told why."""

import numpy as np
import pytest
import torch
from torch import nn

import deep_in_time as dit
from benchmark.evaluation.gradient_decay import summarise_norms
from benchmark.evaluation.gradient_probe import measure


@pytest.fixture
def test_clips(tiny):
    return dit.FixedClips(tiny)


@pytest.fixture
def network(tiny):
    return dit.network("predrnnpp", protocol=tiny, seed=1)


class Weighted(nn.Module):
    """Predicts a weighted sum of the given frames, for every horizon step."""

    def __init__(self, *weights):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))
        self.norm = nn.Dropout(0.5)

    def predict(self, context, horizon):
        mixed = (self.norm(context) * self.weights[:, None, None, None]).sum(1, keepdim=True)
        return mixed.expand(-1, horizon, -1, -1, -1)


def test_the_reach_of_a_weighted_sum_is_the_ratio_of_its_weights(test_clips):
    found = dit.reach(Weighted(0.25, 0.5, 1.0), test_clips[:], 3)
    assert found["reach"] == pytest.approx(0.25, rel=1e-12)
    assert found["half_life"] == pytest.approx(1, rel=1e-9)
    wrapped = Weighted(1.0, 4.0).eval().double()
    by_function = dit.reach(lambda context, horizon: wrapped.predict(context, horizon), test_clips[:], 2)
    assert by_function["reach"] == pytest.approx(0.25, rel=1e-12)


def test_the_norms_of_a_weighted_sum_are_those_of_its_residual(test_clips):
    clips, weights = test_clips[:].double(), (0.25, 0.5, 1.0)
    norms = dit.gradient_norms(Weighted(*weights), clips, 3, batch_size=2)
    mixed = sum(weight * clips[:, t] for t, weight in enumerate(weights))
    residual = 2 * (mixed - clips[:, -1]).flatten(1).norm(dim=1).numpy()
    found = norms[norms["measure"] == "residual"].pivot(index="clip", columns="t", values="norm")
    np.testing.assert_allclose(found.to_numpy(), residual[:, None] * np.array(weights), rtol=1e-12)
    fixed = norms[norms["measure"] == "fixed"].pivot(index="clip", columns="t", values="norm")
    np.testing.assert_allclose(fixed.to_numpy(), np.tile(weights, (5, 1)), rtol=1e-12)
    assert list(found.index) == [1, 2, 3, 4, 5]


def test_of_a_network_of_ours_all_is_as_the_probe_measures_it(network, test_clips):
    pixels = (255 * test_clips[:]).round().to(torch.uint8)
    expected = measure(dit.network("predrnnpp", protocol=test_clips.protocol, seed=1), pixels, 3, 3, "cpu")
    keys = ["measure", "clip", "state", "layer", "t"]
    names = ["residual", "fixed", "memory", "frames"]
    found = dit.gradient_norms(network, test_clips[:], 3, measures=names, batch_size=3)
    both = found.merge(expected.norms, on=keys, suffixes=("", "_probe"))
    assert len(both) == len(found) == len(expected.norms)
    np.testing.assert_allclose(both["norm"], both["norm_probe"], rtol=1e-9)
    probed = summarise_norms(expected.norms)["residual"]
    assert dit.reach(network, test_clips[:], 3) == pytest.approx(probed)
    gates = dit.gates(network, test_clips[:], 3, batch_size=2).set_index(["gate", "layer"])
    assert gates.loc[("s", 1), "openness"] == pytest.approx(np.mean(expected.openness))
    for gate, shares in expected.saturated.items():
        assert gates.loc[gate, "saturated"].tolist() == pytest.approx(shares)


def test_a_wrapped_network_of_ours_has_the_same_reach(network, test_clips):
    inner = network.double()
    wrapped = dit.reach(lambda context, horizon: inner.predict(context, horizon), test_clips[:], 3)
    assert wrapped["reach"] == pytest.approx(dit.reach(network, test_clips[:], 3)["reach"], rel=1e-9)


def test_a_model_stays_as_it_is(network, test_clips):
    for model in (network, Weighted(1.0, 2.0, 3.0)):
        before = [(parameter.dtype, parameter.clone()) for parameter in model.parameters()]
        dit.gradient_norms(model, test_clips[:], 3)
        assert model.training
        assert all(parameter.grad is None for parameter in model.parameters())
        for parameter, (dtype, value) in zip(model.parameters(), before, strict=True):
            assert parameter.dtype == dtype
            assert torch.equal(parameter, value)


def test_it_measures_under_no_grad_too(network, test_clips):
    expected = dit.reach(network, test_clips[:], 3)
    with torch.no_grad():
        assert dit.reach(network, test_clips[:], 3) == expected
        assert dit.reach(Weighted(1.0, 2.0, 4.0), test_clips[:], 3)["reach"] == pytest.approx(0.25)


def test_a_model_that_ignores_a_frame_has_no_reach(test_clips):
    assert set(dit.reach(Weighted(0.0, 0.5, 1.0), test_clips[:], 3).values()) == {None}


class NoPredict(nn.Module):
    def forward(self, context):
        return context


SINGLE = nn.Conv2d(3, 2, 1)
WRONG = {
    "no predict": (NoPredict(), {}, "NoPredict has no predict"),
    "a number": (7, {}, "int has no predict"),
    "another shape": (
        lambda context, horizon: context[:, :1],
        {},
        r"predicted \(5, 1, .*needed is \(5, 2, 1, 12, 12\)",
    ),
    "no tensor": (lambda context, horizon: [1], {}, "predicted list"),
    "no gradient": (lambda context, horizon: context[:, -horizon:].detach(), {}, "has no gradient"),
    "float32": (
        lambda context, horizon: SINGLE(context[:, :, 0])[:, :, None],
        {},
        "does not compute in float64 .*dtype=torch.float32",
    ),
    "a measure of networks": (Weighted(1.0, 2.0, 3.0), {"measure": "memory"}, "unknown measure 'memory'"),
}


@pytest.mark.parametrize(("model", "options", "said"), WRONG.values(), ids=WRONG)
def test_a_model_that_cannot_be_measured_is_told_why(test_clips, model, options, said):
    with pytest.raises(ValueError, match=said):
        dit.reach(model, test_clips[:], 3, **options)


def test_a_model_in_float32_is_measured_in_that(test_clips):
    model = WRONG["float32"][0]
    assert dit.reach(model, test_clips[:], 3, dtype=torch.float32)["reach"] > 0


@pytest.mark.parametrize(
    ("clips", "context", "said"),
    [
        (torch.zeros(5, 1, 12, 12), 3, "clips: has 4 axes"),
        (torch.zeros(2, 5, 1, 12, 12), 5, "context: 5 of 5 frames"),
        (torch.zeros(2, 5, 1, 12, 12), 0, "context: 0 of 5 frames"),
        (torch.full((2, 5, 1, 12, 12), 255.0), 3, "values from 255 to 255.*clips / 255"),
        (torch.full((2, 5, 1, 12, 12), torch.nan), 3, "values from nan"),
        (torch.zeros(2, 5, 1, 12, 12, dtype=torch.int64), 3, "clips: is of torch.int64"),
        ([[0.0]], 3, "clips: is list"),
    ],
)
def test_clips_that_are_none_get_a_sentence(network, clips, context, said):
    for function in (dit.reach, dit.gates):
        with pytest.raises(ValueError, match=said):
            function(network, clips, context)


def test_gates_are_those_of_our_networks(test_clips):
    with pytest.raises(ValueError, match="network: is Weighted"):
        dit.gates(Weighted(1.0, 2.0, 3.0), test_clips[:], 3)
