"""The mutation check in short, and, in `make test-all`, the whole of `python tests/mutation_check.py`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import MUTANTS

ROOT = Path(__file__).parents[1]
PAGES = "".join((ROOT / "docs" / name).read_text() for name in ("equations.md", "floor.md"))

A_FEW = """
import sys
import torch  # before the processes are forked
import mutation_check
mutants = [mutant for mutant in mutation_check.ALL if mutant.equation in ("1f", "4e")]
harmless = mutation_check.Mutant("models/convlstm.py", "1e", "nothing", "f * c + i * g", "i * g + f * c")
unfit = mutation_check.Mutant("models/convlstm.py", "1e", "not Python", "f * c + i * g", "f * * c")
sys.exit(mutation_check.check([None, *mutants, harmless, unfit], suite=[mutation_check.NETWORK]))
"""


@pytest.mark.slow
def test_every_mutant_is_caught():
    command = [sys.executable, ROOT / "tests" / "mutation_check.py"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, "\n".join(line for line in run.stdout.splitlines() if not line.startswith("caught"))


def test_a_few_mutants_are_caught_and_survivors_and_unfit_ones_are_named():
    run = subprocess.run([sys.executable, "-c", A_FEW], cwd=ROOT / "tests", capture_output=True, text=True, check=False)
    assert re.findall(r"^\w+ +Eq. \w+|^passes", run.stdout, re.MULTILINE) == [
        "passes",
        "caught   Eq. 1f",
        "caught   Eq. 4e",
        "SURVIVED Eq. 1e",
        "BROKEN   Eq. 1e",
    ], run.stdout + run.stderr
    assert run.stdout.splitlines()[-1].startswith("3 of 5 ")
    assert run.returncode == 1


@pytest.mark.parametrize("file", MUTANTS)
def test_every_mutant_changes_one_place_of_todays_code(file):
    source = (ROOT / file).read_text()
    assert [fault for fault in MUTANTS[file] if source.count(fault[2]) != 1 or fault[2] == fault[3]] == []


def test_every_equation_has_a_mutant():
    numbers = {re.match(r"F?\d+", fault[0])[0] for faults in MUTANTS.values() for fault in faults if fault[0]}
    assert numbers == {*re.findall(r"\\tag\{(F?\d+)[a-z]?\}", PAGES)}
    assert sum(map(len, MUTANTS.values())) >= 25
