"""The probe: gradients against finite differences, decay on made-up curves, and what the verb writes."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.data.clips import load_clips
from benchmark.data.kinds import kind_of
from benchmark.evaluation.gate_saturation import share
from benchmark.evaluation.gradient_decay import decay
from benchmark.evaluation.gradient_probe import (
    AT_ENDS,
    MEASURES,
    exchanged_frames,
    fixed_cotangent,
    gradient_norms,
    measure,
    probe,
    roll_out,
)
from benchmark.evaluation.memory.lyapunov import exponents_of
from benchmark.evaluation.memory.measure import measure_memory
from benchmark.evaluation.memory.table import COLUMNS
from benchmark.system.errors import UserError
from benchmark.system.files import read_json, write_json
from benchmark.training.train import train
from benchmark.training.weight_files import load_weights, weights_after
from models.predictor import build, cell_class, free_running_mask
from models.spec import ModelSpec
from tests.helpers.made_films import moving_square

CONTEXT = 3
STEP = 1e-5


def spec_of(**fields):
    known = {"cell": "causal_lstm", "hidden_channels": (3, 2), "frame_size": 8, "kernel_size": 3, "highway_slot": 1}
    return ModelSpec(**known | fields)


@pytest.fixture
def network():
    return build(spec_of(), seed=1).double()


@pytest.fixture
def frames():
    return torch.rand(2, CONTEXT + 3, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def last_frame(network, context):
    """The last predicted frame, three frames after the context."""
    return network.predict(context, 3)[:, -1]


def last_frame_through_memory(network, context, generated):
    """The same with the generated frames that are fed back held at what they were without a change."""
    batch = len(context)
    fed = torch.cat([context, generated[:, :2].expand(batch, -1, -1, -1, -1), context[:, :1]], dim=1)
    return network(fed, torch.ones(batch, CONTEXT + 2, dtype=fed.dtype))[:, -1]


def finite_differences(scalars, context):
    """Gradient of a scalar with respect to every pixel of one clip's context (K C H W), all changes as one batch."""
    nudges = STEP * torch.eye(context.numel(), dtype=context.dtype).view(-1, *context.shape)
    with torch.no_grad():
        return ((scalars(context + nudges) - scalars(context - nudges)) / (2 * STEP)).view(context.shape)


@pytest.mark.parametrize("name", ["residual", "fixed", "memory"])
def test_norms_of_context_frames_are_those_of_finite_differences(network, frames, name):
    cotangent, path = MEASURES[name]
    norms = gradient_norms(roll_out(network, frames, CONTEXT, path), cotangent)
    for clip in range(2):
        with torch.no_grad():
            generated = network.predict(frames[clip : clip + 1, :CONTEXT], 3)

        def scalars(contexts, clip=clip, generated=generated):
            if path == "memory":
                last = last_frame_through_memory(network, contexts, generated)
            else:
                last = last_frame(network, contexts)
            if cotangent == "fixed":
                return (last * fixed_cotangent(last)).flatten(1).sum(1)
            return (last - frames[clip, -1]).square().flatten(1).sum(1)

        gradient = finite_differences(scalars, frames[clip, :CONTEXT])
        torch.testing.assert_close(norms["X", 0][clip], gradient.flatten(1).norm(dim=1), rtol=1e-5, atol=1e-12)


def test_one_horizon_frame_leaves_nothing_to_cut(network, frames):
    whole, *cut = (
        gradient_norms(roll_out(network, frames[:, : CONTEXT + 1], CONTEXT, path))["X", 0]
        for path in ("all", "memory", "frames")
    )
    assert all(torch.equal(whole, norms) for norms in cut)


