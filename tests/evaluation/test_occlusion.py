"""A protocol with gaps: trained on all of them, scored at each, and tabulated, from real runs in this process."""

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.config.protocol import load_protocol
from benchmark.cost.plan import plan
from benchmark.data.clips import fixed_stream, load_clips
from benchmark.data.moving_digits.digits import load_digits
from benchmark.data.prepare import prepare
from benchmark.data.tensors import to_float
from benchmark.evaluation.evaluate import evaluate
from benchmark.evaluation.gradient_probe import probe
from benchmark.evaluation.lpips_backbone import prepare as prepare_backbone
from benchmark.reporting.outputs import FIGURE_FORMATS, TABLE_FORMATS, figures_of, tables_of
from benchmark.reporting.tracking.run_snapshot import read_snapshot
from benchmark.system.errors import UserError
from benchmark.system.files import read_json
from benchmark.training.step import roll_out
from benchmark.training.train import train
from benchmark.training.weight_files import load_weights
from tests.helpers.recorded import read_runs, write_figures, write_tables

GAPS = [2, 0, 1]
PROTOCOL = """
name: tiny
about: Tiny networks for the tests.
data: {digits: optdigits, digit_size: 6, frame_size: 12, context: 3, horizon: 2, validation_clips: 3, test_clips: 5,
       gaps: [2, 0, 1]}
model: {layers: 2, hidden_channels: 3, kernel_size: 3, patch_size: 4}
training: {steps: 4, batch_size: 2, learning_rate: 0.01, device: cpu, log_every: 1, validate_every: 2}
evaluation: {lpips_backbone: squeeze, batch_size: 2}
probe: {clips: 2}
variants: [predrnnpp]
baselines: [last-frame]
seeds: [1, 2, 3]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A protocol with gaps, trained, scored, probed and tabulated; and the folder of its results."""
    folder = tmp_path_factory.mktemp("gaps")
    (folder / "tiny.yaml").write_text(PROTOCOL)
    protocol, results, nothing = load_protocol(str(folder / "tiny.yaml")), folder / "results", folder / "nothing"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/no/mlflow.db")
        patch.setenv("TORCH_HOME", str(nothing))
        plan(protocol, results)
        prepare(protocol.data, nothing, results / "tiny" / "data")
        prepare_backbone("squeeze", nothing, results / "tiny" / "lpips_backbone.json", download=False)
        for run in protocol.runs():
            train(run, results, "cpu")
            probe(run, results, "cpu")
            evaluate(protocol, run.variant, run.seed, results, nothing, "cpu")
        evaluate(protocol, "last-frame", 0, results, nothing, "cpu")
        write_tables(protocol, results)
        write_figures(protocol, results)
    return protocol, results


def by_hand(protocol, results, run, gap):
    """Squared error in the first digit's box of every test clip and frame, pixel by pixel."""
    data, folder = protocol.data, results / "tiny" / "data"
    clips = load_clips(folder, data, "test").numpy()
    places = fixed_stream(load_digits(folder), data, "test").positions(torch.arange(len(clips)))
    top, left = (place[:, 0].numpy() for place in places)
    shown = clips[:, : data.context].copy()
    for clip, t in np.ndindex(len(clips), data.context):
        if t >= data.context - gap:
            shown[clip, t, :, :, left[clip, t] : left[clip, t] + data.digit_size] = 128
    network = load_weights(run.path(results) / "model.safetensors")
    # In the batches of the evaluation, because convolutions over other batches round otherwise.
    batches = to_float(torch.from_numpy(shown)).split(protocol.evaluation.batch_size)
    predicted = torch.cat([roll_out(network, batch, run) for batch in batches]).clamp(0, 1).double().numpy()
    errors = np.zeros((len(clips), data.horizon))
    for clip, frame in np.ndindex(*errors.shape):
        t, d = data.context + frame, data.digit_size
        rows, columns = (slice(start[clip, t], start[clip, t] + d) for start in (top, left))
        truth = to_float(torch.from_numpy(clips[clip, t, 0, rows, columns])).double().numpy()
        errors[clip, frame] = ((predicted[clip, frame, 0, rows, columns] - truth) ** 2).sum()
    return errors


