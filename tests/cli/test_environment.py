"""What a notebook, a shell or a scheduler leaves in the environment ends no command, and changes no exit status."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmark.cli.commands import COMMANDS
from benchmark.cli.environment import is_utf8
from tests.helpers.fixtures import TINY

ROOT = Path(__file__).parents[2]
INLINE = "module://matplotlib_inline.backend_inline"
NOWHERE = {"HOME": "/proc/nobody", "XDG_CACHE_HOME": "/proc/nobody/cache", "MPLCONFIGDIR": "/proc/nobody/matplotlib"}
ENVIRONMENTS = {
    "a notebook's backend that is not installed": {"MPLBACKEND": INLINE},
    "ipympl's": {"MPLBACKEND": "module://ipympl.backend_nbagg"},
    "the short name of an inline backend": {"MPLBACKEND": "inline"},
    "a backend that needs a screen": {"MPLBACKEND": "TkAgg", "DISPLAY": ":99"},
    "a backend that does not exist": {"MPLBACKEND": "nonsense"},
    "an output in Latin-1": {"PYTHONIOENCODING": "latin-1"},
    "an output in ASCII": {"PYTHONIOENCODING": "ascii"},
    "an output in Windows' encoding": {"PYTHONIOENCODING": "cp1252"},
    "a home that cannot be written to": NOWHERE,
    "no terminal to speak of": {"TERM": "", "COLUMNS": "0", "LINES": "none", "NO_COLOR": "1"},
    "a time zone and a language that do not exist": {"TZ": "Nowhere/At_All", "LANG": "xx_YY", "LC_ALL": "xx_YY"},
    "a matplotlib configuration that is no file": {"MATPLOTLIBRC": "/proc/nobody/matplotlibrc"},
    "all of that at once": NOWHERE
    | {"MPLBACKEND": INLINE, "PYTHONIOENCODING": "ascii", "TERM": "", "COLUMNS": "0", "TZ": "Nowhere", "LANG": "xx_YY"},
}
QUICK = "all of that at once"
ARROW = {"id": "convlstm", "label": "ConvLSTM → ∞ é"}
"""A variant whose name no narrow encoding has."""


@pytest.fixture
def folder(tmp_path):
    """A folder with all that the commands are given."""
    values = TINY | {"about": "Tiny → ∞ é.", "variants": [ARROW, "predrnn"], "seeds": [1]}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values))
    untrained = values | {"training": TINY["training"] | {"steps": 0}, "variants": [ARROW]}
    (tmp_path / "untrained.yaml").write_text(yaml.safe_dump(untrained))
    np.save(tmp_path / "clips.npy", np.random.default_rng(1).integers(0, 256, (3, 5, 12, 12), dtype=np.uint8))
    (tmp_path / "cases").mkdir()
    shutil.copy(ROOT / "tests" / "golden" / "ghu.npz", tmp_path / "cases")
    return tmp_path


def statuses(forker, folder, environment):
    """Run every command; returns command -> exit status, and asserts that none meets what nobody foresaw."""
    results = folder / f"results-{len(list(folder.glob('results-*')))}"
    tiny = ["--protocol", folder / "tiny.yaml", "--results-dir", results]
    untrained = ["--protocol", folder / "untrained.yaml", "--results-dir", results]
    run, model = ["--variant", "convlstm", "--seed", "1"], results / "tiny/runs/convlstm/seed=1/model.safetensors"
    small = "--hidden-channels 4,4 --frame-size 16 --kernel-size 3 --batch-size 2 --context 3 --horizon 2 --repeats 2"
    steps = [
        ("doctor", tiny),
        ("plan", tiny),
        ("init-store", tiny[:2]),
        ("data", tiny),
        ("backbone", tiny),
        ("train", [*tiny, "--variant", "convlstm,predrnn", "--seed", "1"]),
        ("evaluate", [*tiny, *run]),
        ("evaluate", [*tiny, "--variant", "predrnn", "--seed", "1"]),
        *(("evaluate", [*tiny, "--variant", name, "--seed", "0"]) for name in ("last-frame", "context-mean", "black")),
        ("evaluate", ["--weights", model, "--data", folder / "clips.npy", "--output", results / "scores.parquet"]),
        ("probe", [*tiny, *run]),
        ("probe", [*tiny, "--variant", "predrnn", "--seed", "1"]),
        ("record", [*tiny, *run]),
        ("data", untrained),
        ("backbone", untrained),
        ("measure", [*untrained, "--variant", "convlstm"]),
        ("status", [*tiny, "--once"]),
        ("tables", tiny),
        ("figures", tiny),
        ("compare", tiny),
        ("publish", [*tiny[:2], "--results-dir", results / "none"]),
        ("reproduce", [folder / "no-record.json", "--results-dir", results]),
        ("sync", ["--results-dir", results]),
        ("predict", ["--weights", model, "--input", folder / "clips.npy", "--output", results / "film.gif"]),
        ("export-weights", ["--to", "openstl", "--input", model, "--output", results / "best.ckpt"]),
        ("import-weights", ["--from", "openstl", "--input", model, "--output", results / "back.safetensors"]),
        ("verify", [folder / "cases"]),
        ("speed", [*small.split(), "--variant", "convlstm", "--device", "cpu", "--threads", "1"]),
    ]
    assert {name for name, _ in steps} == COMMANDS.keys()
    found = []
    for name, arguments in steps:
        status, output = forker.run(name, *arguments, environment=environment)
        assert "Traceback" not in output, (name, output)
        assert "unexpected" not in output, (name, output)
        found.append((name, status))
    return found


@pytest.mark.parametrize(
    "name",
    [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ENVIRONMENTS],
)
def test_every_command_ends_as_in_a_plain_environment(forker, folder, name):
    hostile, plain = (statuses(forker, folder, each) for each in (ENVIRONMENTS[name], {}))
    differ = {first for first, second in zip(hostile, plain, strict=True) if first != second}
    assert differ <= {("doctor", 1)}  # it names a home that cannot be written to
    assert {status for _, status in plain} <= {0, 2}


def test_figures_are_drawn_and_scores_printed_with_a_sign_in_place_of_what_cannot_be_shown(forker, folder):
    assert statuses(forker, folder, ENVIRONMENTS[QUICK]).count(("figures", 0)) == 1
    assert list((folder / "results-0" / "tiny" / "figures").glob("*.pdf")) != []
    printed = [path.read_bytes() for path in folder.glob("job-*.log")]
    assert any(b"ConvLSTM ? ? ?" in text for text in printed)
    assert all(text.isascii() for text in printed)


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b"ConvLSTM ? ? ?"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}, "ConvLSTM ? ? é".encode("latin-1")),
        ({"LC_ALL": "C.UTF-8"}, "ConvLSTM → ∞ é".encode()),
    ],
)
def test_files_are_read_as_utf_8_whatever_the_locale_and_the_terminal_keeps_its_encoding(folder, variables, shown):
    plain = {key: value for key, value in os.environ.items() if not re.match("LC_|LANG|PYTHON(UTF8|IO)", key)}
    command = [sys.executable, "-m", "benchmark", "status", "--once", "--protocol", str(folder / "tiny.yaml")]
    done = subprocess.run(
        [*command, "--results-dir", str(folder)],
        cwd=ROOT,
        env=plain | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown in done.stdout


@pytest.mark.parametrize(
    ("encoding", "expected"), [("UTF-8", True), ("utf8", True), ("utf_8", True), ("ISO-8859-1", False), ("", False)]
)
def test_names_of_utf_8(encoding, expected):
    assert is_utf8(encoding) is expected
