"""Lock, version ranges, conda environment, Makefile and Snakemake profile agree and do what they say."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.helpers.order import LONG

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK_TEXT = (ROOT / "requirements.lock").read_text()
LOCK_LINES = [line.rstrip("\\ ") for line in LOCK_TEXT.splitlines() if line[0] not in "# "]
LOCK = {canonicalize_name(pin.name): pin for pin in map(Requirement, LOCK_LINES)}

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def locked_version(name: str) -> str:
    (specifier,) = LOCK[canonicalize_name(name)].specifier
    return specifier.version


def test_lock_names_one_exact_version_a_package():
    assert [line for line in LOCK_LINES if not re.match(r"[a-z0-9-]+==[\w.]+( ; |$)", line)] == []
    assert len(LOCK) == len(LOCK_LINES)


NEEDS = [*PROJECT["dependencies"], *(need for needs in PROJECT["optional-dependencies"].values() for need in needs)]


@pytest.mark.parametrize("range_", [need for need in NEEDS if not need.startswith("deep-in-time[")])
def test_lock_satisfies_the_range(range_):
    requirement = Requirement(range_)
    assert requirement.specifier.contains(locked_version(requirement.name))


def test_lock_holds_all_that_its_packages_need():
    missing = []
    for package in metadata.distributions():
        name = canonicalize_name(package.name)
        if name not in LOCK or package.version != locked_version(name):
            continue
        for need in map(Requirement, package.requires or ()):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                pinned = canonicalize_name(need.name) in LOCK
                if not pinned or not need.specifier.contains(locked_version(need.name)):
                    missing.append(f"{name} needs {need}")
    assert missing == []


def test_lock_asks_for_no_cuda_outside_linux():
    elsewhere = [n for n, pin in LOCK.items() if not pin.marker or pin.marker.evaluate({"sys_platform": "darwin"})]
    assert "torch" in elsewhere
    assert [name for name in elsewhere if re.match(r"nvidia|cuda|triton", name)] == []


def test_torch_and_torchvision_are_of_one_build():
    import torch
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]
    assert (locked_version("torch"), locked_version("torchvision")) == ("2.15.0", "0.29.2")


def test_every_package_of_the_lock_has_the_checksums_of_its_files():
    without_comments = "".join(line for line in LOCK_TEXT.splitlines(keepends=True) if not line.startswith("#"))
    packages = re.split(r"\n(?=[a-z])", without_comments)
    assert len(packages) == len(LOCK)
    assert [one for one in packages if not re.search(r" \\\n    --hash=sha256:[0-9a-f]{64}", one)] == []
    assert "--require-hashes" in (ROOT / "Makefile").read_text()


def test_conda_environment_has_the_versions_of_the_lock():
    packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda, pip = packages[:-1], packages[-1]["pip"]
    assert pip == ["-r requirements.lock"]
    (python,) = (name.removeprefix("python=") for name in conda if name.startswith("python="))
    assert f"{python}.0" in SpecifierSet(PROJECT["requires-python"])


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # Without what an outer `make test` hands down to the makes below it, and with no other active environment.
    names = ("MAKE", "VIRTUAL_ENV", "CONDA_PREFIX")
    surroundings = {key: value for key, value in os.environ.items() if not key.startswith(names)} | environment
    return subprocess.run(["make", *arguments], cwd=folder, env=surroundings, capture_output=True, text=True)


@pytest.fixture
def bare_clone(tmp_path: Path) -> Path:
    """A folder with the Makefile and a lock that asks for nothing."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").touch()
    return tmp_path


@needs_make
def test_make_all_installs_the_lock_then_the_project_then_runs_the_workflow(bare_clone):
    (bare_clone / "pyproject.toml").touch()
    plan = make(bare_clone, "--dry-run", "all", "CONFIG=protocol=smoke data_dir=d").stdout
    steps = (
        "-m venv --clear .venv",
        "--require-hashes --requirement requirements.lock",
        "--no-deps --no-build-isolation --editable .",
        "snakemake --cores all all --config protocol=smoke data_dir=d\n",
    )
    positions = [plan.find(step) for step in steps]
    assert positions == sorted(positions)
    assert positions[0] >= 0


@needs_make
def test_make_without_a_suitable_python_says_so_in_one_line(bare_clone):
    result = make(bare_clone, ".venv/locked", "PYTHON=no-such-python")
    assert result.returncode != 0
    assert result.stderr.startswith("error: no Python >= 3.11")
    assert len(result.stderr.splitlines()) == 2  # ours, and make's own
    assert not (bare_clone / ".venv").exists()


