"""`predict` writes what the network predicts after a person's own clip, whatever file that is, or says why not."""

import dataclasses
import os
import shlex
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.__main__ import main
from benchmark.data.pixels import to_grey
from benchmark.data.videos.video_files import read_video
from benchmark.evaluation.clip_images import animation_frame
from benchmark.exchange import prediction_video
from benchmark.exchange.input_clips import fit_frames, how_to_fit
from benchmark.training.weight_files import save_weights
from models.predictor import build
from models.spec import ModelSpec
from tests.helpers.pixels import enlarged, places

ROOT = Path(__file__).parents[2]
SIDE, CONTEXT, FRAMES = 12, 3, 5
SPEC = ModelSpec(cell="st_lstm", hidden_channels=(3, 3), frame_size=SIDE, patch_size=4, kernel_size=3)
ORANGE = (213, 94, 0)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Every command runs in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def weights(tmp_path):
    """Save the network of SPEC, with `changes`, as weights trained with 3 frames given; returns the path."""

    def write(context=CONTEXT, **changes):
        save_weights(tmp_path / "ours.safetensors", build(dataclasses.replace(SPEC, **changes), 1), context=context)
        return tmp_path / "ours.safetensors"

    return write


def random_clip(frames=FRAMES, height=SIDE, width=SIDE, channels=(), seed=1):
    """A clip of random frames (T, H, W, *channels), uint8."""
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, *channels), dtype=np.uint8)


def write_gif(path, frames):
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=rest)
    return path


def write_pngs(folder, frames):
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return folder


def predict(weights, source, output, *options):
    return main(["predict", *map(str, ("--weights", weights, "--input", source, "--output", output, *options))])


def expected(frames, horizon=FRAMES - CONTEXT, context=CONTEXT, spec=SPEC):
    """What the network predicts after frames (T, H, W, C) in uint8: (T, H, W, C) from 0 to 1."""
    given = torch.from_numpy(frames[None, :context].astype(np.float32) / 255).movedim(-1, 2)
    with torch.no_grad():
        return build(spec, 1).predict(given, horizon).clamp(0, 1)[0].movedim(1, -1).numpy()


def test_every_kind_of_input_gives_the_prediction_of_the_network(weights, tmp_path):
    frames = random_clip()
    np.save(tmp_path / "grey.npy", frames)
    np.save(tmp_path / "channel.npy", frames[:, None])
    np.save(tmp_path / "float.npy", frames[..., None] / 255)
    np.savez(tmp_path / "one.npz", frames[:, None])
    sources = [tmp_path / name for name in ("grey.npy", "channel.npy", "float.npy", "one.npz")]
    sources += [write_gif(tmp_path / "clip.gif", frames), write_pngs(tmp_path / "frames", frames)]
    write_pngs(tmp_path / "clips" / "one", frames)
    path, truth = weights(), expected(frames[..., None])
    for source in [*sources, tmp_path / "clips"]:
        layout = ["--layout", "TCHW"] if source.name in ("channel.npy", "one.npz") else []
        assert predict(path, source, "y.npy", "--device", "cpu", *layout) == 0, source
        found = np.load("y.npy")
        assert (found.dtype, found.shape) == (np.float32, (FRAMES - CONTEXT, SIDE, SIDE, 1))
        np.testing.assert_allclose(found, truth, atol=1e-6)
        Path("y.npy").unlink()


def test_the_command_in_a_process_of_its_own_says_what_it_did(weights, forker, tmp_path):
    source = write_gif(tmp_path / "clip.gif", random_clip())
    code, said = forker.run("predict", "--weights", weights(), "--input", source, "--output", "y.npy")
    assert code == 0, said
    assert said.splitlines() == [
        f"{source}: read as GIF video: 1 clip of 5 frames of 12x12 pixels; uint8 from 0 to 255.",
        "3 frames given, 2 predicted.",
        "y.npy: float32 from 0 to 1, 2 frames, 12 height, 12 width, 1 channels.",
    ]
    assert [path.name for path in Path().iterdir()] == ["y.npy"]


