"""A command is the function below the decorator; all else follows from the registry."""

import argparse
import inspect

import pytest

from benchmark.cli.all_commands import COMMANDS, MODULES
from benchmark.cli.parser import Parser, parser
from benchmark.cli.registry import GROUPS, RESULTS, Option, command


def test_every_function_that_takes_options_and_returns_an_exit_status_is_the_command_of_its_name():
    stands = {
        name.replace("_", "-"): function
        for module in MODULES
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function in [each.run for each in COMMANDS.values()]
    }
    assert stands == {name: each.run for name, each in COMMANDS.items()}


def test_a_decorated_function_is_a_command_below_its_heading(monkeypatch):
    monkeypatch.setitem(GROUPS, RESULTS, {})

    @command(RESULTS, options=[Option("--word", "a word")], examples=["--word x"], shared=True)
    def make_tea(options):
        """Make tea.

        Not in the help.
        """
        return 0

    made = GROUPS[RESULTS]["make-tea"]
    assert (made.run, made.about, made.shared, made.writes_results) == (make_tea, "Make tea.", True, True)
    assert [option.dest for option in made.options] == ["word"]


def test_an_option_is_worded_and_needed_as_a_command_says_and_stays_as_it_was_for_others():
    word = Option("--a-word", "a word", settings={"metavar": "W"})
    other = word.but("another").needed()
    assert (other.help, other.required, other.dest) == ("another", True, "a_word")
    assert (word.help, word.required) == ("a word", False)
    assert other.optional() == word.but("another")
    taken = argparse.ArgumentParser()
    word.add_to(taken)
    Option("PLACE", "a place").add_to(taken)
    assert taken.parse_args(["there", "--a-word", "x"]) == argparse.Namespace(a_word="x", PLACE="there")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'? (allowed: plan, "),
        (["plan", "--protocl", "smoke"], "unknown option '--protocl'; did you mean '--protocol'? (allowed: --help, "),
        (["plan", "--protocl=smoke"], "unknown option '--protocl'; did you mean '--protocol'? (allowed: --help, "),
        (
            ["speed", "--what", "trian"],
            "argument --what: unknown value 'trian'; did you mean 'train'? (allowed: train,",
        ),
        (["train", "--protocol", "smoke"], "the following arguments are required: --variant, --seed"),
    ],
)
def test_a_name_that_is_none_is_answered_with_the_nearest_one_and_all_that_there_are(words, told, capsys):
    with pytest.raises(SystemExit) as end:
        parser().parse_args(words)
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_what_stands_behind_two_hyphens_is_no_flag():
    taken = Parser()
    taken.add_argument("word")
    assert taken.parse_args(["--", "-x"]).word == "-x"
