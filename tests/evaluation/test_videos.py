"""Runs on videos: one stream for all variants, exact resume, and videos all the way to tables and MLflow."""

import contextlib
import json

import pytest

from benchmark.data.kinds import kind_of
from benchmark.data.videos.windows import WindowStream
from benchmark.evaluation import lpips_backbone as backbone
from benchmark.evaluation.evaluate import evaluate
from benchmark.evaluation.gradient_probe import probe
from benchmark.reporting.record import make_record
from benchmark.reporting.tracking.run_snapshot import read_snapshot
from benchmark.system.errors import UserError
from benchmark.system.files import read_json
from benchmark.system.parquet import read_parquet
from benchmark.training.cohort import train_cohort
from benchmark.training.train import train
from tests.data.videos.test_windows import spoil
from tests.helpers.made_films import moving_square


@pytest.fixture
def videos(make_videos, tmp_path, monkeypatch):
    """Prepare ten clips of 14 frames for the tiny protocol, changed by keywords; returns it and a results folder."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/no/mlflow.db")

    def made(folder="results", **changes):
        changes = {"train_horizon": 1, "test_clips": 2} | changes
        protocol, data_dir = make_videos({f"{n}.npy": moving_square(14, 16, 16, n) for n in range(10)}, **changes)
        kind_of(protocol.data).prepare(protocol, data_dir, tmp_path / folder / "tiny" / "data")
        backbone.prepare("squeeze", None, tmp_path / folder / "tiny" / "lpips_backbone.json", False)
        return protocol, tmp_path / folder

    return made


@contextlib.contextmanager
def watched(monkeypatch, stop=None):
    """The batches that are made; Ctrl-C while that of step `stop` (from 0) is."""
    made, batch = [], WindowStream.batch

    def watching(stream, step, size):
        if step == stop:
            raise KeyboardInterrupt
        frames = batch(stream, step, size)
        made.append((step, frames.numpy().tobytes(), tuple(frames.shape)))
        return frames

    with monkeypatch.context() as patch:
        patch.setattr(WindowStream, "batch", watching)
        with contextlib.nullcontext() if stop is None else pytest.raises(KeyboardInterrupt):
            yield made


def outcome(run, results):
    folder = run.path(results)
    return (folder / "model.safetensors").read_bytes(), (folder / "metrics.jsonl").read_text()


def test_variants_of_a_seed_see_the_same_clips_in_the_same_order_alone_and_side_by_side(videos, monkeypatch):
    protocol, results = videos()
    with watched(monkeypatch) as alone:
        for variant, seed in (("convlstm", 1), ("predrnnpp", 1), ("convlstm", 2)):
            train(protocol.run(variant, seed), results, "cpu")
    first, same, other = alone[:8], alone[8:16], alone[16:]
    assert first == same
    assert {shape for _, _, shape in first} == {(2, 4, 1, 12, 12)}  # three given, one predicted in training
    assert {clips for _, clips, _ in first}.isdisjoint(clips for _, clips, _ in other)
    _, beside = videos(folder="beside")
    with watched(monkeypatch) as together:
        train_cohort([protocol.run(variant, 1) for variant in ("convlstm", "predrnnpp")], beside, "cpu")
    assert together == first
    for variant in ("convlstm", "predrnnpp"):
        assert outcome(protocol.run(variant, 1), results) == outcome(protocol.run(variant, 1), beside)


def test_resume_on_videos_is_bit_identical(videos, monkeypatch):
    protocol, results = videos()
    run = protocol.run("predrnnpp", 1)
    train(run, results, "cpu")
    _, broken = videos(folder="broken")
    with watched(monkeypatch, stop=5):
        train(run, broken, "cpu")
    assert read_json(run.path(broken) / "status.json")["step"] == 3
    with watched(monkeypatch) as made:
        train(run, broken, "cpu", resume_only=True)
    assert [step for step, _, _ in made] == [3, 4, 5, 6, 7]
    assert outcome(run, broken) == outcome(run, results)


def test_training_refuses_frames_that_are_not_those_of_its_record(videos):
    protocol, results = videos()
    run = protocol.run("convlstm", 1)
    spoil(results / "tiny" / "data" / "frames.npy", -1 - 28 * 144)
    with pytest.raises(UserError, match=r"its frames are not those of data.json"):
        train(run, results, "cpu")
    assert not run.path(results).joinpath("run.yaml").exists()


def test_run_on_videos_is_scored_probed_recorded_and_mirrored_as_one_on_digits(videos):
    protocol, results = videos(evaluation={"beyond": 4})
    run = protocol.run("predrnnpp", 1)
    train(run, results, "cpu")
    evaluate(protocol, run.variant, run.seed, results, results, "cpu")
    probe(run, results, "cpu")
    record = make_record(protocol, run.variant, run.seed, results)
    frames, beyond = (read_parquet(run.path(results) / name) for name in ("frames.parquet", "beyond.parquet"))
    assert (len(frames), len(beyond)) == (2 * 2, 2 * 4)
    assert frames["mse"].tolist() == pytest.approx(beyond.loc[beyond["frame"] <= 2, "mse"].tolist(), rel=1e-5)
    about = record["provenance"]["data"]["about"]
    assert "8 train, 1 validation, 1 test (files of T,H,W), split by a fixed seed" in about
    assert "88 of 4 frames (every) for train" in about
    assert str(results.parent) not in json.dumps(record)
    snapshot = read_snapshot(run.path(results))
    assert (snapshot.data["videos"], snapshot.params["data.train_horizon"]) == ("mine", "1")


def test_longer_roll_out_than_was_prepared_is_refused(videos):
    protocol, results = videos()
    longer = protocol.model_copy(update={"evaluation": protocol.evaluation.model_copy(update={"beyond": 9})})
    with pytest.raises(
        UserError, match="the test clips were prepared with 5 frames, not 12; run the command `data` again"
    ):
        evaluate(longer, "black", 0, results, results, "cpu")


def test_data_of_the_other_kind_is_refused(videos, prepared_data, make_protocol):
    protocol, results = videos()
    with pytest.raises(UserError, match="made of digits, not of videos"):
        kind_of(protocol.data).open(prepared_data)
    with pytest.raises(UserError, match="digits"):
        kind_of(make_protocol().data).open(results / "tiny" / "data")


def test_fixed_training_clips_are_a_part_of_all_windows(videos):
    protocol, results = videos(train_clips=10)
    source = kind_of(protocol.data).open(results / "tiny" / "data")
    numbers = source.train_stream(1, "cpu").clip_numbers(0, 10)
    assert sorted(numbers.tolist()) == [*range(10)]
    assert "10 of 88 of 4 frames (every) for train" in read_json(results / "tiny" / "data" / "data.json")["about"]
