"""Break each equation in turn and see that the tests notice: `python tests/mutation_check.py`.

Every mutant is one textual change in a copy of the code. The reference tests run on the copy until one fails; a mutant
that passes them all has survived, and the exit status is 1. The code as it is runs as well and must pass.
"""

import argparse
import contextlib
import importlib
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[1]
COPIED = (
    "models",
    "benchmark",
    "tests/conftest.py",
    "tests/reference",
    "tests/models",
    "tests/helpers/extent.py",
    "tests/helpers/fixtures.py",
    "tests/helpers/forked.py",
    "tests/helpers/tiny.py",
    "tests/helpers/order.py",
    "tests/training/test_curriculum.py",
    "tests/training/test_guard.py",
    "tests/training/test_checkpoint.py",
)
CELLS, NETWORK, MEASURES, MEMORY, FLOOR, INITIAL = SUITE = (
    "tests/reference/test_cells.py",
    "tests/reference/test_network.py",
    "tests/reference/test_measures.py",
    "tests/reference/test_memory.py",
    "tests/reference/test_floor.py",
    "tests/models/test_initialisation.py",
)
FIRST = {
    "models/predictor.py": NETWORK,
    "models/fast_path/merged_gates.py": NETWORK,
    "models/fast_path/winograd.py": NETWORK,
    "benchmark/training/step.py": MEASURES,
    "benchmark/evaluation/gradient_probe.py": MEASURES,
    "benchmark/evaluation/gradient_decay.py": MEASURES,
    "benchmark/evaluation/gate_saturation.py": MEASURES,
    "benchmark/evaluation/memory/time_constants.py": MEMORY,
    "benchmark/evaluation/memory/influence.py": MEMORY,
    "benchmark/evaluation/memory/lyapunov.py": MEMORY,
    "benchmark/evaluation/memory/table.py": MEMORY,
    "benchmark/data/moving_digits/stream.py": MEMORY,
    "benchmark/data/still_digits/stream.py": MEMORY,
    "benchmark/data/moving_digits/starts.py": FLOOR,
    "benchmark/evaluation/floor.py": FLOOR,
    "benchmark/evaluation/ideal_line.py": FLOOR,
}
"""The tests to begin with if not those of the cells: it saves time and changes no verdict."""
OWN = {
    "benchmark/training/masks.py": ("tests/training/test_curriculum.py",),
    "benchmark/training/divergence_guard.py": ("tests/training/test_guard.py",),
    "benchmark/training/checkpoint.py": ("tests/training/test_checkpoint.py",),
}
"""Files whose mutants have tests of their own in place of those of the equations."""
PYTEST = ("-x", "--assert=plain", "--import-mode=importlib", "-p", "no:cacheprovider", "-c", os.devnull)
"""Without the project's own options: the check of types and shapes must have no part in it, only numbers."""
HEAVY = ("torch", "pandas", "scipy.stats", "pydantic", "yaml", "safetensors.torch", "jaxtyping", "matplotlib.pyplot")


@dataclass(frozen=True)
class Mutant:
    """One fault: `old`, which stands once in `file`, becomes `new`."""

    file: str
    equation: str
    fault: str
    old: str
    new: str

    def apply(self, folder: Path) -> None:
        """Put the fault into the copy of the code in `folder`."""
        source = (folder / self.file).read_text()
        if source.count(self.old) != 1:
            raise ValueError(f"{self.file}: {self.old!r} stands there {source.count(self.old)} times, not once")
        (folder / self.file).write_text(source.replace(self.old, self.new))


ALL = [Mutant(file, *fault) for file, faults in MUTANTS.items() for fault in faults]


class FirstFailure:
    """Plugin of pytest that remembers the first test to fail and why; `error` is empty where all pass."""

    def __init__(self) -> None:
        self.test, self.error = "", ""

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Called once a file."""
        if report.failed:
            self.test, self.error = report.nodeid, report.longreprtext.strip().splitlines()[-1]

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> None:
        """Called for each phase of a test."""
        if call.excinfo and not self.error:
            self.test, self.error = item.nodeid.removeprefix("tests/"), call.excinfo.typename


def copy_code(source: Path, folder: Path) -> None:
    """Copy what the suite needs."""
    (folder / "tests").mkdir()
    for part in COPIED:
        if (source / part).is_file():
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / part, folder / part)
        else:
            shutil.copytree(source / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))


def first_failure(code: Path, mutant: Mutant | None, suite: Sequence[str]) -> FirstFailure:
    """Run the suite on a copy of `code` until a test fails; for a process that ends after it."""
    result = FirstFailure()
    suite = sorted(suite, key=lambda tests: tests != FIRST.get(mutant.file if mutant else "", CELLS))
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        copy_code(code, Path(folder))
        if mutant:
            mutant.apply(Path(folder))
        os.chdir(folder)
        sys.path[:] = [folder, *(path for path in sys.path if Path(path).resolve() not in (ROOT, ROOT / "tests"))]
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            pytest.main([*PYTEST, f"--rootdir={folder}", *suite], plugins=[result])
        os.chdir(ROOT)  # so that the copy can be removed
    return result


def judge(task: tuple[Path, Mutant | None, Sequence[str]]) -> tuple[bool, str]:
    """Whether the outcome is as it should be, and a line that tells it."""
    code, mutant, suite = task
    result = first_failure(code, mutant, OWN.get(mutant.file, suite) if mutant else suite)
    place = f"Eq. {mutant.equation:3}" if mutant and mutant.equation else "promise"
    name = f"{place} {mutant.fault}" if mutant else "the code as it is"
    if not mutant:
        return not result.error, f"FAILS    {name}: {result.test}" if result.error else f"passes   {name}"
    if not result.error:
        return False, f"SURVIVED {name}: {mutant.old!r} -> {mutant.new!r} in {mutant.file}"
    if result.error != "AssertionError":  # code that does not run proves nothing
        return False, f"BROKEN   {name}: {result.error} in {result.test}"
    return True, f"caught   {name}: {result.test}"


def check(mutants: Sequence[Mutant | None], suite: Sequence[str] = SUITE, processes: int = 1) -> int:
    """Judge all mutants (None: the code as it is), one line each, then the counts; 0 if all is as it should be."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    caught = 0
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder)
        copy_code(ROOT, code)
        with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as pool:
            for right, line in pool.imap(judge, [(code, mutant, suite) for mutant in mutants], chunksize=1):
                caught += right
                print(line, flush=True)
    print(f"{caught} of {len(mutants)} as it should be: mutants are caught, the code as it is passes")
    return int(caught < len(mutants))


if __name__ == "__main__":
    for module in HEAVY:  # once, for all the processes that are forked
        importlib.import_module(module)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="mutants judged side by side")
    parser.add_argument("--equation", default="", help="only mutants of this one, such as 3 or 3i")
    chosen = parser.parse_args()
    wanted = [mutant for mutant in ALL if re.fullmatch(rf"{chosen.equation or '.*'}[a-z]?", mutant.equation)]
    sys.exit(check([None, *wanted], processes=chosen.processes))
