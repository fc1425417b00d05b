"""The clips of the library are those of a run, whoever shares them; the fixed ones are those of the tables."""

import os

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing
from torch.utils.data import DataLoader

import deep_in_time as dit
from benchmark.data.clips import load_clips
from benchmark.data.kinds import kind_of
from benchmark.system.files import read_json
from tests.helpers.servers import free_port


def items(clips, **loader):
    return list(DataLoader(clips, batch_size=None, **loader))


def test_batches_are_those_of_a_run_of_that_seed(tiny, tmp_path):
    kind = kind_of(tiny.data)
    kind.prepare(tiny, tmp_path, tmp_path / "prepared")
    stream = kind.open(tmp_path / "prepared").train_stream(7, "cpu")
    found = list(dit.TrainingClips(tiny, seed=7, length=5, batch_size=2))
    assert len(found) == 5
    assert all(torch.equal(batch, stream.batch(step, 2)) for step, batch in enumerate(found))
    assert not torch.equal(next(iter(dit.TrainingClips(tiny, seed=8, batch_size=2))), found[0])


@pytest.mark.parametrize("train_clips", [None, 7])
def test_single_clips_are_those_of_the_batches_in_their_order(protocol_values, train_clips):
    protocol_values["data"]["train_clips"] = train_clips
    batches = torch.cat(list(dit.TrainingClips(protocol_values, length=50, batch_size=3)))
    clips = torch.stack(list(dit.TrainingClips(protocol_values, length=150)))
    assert clips.shape == (150, 5, 1, 12, 12)
    assert clips.dtype == torch.float32
    assert 0 <= clips.min() <= clips.max() <= 1
    assert torch.equal(clips, batches)


def test_a_loop_goes_on_at_start_and_iterating_again_gives_the_same(tiny):
    whole = list(dit.TrainingClips(tiny, length=9))
    clips = dit.TrainingClips(tiny, length=4, start=5)
    for _ in range(2):
        assert torch.equal(torch.stack(list(clips)), torch.stack(whole[5:]))


@pytest.mark.parametrize("batch_size", [None, 2])
def test_workers_share_the_items_and_make_none_twice(tiny, batch_size):
    clips = dit.TrainingClips(tiny, length=11, batch_size=batch_size)
    alone, shared = items(clips), items(clips, num_workers=2)
    assert len(clips) == len(shared) == 11
    assert torch.equal(torch.stack(shared), torch.stack(alone))  # a loader hands on what its workers make in turn


def in_a_process(rank, processes, port, protocol, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=processes)
    clips = dit.TrainingClips(protocol, length=7, folder=folder / "prepared")
    torch.save(items(clips, num_workers=2), folder / f"{rank}.pt")
    assert len(clips) == 3
    distributed.destroy_process_group()