def test_the_horizon_is_what_the_input_leaves_or_as_many_as_are_given_and_may_be_longer(weights, tmp_path):
    frames, path = random_clip(), weights()
    whole, short = write_gif(tmp_path / "whole.gif", frames), write_gif(tmp_path / "short.gif", frames[:CONTEXT])
    for source, options, horizon in [(whole, (), 2), (short, (), 3), (whole, ("--horizon", 7), 7)]:
        assert predict(path, source, "y.npy", *options) == 0
        np.testing.assert_allclose(np.load("y.npy"), expected(frames[..., None], horizon), atol=1e-6)
    assert predict(path, whole, "y.npy", "--context", 4) == 0
    np.testing.assert_allclose(np.load("y.npy"), expected(frames[..., None], 1, context=4), atol=1e-6)


def test_several_clips_are_predicted_one_by_one_whatever_the_batch(weights, tmp_path):
    clips = np.stack([random_clip(seed=seed) for seed in range(3)])
    np.save(tmp_path / "clips.npy", clips[:, :, None])
    assert predict(weights(), tmp_path / "clips.npy", "y.npy", "--batch-size", 2) == 0
    truth = np.stack([expected(clip[..., None]) for clip in clips])
    np.testing.assert_allclose(np.load("y.npy"), truth, atol=1e-6)


def test_colour_is_predicted_in_colour(weights, tmp_path):
    frames = random_clip(channels=(3,))
    path = weights(channels=3)
    for output in ("y.npy", "y.gif", "y.png"):
        assert predict(path, write_pngs(tmp_path / output, frames), output) == 0
    truth = expected(frames, spec=dataclasses.replace(SPEC, channels=3))
    np.testing.assert_allclose(np.load("y.npy"), truth, atol=1e-6)
    with Image.open("y.png") as strip:
        wide = np.round(255 * truth[0]).astype(np.uint8).repeat(10, axis=0).repeat(10, axis=1)
        assert all(places(band, grey) for band, grey in zip(bands(strip), bands(wide), strict=True))
    with Image.open("y.gif") as shown:
        shown.seek(1)
        colours = np.asarray(shown.convert("RGB"), int)[60:170, 10:130]
        assert np.ptp(colours, axis=2).max() > 100


def bands(picture):
    """Red, green and blue of a picture."""
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def pixels(prediction):
    return np.round(255 * prediction).astype(np.uint8)


def test_an_animation_plays_the_input_and_frames_the_prediction_beside_what_truth_there_is(weights, tmp_path):
    frames, horizon = random_clip(), 4
    assert predict(weights(), write_gif(tmp_path / "clip.gif", frames), "y.gif", "--horizon", horizon) == 0
    predicted = pixels(expected(frames[..., None], horizon))
    scale = round(128 / SIDE)
    side = scale * SIDE
    with Image.open("y.gif") as shown:
        assert shown.n_frames == CONTEXT + horizon
        for t in range(shown.n_frames):
            shown.seek(t)
            picture = np.asarray(shown.convert("RGB"))
            grey = np.ascontiguousarray(picture[..., 0])
            panel = grey[52 : 52 + side, 10 : 10 + side]
            if t < len(frames):
                assert np.abs(panel[5::scale, 5::scale].astype(int) - frames[t]).max() <= 1
            else:
                assert np.ptp(panel) == 0
            framed = (picture[52 - 2, 20 + side : 20 + 2 * side] == ORANGE).all()
            assert framed == (t >= CONTEXT)
            if framed:
                beside = grey[52 : 52 + side, 20 + side :][5::scale, 5:side:scale].astype(int)
                assert np.abs(beside - predicted[t - CONTEXT, ..., 0]).max() <= 1


