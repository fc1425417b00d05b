"""Clips are read back as they were written, in every layout; what is ambiguous or wrong is refused with its name."""

import dataclasses
import hashlib
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from benchmark.config.data_sections import CLIP_LAYOUTS, LAYOUTS
from benchmark.data.videos import clip_files
from benchmark.data.videos.clip_files import open_clips
from benchmark.system.errors import UserError

NEEDED = 5


@pytest.fixture
def clips():
    """Four grey clips of 7 frames of 8x8 pixels: N T C H W."""
    return np.random.default_rng(1).integers(0, 256, (4, 7, 1, 8, 8), dtype=np.uint8)


@pytest.fixture
def colour(clips):
    return np.random.default_rng(2).integers(0, 256, (4, 7, 3, 8, 8), dtype=np.uint8)


@pytest.fixture
def save(tmp_path):
    """Save an array as clips.npy and return its path."""

    def write(array, name="clips.npy"):
        np.save(tmp_path / name, array)
        return tmp_path / name

    return write


def laid_out(clips, layout):
    """N T C H W in the axes of `layout`; axes that it lacks are dropped."""
    kept = clips[tuple(slice(None) if axis in layout else 0 for axis in "NTCHW")]
    axes = [axis for axis in "NTCHW" if axis in layout]
    return kept.transpose([axes.index(axis) for axis in layout])


def all_of(found, frames):
    return found.read(range(found.count), frames)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, ">f8"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_named_layout_is_read_back_as_it_was_written(clips, colour, save, layout, dtype):
    kind = colour if "C" in layout else clips
    kind = kind if dtype == np.uint8 else (kind / 255).astype(dtype)
    found = open_clips(save(laid_out(kind, layout)), NEEDED, layout)
    expected = kind if "N" in layout else kind[:1]
    assert (found.read_as, found.count, found.lengths) == (",".join(layout), len(expected), (7,) * len(expected))
    assert found.frame == expected.shape[2:]
    np.testing.assert_array_equal(all_of(found, 7), expected)
    np.testing.assert_array_equal(found.read(range(len(expected) - 1, len(expected)), 5), expected[-1:, :5])


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "TCHW"])  # 3 channels may be 3 clips
def test_a_layout_is_recognised_where_no_other_fits(clips, colour, save, layout):
    kind = colour if "C" in layout else clips  # 4 clips: too few to be the frames of a clip
    assert open_clips(save(laid_out(kind, layout)), NEEDED).read_as == ",".join(layout)


@pytest.mark.parametrize(
    ("shape", "readings"),
    [
        ((20, 100, 8, 8), ["TNHW (100 clips of 20 frames)", "NTHW (20 clips of 100 frames)"]),
        ((20, 20, 8, 8), ["TNHW (20 clips of 20 frames)", "NTHW (20 clips of 20 frames)"]),
        ((20, 3, 8, 8), ["TNHW (3 clips of 20 frames)", "TCHW (1 clips of 20 frames)"]),
        ((4, 9, 3, 3, 3), ["NTCHW (4 clips of 9 frames)", "NTHWC (4 clips of 9 frames)"]),
    ],
)
def test_an_ambiguous_array_is_refused_with_the_layouts_that_fit(save, shape, readings):
    path = save(np.zeros(shape, np.uint8))
    with pytest.raises(UserError) as error:
        open_clips(path, NEEDED)
    assert str(error.value) == f"{path}: shape {shape} may be {' or '.join(readings)}; say which with --layout"


def test_the_published_file_is_known_by_its_checksum_and_not_by_its_name(clips, save, monkeypatch):
    many = np.concatenate([clips, clips])
    path = save(laid_out(many, "TNHW"), "mnist_test_seq.npy")
    with pytest.raises(UserError, match="may be TNHW"):
        open_clips(path, NEEDED)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(clip_files, "PUBLIC_TEST", dataclasses.replace(clip_files.PUBLIC_TEST, md5=md5))
    found = open_clips(path, NEEDED)
    assert found.read_as == "T,N,H,W (the published Moving MNIST test clips, by checksum)"
    np.testing.assert_array_equal(all_of(found, 7), many)


