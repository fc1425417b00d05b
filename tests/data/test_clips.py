"""Fixed clips: the same for everyone, of digits of their own split, with a hash that sees everything."""

import numpy as np
import pytest
import torch

from benchmark.data.clips import clips_hash, load_clips
from benchmark.data.moving_digits.clips import DigitClips
from benchmark.data.moving_digits.prepare import prepare
from benchmark.data.still_digits.bank import DigitBank
from benchmark.system.errors import UserError

VALIDATION = "9a072ae9f07ed778f334d66bde28d6b280a8941c2b6dafb04053ebba8553e602"
TEST = "3d4784c8b0585a1340469c8c9f4bd60795c7724b36c150b4273ece24b6222625"


@pytest.fixture
def flat_bank():
    """Flat digits whose grey level says their split: below 100 train, below 200 validation, else test."""
    levels = np.arange(0, 250, dtype=np.uint8) + 1
    flat = np.broadcast_to(levels[:, None, None], (250, 8, 8)).copy()
    return DigitBank("optdigits", flat[:99], flat[99:199], flat[199:])


def test_clips_are_made_of_digits_of_their_split(flat_bank, data_config):
    data = data_config(validation_clips=70, test_clips=130)
    validation, test = (DigitClips(flat_bank, data).fixed_clips(split) for split in ("validation", "test"))
    assert validation.shape == (70, 5, 1, 16, 16)
    assert test.shape == (130, 5, 1, 16, 16)
    assert ((validation == 0) | ((validation >= 100) & (validation < 200))).all()
    assert ((test == 0) | (test >= 200)).all()


def test_more_clips_begin_with_the_same_ones(flat_bank, data_config):
    few, many = (DigitClips(flat_bank, data_config(test_clips=count)).fixed_clips("test") for count in (5, 150))
    assert torch.equal(few, many[:5])


def test_validation_and_test_move_differently(flat_bank, data_config):
    same = DigitBank("optdigits", flat_bank.train, flat_bank.test, flat_bank.test)
    clips = DigitClips(same, data_config(validation_clips=5, test_clips=5))
    assert not torch.equal(clips.fixed_clips("validation"), clips.fixed_clips("test"))


def test_hash_sees_pixels_shape_and_order():
    clips = torch.arange(24, dtype=torch.uint8).view(2, 3, 1, 2, 2)
    changed = clips.clone()
    changed[1, 2, 0, 1, 1] += 1
    variants = [clips, changed, clips.flip(0), clips.reshape(3, 2, 1, 2, 2), clips[:1]]
    assert len({clips_hash(variant) for variant in variants}) == 5
    assert clips_hash(clips.flip(0).flip(0)) == clips_hash(clips)


def test_fixed_clips_of_optdigits_are_pinned(tmp_path, data_config):
    record = prepare(data_config(), tmp_path, tmp_path / "data")
    assert record["validation_sha256"] == VALIDATION
    assert record["test_sha256"] == TEST
    for split in ("validation", "test"):
        assert clips_hash(load_clips(tmp_path / "data", data_config(), split)) == record[f"{split}_sha256"]


@pytest.mark.parametrize("change", [{"horizon": 4}, {"frame_size": 17}, {"num_digits": 3}, {"test_clips": 6}])
def test_a_folder_prepared_for_other_clips_is_refused(tmp_path, data_config, change):
    prepare(data_config(), tmp_path, tmp_path / "data")
    with pytest.raises(UserError, match=r"data.json: made for other test clips; run the command `data` again"):
        load_clips(tmp_path / "data", data_config(**change), "test")
