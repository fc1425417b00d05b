"""Table and figure of the longer roll-out: hand-made errors of known growth and crossings, and one real run."""

import contextlib
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from benchmark.config.metrics import HEADLINE
from benchmark.config.protocol import run_path
from benchmark.config.variants import BASELINES, NO_SEED
from benchmark.cost.plan import plan
from benchmark.evaluation import lpips_backbone as backbone
from benchmark.evaluation.evaluate import evaluate
from benchmark.evaluation.gradient_probe import probe
from benchmark.reporting.figures import style as drawing
from benchmark.reporting.figures.figure_data import figure_data
from benchmark.reporting.figures.write_figures import draw_figure
from benchmark.reporting.finished_runs import FinishedRun
from benchmark.reporting.outputs import figures_of, tables_of
from benchmark.system.errors import UserError
from benchmark.training.train import train
from tests.helpers.recorded import read_runs, table_of, write_tables

BEYOND = 7
FRAMES = np.arange(1, BEYOND + 1)
LEVELS = {"last-frame": 1000.0, "context-mean": 21.0, "black": 52.0}
"""MSE of each baseline at every frame; that of seed s is 10 + 2 s per frame for ConvLSTM, a quarter more for others."""


def long_run(variant, label, seed, config, mse, state="finished"):
    scored = pd.DataFrame(
        {"mse": mse, "mae": 2 * mse, "psnr": 30 - mse / 10, "ssim": 1 / mse}, index=pd.Index(FRAMES, name="frame")
    )
    return FinishedRun(
        variant=variant,
        label=label,
        seed=seed,
        config=config,
        scores=pd.Series(dtype=float),
        per_frame=scored,
        per_clip=pd.DataFrame(),
        infinite=0,
        undefined=0,
        shown_clip={},
        status={"state": state, "step": 4} if config else {},
        provenance={"data_hash": "d" * 64} if config else {},
        beyond=scored,
    )


def error(variant, seed):
    return (10.0 + 2 * seed) * FRAMES * (1.0 if variant == "convlstm" else 1.25)


@pytest.fixture
def long_runs(make_protocol):
    """The tiny protocol with a longer roll-out of three seeds, and its runs."""

    def make(diverged=(), worse=None, **changes):
        changes = {"seeds": [1, 2, 3], "variants": ["convlstm", "convlstm-ghu"]} | changes
        protocol = make_protocol(evaluation={"beyond": BEYOND}, **changes)
        runs = []
        for run in protocol.runs():
            mse = error(run.variant, run.seed)
            if worse == (run.variant, run.seed):
                mse[-1] = math.nan
            state = "diverged" if (run.variant, run.seed) in diverged else "finished"
            runs.append(long_run(run.variant, run.label, run.seed, run, mse, state))
        for name in protocol.baselines:
            runs.append(long_run(name, BASELINES[name], NO_SEED, None, np.full(BEYOND, LEVELS[name])))
        return protocol, runs

    return make


def test_protocol_with_a_longer_roll_out_has_its_table_and_figure(make_protocol):
    shorter, protocol = make_protocol(), make_protocol(evaluation={"beyond": BEYOND})
    assert tables_of(protocol) == (*tables_of(shorter), "beyond")
    assert figures_of(protocol) == (*figures_of(shorter), "beyond_horizon")


def test_csv_has_every_frame_and_metric_with_its_interval_over_seeds(long_runs):
    protocol, runs = long_runs()
    values = table_of("beyond", protocol, runs).values
    assert list(values["variant"].unique()) == ["convlstm", "convlstm-ghu", *LEVELS]
    for (variant, frame), row in values.groupby(["variant", "frame"]):
        held = [run.beyond.loc[frame] for run in runs if run.variant == variant]
        for name in HEADLINE:
            scores = [one[name] for one in held]
            assert row[f"{name}_mean"].item() == pytest.approx(np.mean(scores))
            limits = stats.t.interval(0.95, 2, np.mean(scores), stats.sem(scores)) if len(held) == 3 else [math.nan] * 2
            assert row[[f"{name}_low", f"{name}_high"]].to_numpy().ravel() == pytest.approx(limits, nan_ok=True)
    assert values.groupby("variant")["frame"].apply(list).map(lambda frames: frames == list(FRAMES)).all()


def test_growth_is_the_error_over_that_at_the_horizon_seed_by_seed(long_runs):
    table = table_of("beyond", *long_runs())
    trained = table.values[table.values["variant"].str.startswith("convlstm")]
    np.testing.assert_allclose(trained["mse_growth_mean"], trained["frame"] / 2)
    np.testing.assert_allclose(trained["mse_growth_low"], trained["mse_growth_high"])  # seeds differ by a factor
    cells = table.cells.set_index("Model")
    assert cells.loc["ConvLSTM", ["Growth to 4 ↓", "Growth to 6 ↓", "Growth to 7 ↓"]].tolist() == [
        "2.00 [2.00, 2.00]",
        "3.00 [3.00, 3.00]",
        "3.50 [3.50, 3.50]",
    ]
    assert cells.loc["Black", "Growth to 7 ↓"] == "1.00"


