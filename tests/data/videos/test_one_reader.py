"""One reader of videos: `data`, `predict` and `evaluate --data` see the same frames, notes and mistakes."""

import re
from fractions import Fraction

import numpy as np
import pytest

from benchmark.data.videos.clip_files import open_clips
from benchmark.data.videos.containers import NOT_SQUARE, REPEATED, TRIMMED, UNEVEN
from benchmark.data.videos.video_files import TRANSPARENT, TURNED, look_at_video, read_video, video_parts
from benchmark.system.errors import UserError
from tests.helpers.containers import cut, trimmed, with_empty_chunk, with_matrix
from tests.helpers.made_films import moving_square, write_video

FRAMES = moving_square(24, 48, 64, seed=3)
CODED = {"codec": "mpeg4", "pixels": "yuv420p"}


def frames_of(path):
    """All frames (T, H, W) in grey, which both ways of reading give alike."""
    parts = np.concatenate(list(video_parts(path)))
    assert look_at_video(path).length == len(parts)
    np.testing.assert_array_equal(read_video(path, len(parts)), parts)
    return parts[:, 0]


def error_of(path):
    """The one error of looking, reading all and reading the first frames."""
    told = set()
    for read in (look_at_video, lambda path: list(video_parts(path)), lambda path: open_clips(path, 2)):
        with pytest.raises(UserError) as caught:
            read(path)
        told.add(re.sub(r"^.*?: ", "", str(caught.value)))
    assert len(told) == 1, told
    return told.pop()


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_video_is_turned_as_its_header_says(tmp_path, name, matrix, turns):
    write_video(tmp_path / name, FRAMES, **CODED)
    stored = frames_of(tmp_path / name)
    turned = with_matrix(tmp_path / name, *matrix)
    np.testing.assert_array_equal(frames_of(turned), np.rot90(stored, turns, axes=(1, 2)))
    assert look_at_video(turned).notes == {TURNED}
    assert open_clips(turned, 2).frame == (1, 64, 48) if turns % 2 else (1, 48, 64)


def test_turn_of_an_encoder_is_the_one_that_is_read(tmp_path):
    write_video(tmp_path / "a.mp4", FRAMES, turned=90, **CODED)  # against the clock
    assert frames_of(tmp_path / "a.mp4").shape == (24, 64, 48)
    write_video(tmp_path / "b.mp4", FRAMES, **CODED)
    np.testing.assert_array_equal(
        frames_of(tmp_path / "a.mp4"), np.rot90(frames_of(tmp_path / "b.mp4"), 1, axes=(1, 2))
    )


@pytest.mark.parametrize("matrix", [(-1, 0, 0, 1), (1, 1, -1, 1)])
def test_mirrored_and_slanted_videos_are_refused_by_name(tmp_path, matrix):
    write_video(tmp_path / "a.mp4", FRAMES, **CODED)
    assert "shown mirrored, or turned by other than quarters" in error_of(with_matrix(tmp_path / "a.mp4", *matrix))


@pytest.mark.parametrize("first", [0, 8])
@pytest.mark.parametrize(("codec", "gop"), [("mpeg4", 1), ("mpeg4", 12), ("libx264", 4), ("libx264", 12)])
def test_edit_list_shows_sixteen_frames_everywhere(tmp_path, codec, gop, first):
    write_video(tmp_path / "a.mp4", FRAMES, codec=codec, pixels="yuv420p", gop=gop)
    stored = frames_of(tmp_path / "a.mp4")
    path = trimmed(tmp_path / "a.mp4", first, 16)
    np.testing.assert_array_equal(frames_of(path), stored[first : first + 16])
    assert look_at_video(path).notes == {TRIMMED}
    with pytest.raises(UserError, match="has 16 frames; context and horizon need 17"):
        open_clips(path, 17)


@pytest.mark.parametrize("codec", ["mpeg4", "rawvideo"])
@pytest.mark.parametrize("empty", [5, 23])
def test_empty_chunk_of_an_avi_repeats_the_frame_before(tmp_path, codec, empty):
    write_video(tmp_path / "a.avi", FRAMES, codec=codec, pixels="yuv420p", gop=1)
    expected = frames_of(tmp_path / "a.avi").copy()
    expected[empty] = expected[empty - 1]
    path = with_empty_chunk(tmp_path / "a.avi", empty)
    np.testing.assert_array_equal(frames_of(path), expected)
    assert look_at_video(path).notes == {REPEATED}