@pytest.mark.parametrize(
    ("shape", "layout", "fault"),
    [
        ((4, 7, 8, 6), None, "as NTHW it has frames of 8x6 pixels, which only --layout allows"),
        ((4, 3, 8, 8), None, "as NTHW it has clips of 3 frames, needed are 5"),
        ((4, 7, 2, 8, 8), None, "as NTCHW it has 2 channels, allowed are 1 and 3"),
        ((4, 0, 8, 8), None, "as TNHW it is empty"),
        ((8, 8), None, "2 axes, allowed are TNHW, NTHW, NTCHW, NTHWC, THW, TCHW, THWC"),
        ((4, 7, 8, 8), "NTCHW", "--layout NTCHW: .* would have 5 axes"),
        ((4, 3, 8, 8), "NTHW", "clip 1 has 3 frames; context and horizon need 5"),
        ((4, 7, 8, 8), "NTWH", "unknown layout 'NTWH'; did you mean 'NTHW'"),
    ],
)
def test_a_wrong_shape_is_named_with_what_is_allowed(save, shape, layout, fault):
    with pytest.raises(UserError, match=fault):
        open_clips(save(np.zeros(shape, np.uint8)), NEEDED, layout)


def test_frames_that_are_not_square_are_read_where_the_layout_is_named(save):
    wide = np.arange(4 * 7 * 8 * 6, dtype=np.uint8).reshape(4, 7, 8, 6)
    found = open_clips(save(wide), NEEDED, "NTHW")
    assert found.frame == (1, 8, 6)
    np.testing.assert_array_equal(all_of(found, 7)[:, :, 0], wide)


@pytest.mark.parametrize("dtype", [bool, np.int64, np.int8, np.uint16, np.complex64, "U3"])
def test_other_types_than_uint8_and_floats_are_refused(clips, save, dtype):
    with pytest.raises(UserError, match=r"clips.npy: holds .*; allowed are uint8 \(0 to 255\) and floats \(0 to 1\)"):
        open_clips(save(laid_out(clips, "NTHW").astype(dtype)), NEEDED)


@pytest.mark.parametrize(("value", "said"), [(np.nan, "nan"), (np.inf, "inf"), (1.001, "1.001"), (255.0, "255")])
@pytest.mark.parametrize("at_once", [1, 2**20])
def test_a_float_outside_0_to_1_is_found_in_its_clip(clips, save, monkeypatch, value, said, at_once):
    monkeypatch.setattr(clip_files, "_PIXELS_AT_ONCE", at_once)
    floats = (clips / 255).astype(np.float32)
    floats[2, 4, 0, 3, 3] = value
    path = save(floats)
    found = open_clips(path, NEEDED)
    assert found.check_values(path, 4).startswith("float32 from 0 to ")  # the bad one is in the fifth frame
    with pytest.raises(UserError, match=rf"clips.npy: clip 3 has float32 values from .*{said}.*\[0, 1\] without NaN"):
        found.check_values(path, 5)


def test_negative_floats_are_refused(clips, save):
    path = save(2 * (clips / 255).astype(np.float32) - 1)
    with pytest.raises(UserError, match="clip 1 has float32 values from -"):
        open_clips(path, NEEDED).check_values(path, 5)


def test_the_range_of_the_values_is_said(clips, save):
    clips[:] = 7
    clips[3, 4, 0, 2, 2], clips[1, 0, 0, 0, 0] = 200, 3
    path = save(clips)
    assert open_clips(path, NEEDED).check_values(path, 5) == "uint8 from 3 to 200"


@pytest.mark.parametrize("compress", [False, True])
def test_an_npz_with_one_array_is_read_like_a_npy(clips, tmp_path, compress):
    (np.savez_compressed if compress else np.savez)(tmp_path / "clips.npz", test=laid_out(clips, "TNHW"))
    np.testing.assert_array_equal(all_of(open_clips(tmp_path / "clips.npz", NEEDED), 7), clips)


