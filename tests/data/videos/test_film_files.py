"""Videos come out of their files as they went in; what is damaged is named."""

import numpy as np
import pytest

from benchmark.data.videos.clip_files import open_clips
from benchmark.data.videos.video_files import look_at_video, read_video, video_parts
from benchmark.system.errors import UserError
from tests.helpers.made_films import moving_square, write_video

VIDEO = moving_square(70, 24, 32, seed=3)


def frames_of(path):
    return np.concatenate(list(video_parts(path)))


def test_video_without_loss_comes_out_to_the_last_pixel_and_in_parts(tmp_path):
    write_video(tmp_path / "a.avi", VIDEO)
    parts = list(video_parts(tmp_path / "a.avi"))
    assert [len(part) for part in parts] == [64, 6]
    np.testing.assert_array_equal(np.concatenate(parts)[:, 0], VIDEO)
    assert look_at_video(tmp_path / "a.avi").length == 70
    np.testing.assert_array_equal(read_video(tmp_path / "a.avi", 5)[:, 0], VIDEO[:5])


@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.mov", "a.mkv"])
def test_coded_video_is_grey_and_near_what_went_in_whatever_holds_it(tmp_path, name):
    write_video(tmp_path / name, VIDEO, codec="mpeg4", pixels="yuv420p")
    assert look_at_video(tmp_path / name).length == 70
    clip = read_video(tmp_path / name, 70)
    assert clip.shape == (70, 1, 24, 32)  # grey, though it was stored with planes of colour
    assert np.abs(clip[:, 0].astype(int) - VIDEO).mean() < 8
    np.testing.assert_array_equal(clip, frames_of(tmp_path / name))


def test_video_of_colour_has_three_channels_and_its_luma_as_grey(tmp_path):
    colour = np.stack([VIDEO, 255 - VIDEO, VIDEO // 2], axis=-1)
    write_video(tmp_path / "a.mkv", colour, pixels="bgra")
    clip = read_video(tmp_path / "a.mkv", 4)
    np.testing.assert_array_equal(clip.transpose(0, 2, 3, 1), colour[:4])
    grey = colour.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(frames_of(tmp_path / "a.mkv")[:, 0] - grey).max() < 2


@pytest.mark.parametrize(
    ("codec", "spoil", "told"),
    [
        ("mpeg4", lambda content: content[: len(content) // 2], "is cut off"),
        ("ffv1", lambda content: content[: len(content) // 2], "is cut off"),
        ("ffv1", lambda content: content[:100], "is cut off: 100 bytes of the "),
        ("ffv1", lambda content: b"", "cannot be read as a video"),
        ("ffv1", lambda content: b"no video at all" * 50, "cannot be read as a video"),
    ],
)
def test_damaged_video_is_refused_by_name(tmp_path, codec, spoil, told):
    path = tmp_path / "a.avi"
    video = moving_square(70, 96, 128, seed=3)  # most of it frames, not headers
    write_video(path, video, codec=codec, pixels="gray" if codec == "ffv1" else "yuv420p")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=f"a.avi: {told}"):
        frames_of(path)


def test_sound_alone_is_no_video(tmp_path):
    import av

    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    for read in (frames_of, look_at_video):
        with pytest.raises(UserError, match="holds no video, only 1 streams"):
            read(tmp_path / "a.avi")


def test_folder_of_videos_is_a_folder_of_clips(tmp_path):
    for number in range(3):
        write_video(tmp_path / f"{number}.AVI", moving_square(5 + number, 8, 8, number))
    found = open_clips(tmp_path, 5)
    assert (found.read_as, found.count, found.lengths, found.frame) == ("AVI videos", 3, (5, 6, 7), (1, 8, 8))
    np.testing.assert_array_equal(found.read(range(1, 2), 4)[0, :, 0], moving_square(6, 8, 8, 1)[:4])
    np.testing.assert_array_equal(np.concatenate(list(found.whole(2)))[:, 0], moving_square(7, 8, 8, 2))
    with pytest.raises(UserError, match=r"clip 1 has 5 frames; context and horizon need 6"):
        open_clips(tmp_path, 6)