def test_a_protocol_with_gaps_is_scored_at_every_gap_and_its_main_table_at_none(finished):
    protocol, results = finished
    for run in protocol.runs():
        frames = pd.read_parquet(run.path(results) / "frames.parquet")
        assert list(frames.columns[:5]) == ["variant", "seed", "gap", "clip", "frame"]
        for gap in GAPS:
            rows = frames[frames["gap"] == gap].sort_values(["clip", "frame"])
            expected = by_hand(protocol, results, run, gap).ravel()
            np.testing.assert_allclose(rows["box_mse"], expected, rtol=1e-9)
        assert (frames["box_mse"] <= frames["mse"] + 1e-9).all()
        assert frames.groupby("gap")["mse"].mean().nunique() == len(GAPS)

    tables = results / "tiny" / "tables"
    assert tables_of(protocol)[-1] == "occlusion"
    assert all((tables / f"{name}.{ending}").exists() for name in tables_of(protocol) for ending in TABLE_FORMATS)
    figures = {path.name for path in (results / "tiny" / "figures").iterdir()}
    assert figures == {f"{name}.{ending}" for name in figures_of(protocol) for ending in FIGURE_FORMATS}
    table = pd.read_csv(tables / "occlusion.csv")
    frames = pd.concat(pd.read_parquet(path) for path in sorted((results / "tiny").glob("runs/*/*/frames.parquet")))
    means = frames.groupby(["variant", "gap", "seed"])["box_mse"].mean().groupby(["variant", "gap"])
    found = table.set_index(["variant", "gap"])
    assert list(found.index) == [(variant, gap) for variant in ("predrnnpp", "last-frame") for gap in GAPS]
    np.testing.assert_allclose(found["box_mse_mean"], means.mean()[found.index])
    np.testing.assert_allclose(found["box_mse_sd"], means.std()[found.index])
    assert (found.loc["predrnnpp", "box_mse_low"] < found.loc["predrnnpp", "box_mse_mean"]).all()
    assert found.loc["last-frame", "box_mse_low"].isna().all()
    base = found.xs(0, level="gap")["box_mse_mean"]
    np.testing.assert_allclose(found["rise_mean"], found["box_mse_mean"] - base.reindex(found.index, level="variant"))
    assert found["reference"].isna().all()

    without = frames[frames["gap"] == 0]
    main = pd.read_csv(tables / "main.csv").set_index("variant")
    for variant, rows in without.groupby("variant"):
        assert main.loc[variant, "mse_mean"] == pytest.approx(rows["mse"].mean())
    for name in ("main", "per_frame"):
        assert "Scored at gap 0" in (tables / f"{name}.md").read_text()


def test_records_and_mlflow_hold_the_error_by_gap_and_all_else_without_a_bar(finished):
    protocol, results = finished
    run = read_runs(protocol, results)[0]
    frames = pd.read_parquet(run.config.path(results) / "frames.parquet")
    expected = frames.groupby("gap")["box_mse"].mean()
    mse = frames.loc[frames["gap"] == 0, "mse"].mean()
    kept = read_json(run.config.path(results) / "record.json")
    assert {int(gap): mse for gap, mse in kept["box_mse"].items()} == pytest.approx(expected.to_dict())
    assert kept["mean"]["mse"] == pytest.approx(mse)
    assert "gap" not in kept["mean"]
    curves = read_snapshot(run.config.path(results)).curves
    assert curves["test/per_gap/box_mse"] == pytest.approx(expected.to_dict())
    assert list(curves["test/mse"].values()) == pytest.approx([mse])


def test_gaps_change_what_is_trained_but_not_the_clips(make_protocol, results):
    losses = {}
    for gaps in ([], [0], [0, 2]):
        protocol = make_protocol(data={"gaps": gaps})
        run = protocol.run("predrnnpp", 1)
        train(run, results, "cpu")
        weights = load_weights(run.path(results) / "model.safetensors")
        losses[len(gaps)] = torch.cat([parameter.detach().flatten() for parameter in weights.parameters()])
        load_clips(results / "tiny" / "data", protocol.data, "test")  # the hashes are those of the clips without gaps
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"gaps": [0, 3]}}, "data: gaps: 3 must lie below context 3"),
        ({"data": {"gaps": [0, 1, 1]}}, "data: gaps: [0, 1, 1] names one twice"),
        ({"data": {"gaps": [1, 2]}}, "data: gaps: [1, 2] lacks 0"),
        ({"data": {"gaps": [0, -1]}}, "data.gaps.1: -1: input should be greater than or equal to 0"),
        (
            {"data": {"gaps": [0, 1], "public_test": True, "frame_size": 64}},
            "data: gaps: do not go with public_test",
        ),
        (
            {"data": {"gaps": [0, 1]}, "training": {"reversed_second_step": True}},
            "training.reversed_second_step does not go with data.gaps",
        ),
    ],
)
def test_gaps_that_cannot_be_are_named(write_protocol, changes, told):
    path = write_protocol(**changes)
    with pytest.raises(UserError) as error:
        load_protocol(str(path))
    assert told in str(error.value)


def test_a_protocol_without_gaps_says_nothing_of_them(make_protocol):
    run, empty = make_protocol().run("convlstm", 1), make_protocol(data={"gaps": []}).run("convlstm", 1)
    assert "gaps" not in run.to_dict()["data"]
    assert run.identity() == empty.identity()
    assert make_protocol(data={"gaps": [0, 1]}).run("convlstm", 1).identity() != run.identity()
