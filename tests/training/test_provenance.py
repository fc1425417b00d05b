"""What a stage loads is what its sources name: no file can change a result without being noticed."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmark.config import code_sources
from benchmark.config.code_sources import (
    ROOT,
    STAGES,
    code_hash,
    definitions,
    is_import,
    network_sources,
    short_hash,
    sources,
)
from benchmark.config.variants import OF_ANY_CLIPS
from benchmark.training import provenance
from models.spec import CELLS, ModelSpec
from tests.helpers.made_films import moving_square

TRACE = """
import contextlib, itertools, json, sys
import matplotlib.pyplot, mlflow, pandas, torch  # once, not anew for every stage

protocols, results, chain, refused = json.loads(sys.argv[1]), sys.argv[2], *map(json.loads, sys.argv[3:])


def ours():
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("benchmark", "models")}


loaded = {}
for protocol, (stage, arguments) in itertools.product(protocols, chain):
    for name in ours():
        del sys.modules[name]
    from benchmark.__main__ import main
    with contextlib.redirect_stdout(sys.stderr):
        status = main([stage, "--protocol", protocol, "--results-dir", results, *arguments])
        assert (status == 0) != ([protocol, stage] in refused), stage
    loaded.setdefault(stage, []).extend(module.__file__ for module in ours().values())
