"""The prepared folder: complete, checked on reading, free of paths."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmark.data import prepared_folder as prepared
from benchmark.data.clips import load_clips
from benchmark.data.moving_digits import prepare as preparing
from benchmark.data.moving_digits.prepare import prepare
from benchmark.data.published_files import PUBLIC_TEST
from benchmark.data.still_digits.bank import load_bank, load_digits
from benchmark.system.errors import UserError
from benchmark.system.files import read_json, write_json


@pytest.fixture
def folder(tmp_path, data_config):
    """A prepared folder of `optdigits`."""
    prepare(data_config(), tmp_path / "none", tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def public_file(tmp_path, monkeypatch, published):
    """A small `mnist_test_seq.npy`, (20, 10, 64, 64), taken for the published one; its path and frames."""
    frames = np.random.default_rng(0).integers(0, 256, (20, 10, 64, 64), np.uint8)
    path = tmp_path / "published" / "MovingMNIST" / "mnist_test_seq.npy"
    path.parent.mkdir(parents=True)
    np.save(path, frames)
    original, _ = published(path.read_bytes(), like=PUBLIC_TEST)
    monkeypatch.setattr(preparing, "PUBLIC_TEST", original)
    return path, frames


def test_record_says_what_there_is_and_names_no_path(folder, tmp_path):
    text = (folder / "data.json").read_text()
    record = json.loads(text)
    assert record["source"] == "optdigits"
    assert record["split_sizes"] == {"train": 1257, "validation": 180, "test": 360}
    assert record["test_set"] == "generated"
    assert str(tmp_path) not in text
    assert sorted(path.name for path in folder.iterdir()) == ["data.json", "digits.npz"]


def test_loaded_bank_is_the_prepared_one(folder, tmp_path):
    bank = load_digits(folder)
    assert bank.sha256 == load_bank("optdigits", 8, tmp_path).sha256
    assert bank.source == "optdigits"


def test_preparing_again_gives_the_same_bytes(folder, tmp_path, data_config):
    prepare(data_config(), tmp_path, tmp_path / "again")
    for name in ("data.json", "digits.npz"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_data_hash_stands_for_clips_as_well_as_digits(tmp_path, data_config):
    hashes = {
        prepare(data_config(**keys), tmp_path, tmp_path / "data")["data_hash"]
        for keys in ({}, {"test_clips": 6}, {"num_digits": 3}, {"digit_size": 9})
    }
    assert len(hashes) == 4


@pytest.mark.parametrize("name", ["data.json", "digits.npz"])
def test_missing_file_says_to_run_data(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: cannot be read .*run the command `data`"):
        load_digits(folder)


@pytest.mark.parametrize("name", ["data.json", "digits.npz"])
@pytest.mark.parametrize("kept", [0, 100])
def test_truncated_file_says_to_run_data_again(folder, name, kept):
    path = folder / name
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=rf"{name}: cannot be read .*run the command `data`"):
        load_digits(folder)


def test_changed_digits_are_refused(folder):
    bank = load_digits(folder)
    changed = {name: digits ^ np.uint8(1) for name, digits in bank.splits.items()}
    np.savez_compressed(folder / "digits.npz", **changed)
    with pytest.raises(UserError, match=r"digits.npz: its digits are not those of data.json"):
        load_digits(folder)


def test_changed_record_is_refused(folder):
    record = read_json(folder / "data.json")
    write_json(folder / "data.json", record | {"test_set": prepared.PUBLIC})
    with pytest.raises(UserError, match=r"data.json: was changed after it was written"):
        load_digits(folder)


def test_missing_digits_leave_nothing_and_import_no_torch(tmp_path):
    code = """
import sys
from pathlib import Path
from benchmark.config.data_sections import DigitsConfig
from benchmark.data.moving_digits.prepare import prepare
from benchmark.system.errors import UserError
from benchmark.system.files import read_json, write_json
data = DigitsConfig(digits="mnist", digit_size=28, frame_size=64, validation_clips=1, test_clips=1)
try:
    prepare(data, Path(sys.argv[1]), Path(sys.argv[1]) / "data")
except UserError as error:
    print("torch" in sys.modules, error)
"""
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("False data_dir: ")
    assert list(tmp_path.iterdir()) == []


def test_public_test_clips_are_used_when_present(public_file, tmp_path, data_config):
    path, frames = public_file
    data = data_config(public_test=True, frame_size=64, test_clips=4)
    record = prepare(data, path.parents[1], tmp_path / "data")
    assert record["test_set"] == "public mnist_test_seq.npy"
    path.unlink()  # the prepared folder is all that later steps need
    clips = load_clips(tmp_path / "data", data, "test")
    assert np.array_equal(clips.numpy()[:, :, 0], frames.transpose(1, 0, 2, 3)[:4, :5])
    assert load_clips(tmp_path / "data", data, "validation").shape == (3, 5, 1, 64, 64)


def test_absent_public_test_file_is_said(tmp_path, data_config, capsys):
    data = data_config(public_test=True, frame_size=64)
    record = prepare(data, tmp_path, tmp_path / "data")
    assert record["test_set"] == "generated"
    assert "mnist_test_seq.npy not found; test clips are generated instead" in capsys.readouterr().err


def test_damaged_public_test_file_is_refused(public_file, tmp_path, data_config):
    path, _ = public_file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"mnist_test_seq.npy is damaged: MD5 \w{32}, expected \w{32}"):
        prepare(data_config(public_test=True, frame_size=64), path.parents[1], tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("keys", [{"horizon": 30}, {"test_clips": 20_000}])
def test_more_than_the_public_clips_hold_is_an_error(tmp_path, data_config, keys):
    with pytest.raises(UserError, match="has 10000 clips of 20 frames"):
        prepare(data_config(public_test=True, frame_size=64, **keys), tmp_path, tmp_path / "data")


def test_download_fetches_what_the_configuration_needs(tmp_path, monkeypatch, published, web, public_file, data_config):
    path, _ = public_file
    content = path.read_bytes()
    original, _ = published(content, like=PUBLIC_TEST, urls=(web.url("/seq.npy"),))
    monkeypatch.setattr(preparing, "PUBLIC_TEST", original)
    web.pages["/seq.npy"] = (200, content, len(content))
    data = data_config(public_test=True, frame_size=64, test_clips=4)
    assert prepare(data, tmp_path / "new", tmp_path / "one")["test_set"] == "generated"
    assert web.asked == []
    assert prepare(data, tmp_path / "new", tmp_path / "two", download=True)["test_set"] == prepared.PUBLIC
    assert web.asked == ["/seq.npy"]