def test_without_truth_an_animation_has_one_panel_which_plays_the_input_and_then_the_prediction(weights, tmp_path):
    frames = random_clip(CONTEXT)
    assert predict(weights(), write_gif(tmp_path / "clip.gif", frames), "y.gif") == 0
    played = np.concatenate([frames, pixels(expected(frames[..., None], CONTEXT))[..., 0]])
    with Image.open("y.gif") as shown:
        scale = round(256 / SIDE)
        for t in range(shown.n_frames):
            shown.seek(t)
            picture = np.asarray(shown.convert("RGB"))
            panel = picture[52 : 52 + scale * SIDE, 10 : 10 + scale * SIDE, 0]
            assert np.abs(panel[scale // 2 :: scale, scale // 2 :: scale].astype(int) - played[t]).max() <= 1
            assert (picture[50, 20:200] == ORANGE).all() == (t >= CONTEXT)


def test_a_strip_shows_input_and_prediction_and_errors_only_where_there_is_truth(weights, tmp_path):
    frames, path = random_clip(), weights()
    predicted = pixels(expected(frames[..., None], 4))
    heights = []
    for number, given in enumerate((FRAMES, CONTEXT)):
        source = write_gif(tmp_path / f"{number}.gif", frames[:given])
        assert predict(path, source, f"{number}.png", "--horizon", 4) == 0
        with Image.open(f"{number}.png") as strip:
            heights.append(strip.height)
            grey = np.asarray(strip.convert("L"))
            red, _, blue = np.asarray(strip.convert("RGB")).astype(int).transpose(2, 0, 1)
        found = [places(grey, enlarged(frame, 10)) for frame in (*frames[:given, ..., None], *predicted)]
        assert all(len(place) == 1 for place in found)
        columns = [place[0][0] for place in found]
        assert columns[:given] == sorted(columns[:given])
        assert columns[given:][: given - CONTEXT] == columns[CONTEXT:given]  # prediction below the truth of its time
        assert ((blue > red + 60).sum() > 1000) == (given > CONTEXT)
    assert heights[0] > heights[1]


@pytest.mark.parametrize("encoder", prediction_video.ENCODERS)
@pytest.mark.parametrize("given", [FRAMES, CONTEXT])
def test_a_video_plays_what_the_animation_plays_five_frames_a_second(weights, tmp_path, monkeypatch, encoder, given):
    monkeypatch.setattr(prediction_video, "ENCODERS", {encoder: prediction_video.ENCODERS[encoder]})
    frames, horizon = random_clip(height=8, width=SIDE), 4
    np.save(tmp_path / "clip.npy", frames[:given])
    path = weights()
    assert predict(path, tmp_path / "clip.npy", "y.mp4", "--horizon", horizon, "--layout", "THW") == 0
    given_frames = torch.from_numpy(frames[None, :CONTEXT, None] / np.float32(255))
    with torch.no_grad():
        predicted = pixels(build(SPEC, 1).predict(given_frames, horizon).clamp(0, 1).movedim(2, -1).numpy())
    examples = {"clip": np.array([1]), "context": frames[None, :CONTEXT, :, :, None], "prediction": predicted}
    examples["truth"] = frames[None, CONTEXT:given, :, :, None]
    with av.open("y.mp4") as video:
        stream = video.streams.video[0]
        assert stream.average_rate == 5
        shown = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
    assert len(shown) == CONTEXT + horizon
    for t, picture in enumerate(shown, start=1):
        height, width = np.asarray(animation_frame(examples, t)).shape[:2]
        assert picture.shape[:2] == (height + height % 2, width + width % 2)
        difference = picture[:height, :width].astype(int) - np.asarray(animation_frame(examples, t))
        assert np.abs(difference).mean() < 4, t
        assert (picture[height:] > 240).all()
        assert (picture[:, width:] > 240).all()
    assert len(read_video(Path("y.mp4"), CONTEXT + horizon)) == CONTEXT + horizon


def test_a_picture_of_odd_sides_becomes_a_video_of_even_ones(tmp_path, monkeypatch):
    odd = Image.fromarray(random_clip(1, 31, 45, (3,))[0])
    monkeypatch.setattr(prediction_video, "animation_frame", lambda examples, t: odd)
    examples = {name: np.zeros((1, 2, 4, 4, 1), np.uint8) for name in ("context", "prediction")}
    prediction_video.write_video(examples, tmp_path / "y.mp4")
    with av.open(str(tmp_path / "y.mp4")) as video:
        assert [(frame.height, frame.width) for frame in video.decode(video=0)] == [(32, 46)] * 4


def test_without_an_encoder_a_video_is_refused_with_what_to_write_instead(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prediction_video, "ENCODERS", {"nothing": {}})
    assert predict(weights(), write_gif(tmp_path / "clip.gif", random_clip()), "y.mp4") == 2
    assert "y.mp4: PyAV has no encoder of nothing here; write .gif instead" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


MASK = random_clip() > 127
WHITE = {
    "bool": (MASK, ("--white", 1), MASK),
    "uint8 mask": (MASK.astype(np.uint8), ("--white", 1), MASK),
    "float mask": (MASK.astype(np.float32), (), MASK),
    "almost black": (MASK.astype(np.uint8), ("--white", 255), MASK / 255),
    "floats to 255": (random_clip().astype(np.float64), ("--white", 255), random_clip() / 255),
    "floats to 1": (random_clip() / 255, ("--white", 1), random_clip() / 255),
    "bytes": (random_clip(), ("--white", 255), random_clip() / 255),
}


@pytest.mark.parametrize("case", WHITE)
@pytest.mark.parametrize("form", ["array", "archive", "folder"])
def test_what_white_is_may_be_said(weights, tmp_path, case, form):
    values, options, truth = WHITE[case]
    source = {"array": tmp_path / "clip.npy", "archive": tmp_path / "clip.npz", "folder": tmp_path / "clips"}[form]
    if form == "folder":
        source.mkdir()
        np.save(source / "1.npy", values)
    else:
        (np.save if form == "array" else np.savez)(source, values)
    assert predict(weights(), source, "y.npy", "--layout", "THW", *options) == 0
    np.testing.assert_allclose(np.load("y.npy"), expected((255 * truth)[..., None]), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "options", "told"),
    [
        (
            MASK,
            (),
            "floats (0 to 1); `predict` and `evaluate` read bool with --white 1",
        ),
        (MASK.astype(np.uint8), (), "all uint8 values are 0 or 1; add --white 1 where 1 is white (a mask), or --white"),
        (random_clip(), ("--white", 1), "has uint8 values up to 255, but --white 1 says 1 is white"),
        (random_clip().astype(float), (), "those from 0 to 255 are read with --white 255"),
        (random_clip().astype(float) * 2, ("--white", 255), "floats must lie in [0, 1]"),
    ],
)
def test_values_whose_white_is_not_known_are_refused_with_the_flag_that_says_it(
    weights, tmp_path, capsys, values, options, told
):
    np.save(tmp_path / "clip.npy", values)
    assert predict(weights(), tmp_path / "clip.npy", "y.npy", "--layout", "THW", *options) == 2
    assert told in capsys.readouterr().err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "$(touch owned)", "it's", "50%d", "-y", "a:b", "semi;touch owned"])