print(json.dumps(loaded))
"""
PROTOCOL = """
about: One tiny network that has a highway.
data: {{{data}, frame_size: 12, validation_clips: 1, test_clips: 2}}
model: {{layers: 2, hidden_channels: 3, kernel_size: 3, patch_size: 4}}
training: {{steps: 2, batch_size: 2, learning_rate: 0.01, sampling: {{kind: scheduled}}, device: cpu}}
evaluation: {{lpips_backbone: squeeze}}
probe: {{clips: 2}}
variants: [predrnnpp]
seeds: [1]
"""
DATA = {
    "digits": "digits: optdigits, digit_size: 6, context: 3, horizon: 2",
    "videos": "videos: squares, context: 3, horizon: 2",
    "recall": "recall: optdigits, digit_size: 6, gap: 2",
}
"""One of each kind, whose files together are those of a stage."""
SPEC = ModelSpec(cell="causal_lstm", hidden_channels=(3, 3), frame_size=12, highway_slot=1)
RUN = ["--variant", "predrnnpp", "--seed", "1"]
CHAIN = [
    ("plan", ["--counts-only"]),
    ("data", []),
    ("floor", ["--clips", "2"]),
    ("baselines", []),
    ("backbone", []),
    ("train", RUN),
    *(("evaluate", ["--variant", name, "--seed", "0"]) for name in OF_ANY_CLIPS),
    ("evaluate", RUN),
    ("probe", RUN),
    ("record", RUN),
    *(("record", ["--variant", name, "--seed", "0"]) for name in OF_ANY_CLIPS),
    ("tables", []),
    ("figures", []),
]

EVERYWHERE = {
    "benchmark/__main__.py": "hands options over",
    "benchmark/cli/": "hands options over",
    "benchmark/cost/speed.py": "hands options over",
    "benchmark/config/": "its resolved values are parameters of the rules and part of the run's identity",
    "models/spec.py": "as benchmark/config",
    "models/decoupling.py": "a loss that only networks with its adapter have, which names it",
    "models/forecasters/": "finds and wraps models outside the benchmark, whose own sources name it",
    "benchmark/system/": "stores, shows, waits, finds devices, whose kind is fixed by the protocol and recorded",
    "benchmark/training/provenance.py": "records",
    "benchmark/reporting/outputs.py": "another name is another output of its rule",
    "benchmark/reporting/published_records.py": "says where published records lie, which are inputs then",
}
"""Files and folders that decide no number of any stage that does not list them -> why."""
ON_A_GPU = {
    f"models/fast_path/{name}.py"
    for name in ("stages", "gate_kernels", "product_kernels", "norm_stages", "norm_kernels")
}
"""Sources that a CPU does not load."""
CLIPS = {"benchmark/data/": "decides the clips, which arrive with the hashes of data.json, an input"}
RECORDS = {
    "benchmark/reporting/": "reads what others made",
    "benchmark/evaluation/mean_scores.py": "made the means that records hold",
    "benchmark/evaluation/memory/table.py": "made the summaries that records hold",
}
EXEMPT = {
    "plan": {},
    "data": {
        "benchmark/data/kinds.py": "finds the kind of the data section",
        "benchmark/data/moving_digits/kind.py": "hands over to its prepare.py and clips.py",
        "benchmark/data/recall/kind.py": "hands over to still_digits/prepare.py and its clips.py",
        "benchmark/data/still_digits/kind.py": "looks and describes",
        "benchmark/data/videos/kind.py": "hands over to its prepare.py and clips.py",
        "benchmark/data/npz.py": "reads",
        "benchmark/data/published_files.py": "fetches, by checksum",
        "benchmark/data/moving_digits/occlusion.py": "hides digits in training and evaluation",
    },
    "floor": CLIPS,
    "baselines": CLIPS
    | {
        "benchmark/training/": "read with the clips of a training, trains nothing",
        "models/": "as benchmark/training",
    },
    "backbone": {},
    "train": CLIPS
    | {
        "benchmark/training/checkpoint.py": "stores",
        "benchmark/training/weight_files.py": "stores",
        "benchmark/training/run_folder.py": "records",
        "benchmark/cost/plan.py": "refuses unmatched parameters",
        "benchmark/reporting/tracking/": "mirrors",
        "models/counts.py": "its counts stand in run.yaml for people",
    },
    "evaluate": CLIPS
    | {
        "benchmark/evaluation/lpips_backbone.py": "decides lpips_backbone.json, an input",
        "benchmark/evaluation/clip_images.py": "shows examples.npz",
        "benchmark/training/weight_files.py": "reads",
    },
    "probe": CLIPS
    | {
        "benchmark/training/weight_files.py": "reads",
        "benchmark/reporting/": "shows probe.parquet",
        "benchmark/evaluation/mean_scores.py": "read with benchmark/reporting, scores nothing",
        "benchmark/evaluation/ideal_line.py": "read with benchmark/reporting, measures nothing",
    },
    "record": CLIPS,
    "tables": CLIPS | RECORDS,
    "figures": CLIPS | RECORDS,
}
"""Stage -> what it loads besides, file or folder, that decides no number of it, and why."""


def exempt(name, stage):
    """Whether a file that `stage` loads is exempt, by itself or by its folder; files that only mark a package are."""
    return name.endswith("/__init__.py") or name.startswith(tuple(EVERYWHERE | EXEMPT[stage]))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The project's own files that each stage loads when it really runs."""
    folder = tmp_path_factory.mktemp("trace")
    for kind, data in DATA.items():
        (folder / f"{kind}.yaml").write_text(PROTOCOL.format(data=data))
    (folder / "data" / "squares").mkdir(parents=True)
    for clip in range(6):  # below the default of --data-dir
        np.save(folder / "data" / "squares" / f"{clip}.npy", moving_square(10, 12, 12, clip))
    environment = os.environ | {"MLFLOW_TRACKING_URI": "sqlite:////proc/no/mlflow.db", "PYTHONPATH": str(ROOT)}
    protocols = [str(folder / f"{kind}.yaml") for kind in DATA]
    command = [sys.executable, "-c", TRACE, json.dumps(protocols), str(folder / "results")]
    command += [
        json.dumps(CHAIN),
        json.dumps([[str(folder / f"{kind}.yaml"), "floor"] for kind in ("videos", "recall")]),
    ]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {
        stage: {str(Path(name).relative_to(ROOT)) for name in files} for stage, files in json.loads(done.stdout).items()
    }


def listed(stage):
    return set(sources(stage, SPEC if stage in ("plan", "train", "evaluate", "probe") else None))


@pytest.mark.parametrize("stage", STAGES)
def test_every_file_that_a_stage_loads_is_a_source_or_exempt_for_a_reason(loaded, stage):
    assert sorted(name for name in loaded[stage] - listed(stage) if not exempt(name, stage)) == []


