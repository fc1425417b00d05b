"""Digit banks: real and made files, splits, resizing, and what is said about damaged files."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from skimage.transform import resize_local_mean
from sklearn.datasets import load_digits as load_optdigits
from torchvision.datasets import MNIST, MovingMNIST

from benchmark.data.pixels import resize_area
from benchmark.data.published_files import MNIST_TEST, MNIST_TRAIN, PUBLIC_TEST
from benchmark.data.still_digits import bank as digits_module
from benchmark.data.still_digits.bank import DigitBank, load_bank, read_original
from benchmark.system.errors import UserError

SHARED = Path(__file__).parents[4] / "shared" / "data"
real_t10k = pytest.mark.skipif(
    MNIST_TEST.find(SHARED) is None, reason=f"needs {MNIST_TEST.name} in ../shared/data/mnist"
)


def numbered(count):
    """Blank 28x28 images whose first four pixels are their number."""
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 0, :4] = np.arange(count, dtype=">u4").view(np.uint8).reshape(count, 4)
    return images


def numbers_of(images):
    return images[:, 0, :4].copy().view(">u4").ravel()


def place(data_dir, name, content, folder="mnist"):
    path = data_dir / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_checksums_and_mirrors_are_those_of_torchvision():
    known = dict(MNIST.resources)
    for original in (MNIST_TRAIN, MNIST_TEST):
        assert original.md5 == known[original.name]
        assert original.urls == tuple(mirror + original.name for mirror in MNIST.mirrors)
    assert PUBLIC_TEST.urls == (MovingMNIST._URL,)
    assert PUBLIC_TEST.md5 in MovingMNIST.download.__code__.co_consts


@real_t10k
def test_real_t10k_file_is_read_and_split():
    bank = load_bank("mnist-t10k", 28, SHARED)
    assert [len(digits) for digits in bank.splits.values()] == [7000, 1000, 2000]
    everything = np.concatenate(list(bank.splits.values()))
    original = read_original(MNIST_TEST, SHARED)
    assert not np.array_equal(everything, original)
    assert np.array_equal(np.sort(everything.sum((1, 2), np.int64)), np.sort(original.sum((1, 2), np.int64)))
    assert bank.sha256 == "51a89da26baec460cdb7d89eadaa7b96700e2d7dd2b1367e43d1252a2859500e"


def test_optdigits_are_the_real_digits_scaled_to_bytes():
    bank = load_bank("optdigits", 8, Path("nowhere"))
    assert [len(digits) for digits in bank.splits.values()] == [1257, 180, 360]
    everything = np.concatenate(list(bank.splits.values()))
    assert everything.max() == 255
    original = np.rint(load_optdigits().images * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, everything)) == sorted(map(bytes, original))
    assert len({bytes(digit) for digit in everything}) == 1797  # so no digit is in two splits
    assert bank.sha256 == "33da76986762d6b2265f31c6e64ee73c1e207a0f50c09f6824730788b20eb585"


def test_mnist_splits_hold_the_train_file_and_the_test_file_apart(tmp_path, monkeypatch, idx_file, published):
    for name, count in (("MNIST_TRAIN", 60_000), ("MNIST_TEST", 10_000)):
        original, packed = published(idx_file(numbered(count)), like=getattr(digits_module, name))
        monkeypatch.setattr(digits_module, name, original)
        place(tmp_path, original.name, packed)
    bank = load_bank("mnist", 28, tmp_path)
    train, validation, test = map(numbers_of, bank.splits.values())
    assert (len(train), len(validation)) == (55_000, 5_000)
    assert sorted([*train, *validation]) == list(range(60_000))
    assert test.tolist() == list(range(10_000))
    assert np.corrcoef(train, np.arange(55_000))[0, 1] < 0.02
    assert 28_000 < validation.mean() < 32_000  # a tenth of all of them, not the last ones


@pytest.mark.parametrize(
    ("folder", "packed"), [("mnist", True), ("mnist", False), ("MNIST/raw", True), ("MNIST/raw", False)]
)
def test_files_are_found_packed_and_unpacked_in_both_layouts(tmp_path, idx_file, published, folder, packed):
    content = idx_file(numbered(3))
    original, zipped = published(content)
    place(tmp_path, original.name.removesuffix("" if packed else ".gz"), zipped if packed else content, folder)
    assert np.array_equal(read_original(original, tmp_path), numbered(3))


def test_a_file_zipped_anew_is_accepted(tmp_path, idx_file, published):
    content = idx_file(numbered(3))
    original, _ = published(content)
    place(tmp_path, original.name, gzip.compress(content, 9, mtime=1))
    assert len(read_original(original, tmp_path)) == 3


def test_missing_file_is_named_with_what_to_do(tmp_path):
    with pytest.raises(UserError) as caught:
        load_bank("mnist", 28, tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "mnist" / "train-images-idx3-ubyte.gz") in message
    assert "not found" in message
    assert f"in {tmp_path / 'mnist'} or run with --config download=true" in message


def spoil(kind, content, idx_file):
    packed = gzip.compress(content)
    return {
        "truncated": packed[: len(packed) // 2],
        "empty": b"",
        "not-gzip": b"<html>moved</html>",
        "other-magic": gzip.compress(idx_file(numbered(3), magic=2049)),
        "header-only": gzip.compress(content[:10]),
        "too-few-images": gzip.compress(idx_file(numbered(3), count=4)),
        "other-size": gzip.compress(idx_file(np.zeros((3, 14, 14), np.uint8))),
        "other-pixels": gzip.compress(content[:-1] + b"\1"),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("truncated", "not a whole file"),
        ("empty", "0 bytes of content, expected a 16-byte header"),
        ("not-gzip", "not a whole file"),
        ("other-magic", "starts with 2049, expected 2051"),
        ("header-only", "10 bytes of content"),
        ("too-few-images", "2368 bytes for 4 images of 28x28, expected 3152 bytes"),
        ("other-size", "604 bytes for 3 images of 14x14"),
        ("other-pixels", r"content has MD5 \w{32}, expected \w{32}"),
    ],
)
def test_damaged_file_is_named_with_what_was_expected(tmp_path, idx_file, published, kind, found):
    content = idx_file(numbered(3))
    original, _ = published(content)
    path = place(tmp_path, original.name, spoil(kind, content, idx_file))
    with pytest.raises(UserError) as caught:
        read_original(original, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"data_dir: {path} is damaged: ")
    assert re.search(found, message)
    assert "download=true" in message
    assert "\n" not in message


def test_area_resize_of_halves_is_the_mean_of_four_with_ties_to_even():
    image = np.array([[[0, 1, 4, 4], [1, 0, 4, 6], [1, 2, 9, 9], [2, 1, 9, 9]]], np.uint8)
    assert resize_area(image, 2).tolist() == [[[0, 4], [2, 9]]]  # means 0.5, 4.5, 1.5, 9


@pytest.mark.parametrize("size", [14, 20, 28, 31])
def test_area_resize_agrees_with_scikit_image(size):
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    expected = np.stack([resize_local_mean(image.astype(float), (size, size)) for image in images])
    assert np.abs(resize_area(images, size) - expected).max() <= 0.5 + 1e-9


def test_equal_size_is_not_resized():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    assert np.array_equal(resize_area(images, 8), images)


def test_bank_hash_sees_every_pixel_and_the_borders_of_splits(digits):
    bank = DigitBank("optdigits", digits[:3], digits[3:4], digits[4:])
    changed = digits.copy()
    changed[4, 5, 5] ^= 1
    others = [
        DigitBank("optdigits", changed[:3], changed[3:4], changed[4:]),
        DigitBank("optdigits", digits[:2], digits[2:4], digits[4:]),
    ]
    assert len({bank.sha256, *(other.sha256 for other in others)}) == 3