def test_paths_through_memory_and_frames_are_different_and_both_open(network, frames):
    norms = [gradient_norms(roll_out(network, frames, CONTEXT, path))["X", 0] for path in ("all", "memory", "frames")]
    assert all((one > 0).all() for one in norms)
    assert not any(torch.allclose(norms[a], norms[b], rtol=1e-3) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_one_backward_pass_gives_what_a_pass_for_each_state_gives(network, frames):
    norms = gradient_norms(roll_out(network, frames, CONTEXT))
    given = torch.cat([frames[:, :CONTEXT], torch.zeros_like(frames[:, CONTEXT:])], dim=1).requires_grad_()
    trace = {}
    last = network(given, free_running_mask(2, CONTEXT, 3, frames), trace)[:, -1]
    loss = (last - frames[:, -1]).square().sum()
    assert norms.keys() == {("X", 0)} | {key for key in trace if key[0] != "S"}
    assert {name for name, _ in norms} == set("XHCMZ")
    (by_frame,) = torch.autograd.grad(loss, given, retain_graph=True)
    torch.testing.assert_close(norms["X", 0], by_frame[:, :CONTEXT].flatten(2).norm(dim=2), rtol=1e-12, atol=0)
    for key in norms.keys() - {("X", 0)}:
        assert norms[key].shape == (2, CONTEXT + 2)
        for t, state in enumerate(trace[key]):
            (gradient,) = torch.autograd.grad(loss, state, retain_graph=True, allow_unused=True)
            expected = torch.zeros(2, dtype=loss.dtype) if gradient is None else gradient.flatten(1).norm(dim=1)
            torch.testing.assert_close(norms[key][:, t], expected, rtol=1e-12, atol=0)


def test_clips_do_not_mix(network, frames):
    together = gradient_norms(roll_out(network, frames, CONTEXT))
    alone = gradient_norms(roll_out(network, frames[1:], CONTEXT))
    for key, norms in alone.items():
        torch.testing.assert_close(norms[0], together[key][1], rtol=1e-10, atol=0)


def test_frames_after_the_context_serve_only_as_the_target(network, frames):
    changed = frames.clone()
    changed[:, CONTEXT:-1] = 1 - changed[:, CONTEXT:-1]
    one, other = (gradient_norms(roll_out(network, clips, CONTEXT))["X", 0] for clips in (frames, changed))
    assert torch.equal(one, other)


def exponential(half_life, context=10, clips=4):
    age = context - np.arange(1, context + 1)
    scale = np.geomspace(1e-3, 10, clips)[:, None]
    return pd.DataFrame(scale * 0.5 ** (age / half_life))


@pytest.mark.parametrize("half_life", [0.5, 2.0, 30.0])
def test_half_life_and_reach_of_an_exponential_are_recovered(half_life):
    found = decay(exponential(half_life))
    assert found["half_life"] == pytest.approx(half_life)
    assert found["reach"] == pytest.approx(0.5 ** (9 / half_life))
    assert found["r2"] == pytest.approx(1)
    assert found["slope_low"] <= found["slope"] <= found["slope_high"] < 0


def test_norms_that_grow_with_age_do_not_decay():
    found = decay(exponential(-3.0))
    assert found["half_life"] is None
    assert found["slope"] == pytest.approx(1 / 3)
    assert found["reach"] == pytest.approx(8)


@pytest.mark.parametrize("seed", range(5))
def test_noise_does_not_decay_though_its_slope_may_be_negative(seed):
    noise = np.random.default_rng(seed).normal(size=(1, 10))
    found = decay(pd.DataFrame(2.0 ** (noise - noise.mean())))
    assert found["slope_low"] < 0 < found["slope_high"]
    assert found["half_life"] is None


def test_noisy_exponential_has_a_half_life_and_a_lower_r2():
    noise = np.random.default_rng(1).normal(scale=0.3, size=(4, 10))
    found = decay(exponential(2.0) * 2.0**noise)
    assert found["half_life"] == pytest.approx(2, rel=0.2)
    assert 0.9 < found["r2"] < 1


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_norm_that_has_no_logarithm_gives_no_number(value):
    norms = exponential(2.0)
    norms.iloc[1, 2] = value
    assert set(decay(norms).values()) == {None}


def test_two_context_frames_give_a_reach_and_no_fit():
    found = decay(exponential(2.0, context=2))
    assert found["reach"] == pytest.approx(0.5**0.5)
    assert {value for key, value in found.items() if key != "reach"} == {None}


@pytest.mark.parametrize(("bias", "expected"), [(-40.0, 1.0), (40.0, 0.0), (0.0, 0.5)])
def test_openness_is_the_part_of_the_past_that_the_highway_keeps(make_protocol, frames, bias, expected):
    run = make_protocol(variants=[{"id": "predrnnpp", "highway_gate_bias": bias}]).run("predrnnpp", 1)
    clips = (255 * torch.rand(5, 5, 1, 12, 12, generator=torch.Generator().manual_seed(1))).byte()
    found = measure(build(run.model, 1), clips, 3, 5, "cpu")
    assert found.saturated["s"] == [float(bias != 0)]
    assert found.openness == pytest.approx([expected] * 4, abs=0.15 if bias == 0 else 1e-12)


def test_openness_weighs_every_clip_alike_whatever_the_batches(make_protocol):
    clips = (255 * torch.rand(5, 5, 1, 12, 12, generator=torch.Generator().manual_seed(1))).byte()
    model = make_protocol().run("predrnnpp", 1).model
    one, other = (measure(build(model, 1), clips, 3, size, "cpu") for size in (2, 5))
    assert one.openness == pytest.approx(other.openness, rel=1e-12)
    assert one.saturated == {gate: pytest.approx(shares) for gate, shares in other.saturated.items()}
    order = ["measure", "state", "layer", "clip", "t"]
    tables = (found.norms.sort_values(order, ignore_index=True) for found in (one, other))
    pd.testing.assert_frame_equal(*tables, rtol=1e-9)


def test_nan_in_a_gate_makes_its_share_no_number():
    gates = torch.tensor([3.0, -3.0, 0.0, 1.0])
    assert share(gates, "sigmoid", 0.0).item() == 0.5
    assert share(gates, "tanh", 0.0).item() == 0.5
    assert share(gates, "sigmoid", 2.0).item() == 0.5
    assert share(torch.tensor([3.0, math.nan]), "sigmoid", 0.0).isnan()


@pytest.fixture
def probed(make_protocol, results):
    run = make_protocol(probe={"steps": [5, 2]}).run("predrnnpp", 1)
    train(run, results, "cpu")
    probe(run, results, "cpu")
    return run.path(results)


def test_verb_writes_every_norm_at_every_stage(probed):
    table = pd.read_parquet(probed / "probe.parquet")
    assert list(table.columns) == ["stage", "step", "measure", "clip", "state", "layer", "t", "norm"]
    stages = table[["stage", "step"]].drop_duplicates()
    assert stages.values.tolist() == [["init", 0], ["step-2", 2], ["step-5", 5], ["trained", 8]]
    measures = table.groupby("stage")["measure"].unique().map(list)
    assert measures["init"] == measures["trained"] == list(AT_ENDS)
    assert measures["step-2"] == measures["step-5"] == ["residual", "fixed"]
    places = {(state, layer) for state, layer in zip(table["state"], table["layer"], strict=True)}
    assert places == {("X", 0), ("Z", 1)} | {(state, layer) for state in "HCM" for layer in (1, 2)}
    steps = table.groupby("state")["t"].agg(["min", "max"])
    assert steps.loc["X"].tolist() == [1, 3]
    assert steps.loc["Z"].tolist() == [1, 4]
    assert len(table) == (2 * len(AT_ENDS) + 2 * 2) * 5 * (3 + 7 * 4)
    assert np.isfinite(table["norm"]).all()
    assert (table.query("state == 'X'")["norm"] > 0).all()


def test_summary_is_that_of_the_table(probed):
    table = pd.read_parquet(probed / "probe.parquet")
    summary = read_json(probed / "probe.json")
    assert {stage: summary[stage]["step"] for stage in summary} == {"init": 0, "step-2": 2, "step-5": 5, "trained": 8}
    for stage, found in summary.items():
        assert found.keys() - MEASURES.keys() == {"step", "openness", "saturated"}
        assert {gate: len(shares) for gate, shares in found["saturated"].items()} == {
            gate: 1 if gate in "ps" else 2 for gate in ("i", "f", "g", "i'", "f'", "g'", "o", "p", "s")
        }
        for name in found.keys() & MEASURES.keys():
            norms = table.query("stage == @stage and measure == @name and state == 'X'").pivot(
                index="clip", columns="t", values="norm"
            )
            expected = np.exp(np.log(norms[1] / norms[3]).mean())
            assert summary[stage][name]["reach"] == pytest.approx(expected)
        assert len(found["openness"]) == 4
    assert summary["init"]["residual"] != summary["trained"]["residual"]


def test_stage_while_training_is_measured_on_the_weights_kept_then(probed, results, make_protocol):
    run = make_protocol(probe={"steps": [5, 2]}).run("predrnnpp", 1)
    clips = load_clips(results / "tiny" / "data", run.data, "test")
    found = measure(load_weights(probed / weights_after(5)), clips, 3, 3, "cpu", ("residual", "fixed"))
    table = pd.read_parquet(probed / "probe.parquet").query("stage == 'step-5'")
    pd.testing.assert_frame_equal(table[found.norms.columns].reset_index(drop=True), found.norms)


def test_weights_that_were_not_kept_are_named_unless_the_run_diverged_before(probed, results, make_protocol):
    run = make_protocol(probe={"steps": [5, 2]}).run("predrnnpp", 1)
    (probed / weights_after(5)).unlink()
    with pytest.raises(UserError, match=r"model.step=5.safetensors: is missing, .* remove model.safetensors and"):
        probe(run, results, "cpu")
    write_json(probed / "status.json", {"state": "diverged", "step": 6, "steps": 8})
    with pytest.raises(UserError, match=r"model.step=5.safetensors: is missing"):
        probe(run, results, "cpu")
    write_json(probed / "status.json", {"state": "diverged", "step": 5, "steps": 8})
    probe(run, results, "cpu")
    summary = read_json(probed / "probe.json")
    assert {stage: found["step"] for stage, found in summary.items()} == {"init": 0, "step-2": 2, "trained": 5}


def test_two_measures_of_one_roll_out_are_those_of_a_roll_out_each(network, frames):
    rolled = roll_out(network, frames, CONTEXT)
    both = [gradient_norms(rolled, name, keep_graph=name == "residual") for name in ("residual", "fixed")]
    for name, norms in zip(("residual", "fixed"), both, strict=True):
        alone = gradient_norms(roll_out(network, frames, CONTEXT), name)
        assert all(torch.equal(norms[key], alone[key]) for key in alone)


def test_network_without_highway_has_no_openness(make_protocol):
    run = make_protocol().run("convlstm", 1)
    clips = (255 * torch.rand(2, 5, 1, 12, 12, generator=torch.Generator().manual_seed(1))).byte()
    found = measure(build(run.model, 1), clips, 3, 5, "cpu")
    assert found.openness == []
    assert set(found.norms["state"]) == {"X", "H", "C"}
    assert found.saturated.keys() == set("ifgo")


MEMORY = {"steps": [5], "memory": True}


def test_verb_writes_what_a_network_keeps_where_the_protocol_asks(make_protocol, results):
    run = make_protocol(probe=MEMORY).run("predrnnpp", 1)
    train(run, results, "cpu")
    probe(run, results, "cpu")
    folder = run.path(results)
    table = pd.read_parquet(folder / "memory.parquet")
    assert tuple(table.columns) == COLUMNS
    found = table.groupby(["stage", "measure"]).size()
    units = 2 * 2 * 3 + 3  # C and M of two layers, and Z, of three channels
    ends = {"error_change": 5 * 3, "influence": 5 * 3, "lyapunov": 4 * 8, "time_constant": units}
    assert found["init"].to_dict() == found["trained"].to_dict() == ends
    assert found["step-5"].to_dict() == {"time_constant": units}
    assert np.isfinite(table["value"]).all()
    assert table.query("measure == 'influence'")["value"].min() > 0
    assert table.query("measure == 'influence'")["clip"].unique().tolist() == [1, 2, 3, 4, 5]
    exponents = table.query("measure == 'lyapunov'").pivot(index=["stage", "clip"], columns="unit", values="value")
    assert (exponents.diff(axis=1).iloc[:, 1:] <= 0).all(axis=None)
    norms = pd.read_parquet(folder / "probe.parquet")
    measures = norms.groupby("stage")["measure"].unique().map(list)
    assert measures["init"] == measures["trained"] == list(MEASURES)
    assert measures["step-5"] == ["residual", "fixed"]


def test_what_a_network_keeps_changes_nothing_else(make_protocol, results):
    tables = []
    for keys in ({"memory": False}, {"memory": True}):
        run = make_protocol(probe=keys).run("predrnnpp", 1)
        train(run, results, "cpu", skip_trained=True)
        probe(run, results, "cpu")
        found = pd.read_parquet(run.path(results) / "probe.parquet")
        tables.append(found[found["measure"] != "fixed8"].reset_index(drop=True))
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_influence_is_that_of_the_exchanged_digit_whatever_the_batches(make_protocol, results):
    run = make_protocol(probe=MEMORY).run("predrnnpp", 1)
    clips = load_clips(results / "tiny" / "data", run.data, "test")
    exchanged = exchanged_frames(run, results)
    assert exchanged.shape == clips[:, :CONTEXT].shape
    assert (exchanged != clips[:, :CONTEXT]).flatten(2).any(dim=2).all()
    tables = [measure_memory(build(run.model, 1), clips, exchanged, CONTEXT, size, "cpu") for size in (2, 5)]
    order = ["measure", "clip", "unit", "t"]
    pd.testing.assert_frame_equal(*(one.sort_values(order, ignore_index=True) for one in tables), rtol=1e-7)


def test_cell_that_names_no_gate_has_no_time_constants(make_protocol, monkeypatch):
    monkeypatch.delattr(cell_class("convlstm"), "keeps")
    clips = (255 * torch.rand(2, 5, 1, 12, 12, generator=torch.Generator().manual_seed(1))).byte()
    network = build(make_protocol().run("convlstm", 1).model, 1)
    assert measure(network, clips, 3, 5, "cpu", ("residual",)).time_constants == {}


def test_clips_without_a_digit_to_exchange_have_no_influence_and_say_so(make_videos, tmp_path):
    protocol, data_dir = make_videos(
        {f"{n}.npy": moving_square(10, 12, 12, n) for n in range(6)}, layout="THW", probe=MEMORY
    )
    kind = kind_of(protocol.data)
    kind.prepare(protocol, data_dir, tmp_path / "results" / "tiny" / "data")
    run = protocol.run("predrnnpp", 1)
    assert exchanged_frames(run, tmp_path / "results") is None
    with pytest.raises(UserError, match="these clips show no digit whose place is known"):
        kind.open(tmp_path / "results" / "tiny" / "data").exchanged(1, 1)
    clips = (255 * torch.rand(2, 5, 1, 12, 12, generator=torch.Generator().manual_seed(1))).byte()
    found = measure_memory(build(run.model, 1), clips, None, 3, 5, "cpu")
    assert set(found["measure"]) == {"lyapunov"}


def test_a_roll_out_that_is_not_finite_has_no_exponents():
    network = build(spec_of(), seed=1).double()
    with torch.no_grad():
        network.to_frame.weight.fill_(math.inf)
    assert exponents_of(network, torch.rand(2, 3, 1, 8, 8, dtype=torch.float64)).isnan().all()