@pytest.mark.parametrize("kind", ["npy", "npz", "predrnn", "folder"])
def test_pixels_stay_on_disk_until_they_are_read(tmp_path, monkeypatch, kind):
    many = np.zeros((32, 16, 1, 64, 64), np.uint8)
    monkeypatch.setattr(clip_files, "_PIXELS_AT_ONCE", many[0].size)
    path = tmp_path / f"clips.{'npz' if kind == 'predrnn' else kind}"
    if kind == "folder":
        write_folder(path, many, "THW")
    elif kind == "npy":
        np.save(path, many)
    else:
        np.savez_compressed(path, **(predrnn(many) if kind == "predrnn" else {"test": many}))
    tracemalloc.start()
    found = open_clips(path, NEEDED)
    found.check_values(path, 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < many.nbytes / 3


def predrnn(clips):
    """The arrays of an npz of predrnn: 4 frames in, the others out."""
    count, frames = clips.shape[:2]
    starts = frames * np.arange(count)
    parts = np.array([[(start, 4) for start in starts], [(start + 4, frames - 4) for start in starts]], np.int32)
    dims = np.array([clips.shape[2:]], np.int32)
    return {"clips": parts, "dims": dims, "input_raw_data": clips.reshape(-1, *clips.shape[2:])}


def test_an_npz_of_predrnn_is_read_by_its_clips(clips, colour, tmp_path):
    for number, kind in enumerate((clips, colour, (clips / 255).astype(np.float32))):
        path = tmp_path / f"{number}.npz"
        np.savez(path, **predrnn(kind))
        found = open_clips(path, NEEDED)
        assert found.read_as == "clips, dims, input_raw_data of predrnn (4 frames in, 3 out)"
        assert (found.count, found.lengths, found.frame) == (4, (7,) * 4, kind.shape[2:])
        np.testing.assert_array_equal(all_of(found, 7), kind)
        np.testing.assert_array_equal(found.read(range(2, 4), 5), kind[2:, :5])


def test_clips_of_predrnn_may_overlap_and_differ_in_length(clips, tmp_path):
    frames = clips.reshape(-1, 1, 8, 8)
    parts = np.array([[(0, 4), (2, 3)], [(4, 3), (5, 2)]])
    np.savez(tmp_path / "clips.npz", **predrnn(clips) | {"clips": parts})
    found = open_clips(tmp_path / "clips.npz", NEEDED)
    assert found.lengths == (7, 5)
    assert found.read_as.endswith("(2 different splits)")
    np.testing.assert_array_equal(all_of(found, 5), np.stack([frames[:5], frames[2:7]]))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"dims": np.array([[1, 8, 9]])}, r"dims is \[\[1, 8, 9\]\] and input_raw_data has shape \(28, 1, 8, 8\)"),
        ({"dims": np.array([[1, 8, 8], [1, 8, 8]])}, "dims is"),
        ({"clips": np.zeros((2, 4, 3), int)}, r"clips is int64 of shape \(2, 4, 3\); needed are integers"),
        ({"clips": np.zeros((2, 4, 2))}, "clips is float64"),
        ({"clips": np.array([[(0, 4)], [(5, 3)]])}, "clip 1 is 4 frames from 0 and 3 frames from 5 of 28"),
        ({"clips": np.array([[(0, 4), (22, 4)], [(4, 3), (26, 3)]])}, "clip 2 is 4 frames from 22 and 3 .* of 28"),
        ({"clips": np.array([[(-1, 4)], [(3, 3)]])}, "clip 1 is 4 frames from -1"),
        ({"input_raw_data": np.zeros((28, 1, 8, 8), np.int32)}, "holds int32"),
    ],
)
def test_a_wrong_npz_of_predrnn_is_refused(clips, tmp_path, changes, fault):
    np.savez(tmp_path / "clips.npz", **predrnn(clips) | changes)
    with pytest.raises(UserError, match=f"clips.npz: {fault}"):
        open_clips(tmp_path / "clips.npz", NEEDED)


