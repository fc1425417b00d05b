"""However a training ends, its status says so: none stays `running`."""

import pytest

from benchmark.system.errors import UserError
from benchmark.system.files import read_json
from benchmark.training import job
from benchmark.training import train as training
from benchmark.training.cohort import train_cohort
from benchmark.training.train import train

ENDS = {
    "a fault of ours": (KeyError("loss"), "failed"),
    "a mistake of the user": (UserError("/dev/shm: too little"), "failed"),
    "an error of the system": (OSError(5, "Input/output error"), "failed"),
    "the second Ctrl-C": (KeyboardInterrupt(), "interrupted"),
    "an exit": (SystemExit(3), "interrupted"),
}


@pytest.mark.parametrize("end", ENDS)
def test_run_that_an_exception_ends_says_so_and_goes_on_from_its_checkpoint(make_protocol, results, monkeypatch, end):
    error, state = ENDS[end]
    run = make_protocol().run("convlstm", 1)
    take_steps, done = training.take_steps, []

    def fail(*arguments):
        done.append(None)
        if len(done) == 6:
            raise error
        return take_steps(*arguments)

    monkeypatch.setattr(training, "take_steps", fail)
    with pytest.raises(type(error)):
        train(run, results, "cpu")
    assert read_json(run.path(results) / "status.json") == {"state": state, "step": 3, "steps": 8}
    monkeypatch.setattr(training, "take_steps", take_steps)
    train(run, results, "cpu", resume_only=True)
    assert read_json(run.path(results) / "status.json")["state"] == "finished"


def test_of_runs_side_by_side_those_that_ended_well_stay_finished(make_protocol, results, monkeypatch):
    protocol = make_protocol()
    first, second = protocol.run("convlstm", 1), protocol.run("predrnn", 1)
    train(first, results, "cpu")
    begin = job.begin

    def fail(run, *arguments):
        if run.variant == "predrnn":
            raise UserError("predrnn: cannot begin")
        return begin(run, *arguments)

    monkeypatch.setattr(job, "begin", fail)
    with pytest.raises(UserError, match="cannot begin"):
        train_cohort([first, second], results, "cpu", skip_trained=True)
    assert read_json(first.path(results) / "status.json")["state"] == "finished"


def test_run_that_began_beside_one_that_cannot_does_not_stay_running(make_protocol, results, monkeypatch):
    protocol = make_protocol()
    first, second = protocol.run("convlstm", 1), protocol.run("predrnn", 1)
    begin = job.begin
    monkeypatch.setattr(job, "begin", lambda run, *rest: begin(run, *rest) if run is first else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_cohort([first, second], results, "cpu")
    assert read_json(first.path(results) / "status.json")["state"] == "failed"
    assert not second.path(results).joinpath("status.json").exists()
