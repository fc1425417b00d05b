"""KTH in its public layout: who is in which split, which windows there are, and what is missing is said."""

import subprocess
import sys

import numpy as np
import pytest

from benchmark.data.videos.datasets import Video
from benchmark.data.videos.kth import ACTIONS, PERSONS, open_kth, read_sequences
from benchmark.data.videos.prepare import window_starts
from benchmark.system.errors import UserError
from tests.helpers.forked import ROOT
from tests.helpers.made_films import write_kth

ONE_OF_EACH = (14, 15, 17)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """All 25 persons, six actions, one scene each; videos of 12 frames."""
    folder = tmp_path_factory.mktemp("published") / "kth"
    return folder, write_kth(folder, range(1, 26))


def persons(videos: list[Video]):
    return {int(video.name.rpartition("person")[2][:2]) for video in videos}


def test_split_is_by_person_and_disjoint_and_the_published_one(published):
    folder, made = published
    videos = open_kth(folder).videos
    found = {split: persons(videos[split]) for split in videos}
    assert found == {"train": {*range(1, 15)}, "validation": {15, 16}, "test": {*range(17, 26)}}
    assert sum(map(len, videos.values())) == len(made) == 150
    for split in videos:
        assert len(videos[split]) == 6 * len(PERSONS[split])


def test_videos_come_out_as_they_went_in(published):
    folder, made = published
    for video in open_kth(folder).videos["validation"]:
        name = video.name.rpartition("/")[2].removesuffix("_uncomp.avi")
        np.testing.assert_array_equal(np.concatenate(list(video.parts()))[:, 0], made[name])


def test_what_is_missing_is_counted_and_named(published, tmp_path):
    write_kth(tmp_path / "kth", ONE_OF_EACH, scenes=(1, 2, 3, 4))
    assert open_kth(tmp_path / "kth").about.startswith("72 of 600 videos (missing: person01_boxing_d1, ")
    (tmp_path / "kth" / "jogging" / "person14_jogging_d2_uncomp.avi").unlink()
    about = open_kth(tmp_path / "kth").about
    assert about.startswith("71 of 600 videos (missing: ")
    assert ") and 524 more" in about or " and 524 more)" in about
    assert "whole videos (no 00sequences.txt)" in about
    assert "split by person: 1 to 14 train, 15 to 16 validation, 17 to 25 test" in about


def test_split_without_a_video_and_a_missing_folder_are_errors(tmp_path):
    with pytest.raises(UserError, match="kth not found; put the published folders boxing, handclapping"):
        open_kth(tmp_path / "kth")
    write_kth(tmp_path / "kth", (1, 15), actions=("boxing",))
    with pytest.raises(UserError, match=r"has no video of persons 17 to 25 \(test\)"):
        open_kth(tmp_path / "kth")


@pytest.mark.parametrize("name", ["person26_boxing_d1_uncomp.avi", "person01_walking_d1_uncomp.avi", "boxing.zip"])
def test_file_of_another_name_is_refused_and_hidden_ones_are_not(tmp_path, name):
    write_kth(tmp_path / "kth", ONE_OF_EACH, actions=("boxing",))
    (tmp_path / "kth" / "boxing" / ".DS_Store").touch()
    open_kth(tmp_path / "kth")
    (tmp_path / "kth" / "boxing" / name).touch()
    with pytest.raises(UserError, match=f"{name} is no personNN_boxing_dK_uncomp.avi; take it away"):
        open_kth(tmp_path / "kth")


def test_sequences_are_used_where_the_published_file_lies_there(tmp_path):
    write_kth(tmp_path / "kth", ONE_OF_EACH, actions=("boxing",))
    lines = ["Some words in front.", ""]
    lines += [f"person{person}_boxing_d1\t\tframes\t1-4, 6-11" for person in ONE_OF_EACH]
    (tmp_path / "kth" / "00sequences.txt").write_text("\r\n".join([*lines, "person13_handclapping_d3\t*missing*"]))
    found = open_kth(tmp_path / "kth")
    assert "the sequences of 00sequences.txt" in found.about
    assert [video.pieces for videos in found.videos.values() for video in videos] == [((0, 4), (5, 11))] * 3
    (tmp_path / "kth" / "00sequences.txt").write_text(lines[2])
    with pytest.raises(UserError, match="says nothing of person15_boxing_d1"):
        open_kth(tmp_path / "kth")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("person01_boxing_d1 frames 0-5", "line 1: '0-5' names no frames"),
        ("x\nperson01_boxing_d1 frames 9-5", "line 2: '9-5' names no frames"),
        ("person01_boxing_d1 frames soon", "line 1: 'soon' names no frames"),
        ("nothing", "has no line such as"),
    ],
)
def test_sequences_that_are_none_are_refused(tmp_path, text, told):
    (tmp_path / "00sequences.txt").write_text(text)
    with pytest.raises(UserError, match=told):
        read_sequences(tmp_path / "00sequences.txt")


def test_windows_of_each_rule_are_those_counted_by_hand():
    assert [*window_starts(12, 5, "every", 20)] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [*window_starts(12, 5, "apart", 20)] == [0, 5]
    assert [*window_starts(12, 5, "authors", ACTIONS["running"])] == [1, 4, 7]  # from the end, 3 frames apart
    assert [*window_starts(12, 5, "authors", ACTIONS["walking"])] == [7]
    assert [*window_starts(50, 20, "authors", ACTIONS["walking"])] == [10, 30]
    assert [*window_starts(5, 5, "every", 20)] == [0]
    assert [[*window_starts(4, 5, rule, 3)] for rule in ("every", "apart", "authors")] == [[], [], []]


def test_missing_videos_are_told_before_torch_is_imported(tmp_path):
    program = (
        "import atexit, runpy, sys; atexit.register(lambda: print('torch' in sys.modules));"
        "runpy.run_module('benchmark', run_name='__main__')"
    )
    words = ["data", "--protocol", "kth", "--data-dir", tmp_path, "--results-dir", tmp_path / "results"]
    done = subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert "kth not found; put the published folders" in done.stderr
    assert done.stderr.count("\n") == 1