def test_the_command_that_a_message_suggests_runs_as_it_is_whatever_the_path(tmp_path, name):
    Path(f"{name}.gif").touch()
    command = how_to_fit(Path(f"{name}.gif"), SPEC).partition("do it yourself: ")[2]
    (tmp_path / "ffmpeg").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {shlex.quote(str(tmp_path / "told"))}\n')
    (tmp_path / "ffmpeg").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", command], env=environment, check=True)
    assert sorted(path.name for path in Path().iterdir()) == sorted([name, f"{name}.gif"])
    here = Path().absolute()
    images = f"{here}/{name}".replace("%", "%%") + "/%04d.png"
    told = (tmp_path / "told").read_text().splitlines()
    assert told == ["-i", f"{here}/{name}.gif", "-vf", "scale=12:12,format=gray", images]


def test_of_many_clips_a_strip_shows_the_first_and_says_so(weights, tmp_path, capsys):
    clips = np.stack([random_clip(seed=seed)[:, None] for seed in range(9)])
    np.save(tmp_path / "clips.npy", clips)
    assert predict(weights(), tmp_path / "clips.npy", "y.png") == 0
    assert capsys.readouterr().out.endswith("y.png: the first 8 of 9 clips.\n")


def test_fit_takes_the_middle_square_in_grey_at_the_size_of_the_weights(weights, tmp_path):
    frames = np.zeros((FRAMES, 24, 60, 3), np.uint8)
    frames[:, :, 18:42] = [[[255, 0, 0]]]
    frames[:, :, :18] = random_clip(width=18, height=24)[..., None]  # cut off; writers of GIF merge equal frames
    assert predict(weights(), write_gif(tmp_path / "wide.gif", frames), "y.npy", "--fit", "--horizon", 2) == 0
    red = np.full((FRAMES, SIDE, SIDE, 1), 0.299 * 255, np.float32)
    np.testing.assert_allclose(np.load("y.npy"), expected(red), atol=0.005)  # the palette of a GIF rounds


def test_fit_keeps_grey_levels_and_averages_what_it_shrinks():
    blocks = np.random.default_rng(1).random((1, 2, 1, 4, 4), np.float32)
    np.testing.assert_allclose(fit_frames(blocks, 3, 4), blocks.repeat(3, axis=2), atol=1e-6)
    large = np.full((1, 1, 1, 16, 16), 51, np.uint8)
    large[..., ::2] = 153
    np.testing.assert_allclose(fit_frames(large, 1, 4)[..., 1:3], 0.4, atol=0.02)