@pytest.mark.parametrize("stage", STAGES)
def test_every_source_exists_and_is_loaded(loaded, stage):
    assert [name for name in listed(stage) if not (ROOT / name).is_file()] == []
    assert {name for name in listed(stage) if name.endswith(".py")} - loaded[stage] - ON_A_GPU == set()


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_exempt_that_is_not_loaded(loaded, stage):
    assert [place for place in EXEMPT[stage] if not any(name.startswith(place) for name in loaded[stage])] == []
    every = set().union(*loaded.values())
    assert [place for place in EVERYWHERE if not any(name.startswith(place) for name in every)] == []


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("slot", [0, 1])
def test_sources_of_a_network_are_its_own_cell_and_highway(cell, slot):
    found = set(network_sources(ModelSpec(cell=cell, hidden_channels=(2, 2), frame_size=8, highway_slot=slot)))
    fast = {str(path.relative_to(ROOT)) for path in (ROOT / "models" / "fast_path").glob("[!_]*.py")}
    shared = {"models/predictor.py", "models/convolution.py", "models/precision.py"} | fast
    assert found == shared | {f"models/{cell}.py"} | ({"models/gradient_highway.py"} if slot else set())


@pytest.fixture
def copied_sources(tmp_path, monkeypatch):
    for package in ("models", "benchmark"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_sources, "ROOT", tmp_path)
    return tmp_path


def test_code_hash_follows_the_files_of_its_network_and_no_other(copied_sources):
    predrnn = ModelSpec(cell="st_lstm", hidden_channels=(2, 2), frame_size=8)
    before = code_hash("train", predrnn), code_hash("train", SPEC)
    with (copied_sources / "models" / "st_lstm.py").open("a") as source:
        source.write("CHANGED = 1\n")
    after = code_hash("train", predrnn), code_hash("train", SPEC)
    assert before[0] != after[0]
    assert before[1] == after[1]
    with (copied_sources / "benchmark" / "training" / "step.py").open("a") as source:
        source.write("CHANGED = 1\n")
    assert code_hash("train", SPEC) != after[1]


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("x = 1", "x = 1  # one\n", True),
        ("x = 1", "x: int = 1", False),
        ("x: int = 1", "x: float = 1", True),
        ("def f(a): return a", '"""Said."""\n\ndef f(a: int) -> int:\n    """Said too."""\n    return a', True),
        ("def f(a): return a", "def f(a): return -a", False),
        ("def f(a): return 'a'", "def f(a): return 'b'", False),
        ("def f(a=1): return a", "def f(a=2): return a", False),
        ("def f(a): return a", "def f(b): return b", False),
        ("x = 0.1", "x = 0.10000000000000001", True),
        ("x = 0.1", "x = 0.10000000000000002", False),
        ("x = 1", "x = 1.0", False),
        ("x = 1", "x = True", False),
        ("x = None", "x = []", False),
        ("f(a, b)", "f(\n    a,\n    b,\n)", True),
        ("f(a, b)", "f(b, a)", False),
        ("a + b - c", "(a + b) - c", True),
        ("a + b - c", "a + (b - c)", False),
        ("from m import f\nf()", "from n import f\nf()", False),
        ("from m import f\nf()", "from m import f as g\ng()", True),
        ("import m.n as n\nn.f()", "from m import n\nn.f()", True),
        ("import m\nx = 1", "x = 1", True),
        ("return", "return None", False),
    ],
)
def test_outline_changes_with_what_is_done_and_not_with_what_is_said(old, new, same):
    found = [[outline for _, outline in definitions(text.encode())] for text in (old, new)]
    assert (found[0] == found[1]) is same


def test_outline_is_the_same_in_every_version_of_python():
    text = (
        "import a.b as c\n@d\nclass C(B, k=1):\n    x: int = 1\n    async def f(self, *a, b=-1, **c):\n"
        "        with g(f'{a!r:>{b}} {{}}') as h: yield [i for i in a if i > 0.5e-3]\n"
    )
    assert short_hash("".join(outline for _, outline in definitions(text.encode()))) == "1621b6d9778fe5fb"


MOVED = {
    "benchmark/one.py": """
from math import tau
from benchmark import other
from benchmark.other import LIMIT as most, turn

def spin(size):
    return other.turn(size) * tau if size < most else turn(size, other.LIMIT)
""",
    "benchmark/other.py": "import math\n\nLIMIT = 3\n\ndef turn(size, most=None):\n    return math.floor(size)\n",
}
AFTER_MOVE = {
    "benchmark/deep/__init__.py": "",
    "benchmark/deep/limits.py": '"""Said."""\n\nLIMIT = 3\n',
    "benchmark/deep/motion.py": """
import math
from math import tau
from benchmark.deep import limits

def turn(size, most=None):
    return math.floor(size)

def spin(size):
    return turn(size) * tau if size < limits.LIMIT else turn(size, limits.LIMIT)
""",
}


