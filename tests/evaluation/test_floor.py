"""The command that estimates the best predictor's error for a protocol."""

from io import BytesIO

import pandas as pd
import pytest

from benchmark.__main__ import main
from benchmark.config.protocol import load_protocol
from benchmark.data.kinds import kind_of
from benchmark.evaluation.floor import write_floor
from benchmark.system.errors import UserError


@pytest.fixture
def prepared(tmp_path, make_protocol):
    """A protocol on moving digits, and the folder of its results with its clips."""

    def made(**changes):
        protocol = make_protocol(**changes)
        kind_of(protocol.data).prepare(protocol, tmp_path / "no-data", tmp_path / protocol.name / "data")
        return protocol, tmp_path

    return made


def test_more_context_frames_leave_less_error_and_later_frames_more(prepared):
    protocol, results_dir = prepared(evaluation={"floor": [3, 1, 2]})
    write_floor(protocol, results_dir, clips=100)
    floor = pd.read_csv(results_dir / protocol.name / "floor.csv").set_index("frames_seen")
    assert list(floor.index) == ["1", "2", "3", "all"]
    assert floor["known_mse"].is_monotonic_decreasing
    assert floor["known_mse"]["all"] == 0
    assert (floor["unseen_mse"] >= floor["known_mse"]).all()
    assert (floor["known_mse_2"] >= floor["known_mse_1"]).all()
    for images in ("known", "unseen"):
        assert floor[f"{images}_mse"].tolist() == pytest.approx(
            ((floor[f"{images}_mse_1"] + floor[f"{images}_mse_2"]) / 2).tolist()
        )


def test_the_same_protocol_gives_the_same_numbers_and_more_clips_a_smaller_error(prepared):
    protocol, results_dir = prepared(evaluation={"floor": [1]})
    path = results_dir / protocol.name / "floor.csv"
    found = []
    for clips in (40, 40, 400):
        write_floor(protocol, results_dir, clips)
        found.append(path.read_bytes())
    assert found[0] == found[1] != found[2]
    few, many = (pd.read_csv(BytesIO(each)).iloc[0] for each in found[1:])
    assert many["known_error"] < few["known_error"]


def test_without_the_key_every_number_of_frames_is_estimated(prepared):
    protocol, results_dir = prepared()
    assert "floor.csv" not in {path.name for path in (results_dir / protocol.name).iterdir()}
    write_floor(protocol, results_dir, clips=2)
    floor = pd.read_csv(results_dir / protocol.name / "floor.csv")
    assert floor["frames_seen"].tolist() == ["1", "2", "3", "all"]


def test_the_command_says_what_is_missing_and_what_it_cannot_do(tmp_path, write_protocol, protocol_values, capsys):
    options = ["--protocol", str(write_protocol()), "--results-dir", str(tmp_path / "results")]
    assert main(["floor", *options]) == 2
    assert "data" in capsys.readouterr().err
    assert main(["floor", *options, "--clips", "1"]) == 2
    assert "--clips: 1 is too few" in capsys.readouterr().err
    videos = {"videos": "mine", "frame_size": 12, "context": 3, "horizon": 2, "validation_clips": 3, "test_clips": 5}
    with pytest.raises(UserError, match=r"data\.videos: how they move is not known"):
        write_floor(load_protocol(str(write_protocol(protocol_values | {"data": videos}))), tmp_path)
