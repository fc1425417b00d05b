"""Help shows what really works, one flag means one thing, and every exit status is the one that is documented."""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.cli.all_commands import COMMANDS
from benchmark.cli.exit_status import EXIT_STATUS
from benchmark.cli.parser import PROGRAM, parser
from benchmark.cli.registry import GROUPS
from benchmark.cli.selection import run_of, runs_of
from benchmark.config.protocol import load_protocol
from benchmark.config.variants import BASELINES
from tests.training.test_resume import points, wait_for

ROOT = Path(__file__).parents[2]


def parsers():
    """Command -> its parser."""
    (action,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return action.choices


def test_help_lists_every_command_once_below_its_group():
    said = parser().format_help()
    places = [said.index(f"{title}:\n") for title in GROUPS]
    assert places == sorted(places)
    for (title, group), end in zip(GROUPS.items(), [*places[1:], len(said)], strict=True):
        section = said[said.index(f"{title}:\n") : end]
        assert [name for name in group if not re.search(rf"^  {name} +[A-Z]", section, re.MULTILINE)] == []
    assert sum(len(group) for group in GROUPS.values()) == len(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_stand_in_the_help_and_are_commands_that_this_version_takes(name):
    said = parsers()[name].format_help()
    assert COMMANDS[name].examples
    for words in COMMANDS[name].examples:
        assert f"\n  {PROGRAM} {name} {words}".rstrip() + "\n" in said
        options = parser().parse_args([name, *shlex.split(words)])
        if getattr(options, "protocol", None):
            options.protocol = load_protocol(options.protocol)
            if options.__dict__.get("variant") not in (None, *BASELINES):
                options.seed = getattr(options, "seed", 1)  # `measure` takes them all
                assert runs_of(options) if name == "train" else run_of(options)
        for given in ("RECORD", "DIR"):
            assert (ROOT / getattr(options, given, ".")).exists()


def test_one_flag_means_one_thing_whatever_the_command():
    meanings = {}
    for name, command in parsers().items():
        for action in command._actions:
            for flag in action.option_strings:
                kind = (action.type, tuple(action.choices or ()), action.nargs, type(action).__name__)
                meanings.setdefault(flag, {}).setdefault(kind, []).append(name)
    assert {flag: found for flag, found in meanings.items() if len(found) > 1} == {}


def test_flags_of_speed_may_be_cut_short():
    short = "--variant predrnn --hidden 64,32 --frame 32 --patch 2 --kernel 3 --batch 4 --dev cpu --prec bf16 --thr 1"
    options = parser().parse_args(["speed", *short.split(), "--json", "F"])
    assert (options.hidden_channels, options.frame_size, options.patch_size) == ((64, 32), 32, 2)
    assert (options.kernel_size, options.batch_size, options.device, options.threads) == (3, 4, "cpu", 1)
    assert (options.precision, str(options.json)) == ("bf16", "F")


def test_every_flag_with_a_default_says_which():
    for name, command in parsers().items():
        for action in command._actions:
            if action.default not in (None, False, argparse.SUPPRESS):
                assert "default" in action.help, f"{name} {action.dest}"


@pytest.mark.parametrize("word", ["0", "-3", "1.5", "many"])
def test_a_number_that_is_none_is_named_with_what_is_allowed(word, capsys):
    with pytest.raises(SystemExit) as end:
        parser().parse_args(["predict", "--weights", "w", "--input", "i", "--output", "o", f"--horizon={word}"])
    assert end.value.code == 2
    assert f"argument --horizon: '{word}' is no whole number above 0" in capsys.readouterr().err


def ended(*arguments):
    """Exit status of a command in a process of its own."""
    command = [sys.executable, "-m", "benchmark", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True
    ).returncode


@pytest.mark.parametrize(
    ("status", "arguments"),
    [
        (0, ["plan", "--protocol", "smoke"]),
        (0, ["--help"]),
        (1, ["doctor", "--protocol", "study-main", "--data-dir", "missing"]),
        (2, ["plan", "--protocol", "smok"]),
        (2, ["plan"]),
        (2, ["plan", "--protocol", "smoke", "--results-dir", "pyproject.toml"]),
    ],
)
def test_a_process_ends_with_the_documented_status(status, arguments, tmp_path):
    if "--protocol" in arguments and "--results-dir" not in arguments:
        arguments = [*arguments, "--results-dir", tmp_path]
    assert ended(*arguments) == status
    assert status in EXIT_STATUS


@pytest.mark.parametrize(
    ("number", "status"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_stopped_training_ends_with_the_documented_status(forker, write_protocol, results, number, status):
    file = write_protocol(training={"steps": 2000, "checkpoint_every": 2, "validate_every": 1000})
    run = ["--protocol", file, "--variant", "convlstm", "--seed", "1", "--results-dir", results]
    job = forker.start("train", *run)
    wait_for(lambda: points(results / "tiny" / "runs" / "convlstm" / "seed=1") > 0, job)
    job.send(number)
    code, said = job.wait()
    assert code == status, said
    assert "go on with: python -m benchmark train" in said
    assert status in EXIT_STATUS


def test_documentation_and_help_name_every_exit_status():
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "command_line.md").read_text(), re.MULTILINE)
    assert [int(row) for row in rows] == list(EXIT_STATUS) == [0, 1, 2, 130, 143]
    said = parser().format_help()
    assert [status for status in EXIT_STATUS if not re.search(rf"^  {status} ", said, re.MULTILINE)] == []
