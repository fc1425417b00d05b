"""Clips of videos: a pure function of seed and step, read from disk, and refused once a byte has changed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.data.clips import clips_hash, load_clips
from benchmark.data.kinds import kind_of
from benchmark.data.prepared_folder import read_data_record
from benchmark.data.videos.frame_bank import FRAMES, WINDOWS, written_frames
from benchmark.data.videos.windows import WindowClips, WindowStream
from benchmark.system.errors import UserError
from tests.helpers.made_films import moving_square

SPLITS = ("train", "validation", "test")


@pytest.fixture
def clips():
    """Windows of 5 frames at all of 24 places of 28 frames, each frame of one brightness of its own."""
    frames = np.repeat(np.arange(28, dtype=np.uint8), 16).reshape(28, 4, 4)
    return WindowClips(frames, np.arange(23, -1, -1), 5)


def test_clip_is_its_window_however_it_is_asked_for(clips):
    assert (len(clips), tuple(clips.shape)) == (24, (24, 5, 1, 4, 4))
    for place in (slice(2, 6), [2, 3, 4, 5], torch.arange(2, 6)):
        assert clips[place][:, :, 0, 0, 0].tolist() == [[*range(23 - n, 28 - n)] for n in range(2, 6)]
    assert clips[2].shape == (5, 1, 4, 4)
    assert clips_hash(clips) == clips_hash(clips[:])


def test_batch_is_a_pure_function_of_seed_and_step(clips):
    one, other = WindowStream(clips, seed=1), WindowStream(clips, seed=1)
    forward = [one.batch(step, 7) for step in range(9)]
    backward = [other.batch(step, 7) for step in reversed(range(9))][::-1]
    for first, second in zip(forward, backward, strict=True):
        assert torch.equal(first, second)
        assert (first.dtype, first.shape) == (torch.float32, (7, 5, 1, 4, 4))
    assert not torch.equal(forward[0], WindowStream(clips, seed=2).batch(0, 7))


def test_every_window_comes_once_an_epoch_and_each_epoch_in_another_order(clips):
    stream = WindowStream(clips, seed=3)
    numbers = torch.cat([stream.clip_numbers(step, 7) for step in range(24)]).tolist()  # seven epochs of 24
    epochs = [numbers[first : first + 24] for first in range(0, len(numbers), 24)]
    assert [sorted(epoch) for epoch in epochs] == [[*range(24)]] * 7
    assert len({tuple(epoch) for epoch in epochs}) == 7
    batch = stream.batch(5, 7)
    starts = [23 - number for number in stream.clip_numbers(5, 7).tolist()]
    assert (batch[:, 0, 0, 0, 0] * 255).round().int().tolist() == starts


@pytest.mark.gpu
def test_batches_on_a_gpu_are_those_of_the_cpu_though_none_is_waited_for(clips):
    made = [WindowStream(clips, seed=1, device=device) for device in ("cuda", "cpu")]
    batches = [[stream.batch(step, 7) for step in range(200)] for stream in made]
    for fast, plain in zip(*batches, strict=True):
        assert torch.equal(fast.cpu(), plain)


@pytest.fixture
def prepared(make_videos, tmp_path):
    """A prepared folder of ten clips of 12 frames, and its data section."""
    protocol, data_dir = make_videos({f"{n}.npy": moving_square(12, 16, 16, n) for n in range(10)})
    kind_of(protocol.data).prepare(protocol, data_dir, tmp_path / "data")
    return tmp_path / "data", protocol.data


def test_what_is_prepared_can_be_loaded_and_says_what_it_is(prepared):
    folder, data = prepared
    record, source = read_data_record(folder), kind_of(data).open(folder, training=True)
    assert isinstance(source.bank.frames, np.memmap)
    assert record["frames"] == {"train": 96, "validation": 12, "test": 12}
    assert record["split_sizes"] == {"train": 8 * 8, "validation": 2, "test": 2}
    assert load_clips(folder, data, "test").shape == (2, 5, 1, 12, 12)
    assert source.train_stream(1, "cpu").batch(0, 4).shape == (4, 5, 1, 12, 12)
    places = {split: {*(np.concatenate([source.bank.starts[split] + t for t in range(5)]))} for split in SPLITS}
    assert places["train"] <= {*range(96)}
    assert places["validation"] <= {*range(96, 108)}
    assert places["test"] <= {*range(108, 120)}


def spoil(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_changed_byte_is_refused_where_it_would_be_used(prepared):
    folder, data = prepared
    side = data.frame_size**2
    spoil(folder / FRAMES, -1 - 24 * side)  # the last byte of training
    with pytest.raises(
        UserError, match=r"frames.npy: its frames are not those of data.json; run the command `data` again"
    ):
        kind_of(data).open(folder, training=True)
    load_clips(folder, data, "test")
    spoil(folder / FRAMES, -1 - 24 * side)
    kind_of(data).open(folder, training=True)
    first = int(load_clips(folder, data, "test").starts[0])
    spoil(folder / FRAMES, (first - 120) * side)  # the first pixel of a test clip
    with pytest.raises(UserError, match="made for other test clips"):
        load_clips(folder, data, "test")


@pytest.mark.parametrize("name", [FRAMES, WINDOWS, "data.json"])
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_file_that_is_cut_or_gone_is_refused_by_name(prepared, name, harm):
    folder, data = prepared
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if harm == "cut":
        (folder / name).write_bytes(content[: len(content) - 40])
    with pytest.raises(UserError, match=rf"{name}: .*run the (verb `data`|command)"):
        kind_of(data).open(folder)


def test_windows_of_another_preparation_are_refused(prepared):
    folder, data = prepared
    with np.load(folder / WINDOWS) as stored:
        starts = dict(stored)
    starts["train"] = starts["train"][::-1]
    np.savez_compressed(folder / WINDOWS, **starts)
    with pytest.raises(UserError, match=r"its windows are not those of data.json"):
        kind_of(data).open(folder)


def test_writing_that_breaks_off_leaves_nothing(tmp_path):
    def break_off():
        with written_frames(tmp_path / "frames.npy", 4) as writer:
            writer.begin()
            writer.add(np.zeros((2, 4, 4), np.uint8))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert [*tmp_path.iterdir()] == []


def own_mib():
    """Memory of this process that is not a mapped file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) / 1024


def test_memory_stays_flat_however_many_clips_there_are(tmp_path):
    path = tmp_path / "frames.npy"
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (20_000, 128, 128)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 20_000 * 128 * 128)  # 312 MiB of zeros, which take no room on the disk
    frames = np.load(path, mmap_mode="r")
    clips = WindowClips(frames, np.arange(len(frames) - 29), 30)
    stream = WindowStream(clips, seed=1)
    assert len(clips) * clips[:1].numel() > 9_000 * 2**20
    clips_hash(WindowClips(frames, np.arange(64), 30))
    before = own_mib()
    for step in range(40):
        stream.batch(step, 8)
    assert clips_hash(WindowClips(frames, np.arange(0, len(clips), 200), 30)) != clips_hash(clips[:1])
    assert own_mib() - before < 100