def test_processes_share_the_items_and_leave_out_a_remainder(tiny, tmp_path):
    whole = list(dit.TrainingClips(tiny, length=7, folder=tmp_path / "prepared"))
    multiprocessing.spawn(in_a_process, (2, free_port(), tiny, tmp_path), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert [len(part) for part in parts] == [3, 3]
    assert all(torch.equal(parts[n % 2][n // 2], whole[n]) for n in range(6))


def test_endless_clips_have_no_length(tiny):
    clips = dit.TrainingClips(tiny)
    assert len([clip for _, clip in zip(range(200), clips, strict=False)]) == 200
    with pytest.raises(TypeError, match="endless"):
        len(clips)


def test_what_is_shown_differs_from_the_frames_where_a_bar_hides_a_digit(protocol_values):
    protocol_values["data"]["gaps"] = [0, 2]
    for batch_size in (None, 8):
        pairs = items(dit.TrainingClips(protocol_values, length=8, batch_size=batch_size, shown=True))
        shown, frames = (torch.stack(part) for part in zip(*pairs, strict=True))
        differs = (shown != frames).flatten(3 if batch_size is None else 4).any(-1)
        assert differs.any()
        assert not differs.reshape(-1, 5)[:, [0, 3, 4]].any()  # only the last two of three context frames


def test_fixed_clips_are_those_of_the_tables(tiny, tmp_path):
    folder = tmp_path / "prepared"
    test = dit.FixedClips(tiny, folder=folder)
    assert test.sha256 == read_json(folder / "data.json")["test_sha256"]
    assert (len(test), test.context, test.horizon) == (5, 3, 2)
    assert torch.equal(255 * test[:], load_clips(folder, tiny.data, "test").float())
    assert torch.equal(test[3], test[:][3])
    (batch,) = DataLoader(test, batch_size=5)
    assert torch.equal(batch, test[:])
    validation = dit.FixedClips(tiny, "validation", folder=folder)
    assert len(validation) == 3
    assert validation.sha256 != test.sha256


def test_videos_are_clips_too(make_videos):
    arrays = {str(n): np.random.default_rng(n).integers(0, 256, (12, 12, 12), np.uint8) for n in range(8)}
    protocol, data_dir = make_videos(arrays)
    clips = dit.TrainingClips(protocol, length=70, data_dir=data_dir)
    assert torch.stack(list(clips)).shape == (70, 5, 1, 12, 12)
    assert dit.FixedClips(protocol, data_dir=data_dir)[0].shape == (5, 1, 12, 12)
    assert len(dit.FixedClips(protocol, data_dir=data_dir)[:2]) == 2


def test_what_is_prepared_is_kept_and_other_clips_have_another_folder(protocol_values, cache):
    def made():
        return {path: path.stat().st_mtime_ns for path in cache.rglob("data.json")}

    dit.FixedClips(protocol_values)
    first = made()
    dit.TrainingClips(protocol_values)
    assert made() == first
    assert len(first) == 1
    protocol_values["data"]["digit_size"] = 5
    dit.FixedClips(protocol_values)
    assert len(made()) == 2


def test_a_folder_of_other_clips_is_refused(protocol_values, tmp_path):
    dit.FixedClips(protocol_values, folder=tmp_path / "prepared")
    other = [{"digit_size": 5}, {"context": 4}, {"validation_clips": 2, "test_clips": 6}]
    for changes in other:
        values = protocol_values | {"data": protocol_values["data"] | changes}
        for make in (dit.FixedClips, dit.TrainingClips):
            with pytest.raises(ValueError, match="made for other"):
                make(values, folder=tmp_path / "prepared")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"seed": -1}, "seed: -1 is below 0"),
        ({"length": 0}, "length: 0 is below 1"),
        ({"batch_size": 0}, "batch_size: 0 is below 1"),
        ({"start": -1}, "start: -1 is below 0"),
    ],
)
def test_a_number_out_of_range_is_named(tiny, arguments, said):
    with pytest.raises(ValueError, match=said):
        dit.TrainingClips(tiny, **arguments)


def test_an_unknown_split_or_protocol_is_answered_with_those_there_are(tiny):
    with pytest.raises(ValueError, match="unknown split 'tset'; did you mean 'test'"):
        dit.FixedClips(tiny, "tset")
    with pytest.raises(ValueError, match="did you mean 'quick'"):
        dit.protocol("quik")
    with pytest.raises(ValueError, match=r"protocol: data\.digit_size: is missing"):
        dit.protocol(tiny.model_dump(mode="json") | {"data": {"digits": "optdigits", "frame_size": 8}})
    assert dit.protocol("smoke").data.context == 4


def test_recall_is_clips_too():
    values = dit.protocol("study-recall-blank").model_dump(mode="json") | {"rates": None}
    values["data"] |= {
        "distractors": True,
        "recall": "optdigits",
        "digit_size": 6,
        "frame_size": 12,
        "gap": 3,
        "test_clips": 4,
    }
    values["probe"]["clips"] = 2
    values["data"]["validation_clips"] = 3
    clips = dit.TrainingClips(values, length=5)
    assert torch.stack(list(clips)).shape == (5, clips.context + 1, 1, 12, 12)
    assert dit.FixedClips(values)[:].shape == (4, 5, 1, 12, 12)
