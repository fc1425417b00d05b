"""A person's own clips become a data set: whatever kind they are, and what does not fit is said with its place."""

import numpy as np
import pytest
from PIL import Image

from benchmark.data.clips import load_clips
from benchmark.data.kinds import kind_of
from benchmark.data.pixels import to_grey
from benchmark.data.videos.datasets import split_sizes
from benchmark.data.videos.prepare import video_set
from benchmark.system.errors import UserError
from tests.helpers.made_films import moving_square, write_kth, write_video

CLIPS = [moving_square(12, 16, 16, seed) for seed in range(10)]


def as_npy(folder):
    for number, clip in enumerate(CLIPS):
        np.save(folder / f"{number}.npy", clip)


def as_png(folder):
    for number, clip in enumerate(CLIPS):
        (folder / str(number)).mkdir()
        for t, frame in enumerate(clip):
            Image.fromarray(frame).save(folder / str(number) / f"{t}.png")


def as_gif(folder):
    for number, clip in enumerate(CLIPS):
        first, *rest = (Image.fromarray(frame) for frame in clip)
        first.save(folder / f"{number}.gif", save_all=True, append_images=rest)


def as_avi(folder):
    for number, clip in enumerate(CLIPS):
        write_video(folder / f"{number}.avi", clip)


def as_array(folder):
    folder.rmdir()
    np.savez(folder, clips=np.stack(CLIPS))
    folder.with_suffix(".npz").rename(folder)


def as_floats(folder):
    for number, clip in enumerate(CLIPS):
        np.save(folder / f"{number}.npy", (clip / 255).astype(np.float32))


@pytest.fixture
def prepare(make_videos, tmp_path):
    """Prepare what a function lays into the folder `mine`; returns what `data.json` holds, and the folder."""

    def made(lay, name="mine", **data):
        protocol, data_dir = make_videos({}, videos=name, **data)
        (data_dir / name).mkdir()
        lay(data_dir / name)
        if (data_dir / name).is_file():
            (data_dir / name).rename(data_dir / f"{name}.npz")
            protocol, _ = make_videos({}, videos=f"{name}.npz", **data)
        return kind_of(protocol.data).prepare(protocol, data_dir, tmp_path / "data"), tmp_path / "data", protocol

    return made


@pytest.mark.parametrize("lay", [as_npy, as_png, as_gif, as_avi, as_array, as_floats])
def test_clips_of_every_kind_give_the_same_data_set(prepare, lay):
    record, folder, protocol = prepare(lay, layout="NTHW" if lay is as_array else None)
    assert record["split_sizes"] == {"train": 64, "validation": 2, "test": 2}
    assert record["films"] == {"train": 8, "validation": 1, "test": 1}
    assert "split by a fixed seed" in record["about"]
    assert "frames of 16x16 pixels to 12x12 by area" in record["about"]
    clips = load_clips(folder, protocol.data, "test")
    assert record["frames_sha256"] == prepare_again(as_npy, prepare)["frames_sha256"]
    assert clips.shape == (2, 5, 1, 12, 12)


def prepare_again(lay, prepare):
    return prepare(lay, name="again")[0]


def test_split_is_of_whole_clips_and_always_the_same(make_videos):
    protocol, data_dir = make_videos({f"{n}.npy": clip for n, clip in enumerate(CLIPS)})
    found = video_set(protocol, protocol.data, data_dir).videos
    names = {split: [video.name for video in videos] for split, videos in found.items()}
    assert [len(found) for found in names.values()] == [8, 1, 1]
    assert len({name for found in names.values() for name in found}) == 10
    again = video_set(protocol, protocol.data, data_dir).videos
    assert names == {split: [video.name for video in videos] for split, videos in again.items()}
    assert [tuple(split_sizes(count).values()) for count in (2, 3, 10, 14, 100)] == [
        (0, 1, 1),
        (1, 1, 1),
        (8, 1, 1),
        (12, 1, 1),
        (80, 10, 10),
    ]


def parted(folder):
    for split, chosen in {"train": CLIPS[:5], "validation": CLIPS[5:7], "test": CLIPS[7:]}.items():
        np.save(folder / f"{split}.npy", np.stack(chosen))