@needs_make
def test_make_redoes_a_broken_off_installation_and_skips_a_finished_one(bare_clone):
    half_written = bare_clone / ".venv" / "lib" / "half-written"
    half_written.mkdir(parents=True)
    assert make(bare_clone, ".venv/locked").returncode == 0
    assert not half_written.exists()
    assert "up to date" in make(bare_clone, ".venv/locked").stdout


def write_program(path: Path, words: str) -> None:
    """A program of a pretended environment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{words}\n")
    path.chmod(0o755)


def pretended_environment(folder: Path, *, whole: bool) -> Path:
    """An environment whose `python` says that it has all packages, or lacks some; its programs say their name."""
    write_program(folder / "bin" / "python", f"exit {0 if whole else 1}")
    for name in ("mlflow", "snakemake", "ruff", "snakefmt", "basedpyright"):
        write_program(folder / "bin" / name, f"echo {folder}: {name}")
    return folder


def files_of(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in folder.rglob("*")}


@needs_make
@pytest.mark.parametrize("target", ["all", "lint", ".venv/locked", ".venv/installed", "linked"])
def test_make_never_builds_or_empties_an_environment_through_a_link(bare_clone, tmp_path_factory, target):
    shared = pretended_environment(tmp_path_factory.mktemp("shared"), whole=False)
    (bare_clone / ".venv").symlink_to(shared)
    (bare_clone / "pyproject.toml").touch()
    before = files_of(shared)
    result = make(bare_clone, target)
    assert result.returncode != 0
    assert result.stderr.startswith(f"error: .venv is a link to {shared}")
    assert len(result.stderr.splitlines()) == 2  # ours, and make's own
    assert files_of(shared) == before
    assert (bare_clone / ".venv").is_symlink()


@needs_make
def test_make_uses_a_whole_environment_behind_a_link_as_it_is(bare_clone, tmp_path_factory):
    shared = pretended_environment(tmp_path_factory.mktemp("shared"), whole=True)
    (bare_clone / ".venv").symlink_to(shared)
    before = files_of(shared)
    result = make(bare_clone, "lint")
    assert result.returncode == 0, result.stderr
    assert f"{shared}: basedpyright" in result.stdout
    assert files_of(shared) == before


@needs_make
@pytest.mark.parametrize("variable", ["CONDA_PREFIX", "VIRTUAL_ENV"])
def test_make_uses_the_active_environment_if_it_has_the_packages(bare_clone, tmp_path_factory, variable):
    active = pretended_environment(tmp_path_factory.mktemp("active one"), whole=True)
    for target, program in (("ui", "mlflow"), ("lint", "ruff"), ("all", "snakemake")):
        result = make(bare_clone, target, **{variable: str(active)})
        assert result.returncode == 0, result.stderr
        assert f"{active}: {program}" in result.stdout
    assert not (bare_clone / ".venv").exists()


@needs_make
def test_make_builds_its_own_where_the_active_environment_lacks_packages(bare_clone, tmp_path_factory):
    active = pretended_environment(tmp_path_factory.mktemp("base"), whole=False)
    (bare_clone / "pyproject.toml").touch()
    plan = make(bare_clone, "--dry-run", "lint", CONDA_PREFIX=str(active)).stdout
    assert "-m venv --clear .venv" in plan
    assert f'PATH="{bare_clone}/.venv/bin:' in plan


@needs_make
def test_make_ui_builds_nothing_and_says_what_would(bare_clone):
    result = make(bare_clone, "ui")
    assert result.returncode != 0
    assert result.stderr.startswith(f"error: {bare_clone}/.venv has no MLflow, and this builds nothing: ")
    assert "make .venv/installed" in result.stderr
    write_program(bare_clone / ".venv/bin/mlflow", "echo opened")
    (bare_clone / "requirements.lock").touch()  # younger than the environment
    assert make(bare_clone, "ui").stdout == "opened\n"
    assert not (bare_clone / ".venv" / "locked").exists()


@needs_make
def test_make_ui_prints_the_address_of_the_table_of_each_protocol(bare_clone):
    (bare_clone / "benchmark").symlink_to(ROOT / "benchmark")
    (bare_clone / "models").symlink_to(ROOT / "models")
    with sqlite3.connect(bare_clone / "mlflow.db") as store:
        store.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT, lifecycle_stage TEXT)")
        store.execute("INSERT INTO experiments VALUES (0, 'Default', 'active'), (4, 'quick', 'active')")
    store.close()
    write_program(bare_clone / ".venv/bin/mlflow", "echo opened")
    write_program(bare_clone / ".venv/bin/python", f'exec {sys.executable} "$@"')
    said = make(bare_clone, "ui", "PORT=5001", MLFLOW_TRACKING_URI="").stdout
    address = "http://127.0.0.1:5001/#/experiments/4/runs?workflowType=machine_learning&viewStateShareKey=best-variant"
    assert said.split() == ["quick", address, "opened"]


@needs_make
def test_make_ui_listens_on_this_machine_alone_and_tells_no_password(bare_clone, monkeypatch):
    write_program(bare_clone / ".venv/bin/mlflow", 'echo "$@"; echo "$MLFLOW_BACKEND_STORE_URI" > told')
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://someone:s3cr3t@elsewhere/runs")
    assert make(bare_clone, "ui").stdout == "ui --host 127.0.0.1 --port 5000\n"
    assert (bare_clone / "told").read_text() == "postgresql://someone:s3cr3t@elsewhere/runs\n"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://someone:s3cr3t@elsewhere")
    assert make(bare_clone, "ui").stdout == "The runs are on https://elsewhere: open that in a browser.\n"


def test_mlflow_listens_on_this_machine_unless_told_otherwise():
    from mlflow.cli import server

    (host,) = (option for option in server.params if option.name == "host")
    assert host.default == "127.0.0.1"


def test_snakemake_finds_the_profile_by_itself(monkeypatch):
    from snakemake.cli import parse_args

    monkeypatch.chdir(ROOT)
    _, options = parse_args(["--cores", "2"])
    assert (options.nolock, options.rerun_incomplete, options.show_failed_logs) == (True, True, True)
    assert options.keep_going is True
    assert options.resources["gpu"].value == 1


def test_what_the_type_check_passes_over_is_one_rule_with_a_reason():
    packages = ("models", "benchmark", "deep_in_time")
    sources = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    marked = [
        line for path in sources for line in path.read_text().splitlines() if re.search("# (pyright|type):", line)
    ]
    assert marked
    reasoned = re.compile(r"# pyright: ignore\[report\w+(, report\w+)*\]  # \w")
    assert [line for line in marked if not reasoned.search(line)] == []


def test_files_of_tests_that_begin_exist():
    assert [file for file in LONG if not (ROOT / file).is_file()] == []


def test_version_and_licence_are_one_in_all_files():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert f"({PROJECT['version']})" in (ROOT / "CHANGELOG.md").read_text()


def test_hooks_are_the_tools_of_the_environment_and_of_make_lint():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    tools = [re.match(r"\.venv/bin/(\S+)", hook["entry"])[1] for hook in local["hooks"]]
    assert set(tools) <= LOCK.keys()
    rule = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert set(tools) == set(re.findall(r"\$\(IN_VENV\) (\S+)", rule)) - {"snakemake"}


@needs_make
def test_gpu_check_with_a_python_of_ones_own_builds_and_fetches_nothing():
    command = ["make", "--dry-run", "gpu-check", "GPU_PYTHON=/opt/python"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    runs = [line for line in said.splitlines() if "timeout" in line]
    assert all("/opt/python -m " in line for line in runs)
    assert "venv" not in said
    assert "pip" not in said
    asked = [re.search(r"(pytest|--predicted|cuda-\S+(?=\.json$))", line)[1] for line in runs]
    bf16 = "cuda-128-64-bf16"
    stacks = [f"cuda-stack-{count}" for count in (1, 2, 4, 8)]
    assert asked == ["pytest", bf16, f"{bf16}-batch64", *stacks, "cuda-data", "cuda-recompute", "--predicted"]
    assert [f"--trace gpu_traces/{name}.trace.json" in said for name in asked[1:4]] == [True, True, False]
    assert sum(int(limit) for limit in re.findall(r"timeout (\d+)", said)) <= 480


@needs_make
def test_packages_for_a_machine_without_a_network_are_those_of_the_lock():
    command = ["make", "--dry-run", "--always-make", "gpu_packages", "PYTHON=/opt/python"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = re.search(r"echo ([\w -]+) \|", said)[1].split()
    assert {"pydantic", "beartype", "pyarrow"} < set(names)
    assert [name for name in names if name not in LOCK] == []
    assert "venv" not in said
