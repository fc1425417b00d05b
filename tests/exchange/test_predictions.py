"""Predictions of other code are a row: handed out, checked, scored, compared, and marked as not trained here."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmark.__main__ import main
from benchmark.config.protocol import load_protocol
from benchmark.config.variants import NO_SEED
from benchmark.data.clips import clips_hash, load_clips
from benchmark.data.predictions import open_predictions
from benchmark.evaluation.evaluate import evaluate
from benchmark.evaluation.lpips_backbone import prepare
from benchmark.reporting.record import make_record
from benchmark.reporting.terminal.status import overview
from benchmark.system.checksums import sha256_of
from benchmark.system.errors import UserError
from benchmark.system.parquet import read_parquet
from tests.helpers.recorded import read_runs, write_figures, write_tables

SHAPE = (5, 2, 12, 12)
"""Of what is to be handed back for the tiny protocol."""


@pytest.fixture
def their_file(tmp_path):
    """Where their predictions are to lie."""
    return tmp_path / "theirs.npy"


@pytest.fixture
def with_theirs(write_protocol, their_file):
    """The tiny protocol with a row of predictions, at `their_file` unless another path is named."""

    def make(path=None, seeds=(1, 2, 3), **changes):
        entry = {"id": "theirs", "predictions": str(path or their_file), "label": "Their model"}
        entry |= {"reference": "convlstm"} | changes
        return load_protocol(str(write_protocol(variants=["convlstm", "predrnn", entry], seeds=list(seeds))))

    return make


def last_frames(results, protocol):
    """Their predictions in uint8 (N, T, H, W): the last frame that is given, again and again."""
    clips = load_clips(results / "tiny" / "data", protocol.data, "test")
    return clips[:, 2:3, 0].expand(SHAPE).numpy()


def told(error):
    """What a person reads, of at most two lines."""
    assert str(error).count("\n") < 2
    return str(error)


def test_the_clips_are_handed_out_with_their_hash_and_without_what_follows(write_protocol, results, tmp_path, capsys):
    path, output = write_protocol(), tmp_path / "test_clips.npz"
    options = ["--protocol", str(path), "--results-dir", str(results), "--output", str(output)]
    assert main(["clips", *options]) == 0
    clips = load_clips(results / "tiny" / "data", load_protocol(str(path)).data, "test")
    with np.load(output) as stored:
        assert set(stored) == {"context", "horizon", "test_sha256"}
        assert np.array_equal(stored["context"], clips[:, :3, 0].numpy())
        assert (stored["horizon"], str(stored["test_sha256"])) == (2, clips_hash(clips))
    said = capsys.readouterr().out.strip().splitlines()
    assert len(said) == 2
    assert said[0].startswith(f"{output}: context (5, 3, 12, 12) of the test clips of protocol tiny, uint8 with 255")
    assert said[1].startswith("hand back (5, 2, 12, 12): clips, predicted frames, height, width, in this order, uint8")
    assert main(["clips", *options[:-1], str(tmp_path / "clips.npy")]) == 2
    assert "must end with .npz" in capsys.readouterr().err


def save_npy(folder, frames, digest):
    np.save(folder / "one.npy", frames)
    return folder / "one.npy"


def save_with_channel(folder, frames, digest):
    np.save(folder / "one.npy", frames[:, :, None])
    return folder / "one.npy"


def save_floats(folder, frames, digest):
    np.save(folder / "one.npy", frames / np.float64(255))
    return folder / "one.npy"


def save_npz(folder, frames, digest):
    np.savez(folder / "one.npz", predictions=frames, test_sha256=digest, horizon=2)
    return folder / "one.npz"


def save_npz_without_hash(folder, frames, digest):
    np.savez_compressed(folder / "one.npz", predictions=frames)
    return folder / "one.npz"


def save_folder_of_npy(folder, frames, digest):
    (folder / "clips").mkdir()
    for number, clip in enumerate(frames, start=8):  # 8, 9, 10: in natural order
        np.save(folder / "clips" / f"{number}.npy", clip)
    return folder / "clips"


def save_folder_of_png(folder, frames, digest):
    for number, clip in enumerate(frames):
        (folder / "clips" / f"{number}").mkdir(parents=True)
        for place, frame in enumerate(clip):
            Image.fromarray(frame).save(folder / "clips" / f"{number}" / f"{place}.png")
    return folder / "clips"


@pytest.mark.parametrize(
    "save",
    [
        save_npy,
        save_with_channel,
        save_floats,
        save_npz,
        save_npz_without_hash,
        save_folder_of_npy,
        save_folder_of_png,
    ],
)
def test_every_form_that_may_be_handed_back_is_read_as_the_same_frames(with_theirs, results, tmp_path, save):
    protocol = with_theirs()
    digest = clips_hash(load_clips(results / "tiny" / "data", protocol.data, "test"))
    frames = last_frames(results, protocol)
    found = open_predictions(save(tmp_path, frames, digest), SHAPE, digest).of(1, 3)
    assert found.shape == (3, 2, 1, 12, 12)
    assert np.allclose(found[:, :, 0].numpy(), frames[1:4] / 255, atol=1e-7)


def test_the_same_frames_score_as_the_baseline_that_makes_them(with_theirs, results, their_file, tmp_path):
    protocol = with_theirs()
    np.save(their_file, last_frames(results, protocol))
    prepare("squeeze", tmp_path, results / "tiny" / "lpips_backbone.json", False)
    for name in ("theirs", "last-frame"):
        evaluate(protocol, name, NO_SEED, results, tmp_path, "cpu")
    tables = [
        read_parquet(results / "tiny" / "runs" / name / "seed=0" / "frames.parquet").drop(columns="variant")
        for name in ("theirs", "last-frame")
    ]
    pd.testing.assert_frame_equal(*tables)
    found = make_record(protocol, "theirs", NO_SEED, results)
    assert found["predictions"]["sha256"] == sha256_of(their_file)
    assert found["predictions"]["file"] == "theirs.npy"
    assert found["film"]["prediction"] == make_record(protocol, "last-frame", NO_SEED, results)["film"]["prediction"]
    assert not {"provenance", "status", "probe", "norms", "config"} & found.keys()


@pytest.mark.parametrize(
    ("save", "said"),
    [
        (lambda folder, frames: folder / "none.npy", "none.npy: no such file; the command `clips` says"),
        (lambda folder, frames: save_npy(folder, frames[:4], ""), "has shape (4, 2, 12, 12); needed is (5, 2, 12, 12)"),
        (lambda folder, frames: save_npy(folder, frames[..., :11], ""), "has shape (5, 2, 12, 11); needed is"),
        (lambda folder, frames: save_npy(folder, frames.astype(int), ""), "holds int64; needed are uint8 with 255"),
        (lambda folder, frames: save_npy(folder, frames.astype(float), ""), "values from 0 to 255; 0 is black and 1"),
        (lambda folder, frames: save_npy(folder, frames // 255, ""), "all uint8 values are 0 or 1; 255 is white"),
        (lambda folder, frames: save_npy(folder, frames * np.nan, ""), "clip 1 has values that are not finite"),
        (lambda folder, frames: save_npz(folder, frames, "0" * 64), "predicts clips of test_sha256 000000000000, the"),
        (lambda folder, frames: save_folder_of_npy(folder, frames[:3], ""), "holds 3 entries, one for each of the 5"),
        (lambda folder, frames: save_folder_of_png(folder, frames[:, :1], ""), "has clips of"),
        (lambda folder, frames: save_folder_of_png(folder, frames[..., :9, :9], ""), "frames of 9x9 pixels"),
    ],
)
def test_a_wrong_file_is_refused_in_a_line(with_theirs, results, tmp_path, save, said):
    frames = last_frames(results, with_theirs())
    frames = np.where(frames > 0, np.uint8(255), np.uint8(0))
    with pytest.raises(UserError) as raised:
        open_predictions(save(tmp_path, frames), SHAPE, "f" * 64)
    assert said in told(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("theirs.txt", b"1", "is no .npy, no .npz and no folder"),
        ("theirs.npy", b"not an array", "theirs.npy: cannot be read"),
        ("theirs.npz", b"not an archive", "theirs.npz: cannot be read as an npz"),
    ],
)
def test_a_damaged_file_is_refused_in_a_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as raised:
        open_predictions(tmp_path / name, SHAPE, "f" * 64)
    assert said in told(raised.value)


def test_an_npz_without_predictions_is_refused_by_what_it_holds(tmp_path):
    np.savez(tmp_path / "x.npz", frames=np.zeros(SHAPE, np.uint8))
    with pytest.raises(UserError, match=r"holds frames; name the array of predicted frames predictions"):
        open_predictions(tmp_path / "x.npz", SHAPE, "f" * 64)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "convlstm"}, "variants: convlstm: predictions: another row has this id"),
        ({"id": "black"}, "variants: black: predictions: another row has this id"),
        ({"reference": "predrnnpp"}, "variants: theirs: reference: unknown row of this protocol 'predrnnpp'"),
        ({"reference": "theirs"}, "variants: theirs: reference: unknown row of this protocol 'theirs'"),
        ({"training": {"steps": 1}}, "training: unknown key 'training'"),
        ({"predictions": ""}, "predictions"),
    ],
)
def test_a_wrong_entry_is_refused_in_a_line(with_theirs, changes, said):
    with pytest.raises(UserError) as raised:
        with_theirs(**changes)
    assert said in told(raised.value)


@pytest.mark.parametrize("section", [{"evaluation": {"beyond": 5}}, {"data": {"gaps": [0, 1]}}], ids=["beyond", "gaps"])
def test_what_asks_a_model_for_more_does_not_go_with_predictions(write_protocol, section):
    entry = {"id": "theirs", "predictions": "theirs.npy"}
    with pytest.raises(UserError) as raised:
        load_protocol(str(write_protocol(variants=["convlstm", entry], **section)))
    assert "variants: theirs: predictions: does not go with" in told(raised.value)


def test_it_changes_no_run_and_is_no_run(with_theirs, make_protocol):
    without = make_protocol(variants=["convlstm", "predrnn"], seeds=[1, 2, 3])
    protocol = with_theirs()
    assert [run.identity("evaluation", "probe") for run in protocol.runs()] == [
        run.identity("evaluation", "probe") for run in without.runs()
    ]
    assert protocol.comparisons() == without.comparisons()
    assert protocol.comparisons_of_scores() == [*without.comparisons(), ("theirs", "convlstm")]
    assert list(protocol.rows_not_trained()) == ["theirs", *without.rows_not_trained()]


@pytest.fixture
def written(with_theirs, write_finished, their_file):
    """The protocol and a results folder with made-up scores of all rows."""
    np.save(their_file, np.zeros(SHAPE, np.uint8))
    protocol = with_theirs()
    return protocol, write_finished(protocol)


def test_tables_mark_it_and_compare_it_with_every_seed_of_its_reference(written, their_file):
    protocol, results_dir = written
    write_tables(protocol, results_dir)
    folder = results_dir / "tiny" / "tables"
    main_csv = pd.read_csv(folder / "main.csv").set_index("variant")
    assert list(main_csv.index) == ["convlstm", "predrnn", "theirs", "last-frame", "context-mean", "black"]
    assert main_csv.loc["theirs", ["parameters", "macs", "clips_seen"]].isna().all()
    assert main_csv.loc["black", "parameters"] == 0
    text = (folder / "main.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| Their model")]
    assert "not trained here" in row
    digest = sha256_of(their_file)[:12]
    for name in ("main", "per_frame", "conventions", "comparison"):
        noted = (folder / f"{name}.md").read_text()
        assert "Their model: not trained here; frames that other code predicted" in noted
        assert f"theirs.npy (SHA-256 {digest})" in noted

    compared = pd.read_csv(folder / "comparison.csv")
    found = compared[(compared["variant"] == "theirs") & (compared["metric"] == "mse")].squeeze()
    runs = {(run.variant, run.seed): run.scores["mse"] for run in read_runs(protocol, results_dir)}
    differences = [runs["theirs", 0] - runs["convlstm", seed] for seed in (1, 2, 3)]
    assert (found["reference"], found["n"], found["primary"]) == ("convlstm", 3, False)
    assert found["difference"] == pytest.approx(np.mean(differences), rel=1e-9)
    assert found["sd"] == pytest.approx(np.std(differences, ddof=1), rel=1e-9)
    assert np.isfinite([found["clips_low"], found["clips_high"]]).all()
    assert "the interval is of its seeds alone" in (folder / "comparison.md").read_text()


def test_figures_show_it(written):
    protocol, results_dir = written
    write_figures(protocol, results_dir)
    assert (results_dir / "tiny" / "figures" / "differences.png").exists()
    assert (results_dir / "tiny" / "figures" / "scores.png").exists()


def test_a_file_that_has_changed_makes_its_row_stale(written, their_file):
    protocol, results_dir = written
    read_runs(protocol, results_dir)
    said, _ = overview(protocol, results_dir)
    assert "theirs    #  not trained here" in said
    np.save(their_file, np.ones(SHAPE, np.uint8))
    with pytest.raises(UserError, match=r"theirs: .*theirs.npy has changed since it was scored; run the workflow"):
        read_runs(protocol, results_dir)
    said, over = overview(protocol, results_dir)
    assert f"theirs    ~  not trained here, {their_file} has changed" in said
    assert not over
    their_file.unlink()  # what was scored stays scored
    assert read_runs(protocol, results_dir)


def test_the_seed_of_a_row_without_one_is_named(with_theirs, results, tmp_path, capsys):
    with_theirs()
    place = ["--protocol", str(tmp_path / "tiny.yaml"), "--results-dir", str(results)]
    assert main(["record", *place, "--variant", "theirs", "--seed", "3"]) == 2
    assert "--seed: unknown seed 3" in capsys.readouterr().err
    assert main(["evaluate", *place, "--variant", "theirs", "--seed", "0"]) == 2
    said = capsys.readouterr().err
    assert "error: protocol tiny: variants: theirs: predictions: " in said
    assert "theirs.npy: no such file; the command `clips` says what to hand back" in said
