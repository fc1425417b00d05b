"""Scores of runs and baselines: complete, independent of the batches, and the same bytes again."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageSequence

from benchmark.config.metrics import HEADLINE
from benchmark.config.variants import OF_ANY_CLIPS
from benchmark.data.clips import load_clips
from benchmark.data.moving_digits.clips import DigitClips
from benchmark.data.still_digits.bank import load_digits
from benchmark.data.tensors import to_float
from benchmark.evaluation import lpips_backbone as backbone
from benchmark.evaluation.evaluate import evaluate, score_clips
from benchmark.evaluation.forecasts import baseline
from benchmark.system.errors import UserError
from benchmark.training.train import train
from benchmark.training.weight_files import load_weights


@pytest.fixture
def clips():
    return (255 * torch.rand(5, 5, 1, 12, 12, generator=torch.Generator().manual_seed(1))).byte()


@pytest.fixture
def evaluated(make_protocol, results):
    """Train and evaluate `predrnnpp`; returns protocol, results and the run's folder."""
    protocol = make_protocol()
    backbone.prepare("squeeze", None, results / "tiny" / "lpips_backbone.json", False)
    train(protocol.run("predrnnpp", 1), results, "cpu")
    evaluate(protocol, "predrnnpp", 1, results, Path("none"), "cpu")
    return protocol, results, protocol.run("predrnnpp", 1).path(results)


