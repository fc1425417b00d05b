"""`probe --weights`: the norms are those of the library, of a protocol's clips and of a person's own, or a line."""

import numpy as np
import pandas as pd
import pytest

import deep_in_time as dit
from benchmark.__main__ import main
from benchmark.data.clips import load_clips
from benchmark.training.weight_files import save_weights
from models.predictor import build
from models.spec import ModelSpec

SPEC = ModelSpec(cell="st_lstm", hidden_channels=(3, 3), frame_size=12, patch_size=4, kernel_size=3)
CONTEXT, HORIZON = 5, 2
LAYOUT = ("--layout", "NTHW")


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file of weights, in the folder where the commands run."""
    monkeypatch.chdir(tmp_path)
    save_weights(tmp_path / "ours.safetensors", build(SPEC, 1), context=CONTEXT)
    return tmp_path / "ours.safetensors"


@pytest.fixture
def clips(tmp_path):
    """Six clips as a file, N T H W."""
    values = np.random.default_rng(1).integers(0, 256, (6, CONTEXT + HORIZON, 12, 12), dtype=np.uint8)
    np.save(tmp_path / "clips.npy", values)
    return values


def probe(*options):
    return main(["probe", *map(str, options), "--device", "cpu"])


def assert_alike(found, expected):
    merged = found.merge(expected, on=["measure", "clip", "state", "layer", "t"], validate="one_to_one")
    assert len(merged) == len(found) == len(expected)
    np.testing.assert_allclose(merged["norm_x"], merged["norm_y"], rtol=1e-9)


def test_norms_on_own_clips_are_those_of_the_library(weights, clips, tmp_path, capsys):
    assert probe("--weights", weights, "--data", "clips.npy", *LAYOUT, "--clips", 4, "--batch-size", 3) == 0
    said = capsys.readouterr().out
    found = pd.read_parquet("gradient_norms.parquet")
    network, frames = dit.load_weights(weights), clips[:4, :, None]
    assert_alike(found, dit.gradient_norms(network, frames, CONTEXT))
    assert f"Reach: {dit.reach(network, frames, CONTEXT)['reach']:.3g} " in said
    assert "the first 4 are measured" in said
    assert f"{CONTEXT} frames given, {HORIZON} predicted." in said
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == ["1", "2", "3", "4", "5"]
    assert rows[-1][2] == "1.000"


def test_floats_are_measured_as_they_are(weights, clips, tmp_path):
    np.save("floats.npy", (clips / 255).astype(np.float32))
    assert probe("--weights", weights, "--data", "floats.npy", *LAYOUT, "--output", "floats.parquet") == 0
    assert probe("--weights", weights, "--data", "clips.npy", *LAYOUT) == 0
    one, other = (pd.read_parquet(name)["norm"] for name in ("floats.parquet", "gradient_norms.parquet"))
    np.testing.assert_allclose(one, other, rtol=1e-4)


@pytest.mark.parametrize("command", ["evaluate", "probe"])
def test_clips_of_a_protocol_are_made_where_they_are_missing_and_its_device_is_not_needed(
    weights, write_protocol, tmp_path, capsys, command
):
    path = write_protocol(
        data={"frame_size": 12, "digit_size": 5, "context": 4, "horizon": 2}, training={"device": "cuda"}
    )
    options = [command, "--weights", str(weights), "--protocol", str(path), "--results-dir", str(tmp_path / "results")]
    assert main(options) == 0
    said = capsys.readouterr().out
    assert "its clips are made first" in said
    assert "4 frames given, 2 predicted. The weights were trained with 5 frames given." in said
    assert main(options) == 0
    assert "its clips are made first" not in capsys.readouterr().out
    if command == "probe":
        (folder,) = (tmp_path / "results").glob("*/data")
        protocol = dit.protocol(str(path))
        test = load_clips(folder, protocol.data, "test")[: protocol.probe.clips]
        expected = dit.gradient_norms(dit.load_weights(weights), test, 4)
        assert_alike(pd.read_parquet("gradient_norms.parquet"), expected)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--weights", "ours.safetensors"], "probe: say which clips, either --protocol"),
        (["--data", "clips.npy"], "probe: --data takes --weights FILE"),
        (["--protocol", "quick"], "probe: say which run with --variant and --seed, or which weights with --weights"),
        (["--protocol", "quick", "--clips", "3"], "probe: --clips goes with --data; a protocol sets it by itself"),
        (
            ["--protocol", "quick", "--variant", "predrnn", "--seed", "1", "--output", "x.parquet"],
            "probe: --output goes with --weights",
        ),
        (
            ["--protocol", "quick", "--variant", "predrnn", "--weights", "ours.safetensors"],
            "probe: --weights is in place of a run",
        ),
        (["--weights", "ours.safetensors", "--data", "gone.npy"], "gone.npy"),
        (["--weights", "ours.safetensors", "--data", "wide.npy"], "have frames of 13x13 pixels"),
        (["--weights", "ours.safetensors", "--data", "clips.npy", "--output", "clips.npy"], "clips.npy"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(weights, clips, capsys, options, told):
    np.save("wide.npy", np.zeros((2, 7, 13, 13), dtype=np.uint8))
    assert probe(*options) == 2
    said = capsys.readouterr().err
    assert told in said
    assert len(said.strip().splitlines()) <= 2
    assert (np.load("clips.npy") == clips).all()
