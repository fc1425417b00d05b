"""The error of the baselines on the validation clips is what a training would log for them."""

import pytest
import torch

from benchmark.__main__ import main
from benchmark.data.clips import load_clips
from benchmark.data.tensors import to_float
from benchmark.evaluation.baseline_errors import baseline_errors
from benchmark.reporting.finished_runs import learnt_below
from benchmark.system.errors import UserError
from benchmark.system.files import read_json, write_json
from benchmark.training.batches import load_batches
from benchmark.training.train import validate
from models.predictor import build


def test_baselines_have_the_error_that_plain_loops_give(make_protocol, results):
    protocol = make_protocol()
    clips = to_float(load_clips(results / "tiny" / "data", protocol.data, "validation")[:])
    totals = {"last-frame": 0.0, "context-mean": 0.0, "black": 0.0}
    for clip in clips:
        for frame in clip[3:]:
            totals["last-frame"] += float(((clip[2] - frame) ** 2).sum())
            totals["context-mean"] += float((((clip[0] + clip[1] + clip[2]) / 3 - frame) ** 2).sum())
            totals["black"] += float((frame**2).sum())
    expected = {name: pytest.approx(total / (len(clips) * 2), rel=1e-6) for name, total in totals.items()}
    assert baseline_errors(protocol, results) == expected


def test_black_has_the_error_of_a_network_that_predicts_black(make_protocol, results):
    protocol = make_protocol()
    run = protocol.runs()[0]
    network = build(run.model, run.seed)
    torch.nn.init.zeros_(network.to_frame.weight)
    torch.nn.init.zeros_(network.to_frame.bias)
    logged = validate(network, load_batches(run, results, "cpu").validation, run, "cpu")
    assert baseline_errors(protocol, results)["black"] == pytest.approx(logged, rel=1e-6)


def test_where_a_bar_hides_a_digit_the_baselines_see_the_bar(make_protocol, results):
    plain = baseline_errors(make_protocol(), results)
    hidden = baseline_errors(make_protocol(data={"gaps": [0, 2]}), results)
    assert hidden["black"] == pytest.approx(plain["black"])
    assert hidden["last-frame"] != pytest.approx(plain["last-frame"])


def test_the_command_writes_what_says_whether_a_run_has_learnt(make_protocol, write_protocol, results, capsys):
    protocol, path = make_protocol(learnt={"margin": 0.2}), write_protocol(learnt={"margin": 0.2})
    with pytest.raises(UserError, match=r"baselines\.json: is missing; the command `baselines` makes it"):
        learnt_below(protocol, results / "tiny")
    assert main(["baselines", "--protocol", str(path), "--results-dir", str(results)]) == 0
    found = read_json(results / "tiny" / "baselines.json")
    assert "black: validation MSE" in capsys.readouterr().out
    assert learnt_below(protocol, results / "tiny") == pytest.approx(0.8 * min(found.values()))
    write_json(results / "tiny" / "baselines.json", {"black": 1.0})
    with pytest.raises(UserError, match=r"baselines\.json: lacks last-frame"):
        learnt_below(protocol, results / "tiny")
