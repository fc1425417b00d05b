"""`evaluate --weights --data`: your own clips are scored as `metrics.score` scores them, or refused with a line."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.__main__ import main
from benchmark.config.metrics import METRICS, columns
from benchmark.config.variants import OF_ANY_CLIPS
from benchmark.data.tensors import to_float
from benchmark.evaluation import lpips_backbone as backbone
from benchmark.evaluation.forecasts import baseline
from benchmark.evaluation.metric_functions import score as score_frames
from benchmark.reporting.tables.rendering import number as format_number
from benchmark.training.train import train
from benchmark.training.weight_files import save_weights, trained_context
from models.predictor import build
from models.spec import ModelSpec

ROOT = Path(__file__).parents[2]
SQUEEZE = ROOT.parent / "shared" / "data" / "lpips" / "squeezenet1_1_features.pth"
SPEC = ModelSpec(cell="st_lstm", hidden_channels=(3, 3), frame_size=12, patch_size=4, kernel_size=3)
CONTEXT, HORIZON = 3, 2


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Every command runs in an empty folder, and torch's cache is empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def clips():
    """Seven clips of 5 frames, N T H W."""
    return np.random.default_rng(1).integers(0, 256, (7, CONTEXT + HORIZON, 12, 12), dtype=np.uint8)


@pytest.fixture
def weights(tmp_path):
    """Save the network of SPEC, with `changes`, as weights trained with 3 frames given; returns the path."""

    def write(context=CONTEXT, **changes):
        save_weights(tmp_path / "ours.safetensors", build(dataclasses.replace(SPEC, **changes), 1), context=context)
        return tmp_path / "ours.safetensors"

    return write


def evaluate(weights, data, *options):
    return main(["evaluate", *map(str, ("--weights", weights, "--data", data, "--device", "cpu", *options))])


def expected(clips, network=None, context=CONTEXT, horizon=HORIZON, lpips=None):
    """The scores of the whole array at once, one row a clip and frame."""
    network = network or build(SPEC, 1)
    frames = to_float(torch.from_numpy(clips))[:, :, None]
    with torch.no_grad():
        prediction = network.predict(frames[:, :context], horizon)
    scores = score_frames(prediction, frames[:, context : context + horizon], lpips, conventions=True)
    return pd.DataFrame({name: values.numpy().ravel() for name, values in scores.items()})


def test_the_command_scores_a_file_in_a_process_of_its_own(clips, weights, forker, tmp_path):
    np.save(tmp_path / "clips.npy", clips.transpose(1, 0, 2, 3))
    options = ["--data", tmp_path / "clips.npy", "--layout", "TNHW", "--batch-size", "3", "--device", "cpu"]
    code, said = forker.run("evaluate", "--weights", weights(), *options)
    assert code == 0, said
    found = pd.read_parquet("scores.parquet")
    assert list(found.columns) == ["clip", "frame", *columns(None, conventions=True)]
    assert list(zip(found["clip"], found["frame"], strict=True)) == [(c, f) for c in range(1, 8) for f in (1, 2)]
    truth = expected(clips)
    pd.testing.assert_frame_equal(found.drop(columns=["clip", "frame"]), truth, rtol=1e-5)
    assert said.startswith("### Scores on clips of your own\n\n| Metric ")
    rows = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in said.splitlines() if "|" in line}
    assert rows[METRICS["mse"].head] == f"{truth['mse'].mean():.1f}"
    assert rows[METRICS["ssim_range2"].head] == f"{truth['ssim_range2'].mean():.3f}"
    assert "* clips.npy: read as T,N,H,W: 7 clips of 5 frames of 12x12 pixels; uint8 from 0 to 255.\n" in said
    assert "* 3 frames given, 2 predicted.\n" in said
    assert "* Scores of every frame: scores.parquet.\n" in said


def test_the_baselines_stand_beside_the_weights_and_a_line_says_which_is_better(clips, weights, tmp_path, capsys):
    np.save(tmp_path / "clips.npy", clips[:, :, None])
    assert evaluate(weights(), tmp_path / "clips.npy") == 0
    said = capsys.readouterr().out
    heads, _, *rows = [line.split("|")[1:-1] for line in said.splitlines() if line.startswith("|")]
    assert [head.strip() for head in heads] == ["Metric", "ours.safetensors", *OF_ANY_CLIPS.values()]
    frames = to_float(torch.from_numpy(clips))[:, :, None]
    truth, least = frames[:, CONTEXT:], {}
    for name, label in OF_ANY_CLIPS.items():
        found = score_frames(baseline(name, HORIZON)(frames[:, :CONTEXT]), truth, None, conventions=True)
        column = [head.strip() for head in heads].index(label)
        for metric, row in zip(columns(None, conventions=True), rows, strict=True):
            assert row[0].strip() == METRICS[metric].head
            assert row[column].strip() == format_number(found[metric].mean().item(), METRICS[metric].decimals)
        least[label] = found["mse"].mean().item()
    ours, best = expected(clips)["mse"].mean(), min(least, key=least.get)
    change = ours / least[best] - 1
    verdict = f"{abs(change):.1%} {'below' if change < 0 else 'above'} that of the best baseline ({best})"
    assert f"MSE of ours.safetensors is {verdict}" in said
    assert "A network that is no better than all of them has not learnt how these clips move." in said
    assert len(pd.read_parquet("scores.parquet")) == 7 * HORIZON


@pytest.mark.parametrize(("dtype", "option"), [(bool, "1"), (np.uint8, "1"), (np.float32, "255")])
def test_clips_score_the_same_in_whatever_type_they_are_once_white_is_said(weights, tmp_path, dtype, option):
    mask = np.random.default_rng(1).random((2, 5, 1, 12, 12)) > 0.5
    path = weights()
    np.save(tmp_path / "bytes.npy", np.uint8(255) * mask)
    np.save(tmp_path / "other.npy", (mask * (255 if option == "255" else 1)).astype(dtype))
    assert evaluate(path, tmp_path / "bytes.npy", "--output", "a.parquet") == 0
    assert evaluate(path, tmp_path / "other.npy", "--output", "b.parquet", "--white", option) == 0
    pd.testing.assert_frame_equal(pd.read_parquet("a.parquet"), pd.read_parquet("b.parquet"))


def test_a_mask_of_0_and_1_is_not_scored_as_black(weights, tmp_path, capsys):
    np.save(tmp_path / "mask.npy", np.random.default_rng(1).integers(0, 2, (2, 5, 1, 12, 12), dtype=np.uint8))
    assert evaluate(weights(), tmp_path / "mask.npy") == 2
    assert "mask.npy: all uint8 values are 0 or 1; add --white 1" in capsys.readouterr().err


def predrnn_arrays(clips):
    starts = np.arange(len(clips)) * clips.shape[1]
    parts = [np.stack([starts, 0 * starts + CONTEXT], 1), np.stack([starts + CONTEXT, 0 * starts + HORIZON], 1)]
    frames = clips.reshape(-1, 1, *clips.shape[2:])
    return {"clips": np.stack(parts), "dims": np.array([frames.shape[1:]]), "input_raw_data": frames}


def test_every_kind_of_file_gives_the_same_scores(clips, weights, tmp_path):
    np.save(tmp_path / "grey.npy", clips)
    np.save(tmp_path / "channel.npy", clips[:, :, None])
    np.save(tmp_path / "float.npy", clips[..., None] / 255)
    np.savez_compressed(tmp_path / "one.npz", clips)
    np.savez(tmp_path / "predrnn.npz", **predrnn_arrays(clips))
    (tmp_path / "folder").mkdir()
    for number, clip in enumerate(clips):
        np.save(tmp_path / "folder" / f"{number}.npy", clip)
    truth, path = expected(clips), weights()
    for name, layout in {"grey.npy": "NTHW", "one.npz": "NTHW"}.items():
        assert evaluate(path, tmp_path / name, "--layout", layout, "--output", f"{name}.parquet") == 0
    for name in ("channel.npy", "float.npy", "predrnn.npz", "folder"):
        assert evaluate(path, tmp_path / name, "--output", f"{name}.parquet", "--batch-size", "4") == 0
    tables = {file.stem: pd.read_parquet(file) for file in Path().glob("*.parquet")}
    assert len(tables) == 6
    for table in tables.values():
        pd.testing.assert_frame_equal(table.drop(columns=["clip", "frame"]), truth, rtol=1e-5)


def test_of_longer_clips_only_the_first_frames_are_used_and_the_table_says_so(clips, weights, tmp_path, capsys):
    np.save(tmp_path / "clips.npy", clips[:, :, None])
    assert evaluate(weights(), tmp_path / "clips.npy", "--context", "2", "--horizon", "1") == 0
    found = pd.read_parquet("scores.parquet")
    truth = expected(clips, context=2, horizon=1)
    pd.testing.assert_frame_equal(found.drop(columns=["clip", "frame"]), truth, rtol=1e-5)
    said = capsys.readouterr().out
    assert "7 clips of 5 frames of 12x12 pixels, of which the first 3 are used; uint8" in said
    assert "2 frames given, 1 predicted. The weights were trained with 3 frames given." in said


def test_the_weights_of_a_run_know_how_many_frames_they_were_given(make_protocol, results, clips, tmp_path, capsys):
    run = make_protocol().run("predrnn", 1)
    train(run, results, "cpu")
    path = run.path(results) / "model.safetensors"
    assert trained_context(path) == 3
    np.save(tmp_path / "clips.npy", clips[:, :, None])
    assert evaluate(path, tmp_path / "clips.npy") == 0
    assert "* 3 frames given, 2 predicted.\n" in capsys.readouterr().out


def test_a_prediction_that_is_not_finite_is_counted_and_leaves_no_mean(clips, tmp_path, capsys):
    network = build(SPEC, 1)
    with torch.no_grad():
        network.to_frame.weight.fill_(float("nan"))
    save_weights(tmp_path / "nan.safetensors", network, context=CONTEXT)
    np.save(tmp_path / "clips.npy", clips[:, :, None])
    assert evaluate(tmp_path / "nan.safetensors", tmp_path / "clips.npy") == 0
    said = capsys.readouterr().out
    assert "Frames with a prediction that is not finite, which leave no mean: 14." in said
    assert "| SSIM ↑" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "LPIPS was not measured: name its backbone with --lpips-backbone alex or vgg or squeeze."),
        (
            ("--lpips-backbone", "alex"),
            "LPIPS was not measured: no alex backbone; put alexnet_features.pth or alexnet-owt-7be5be79.pth into",
        ),
    ],
)
def test_lpips_that_was_not_measured_is_said_with_the_way_to_get_it(clips, weights, tmp_path, capsys, options, said):
    np.save(tmp_path / "clips.npy", clips[:, :, None])
    assert evaluate(weights(), tmp_path / "clips.npy", *options) == 0
    assert said in capsys.readouterr().out
    assert not [name for name in pd.read_parquet("scores.parquet").columns if name.startswith("lpips")]


@pytest.mark.skipif(not SQUEEZE.exists(), reason="no squeeze backbone in ../shared/data/lpips beside the repository")
def test_lpips_is_measured_where_its_backbone_lies(weights, tmp_path):
    clips = np.random.default_rng(1).integers(0, 256, (2, 5, 20, 20), dtype=np.uint8)
    np.save(tmp_path / "clips.npy", clips[:, :, None])
    (tmp_path / "data" / "lpips").mkdir(parents=True)
    shutil.copy(SQUEEZE, tmp_path / "data" / "lpips")
    places = ("--lpips-backbone", "squeeze", "--data-dir", tmp_path / "data")
    assert evaluate(weights(), tmp_path / "clips.npy", *places) == 0
    record = backbone.look_for("squeeze", tmp_path / "data", download=False)
    truth = expected(clips, lpips=backbone.load_lpips(record, tmp_path / "data", "cpu"))
    found = pd.read_parquet("scores.parquet")
    assert list(found.columns) == ["clip", "frame", *columns("squeeze", conventions=True)]
    pd.testing.assert_frame_equal(found.drop(columns=["clip", "frame"]), truth, rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "network", "fault"),
    [
        ((7, 5, 3, 12, 12), {}, "clips.npy: its clips have 3 channel(s), the network takes 1"),
        ((7, 5, 3, 12, 12), {"channels": 3}, "have 3 channels; the metrics are defined for frames of one"),
        ((7, 5, 1, 10, 10), {}, "have frames of 10x10 pixels, which patches of 4 do not divide"),
        ((7, 5, 1, 16, 16), {"norm": "element"}, "of 16x16 pixels, the norms of the network are for 12x12"),
        ((7, 3, 1, 12, 12), {}, "as NTCHW it has clips of 3 frames, needed are 4"),
        ((7, 5, 1, 4, 4), {}, "frames of 4x4 pixels: SSIM needs at least 7x7"),
    ],
)
def test_clips_that_the_network_cannot_take_are_refused(weights, tmp_path, capsys, shape, network, fault):
    np.save(tmp_path / "clips.npy", np.zeros(shape, np.uint8))
    assert evaluate(weights(**network), tmp_path / "clips.npy") == 2
    assert fault in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_frames_that_are_not_square_are_scored_where_the_layout_is_named(weights, tmp_path, capsys):
    clips = np.random.default_rng(1).integers(0, 256, (2, 5, 8, 12), dtype=np.uint8)
    np.save(tmp_path / "clips.npy", clips)
    assert evaluate(weights(), tmp_path / "clips.npy", "--layout", "NTHW") == 0
    found = pd.read_parquet("scores.parquet").drop(columns=["clip", "frame"])
    pd.testing.assert_frame_equal(found, expected(clips), rtol=1e-5)
    assert "2 clips of 5 frames of 8x12 pixels" in capsys.readouterr().out


def test_weights_that_know_no_context_ask_for_it(clips, weights, tmp_path, capsys):
    np.save(tmp_path / "clips.npy", clips[:, :, None])
    path = weights(context=None)
    assert evaluate(path, tmp_path / "clips.npy") == 2
    assert f"{path}: says not how many given frames it was trained with; say how many with --context" in (
        capsys.readouterr().err
    )
    assert evaluate(path, tmp_path / "clips.npy", "--context", "3") == 0


@pytest.mark.parametrize(("output", "why"), [("no/folder.parquet", "No such file"), (".", "is a folder")])
def test_an_output_that_cannot_be_written_is_named_before_anything_is_read(weights, tmp_path, capsys, output, why):
    assert evaluate(weights(), tmp_path / "missing.npy", "--output", output) == 2
    said = capsys.readouterr().err
    assert f"--output: {output} cannot be written ({why}" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("output", ["clips.npy", "ours.safetensors", "folder/scores.parquet"])
def test_scores_are_never_written_over_what_is_read(clips, weights, tmp_path, capsys, output):
    path, data = weights(), tmp_path / "clips.npy"
    if output.startswith("folder"):
        data = tmp_path / "folder"
        data.mkdir()
    np.save(tmp_path / "folder" / "1.npy" if data.is_dir() else data, clips[0, :, None])
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert evaluate(path, data, "--output", tmp_path / output, "--layout", "TCHW") == 2
    assert "would lie in what is read; name another file" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_mistake_leaves_the_scores_of_before(clips, weights, tmp_path):
    np.save(tmp_path / "clips.npy", (clips / 200)[:, :, None])
    Path("scores.parquet").write_bytes(b"of before")
    assert evaluate(weights(), tmp_path / "clips.npy") == 2
    assert Path("scores.parquet").read_bytes() == b"of before"
    assert len(list(Path().iterdir())) == 1


PROGRAM = """
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules))
import runpy
runpy.run_module("benchmark", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("--weights", "w"),
            "either --protocol NAME (its test clips) or --data FILE (your own, with --weights); neither",
        ),
        (("--weights", "w", "--data", "d", "--protocol", "smoke"), "(your own, with --weights); both were given"),
        (("--data", "d"), "--data takes --weights FILE"),
        (("--weights", "w", "--data", "d", "--seed", "1"), "no --variant or --seed"),
        (("--weights", "w", "--protocol", "smoke", "--batch-size", "2"), "--batch-size goes with --data"),
        (
            ("--weights", "w", "--data", "d", "--download"),
            "--download fetches the backbone that --lpips-backbone names",
        ),
    ],
)
def test_options_that_exclude_each_other_are_refused_without_torch(arguments, told):
    command = [sys.executable, "-c", PROGRAM, "evaluate", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