def test_fit_gives_colour_the_greys_that_data_are_made_of():
    colour = np.random.default_rng(2).integers(0, 256, (2, 3, 3, 8, 8), np.uint8)
    expected = np.stack([to_grey(clip) for clip in colour])[:, :, None] / np.float32(255)
    np.testing.assert_array_equal(fit_frames(colour, 1, 8), expected)


MISTAKES = {
    "colour": (("colour.gif",), ["have 3 channel(s), the network takes 1", "12x12 pixels, grey", "--fit", "ffmpeg -i"]),
    "size": (("odd.gif",), ["10x14 pixels, which patches of 4 do not divide", "--fit", "ffmpeg -i", "scale=12:12"]),
    "short": (("clip.gif", "--context", 6), ["has 5 frames, but 6 are to be given", "--context"]),
    "short array": (("clip.npy", "--context", 6), ["THW", "needed are 6"]),
    "layout of an animation": (("clip.gif", "--layout", "THW"), ["--layout THW", "leave --layout out"]),
    "torn": (("torn.gif",), ["cannot be read as a video"]),
    "range": (("range.npy", "--layout", "THW"), ["values from", "must lie in [0, 1]"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_clips_that_do_not_fit_are_refused_with_a_line_and_the_output_of_before_stays(weights, tmp_path, capsys, case):
    frames, (words, told) = random_clip(), MISTAKES[case]
    write_gif(tmp_path / "clip.gif", frames)
    write_gif(tmp_path / "colour.gif", random_clip(channels=(3,)))
    write_gif(tmp_path / "odd.gif", random_clip(height=10, width=14))
    (tmp_path / "torn.gif").write_bytes((tmp_path / "clip.gif").read_bytes()[:90])
    np.save(tmp_path / "clip.npy", frames)
    np.save(tmp_path / "range.npy", frames.astype(np.float32))
    Path("y.npy").write_bytes(b"of before")
    assert predict(weights(), tmp_path / words[0], "y.npy", *words[1:]) == 2
    said = capsys.readouterr().err
    assert [part for part in told if part not in said] == []
    assert said.count("\n") == 1
    assert [(path.name, path.read_bytes()) for path in Path().iterdir()] == [("y.npy", b"of before")]


def test_weights_that_know_no_context_and_values_that_are_not_finite_are_said(weights, tmp_path, capsys):
    source = write_gif(tmp_path / "clip.gif", random_clip())
    assert predict(weights(context=None), source, "y.gif") == 2
    assert "say how many with --context" in capsys.readouterr().err
    for value in ("nan", "inf"):
        network = build(SPEC, 1)
        with torch.no_grad():
            network.to_frame.weight.fill_(float(value))
        save_weights(tmp_path / "wild.safetensors", network, context=CONTEXT)
        assert predict(tmp_path / "wild.safetensors", source, "y.gif") == 2
        assert "not finite, first in clip 1, 1 frames after the context" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("weights_name", "source", "output", "told"),
    [
        (
            "w",
            "clip.gif",
            "y.txt",
            ["y.txt says not what to write", ".npy (values), .gif (an animation), .mp4 (a video)"],
        ),
        ("missing", "clip.gif", "y.npy", ["--weights: ", "missing: no such file"]),
        ("w", "missing.gif", "y.npy", ["--input: ", "missing.gif: no such file"]),
        ("w", "clip.txt", "y.npy", ["clip.txt is no .gif, .npy, .npz, .avi, .mp4", "and no folder"]),
        ("w", "clip.gif", "clip.gif", ["would lie in what is read"]),
        ("w", "frames", "frames/y.png", ["would lie in what is read"]),
        ("w", "clip.gif", "no/folder.gif", ["no/folder.gif", "cannot be written"]),
    ],
)
def test_paths_that_cannot_be_are_refused_without_torch(weights_name, source, output, told):
    Path("frames").mkdir()
    for name in ("w", "clip.gif", "clip.txt"):
        Path(name).touch()
    before = sorted(Path().rglob("*"))
    program = (
        "import atexit, runpy, sys; atexit.register(lambda: print('torch' in sys.modules));"
        "runpy.run_module('benchmark', run_name='__main__')"
    )
    words = ["predict", "--weights", weights_name, "--input", source, "--output", output]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program, *words], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert [part for part in told if part not in done.stderr] == []
    assert done.stderr.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