def test_frame_from_which_a_baseline_is_better_is_the_first_whose_error_lies_below(long_runs):
    table = table_of("beyond", *long_runs())
    cells, values = table.cells.set_index("Model"), table.values.set_index(["variant", "frame"])
    # ConvLSTM's seeds grow by 12, 14 and 16 a frame: all pass 21 at frame 2, and 52 at frames 5, 4 and 4.
    assert cells.loc["ConvLSTM", "Mean of the context better from ↑"] == "2"
    assert cells.loc["ConvLSTM", "Black better from ↑"] == "4 (4 to 5)"
    assert cells.loc["ConvLSTM", "Last frame repeated better from ↑"] == "never"
    assert cells.loc["Black", "Black better from ↑"] == "\u2013"
    names = [f"black_better_from{end}" for end in ("", "_earliest", "_latest")]
    assert values.loc[("convlstm", 1), names].tolist() == [4, 4, 5]
    assert values.loc["convlstm", "last_frame_better_from"].isna().all()


def test_an_error_that_is_not_finite_is_worse_than_any_baseline(long_runs):
    table = table_of("beyond", *long_runs(worse=("convlstm", 2)))
    cells = table.cells.set_index("Model")
    assert cells.loc["ConvLSTM", "Last frame repeated better from ↑"] == "7 (7 to never)"
    assert cells.loc["ConvLSTM", "MSE at 7 ↓"] == "not finite"


def test_the_difference_to_the_reference_is_paired_by_seed(long_runs):
    values = table_of("beyond", *long_runs(diverged={("convlstm", 3)})).values.set_index(["variant", "frame"])
    for frame in FRAMES:
        row = values.loc[("convlstm-ghu", frame)]
        assert row["reference"] == "convlstm"
        assert row["mse_difference_mean"] == pytest.approx(0.25 * 13 * frame)  # of seeds 1 and 2
        assert math.isnan(row["mse_difference_low"])
    assert values.loc["convlstm", "mse_difference_mean"].isna().all()


def test_a_variant_whose_runs_all_diverged_has_no_numbers_and_says_why(long_runs):
    gone = {("convlstm-ghu", seed) for seed in (1, 2, 3)}
    table = table_of("beyond", *long_runs(diverged=gone))
    row = table.cells.set_index("Model").loc["ConvLSTM + GHU"]
    assert row["MSE at 7 ↓"] == "diverged at step 4"
    assert row["Black better from ↑"] == "\u2013"
    rows = table.values[table.values["variant"] == "convlstm-ghu"]
    assert rows[["mse_mean", "mse_growth_mean", "black_better_from"]].isna().all(axis=None)


def test_the_figure_draws_every_curve_to_the_last_frame_and_marks_the_horizon(long_runs, monkeypatch, tmp_path):
    protocol, runs = long_runs()
    saved = []
    monkeypatch.setattr(drawing, "atomic_buffer", contextlib.nullcontext)  # gives savefig the path itself
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: saved.append(figure))
    draw_figure("beyond_horizon", figure_data(protocol, runs), [tmp_path / "beyond_horizon.png"])
    for axes, metric, with_baselines in zip(saved[0].axes, ("mse", "mse", "ssim"), (True, False, True), strict=True):
        curves = [line for line in axes.lines if len(line.get_xdata()) == BEYOND]
        assert all(list(line.get_xdata()) == list(FRAMES) for line in curves)
        ends = [line.get_ydata()[-1] for line in curves]
        expected = [run.beyond[metric][BEYOND] for run in runs if with_baselines and not run.config]
        expected += [np.mean([run.beyond[metric][BEYOND] for run in runs[first : first + 3]]) for first in (0, 3)]
        assert ends == pytest.approx(expected)
        (mark,) = [line for line in axes.lines if len(line.get_xdata()) == 2]
        assert list(mark.get_xdata()) == [2.5, 2.5]


def test_from_weights_to_csv_the_longer_roll_out_is_that_of_the_test_clips(make_protocol, results, tmp_path):
    protocol = make_protocol(variants=["predrnnpp"], seeds=[1], baselines=["black"], evaluation={"beyond": BEYOND})
    (run,) = protocol.runs()
    plan(protocol, results)
    backbone.prepare("squeeze", None, results / "tiny" / "lpips_backbone.json", False)
    train(run, results, "cpu")
    probe(run, results, "cpu")
    for variant, seed in ((run.variant, run.seed), ("black", NO_SEED)):
        evaluate(protocol, variant, seed, results, tmp_path, "cpu")
    write_tables(protocol, results)
    picture = tmp_path / "beyond_horizon.png"
    draw_figure("beyond_horizon", figure_data(protocol, read_runs(protocol, results)), [picture])
    assert picture.exists()
    table = pd.read_csv(results / "tiny" / "tables" / "beyond.csv").set_index(["variant", "frame"])
    for variant, seed in ((run.variant, run.seed), ("black", NO_SEED)):
        scored = pd.read_parquet(run_path(results, "tiny", variant, seed) / "beyond.parquet")
        for name in HEADLINE:
            means = scored.groupby("frame")[name].mean()
            np.testing.assert_allclose(table.loc[variant, f"{name}_mean"], means, rtol=1e-6)
    (run.path(results) / "beyond.parquet").unlink()
    with pytest.raises(UserError, match=r"predrnnpp/seed=1: not finished \(beyond.parquet is missing\)"):
        write_tables(protocol, results)
