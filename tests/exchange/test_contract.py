"""`check`: a model that keeps the contract passes, one that breaks a line of it fails at that line and is told how."""

from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.config.protocol import load_protocol
from benchmark.exchange.contract import CHECKS, check_class
from benchmark.system.errors import UserError
from models.forecasters.outside import ForecasterError

OWN = "tests.helpers.own_models"


@pytest.fixture(scope="module")
def protocol():
    return load_protocol("examples/tiny.yaml")


def failed(lines):
    """What of the checks failed: description -> how."""
    parts = [line.removeprefix("FAIL  ").split(": ", 1) for line in lines if line.startswith("FAIL")]
    return dict(parts)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        (f"{OWN}:Mean", {}),
        (f"{OWN}:Mean", {"dropout": 0.5}),
        (f"{OWN}:Recurrent", {}),
        (f"{OWN}:OwnLoss", {}),
        ("examples.simvp_like:SimVPLike", {"width": 4, "depth": 1}),
        ("examples.conv_mgu:ConvMGUCell", {}),
        ("models.causal_lstm:CausalLSTMCell", {}),
    ],
)
def test_models_and_cells_that_keep_the_contract_pass_every_line_of_it(protocol, name, args):
    lines, passed = check_class(name, args, protocol)
    assert (failed(lines), passed, len(lines)) == ({}, True, 1 + len(CHECKS))


@pytest.mark.parametrize(
    ("name", "line", "how"),
    [
        ("KeepsCalls", "the same frames give the same bits", "nothing may be kept between calls"),
        ("WritesInput", "the given frames are not changed in place", "wrote into the tensor"),
        ("MixesClips", "does not depend on the clips beside it", "differs by"),
        ("FailsBeside", "does not depend on the clips beside it", "differs by nan"),
        ("Detached", "has a gradient at the given frames", "without no_grad, detach or NumPy"),
        ("Idle", "the loss reaches every weight", "model.idle did not change"),
        ("KeepsSteps", "goes on to the same bits", "must be a buffer"),
    ],
)
def test_what_breaks_a_line_of_the_contract_fails_there(protocol, name, line, how):
    lines, passed = check_class(f"{OWN}:{name}", {}, protocol)
    found = failed(lines)
    (said,) = [text for what, text in found.items() if line in what]
    assert how in said
    assert not passed


def test_the_line_of_a_mistake_in_the_model_is_named(protocol):
    lines = Path("tests/helpers/own_models.py").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, start=1) if "zeros(7, 7)" in text)
    with pytest.raises(ForecasterError, match=rf"Raises: predict: RuntimeError: .* \(own_models.py, line {line}\)"):
        check_class(f"{OWN}:Raises", {}, protocol)


def test_a_model_with_one_horizon_passes_with_a_note(protocol):
    lines, passed = check_class(f"{OWN}:OneHorizon", {}, protocol)
    assert passed
    assert "evaluation.beyond does not go with it" in lines[-1]


@pytest.mark.parametrize(
    ("name", "args", "told"),
    [
        (f"{OWN}:NoSuch", {}, "own_models.py has no class NoSuch"),
        ("no.such.module:Model", {}, "no module no.such.module"),
        (f"{OWN}:NoPredict", {}, "is no cell: has no states"),
        (f"{OWN}:NoWeights", {}, "has no parameters"),
        (f"{OWN}:Frozen", {}, "bias requires no gradient"),
        (f"{OWN}:Mean", {"width": 3}, "args: got an unexpected keyword argument 'width'"),
        (f"{OWN}:Mean", {"gain": float("nan")}, "args: "),
        ("SimVPLike", {}, "package.module:Class"),
    ],
)
def test_a_class_that_cannot_be_made_is_told_in_a_line(protocol, name, args, told):
    with pytest.raises((ForecasterError, UserError)) as raised:
        check_class(name, args, protocol)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_command_ends_with_status_1_where_a_line_fails(capsys):
    place = ["--protocol", "examples/tiny.yaml"]
    assert main(["check", f"{OWN}:Idle", *place]) == 1
    assert "FAIL" in capsys.readouterr().out
    assert main(["check", f"{OWN}:Mean", "--args", '{"gain": 2}', *place]) == 0
    assert "FAIL" not in capsys.readouterr().out


@pytest.mark.parametrize("args", ["{", "[1]"])
def test_arguments_that_are_no_mapping_are_told(capsys, args):
    assert main(["check", f"{OWN}:Mean", "--args", args]) == 2
    assert "--args" in capsys.readouterr().err