def test_empty_chunk_that_repeats_nothing_or_nobody_knows_what_is_refused(tmp_path):
    write_video(tmp_path / "a.avi", FRAMES, codec="rawvideo", pixels="yuv420p")
    assert "begins with an empty frame" in error_of(with_empty_chunk(tmp_path / "a.avi", 0))
    write_video(tmp_path / "b.avi", FRAMES, options={"bf": "2"}, **CODED)
    assert "cannot be told which they repeat" in error_of(with_empty_chunk(tmp_path / "b.avi", 7))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.avi", "mpeg4"),
        ("a.avi", "ffv1"),
        ("a.mp4", "libx264"),
        ("a.mov", "mpeg4"),
        ("a.mkv", "ffv1"),
        ("a.webm", "libvpx"),
        ("a.webm", "libvpx-vp9"),
    ],
)
def test_video_that_is_cut_off_is_refused_in_the_same_words_by_every_way_of_reading(tmp_path, name, codec, share):
    frames = np.random.default_rng(0).integers(0, 256, (48, 48, 64), np.uint8)  # most of it frames, not headers
    write_video(tmp_path / name, frames, codec=codec, pixels="gray" if codec == "ffv1" else "yuv420p")
    assert look_at_video(tmp_path / name).length == 48
    assert error_of(cut(tmp_path / name, share)).startswith("is cut off: ")


def test_video_that_is_sent_while_it_is_made_states_no_duration_and_is_read(tmp_path):
    write_video(tmp_path / "a.webm", FRAMES, codec="libvpx", pixels="yuv420p", container={"live": "1"})
    assert frames_of(tmp_path / "a.webm").shape == (24, 48, 64)


GREYS = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(3, axis=0)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.avi", "rawvideo", "pal8"),
        ("a.mov", "png", "pal8"),
        ("a.avi", "rawvideo", "bgr24"),
        ("a.mkv", "ffv1", "bgr0"),
        ("a.mkv", "ffv1", "bgra"),
        ("a.mkv", "ffv1", "gray"),
        ("a.mov", "qtrle", "argb"),
        ("a.mov", "png", "ya8"),
        ("a.mov", "png", "rgb24"),
        ("a.mov", "png", "gray"),
    ],
)
def test_greys_are_exact_whatever_they_are_stored_as(tmp_path, name, codec, pixels):
    alone = pixels in ("ya8", "gray", "pal8")
    write_video(tmp_path / name, GREYS if alone else GREYS[..., None].repeat(3, axis=-1), codec, pixels)
    np.testing.assert_array_equal(frames_of(tmp_path / name), GREYS)


@pytest.mark.parametrize(("codec", "pixels"), [("ffv1", "yuva420p"), ("ffv1", "bgra"), ("libvpx-vp9", "yuva420p")])
def test_grey_with_transparency_is_grey_and_mentioned(tmp_path, codec, pixels):
    rgba = np.concatenate([FRAMES[..., None].repeat(3, -1), FRAMES[..., None] // 2], axis=-1)
    write_video(tmp_path / "a.mkv", rgba, codec, pixels)
    assert frames_of(tmp_path / "a.mkv").shape == (24, 48, 64)
    expected = set() if codec == "libvpx-vp9" else {TRANSPARENT}  # kept beside the picture there, and not decoded
    assert look_at_video(tmp_path / "a.mkv").notes == expected


def test_uneven_times_and_pixels_that_are_not_square_are_mentioned(tmp_path):
    write_video(tmp_path / "a.mp4", FRAMES, times=[2 * t + (t > 9) for t in range(24)], **CODED)
    write_video(tmp_path / "b.mp4", FRAMES, aspect=Fraction(16, 11), **CODED)
    write_video(tmp_path / "c.mkv", FRAMES, rate=30, **CODED)  # 33 and 34 ms by turns
    assert [look_at_video(tmp_path / name).notes for name in ("a.mp4", "b.mp4", "c.mkv")] == [
        {UNEVEN},
        {NOT_SQUARE},
        set(),
    ]