@pytest.mark.parametrize("name", OF_ANY_CLIPS)
def test_baseline_is_what_its_name_says(name):
    context = torch.rand(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = {"last-frame": context[:, 2], "context-mean": context.sum(dim=1) / 3, "black": 0 * context[:, 0]}
    predicted = baseline(name, 2)(context)
    assert predicted.shape == (2, 2, 1, 4, 4)
    for frame in range(2):
        torch.testing.assert_close(predicted[:, frame], expected[name])


def test_scores_stand_at_their_clip_and_frame(make_protocol, clips):
    table, _ = score_clips(baseline("black", 2), clips, make_protocol(), None, "cpu")
    assert list(zip(table["clip"], table["frame"], strict=True)) == [(c, f) for c in range(1, 6) for f in (1, 2)]
    squared = (clips[:, 3:].double() / 255).square().sum(dim=(2, 3, 4))
    np.testing.assert_allclose(table["mse"], squared.flatten(), rtol=1e-6)


def test_scores_do_not_depend_on_the_batches(make_protocol, clips):
    found = [
        score_clips(baseline("context-mean", 2), clips, make_protocol(evaluation={"batch_size": size}), None, "cpu")
        for size in (1, 2, 5, 50)
    ]
    for table, examples in found[1:]:
        pd.testing.assert_frame_equal(table, found[0][0], rtol=1e-12)
        assert all((values == found[0][1][name]).all() for name, values in examples.items())


def test_examples_are_the_film_clips_of_the_protocol(make_protocol, clips):
    protocol = make_protocol(evaluation={"film_clips": [2, 5], "batch_size": 2})
    _, examples = score_clips(baseline("last-frame", 2), clips, protocol, None, "cpu")
    shown = clips[[1, 4]].movedim(2, -1).numpy()
    assert examples["clip"].tolist() == [2, 5]
    assert (examples["context"] == shown[:, :3]).all()
    assert (examples["truth"] == shown[:, 3:]).all()
    assert (examples["prediction"] == shown[:, [2, 2]]).all()


def test_verb_scores_the_trained_network_on_the_test_clips(evaluated):
    protocol, results, folder = evaluated
    frames = pd.read_parquet(folder / "frames.parquet")
    assert list(frames.columns[:4]) == ["variant", "seed", "clip", "frame"]
    assert set(frames["variant"]) == {"predrnnpp"}
    clips = load_clips(results / "tiny" / "data", protocol.data, "test").double() / 255
    with torch.no_grad():
        predicted = load_weights(folder / "model.safetensors").predict(clips[:, :3].float(), 2).clamp(0, 1)
    squared = (predicted.double() - clips[:, 3:]).square().sum(dim=(2, 3, 4))
    np.testing.assert_allclose(frames["mse"], squared.flatten(), rtol=1e-5)
    with Image.open(folder / "film.gif") as film:
        assert sum(1 for _ in ImageSequence.Iterator(film)) == 5


def test_scores_are_the_same_bytes_again(evaluated):
    protocol, results, folder = evaluated
    files = {name: (folder / name).read_bytes() for name in ("frames.parquet", "examples.npz", "film.png", "film.gif")}
    evaluate(protocol, "predrnnpp", 1, results, Path("none"), "cpu")
    assert [name for name, content in files.items() if (folder / name).read_bytes() != content] == []


def test_weights_of_another_configuration_are_not_scored(evaluated, make_protocol):
    _, results, folder = evaluated
    scored = (folder / "frames.parquet").read_bytes()
    with pytest.raises(UserError, match="weights of another configuration of this run"):
        evaluate(make_protocol(training={"steps": 9}), "predrnnpp", 1, results, Path("none"), "cpu")
    assert (folder / "frames.parquet").read_bytes() == scored


def evaluate_beyond(make_protocol, results, frames):
    """Train `predrnnpp` and evaluate it and a baseline `frames` long; returns the protocol and the two folders."""
    backbone.prepare("squeeze", None, results / "tiny" / "lpips_backbone.json", False)
    run = make_protocol().run("predrnnpp", 1)
    train(run, results, "cpu")
    protocol = make_protocol(evaluation={"beyond": frames})
    names = {"predrnnpp": 1, "context-mean": 0}
    for variant, seed in names.items():
        evaluate(protocol, variant, seed, results, Path("none"), "cpu")
    return protocol, [results / "tiny" / "runs" / variant / f"seed={seed}" for variant, seed in names.items()]


def test_longer_roll_out_of_the_same_weights_begins_as_the_scored_one(make_protocol, results):
    _, folders = evaluate_beyond(make_protocol, results, 7)
    for folder in folders:
        frames, beyond = (pd.read_parquet(folder / f"{name}.parquet") for name in ("frames", "beyond"))
        assert list(beyond.columns) == ["variant", "seed", "clip", "frame", *HEADLINE]
        assert list(zip(beyond["clip"], beyond["frame"], strict=True)) == list(product(range(1, 6), range(1, 8)))
        begun = beyond[beyond["frame"] <= 2].reset_index(drop=True)
        pd.testing.assert_frame_equal(begun, frames[list(beyond.columns)], check_exact=True)


def test_longer_roll_out_is_scored_on_the_test_clips_as_they_go_on(make_protocol, results):
    protocol, (folder, _) = evaluate_beyond(make_protocol, results, 4)
    data = protocol.data.model_copy(update={"horizon": 4})
    clips = DigitClips(load_digits(results / "tiny" / "data"), data).fixed_clips("test")
    assert torch.equal(clips[:, :5], load_clips(results / "tiny" / "data", protocol.data, "test"))
    with torch.no_grad():
        predicted = load_weights(folder / "model.safetensors").predict(to_float(clips[:, :3]), 4).clamp(0, 1)
    squared = (predicted.double() - to_float(clips[:, 3:]).double()).square().sum(dim=(2, 3, 4))
    np.testing.assert_allclose(pd.read_parquet(folder / "beyond.parquet")["mse"], squared.flatten(), rtol=1e-5)


def test_key_beyond_changes_neither_weights_nor_what_other_protocols_score(make_protocol, evaluated):
    _, _, folder = evaluated
    without, beyond = make_protocol().run("predrnnpp", 1), make_protocol(evaluation={"beyond": 3}).run("predrnnpp", 1)
    assert without.identity() == beyond.identity()
    assert without.identity("evaluation") != beyond.identity("evaluation")
    assert "beyond" not in without.to_dict()["evaluation"]
    assert not (folder / "beyond.parquet").exists()


def test_missing_record_of_the_backbone_is_named(make_protocol, results):
    with pytest.raises(UserError, match=r"lpips_backbone.json: is missing; run the command `backbone` first"):
        evaluate(make_protocol(), "black", 0, results, Path("none"), "cpu")
    assert not (results / "tiny" / "runs" / "black" / "seed=0" / "frames.parquet").exists()
