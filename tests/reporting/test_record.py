"""A record holds all that tables and figures take of a run, and gives it back."""

import numpy as np
import pandas as pd
import pytest

from benchmark.reporting.finished_runs import read_runs
from benchmark.reporting.record import from_png, make_record, to_png
from benchmark.system.parquet import write_parquet
from tests.helpers.recorded import write_records


@pytest.mark.parametrize("channels", [1, 3])
def test_a_film_comes_back_pixel_for_pixel(channels):
    frames = np.random.default_rng(0).integers(0, 256, (3, 5, 4, channels), dtype=np.uint8)
    assert np.array_equal(from_png(*to_png(frames)), frames)


def test_scores_and_norms_come_back_as_they_were_measured(make_protocol, write_finished):
    protocol = make_protocol()
    results_dir = write_finished(protocol)
    write_records(protocol, results_dir)
    run = next(run for run in read_runs(protocol, results_dir) if (run.variant, run.seed) == ("predrnnpp", 2))
    folder = run.config.path(results_dir)
    frames = pd.read_parquet(folder / "frames.parquet")
    for name in ("mse", "ssim", "lpips_squeeze", "ssim_range2"):
        assert run.scores[name] == pytest.approx(frames[name].mean(), rel=1e-12)
        np.testing.assert_allclose(run.per_frame[name], frames.groupby("frame")[name].mean(), rtol=1e-12)
    np.testing.assert_allclose(run.per_clip["mae"], frames.groupby("clip")["mae"].mean(), rtol=1e-7)
    norms = pd.read_parquet(folder / "probe.parquet")
    keys = ["stage", "measure", "state", "layer", "t"]
    expected = np.log(norms["norm"]).groupby([norms[key] for key in keys]).mean()
    found = run.norms.set_index(keys)["log_norm"]
    np.testing.assert_allclose(found[expected.index], expected, atol=1e-4)
    assert run.cost == {"train_s": 3.0, "clips_per_s": 42.0, "peak_memory_mib": 300.0}


def test_record_of_a_baseline_has_scores_and_no_training(make_protocol, write_finished):
    protocol = make_protocol()
    found = make_record(protocol, "black", 0, write_finished(protocol))
    assert {"mean", "per_frame", "per_clip", "film"} <= found.keys()
    assert not {"config", "probe", "norms", "curve"} & found.keys()


def test_of_the_single_ways_the_norms_of_x_alone_are_kept(make_protocol, write_finished):
    protocol = make_protocol()
    results_dir = write_finished(protocol)
    path = protocol.run("predrnnpp", 2).path(results_dir) / "probe.parquet"
    norms = pd.read_parquet(path)
    norms = pd.concat([norms, norms.assign(state="H", layer=1)])
    write_parquet(path, pd.concat([norms, *(norms.assign(measure=name) for name in ("memory", "frames"))]))
    kept = make_record(protocol, "predrnnpp", 2, results_dir)["norms"]["trained"]
    assert list(kept["residual"]) == ["X0", "H1"]
    assert list(kept["memory"]) == list(kept["frames"]) == ["X0"]


def test_record_of_what_nobody_has_trained_has_one_stage_and_no_film(make_protocol, write_finished):
    protocol = make_protocol(training={"steps": 0, "sampling": {"kind": "none"}})
    results_dir = write_finished(protocol)
    write_records(protocol, results_dir)
    found = make_record(protocol, "predrnnpp", 2, results_dir)
    assert "film" not in found
    assert list(found["probe"]) == list(found["norms"]) == ["init"]
    assert read_runs(protocol, results_dir)[0].shown_clip == {}
