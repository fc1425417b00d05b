"""The commands `data`, `predict` and `evaluate --data` read the same video alike: its frames, notes and mistakes."""

import numpy as np
import pandas as pd
import pytest

from benchmark.__main__ import main
from benchmark.data.videos.clip_files import open_clips
from benchmark.data.videos.containers import NOT_SQUARE, REPEATED, TRIMMED
from benchmark.data.videos.video_files import TURNED
from benchmark.training.weight_files import save_weights
from models.predictor import build
from models.spec import ModelSpec
from tests.helpers.containers import cut, trimmed, with_empty_chunk, with_matrix
from tests.helpers.made_films import moving_square, write_video

SIDE, FRAMES = 16, 24
SPEC = ModelSpec(cell="convlstm", hidden_channels=(3, 3), frame_size=SIDE, patch_size=4, kernel_size=3)
CODED = {"codec": "mpeg4", "pixels": "yuv420p", "gop": 1}
FORMS = {
    "turned": (".mp4", lambda path: with_matrix(path, 0, 1, -1, 0), FRAMES, f"3 videos {TURNED}"),
    "trimmed": (".mp4", lambda path: trimmed(path, 8, 16), 16, f"3 videos {TRIMMED}"),
    "repeated": (".avi", lambda path: with_empty_chunk(path, 5), FRAMES, f"3 videos {REPEATED}"),
    "stretched": (".mkv", lambda path: path, FRAMES, f"3 videos {NOT_SQUARE}"),
}
"""Ending, what is done to the file, frames that it shows, and what is said of three of them."""


@pytest.fixture
def commands(tmp_path, monkeypatch, write_protocol, capfd):
    """Run the three commands on the folder `data/mine` or a video in it; returns exit status and output of each."""
    monkeypatch.chdir(tmp_path)
    save_weights(tmp_path / "ours.safetensors", build(SPEC, 1), context=3)
    data = {"videos": "mine", "frame_size": SIDE, "context": 3, "horizon": 2}
    own = ["--weights", "ours.safetensors", "--device", "cpu"]

    def run(values, ending):
        section = data | {"validation_clips": 1, "test_clips": None}
        shown = {"evaluation": {"lpips_backbone": "squeeze", "film_clips": [1]}, "probe": {"clips": 2}}
        file = write_protocol(values | {"data": section} | shown)
        lines = {
            "data": ["data", "--protocol", str(file), "--results-dir", "results", "--data-dir", "data"],
            "evaluate": ["evaluate", *own, "--data", "data/mine", "--output", "scores.parquet"],
            "predict": ["predict", *own, "--input", f"data/mine/1{ending}", "--output", "y.npy", "--horizon", "2"],
        }
        capfd.readouterr()
        return {name: (main(line), "".join(capfd.readouterr())) for name, line in lines.items()}

    return run


def write_three(folder, ending, spoil, **keys):
    for number in range(3):
        path = folder / f"{number}{ending}"
        write_video(path, moving_square(FRAMES, SIDE, SIDE, seed=number), **CODED | keys)
        spoil(path)


@pytest.mark.parametrize("form", FORMS)
def test_every_command_reads_the_same_frames_and_says_the_same(commands, protocol_values, tmp_path, form):
    ending, spoil, length, note = FORMS[form]
    write_three(tmp_path / "data" / "mine", ending, spoil, **({"aspect": 2} if form == "stretched" else {}))
    ran = commands(protocol_values, ending)
    assert {name: status for name, (status, _) in ran.items()} == dict.fromkeys(ran, 0), ran
    for name in ("data", "evaluate"):
        assert note in ran[name][1]
    assert note.replace("3 videos", "1 video") in ran["predict"][1]
    clips = open_clips(tmp_path / "data" / "mine", 5)
    assert clips.lengths == (length,) * 3
    stored = np.load(tmp_path / "results" / "tiny" / "data" / "frames.npy")
    assert stored.shape == (3 * length, SIDE, SIDE)
    read = {clip.tobytes() for clip in clips.read(range(3), length)[:, :, 0]}
    assert {clip.tobytes() for clip in stored.reshape(3, length, SIDE, SIDE)} == read
    assert len(pd.read_parquet("scores.parquet")) == 3 * (length - 3)
    assert f"1 clip of {length} frames" in ran["predict"][1]


@pytest.mark.parametrize(("ending", "codec"), [(".avi", "mpeg4"), (".mp4", "mpeg4"), (".webm", "libvpx")])
def test_every_command_refuses_a_video_that_is_cut_off_in_the_same_words(
    commands, protocol_values, tmp_path, ending, codec
):
    write_three(tmp_path / "data" / "mine", ending, lambda path: path, codec=codec)
    cut(tmp_path / "data" / "mine" / f"1{ending}", 0.7)
    ran = commands(protocol_values, ending)
    told = {output.strip().splitlines()[-1] for _, output in ran.values()}
    assert {status for status, _ in ran.values()} == {2}
    assert len(told) == 1, told
    assert f"data/mine/1{ending}: is cut off: " in told.pop()


def test_size_that_a_metric_cannot_score_names_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_weights(tmp_path / "ours.safetensors", build(SPEC, 1), context=3)
    np.save("small.NPY.npy", np.zeros((2, 5, 4, 4), np.uint8))
    (tmp_path / "small.NPY.npy").rename(tmp_path / "small.NPY")  # and upper case is no other kind of file
    own = ["--weights", "ours.safetensors", "--data", "small.NPY", "--layout", "NTHW", "--device", "cpu"]
    assert main(["evaluate", *own, "--output", "scores.parquet"]) == 2
    assert "small.NPY: frames of 4x4 pixels: SSIM needs at least 7x7" in capsys.readouterr().err