def test_a_layout_for_predrnn_and_several_arrays_are_refused(clips, tmp_path):
    np.savez(tmp_path / "clips.npz", **predrnn(clips))
    with pytest.raises(UserError, match=r"--layout NTHW: .*clips.npz is an npz of predrnn"):
        open_clips(tmp_path / "clips.npz", NEEDED, "NTHW")
    np.savez(tmp_path / "two.npz", train=clips, test=clips)
    with pytest.raises(UserError, match=r"two.npz: holds train, test; allowed are one array of clips, or clips, dims,"):
        open_clips(tmp_path / "two.npz", NEEDED)


def write_folder(folder, clips, kind):
    """Write clips as a folder of `kind`; names sort as text in another order than as numbers."""
    folder.mkdir()
    for number, clip in enumerate(clips, start=8):
        images = [Image.fromarray(frame[0] if len(frame) == 1 else frame.transpose(1, 2, 0)) for frame in clip]
        if kind == "png":
            (folder / f"clip{number}").mkdir()
            for frame, image in enumerate(images, start=6):
                image.save(folder / f"clip{number}" / f"{frame}.png")
        elif kind == "gif":
            images[0].save(folder / f"{number}.gif", save_all=True, append_images=images[1:])
        else:
            np.save(folder / f"{number}.npy", laid_out(clip[None], kind))
    return folder


@pytest.mark.parametrize("kind", ["png", "gif", *CLIP_LAYOUTS])
def test_a_folder_of_clips_is_read_in_the_order_of_its_numbers(clips, tmp_path, kind):
    found = open_clips(write_folder(tmp_path / "clips", clips, kind), NEEDED)
    assert (found.count, found.lengths, found.frame) == (4, (7,) * 4, (1, 8, 8))
    np.testing.assert_array_equal(all_of(found, 7), clips)
    np.testing.assert_array_equal(found.read(range(1, 3), 5), clips[1:3, :5])


@pytest.mark.parametrize("kind", ["png", "TCHW", "THWC"])
def test_colour_stays_colour(colour, tmp_path, kind):
    found = open_clips(write_folder(tmp_path / "clips", colour, kind), NEEDED)
    assert found.frame == (3, 8, 8)
    np.testing.assert_array_equal(all_of(found, 7), colour)


def test_a_colour_video_has_three_channels(colour, tmp_path):
    colour[:] = colour // 128 * 255  # eight colours: a palette loses none of them
    found = open_clips(write_folder(tmp_path / "clips", colour, "gif"), NEEDED)
    np.testing.assert_array_equal(all_of(found, 7), colour)


@pytest.mark.parametrize("kind", ["png", "gif", "THW"])
def test_clips_of_a_folder_may_differ_in_length_but_not_be_too_short(clips, tmp_path, kind):
    folder = write_folder(tmp_path / "clips", [clips[0], clips[1, :6]], kind)
    found = open_clips(folder, NEEDED)
    assert found.lengths == (7, 6)
    np.testing.assert_array_equal(all_of(found, 6), clips[:2, :6])
    with pytest.raises(UserError, match="has 6 frames; context and horizon need 7"):
        open_clips(folder, 7)


@pytest.mark.parametrize("kind", ["png", "gif", "THW"])
def test_a_clip_of_another_size_is_named_before_anything_is_computed(clips, tmp_path, kind):
    folder = write_folder(tmp_path / "clips", [clips[0], clips[1, :, :, :6, :6]], kind)
    found = open_clips(folder, NEEDED)
    with pytest.raises(UserError, match=r"9\S*: frames \(C, H, W\) are uint8 \(1, 6, 6\), the first uint8 \(1, 8, 8\)"):
        found.check_values(folder, 5)


def test_a_float_clip_among_uint8_ones_is_named(clips, tmp_path):
    folder = write_folder(tmp_path / "clips", clips, "THW")
    np.save(folder / "10.npy", clips[2, :, 0] / 255)
    with pytest.raises(UserError, match=r"10.npy: frames \(C, H, W\) are float64 .* the first uint8"):
        open_clips(folder, NEEDED).check_values(folder, 5)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "I;16"])