def parted_folders(folder):
    for split, chosen in {"train": range(5), "validation": (5, 6), "test": (7, 8, 9)}.items():
        for number in chosen:
            write_video(folder / split / f"{number}.mkv", CLIPS[number])


def parted_archive(folder):
    folder.rmdir()
    arrays = {"train": np.stack(CLIPS[:5]), "validation": np.stack(CLIPS[5:7]), "test": np.stack(CLIPS[7:])}
    np.savez(folder, **arrays)
    folder.with_suffix(".npz").rename(folder)


@pytest.mark.parametrize("lay", [parted, parted_folders, parted_archive])
def test_splits_that_lie_there_are_kept(prepare, lay):
    record, _, _ = prepare(lay, layout=None if lay is parted_folders else "NTHW")
    assert record["films"] == {"train": 5, "validation": 2, "test": 3}
    assert "split as they lie" in record["about"]
    assert record["split_sizes"]["train"] == 5 * 8


def only_train(folder):
    np.save(folder / "train.npy", np.stack(CLIPS))


def stray(folder):
    parted(folder)
    (folder / "notes.txt").touch()


def wide(folder):
    for number in range(3):
        np.save(folder / f"{number}.npy", moving_square(12, 16, 20, number))


def videos_wide(folder):
    for number in range(3):
        write_video(folder / f"{number}.avi", moving_square(12, 16, 20, number))


def two(folder):
    for number in range(2):
        np.save(folder / f"{number}.npy", CLIPS[number])


def short(folder):
    as_npy(folder)
    np.save(folder / "3.npy", CLIPS[3][:4])


def nothing(folder):
    pass


def bad_floats(folder):
    as_floats(folder)
    np.save(folder / "4.npy", np.full((12, 16, 16), 1.5, np.float32))


