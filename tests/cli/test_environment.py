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

from benchmark.cli.all_commands import COMMANDS
from benchmark.cli.environment import is_utf8
from benchmark.config.variants import OF_ANY_CLIPS
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
ARROW = {"id": "convlstm", "label": "ConvLSTM → ∞ é", "conv_bias": False, "forget_bias": 0.0}
"""A variant whose name no narrow encoding has, and whose weights OpenSTL can have."""


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


def commands(folder):
    """Every command, what follows it and the exit status that it has in any environment, in an order that works."""
    results = folder / "results"
    tiny = ["--protocol", folder / "tiny.yaml", "--results-dir", results]
    untrained = ["--protocol", folder / "untrained.yaml", "--results-dir", results]
    model = results / "tiny" / "runs" / "convlstm" / "seed=1" / "model.safetensors"
    clips = [folder / "clips.npy", "--layout", "NTHW"]
    rows = [("convlstm", "1"), ("predrnn", "1"), *((name, "0") for name in OF_ANY_CLIPS)]
    small = "--hidden-channels 4,4 --frame-size 16 --kernel-size 3 --batch-size 2 --context 3 --horizon 2 --repeats 2"
    return [
        ("doctor", tiny, 0),
        ("plan", tiny, 0),
        ("init-store", tiny[:2], 0),
        ("data", tiny, 0),
        ("backbone", tiny, 0),
        ("floor", [*tiny, "--clips", "20"], 0),
        ("baselines", tiny, 0),
        ("train", [*tiny, "--variant", "convlstm,predrnn", "--seed", "1"], 0),
        *(("evaluate", [*tiny, "--variant", name, "--seed", seed], 0) for name, seed in rows),
        ("evaluate", ["--weights", model, "--data", *clips, "--output", results / "scores.parquet"], 0),
        *(("probe", [*tiny, "--variant", name, "--seed", seed], 0) for name, seed in rows[:2]),
        *(("record", [*tiny, "--variant", name, "--seed", seed], 0) for name, seed in rows),
        ("data", untrained, 0),
        ("backbone", untrained, 0),
        ("measure", [*untrained, "--variant", "convlstm"], 0),
        ("status", [*tiny, "--once"], 0),
        ("tables", tiny, 0),
        ("figures", tiny, 0),
        ("compare", tiny, 2),
        ("choose-rates", tiny, 2),
        ("publish", [*tiny[:2], "--results-dir", results / "none"], 2),
        ("reproduce", [folder / "no-record.json", "--results-dir", results], 2),
        ("sync", ["--results-dir", results], 0),
        ("predict", ["--weights", model, "--input", *clips, "--output", results / "film.gif"], 0),
        ("export-weights", ["--to", "openstl", "--input", model, "--output", results / "best.ckpt"], 0),
        (
            "import-weights",
            ["--from", "openstl", "--input", results / "best.ckpt", "--output", results / "back.safetensors"],
            0,
        ),
        ("verify", [folder / "cases"], 0),
        ("clips", [*tiny, "--output", results / "test_clips.npz"], 0),
        ("copy-workflow", [results / "copy"], 0),
        ("check", ["models.conv_gru:ConvGRUCell", *tiny[:2]], 0),
        ("speed", [*small.split(), "--variant", "convlstm", "--device", "cpu", "--threads", "1"], 0),
    ]


@pytest.mark.parametrize(
    "name",
    [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ENVIRONMENTS],
)
def test_every_command_ends_as_in_a_plain_environment(forker, folder, name):
    wrong, environment = [], ENVIRONMENTS[name]
    for command, arguments, expected in commands(folder):
        status, output = forker.run(command, *arguments, environment=environment)
        if command == "doctor" and "HOME" in environment:
            expected = 1  # it names that
        if status != expected or "unexpected" in output or "Traceback" in output:
            wrong.append((command, status, output))
    assert wrong == []
    drawn = [path.name for path in (folder / "results" / "tiny" / "figures").iterdir()]
    assert any(name.endswith(".pdf") for name in drawn)


def test_every_command_is_tried(folder):
    assert {command for command, _, _ in commands(folder)} == COMMANDS.keys()


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b"/? ? ?"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}, "/? ? é".encode("latin-1")),
        ({"LC_ALL": "C.UTF-8"}, "/→ ∞ é".encode()),
    ],
)
def test_files_are_read_as_utf_8_whatever_the_locale_and_the_terminal_keeps_its_encoding(folder, variables, shown):
    plain = {key: value for key, value in os.environ.items() if not re.match("LC_|LANG|PYTHON(UTF8|IO)", key)}
    command = [sys.executable, "-m", "benchmark", "status", "--once", "--protocol", str(folder / "tiny.yaml")]
    done = subprocess.run(
        [*command, "--results-dir", str(folder / "→ ∞ é")],
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