def test_an_image_of_another_mode_is_refused(clips, tmp_path, mode):
    folder = write_folder(tmp_path / "clips", clips, "png")
    image = Image.fromarray(np.zeros((8, 8), np.uint16)) if mode == "I;16" else Image.new(mode, (8, 8))
    image.save(folder / "clip9" / "8.png")
    with pytest.raises(UserError, match=rf"clip9/8.png: is of mode {mode}; allowed are 8-bit grey \(L\)"):
        open_clips(folder, NEEDED).check_values(folder, 5)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda folder: (folder / "notes.txt").touch(), "clips: holds .txt and folder; a folder of clips holds only"),
        (lambda folder: (folder / "clip9" / "notes.txt").touch(), "clip9/notes.txt: a clip is a folder of PNG frames"),
        (lambda folder: (folder / "clip12").mkdir(), "clip12: a clip is a folder of PNG frames"),
        (lambda folder: (folder / "clip9" / "7.png").write_bytes(b"torn"), "clip9/7.png: cannot be read as an image"),
    ],
)
def test_what_is_no_clip_in_a_folder_is_named(clips, tmp_path, spoil, fault):
    folder = write_folder(tmp_path / "clips", clips, "png")
    spoil(folder)
    with pytest.raises(UserError, match=fault):
        open_clips(folder, NEEDED).check_values(folder, 5)


def test_hidden_files_are_no_clips(clips, tmp_path):
    folder = write_folder(tmp_path / "clips", clips, "png")
    (folder / ".thumbnails").touch()
    assert open_clips(folder, NEEDED).count == 4


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_a_layout_for_images_is_refused(clips, tmp_path, kind):
    folder = write_folder(tmp_path / "clips", clips, kind)
    with pytest.raises(UserError, match=r"--layout THW: .* holds images"):
        open_clips(folder, NEEDED, "THW")


def test_missing_damaged_and_foreign_files_are_named(clips, save, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("clips.mp4", "clips.txt"):
        (tmp_path / name).touch()
    (tmp_path / "torn.npz").write_bytes(b"PK torn")
    torn = save(clips, "torn.npy")
    torn.write_bytes(torn.read_bytes()[:-9])
    save(np.array([{}], dtype=object), "pickled.npy")
    write_folder(tmp_path / "videos", clips, "gif")
    (tmp_path / "videos" / "9.gif").write_bytes(b"GIF89a torn")
    for name, fault in {
        "none.npy": "no such file or folder",
        "empty": "holds nothing",
        "clips.txt": "is no .npy, no .npz, no folder of clips and no video",
        "clips.mp4": "cannot be read as a video",
        "torn.npz": "cannot be read as an npz",
        "torn.npy": "cannot be read as an array",
        "pickled.npy": "cannot be read as an array",
        "videos": "9.gif: cannot be read as a video",
    }.items():
        with pytest.raises(UserError, match=fault):
            open_clips(tmp_path / name, NEEDED)


def test_a_damaged_array_in_an_npz_is_named(clips, tmp_path):
    path = tmp_path / "clips.npz"
    np.savez(path, test=clips)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert zipfile.ZipFile(path).namelist() == ["test.npy"]
    with pytest.raises(UserError, match=r"clips.npz: its array test cannot be unpacked into .* \(Bad CRC-32"):
        open_clips(path, NEEDED)


def test_floats_of_a_data_set_say_how_they_are_scaled_where_255_is_white(clips):
    floats = clips[0].astype(np.float32)
    with pytest.raises(UserError, match=r"a.npy: has float32 values from 0 to 25\d; .*; divide them by 255, or store"):
        clip_files.checked("a.npy", floats)
    for other in (floats - 100, 300 * floats):
        with pytest.raises(UserError, match=r"without NaN \(uint8 may be 0 to 255\)$"):
            clip_files.checked("a.npy", other)
    assert clip_files.checked("a.npy", floats / 255).max() <= 1