@pytest.mark.parametrize(
    ("lay", "data", "told"),
    [
        (only_train, {}, "mine: test is missing; beside each other may lie train, validation, test and nothing else"),
        (stray, {}, "mine: notes is no split"),
        (wide, {"layout": "THW"}, r"clip \d: has frames of 20x16 pixels; say with data.square how they become square"),
        (videos_wide, {}, r"clip \d: has frames of 20x16 pixels; say with data.square"),
        (two, {}, "mine: 2 clips cannot be split; three are needed, or one of train, validation, test each"),
        (short, {}, r"clip 4 has 4 frames; context and horizon need 5"),
        (nothing, {}, "mine: holds nothing; a folder of clips holds only folders of PNG frames"),
        (bad_floats, {}, "mine/4.npy: has float32 values from 1.5 to 1.5"),
        (as_avi, {"layout": "THW"}, "data.layout THW: .* holds images, whose layout is known; leave data.layout out"),
        (
            as_npy,
            {"validation_clips": 3},
            r"data.validation_clips: 3 asked for; the 1 pieces of video hold 2 windows of 5",
        ),
        (as_npy, {"test_clips": 3}, "data.test_clips: 3 asked for"),
        (as_npy, {"train_clips": 99}, "data.train_clips: 99 asked for; the 8 pieces of video hold 64 windows"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(prepare, tmp_path, lay, data, told):
    with pytest.raises(UserError, match=told):
        prepare(lay, **data)
    assert not (tmp_path / "data" / "data.json").exists()
    assert not list((tmp_path / "data").glob(".*")) if (tmp_path / "data").exists() else True


def test_missing_folder_is_named(make_videos, tmp_path):
    protocol, data_dir = make_videos({}, videos="elsewhere/mine")
    with pytest.raises(UserError, match=r"data_dir: .*elsewhere/mine not found; data.videos names a folder or a file"):
        kind_of(protocol.data).prepare(protocol, data_dir, tmp_path / "data")


def test_fewer_test_clips_than_are_shown_is_an_error(make_videos, tmp_path):
    protocol, data_dir = make_videos({f"{n}.npy": clip for n, clip in enumerate(CLIPS)}, probe={"clips": 3})
    with pytest.raises(UserError, match=r"probe.clips: 3 is more than the 2 test clips of these videos"):
        kind_of(protocol.data).prepare(protocol, data_dir, tmp_path / "data")


@pytest.mark.parametrize(("square", "rows"), [("stretch", 12), ("crop", 12)])
def test_frames_become_square_as_asked_and_by_area(prepare, square, rows):
    def lay(folder):
        for number in range(3):
            video = np.zeros((12, 12, 24), np.uint8)
            video[:, :, :6], video[:, :, 18:] = 100, 200
            np.save(folder / f"{number}.npy", video)

    _, folder, protocol = prepare(lay, square=square, layout="THW", frame_size=rows)
    row = load_clips(folder, protocol.data, "test")[0][0, 0, 0].tolist()
    assert row == ([100] * 3 + [0] * 6 + [200] * 3 if square == "stretch" else [0] * 12)


def test_colour_becomes_grey_and_is_counted(prepare):
    def lay(folder):
        for number in range(3):
            video = np.zeros((12, 16, 16, 3), np.uint8)
            video[..., 0], video[..., 1] = 255, 100
            np.save(folder / f"{number}.npy", video)

    record, folder, protocol = prepare(lay)
    assert "3 videos of colour made grey" in record["about"]
    assert load_clips(folder, protocol.data, "test")[:].unique().tolist() == [135]  # 0.299 * 255 + 0.587 * 100
    assert to_grey(np.full((1, 1, 2, 2), 0.5, np.float32)).tolist() == [[[128, 128], [128, 128]]]


@pytest.mark.parametrize(("rule", "train"), [("every", 6 * 8), ("authors", 4 * 1 + 2 * 3)])
def test_windows_of_kth_by_both_rules_are_those_counted_by_hand(make_videos, tmp_path, rule, train):
    """Videos of 12 frames, clips of 5: eight places in each; by the authors' rule three where people run, else one."""
    keys = {"square": "stretch", "train_windows": rule, "test_windows": rule, "validation_clips": 3}
    protocol, data_dir = make_videos({}, videos="kth", **keys)
    write_kth(data_dir / "kth", (1, 15, 17, 18), height=12, width=16)
    record = kind_of(protocol.data).prepare(protocol, data_dir, tmp_path / "data")
    assert record["split_sizes"] == {"train": train, "validation": 3, "test": 2 * train}
    assert f"{train} of 5 frames ({rule}) for train, 3 of {train} of 5 frames" in record["about"]
    assert record["about"].startswith("24 of 600 videos (missing: ")
    assert "frames of 16x12 pixels to 12x12 by area, aspect not kept" in record["about"]


def test_pieces_of_kth_hold_the_windows_and_what_ends_past_its_video_is_cut_and_counted(make_videos, tmp_path):
    protocol, data_dir = make_videos({}, videos="kth", square="stretch", validation_clips=2)
    write_kth(data_dir / "kth", (1, 15, 17), actions=("boxing",))
    lines = [f"person{person:02}_boxing_d1 frames 1-6, 7-10, 8-14" for person in (1, 15, 17)]
    (data_dir / "kth" / "00sequences.txt").write_text("\n".join(lines))
    record = kind_of(protocol.data).prepare(protocol, data_dir, tmp_path / "data")
    assert record["split_sizes"] == {"train": 3, "validation": 2, "test": 2}  # of 6 + 4 + 5 frames: 2 + 0 + 1
    assert record["frames"]["train"] == 15
    assert "3 pieces end past their video and were cut" in record["about"]
    assert "3 pieces shorter than their window" in record["about"]


def test_damaged_video_of_kth_is_refused_by_name(make_videos, tmp_path):
    protocol, data_dir = make_videos({}, videos="kth", square="stretch")
    write_kth(data_dir / "kth", (1, 15, 17), actions=("boxing",))
    path = data_dir / "kth" / "boxing" / "person17_boxing_d1_uncomp.avi"
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(UserError, match=r"person17_boxing_d1_uncomp.avi: "):
        kind_of(protocol.data).prepare(protocol, data_dir, tmp_path / "data")
    assert [*(tmp_path / "data").iterdir()] == []