@pytest.mark.parametrize("changed", [None, ("LIMIT = 3", "LIMIT = 4"), ("math.floor", "math.ceil"), ("* tau", "* 6")])
def test_a_pure_move_leaves_the_hash_equal_and_a_change_on_the_way_does_not(tmp_path, monkeypatch, changed):
    def hash_of(files, folder):
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        monkeypatch.setattr(code_sources, "ROOT", folder)
        monkeypatch.setattr(code_sources, "_parts", lambda stage, spec: list(files))
        return code_hash("train", SPEC)

    after = {name: text.replace(*changed) if changed else text for name, text in AFTER_MOVE.items()}
    assert (hash_of(MOVED, tmp_path / "before") == hash_of(after, tmp_path / "after")) is (changed is None)


def kept(text, names):
    """A module's imports, and its definitions: all or those of these names."""
    body = ast.parse(text).body
    chosen = [node for node in body if names is None or getattr(node, "name", None) in names or is_import(node)]
    return "\n".join(ast.unparse(node) for node in chosen)


@pytest.mark.parametrize("stage", ["train", "evaluate", "probe"])
def test_a_stage_in_one_file_has_the_hash_of_the_stage_in_many(stage, tmp_path, monkeypatch):
    """All sources of a stage moved into one module, each `module.name` still spelt as before."""
    parts, before = [name.partition(":") for name in code_sources._parts(stage, SPEC)], code_hash(stage, SPEC)
    moved = "\n".join(kept((ROOT / name).read_text(), names.split(",") if names else None) for name, _, names in parts)
    (tmp_path / "moved.py").write_text(moved)
    shutil.copytree(ROOT / "benchmark", tmp_path / "benchmark", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "models", tmp_path / "models", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_sources, "ROOT", tmp_path)
    monkeypatch.setattr(code_sources, "_parts", lambda stage, spec: ["moved.py"])
    assert code_hash(stage, SPEC) == before


def test_provenance_names_code_data_versions_device_and_command_but_no_machine(make_protocol, prepared_data):
    run = make_protocol().run("predrnnpp", 1)
    record = provenance.provenance(run, prepared_data, "cpu")
    data = json.loads((prepared_data / "data.json").read_text())
    assert record["code_hash"] == code_hash("train", run.model)
    assert record["data_hash"] == data["data_hash"]
    names = ("source", "digits_sha256", "validation_sha256", "test_sha256")
    assert record["data"] == {name: data[name] for name in names}
    assert (record["config_hash"], record["device"]) == (run.identity(), "cpu")
    assert record["versions"].keys() >= {"python", "torch", "numpy", "scipy", "pandas", "scikit-image", "lpips"}
    assert record["determinism"]["threads"] == 1
    assert record["command"] == "python -m benchmark train --protocol tiny --variant predrnnpp --seed 1 --device cpu"
    text = json.dumps(record)
    assert os.uname().nodename not in text
    assert str(ROOT) not in text


def test_provenance_tells_one_uncommitted_change_from_another_and_from_none(
    make_protocol, prepared_data, tmp_path, monkeypatch
):
    run, copy = make_protocol().run("predrnnpp", 1), tmp_path / "copy"
    for package in ("models", "benchmark"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "copy"]):
        subprocess.run([*git, *command], cwd=copy, check=True)
    monkeypatch.setattr(provenance, "ROOT", copy)
    found = []
    for text in ("", "# one\n", "# another \xff\n"):
        with (copy / "models" / "predictor.py").open("a", encoding="latin-1") as source:
            source.write(text)
        record = provenance.provenance(run, prepared_data, "cpu")
        found.append((record["git_dirty"], record["git_diff_hash"]))
    assert found[0] == (False, None)
    assert [dirty for dirty, _ in found[1:]] == [True, True]
    assert len({digest for _, digest in found}) == 3


def test_outside_a_git_checkout_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git("rev-parse", "HEAD") is None
