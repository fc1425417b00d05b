"""A wheel of this checkout, installed beside a person's own `models` and `benchmark`: neither is in the other's way."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import build_backend
from benchmark.system.installation import EXTRAS, INSTALLED, PROGRAM, WORKFLOW, copy_workflow, remedy
from tests.helpers.documented import ROOT, blocks, lines

EXTRA_NEEDS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
HASHES = """
import json
import sys
from importlib import import_module
protocols = import_module(f"{sys.argv[1]}benchmark.config.protocol")
sources = import_module(f"{sys.argv[1]}benchmark.config.code_sources")
stages = [stage for stage in sources.STAGES if all(name.endswith(".py") for name in sources.sources(stage))]
specs = [None, *(run.model for run in protocols.load_protocol("quick").runs())]
print(json.dumps([[stage, sources.code_hash(stage, spec)] for stage in stages for spec in specs]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Where pip has installed the wheel of this checkout, and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-build-isolation", "--target", str(folder), str(ROOT)], check=True)
    assert not (ROOT / "build").exists()  # to build leaves nothing in the checkout
    assert list(ROOT.glob("*.egg-info")) == []
    return folder


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder with a package `models` and a module `benchmark`, which is the working directory."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("WHOSE = 'theirs'\n")
    (tmp_path / "benchmark.py").write_text("WHOSE = 'theirs'\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(site: Path, *arguments: str | Path, status: int = 0) -> str:
    """What Python prints with the installed package and without this checkout, of which `site` would tell it."""
    paths = [site, *dict.fromkeys(sysconfig.get_paths()[name] for name in ("purelib", "platlib"))]
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "MLFLOW_TRACKING_URI": "off"}
    command = [sys.executable, "-S", *map(str, arguments)]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_wheel_holds_one_package_and_one_command(site):
    names = sorted(path.name for path in site.iterdir() if not path.name.endswith(".dist-info"))
    assert names == ["bin", "deep_in_time"]
    (about,) = site.glob("*.dist-info")
    assert (about / "top_level.txt").read_text().split() == ["deep_in_time"]
    assert [path.name for path in (site / "bin").iterdir()] == ["deep-in-time"]


def test_both_are_imported_as_what_they_are(site, own):
    program = (
        "import benchmark, models, sys\n"
        "import deep_in_time as dit\n"
        "print(dit.network('predrnnpp', protocol='smoke').spec.cell, benchmark.WHOSE, models.WHOSE)\n"
        "from deep_in_time.benchmark.cli.all_commands import COMMANDS\n"
        "from deep_in_time.benchmark.data.kinds import KINDS, kind_of\n"
        "from deep_in_time.benchmark.reporting.registry import FIGURES, TABLES, load\n"
        "from deep_in_time.models.predictor import cell_class\n"
        "from deep_in_time.models.spec import CELLS\n"
        "[cell_class(name) for name in CELLS], load(TABLES), load(FIGURES)\n"
        "print(*sorted(name for name in sys.modules if name.partition('.')[0] in ('benchmark', 'models')))\n"
    )
    assert python(site, "-c", program) == "causal_lstm theirs theirs\nbenchmark models\n"


def test_a_page_of_the_library_works_there(site, own, monkeypatch):
    (own / "snippet.py").write_text(next(one.text for one in blocks("docs/library.md") if one.language == "python"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(own))
    assert re.fullmatch(r"squared error of a pixel: 0\.\d+\n", python(site, "snippet.py"))


def test_its_command_speaks_of_itself_and_needs_no_torch(site, own):
    said = python(site, site / "bin" / "deep-in-time", "--help")
    assert said.startswith("usage: deep-in-time [-h] COMMAND")
    assert "python -m benchmark" not in said
    program = (
        "import sys\nfrom deep_in_time.benchmark.cli.parser import parser\nparser()\nprint('torch' in sys.modules)"
    )
    assert python(site, "-c", program) == "False\n"
    mistake = python(site, "-m", "deep_in_time", "publish", "--protocol", "smoke", status=2)
    assert re.fullmatch(r"error: this folder holds no copy .* `deep-in-time copy-workflow FOLDER`.*\n", mistake)


def test_the_workflow_is_copied_out_and_planned(site, own, monkeypatch):
    copy, enter, plan = [line.split() for line in lines([*blocks("docs/install.md")][-1].text)]
    assert (copy[0], enter[0], plan[0]) == ("deep-in-time", "cd", "snakemake")
    assert " ".join(enter) in python(site, site / "bin" / copy[0], *copy[1:])
    monkeypatch.chdir(own / enter[1])
    assert re.search(r"^train +6$", python(site, "-m", *plan, "--dry-run"), re.MULTILINE)
    text = Path("workflows/protocols/smoke.yaml").read_text()
    Path("workflows/protocols/mine.yaml").write_text(text.replace("seeds: [1, 2]", "seeds: [7]"))
    assert python(site, "-m", "deep_in_time", "status", "--protocol", "mine").startswith("mine: 3 runs in results")
    assert "python -m benchmark" not in "".join(path.read_text() for path in Path("workflows").rglob("*.smk"))


def test_its_code_has_the_hashes_of_the_checkout(site, own):
    there = json.loads(python(site, "-c", HASHES, "deep_in_time."))
    here = subprocess.run([sys.executable, "-c", HASHES, ""], cwd=ROOT, capture_output=True, text=True, check=True)
    assert there == json.loads(here.stdout)
    assert len({digest for _, digest in there}) > 10


def test_a_missing_extra_is_named_in_one_line(site, own):
    command = (
        "import sys; sys.modules[sys.argv.pop(1)] = None\nfrom deep_in_time.__main__ import main\nsys.exit(main())"
    )
    protocol = yaml.safe_load((ROOT / "workflows/protocols/smoke.yaml").read_text())
    protocol |= {"data": {"videos": "films", "frame_size": 20, "context": 4, "horizon": 3, "validation_clips": 1}}
    (own / "mine.yaml").write_text(yaml.safe_dump(protocol))
    (own / "films").mkdir()
    for number in range(3):
        (own / "films" / f"{number}.mp4").write_bytes(b"any")
    said = python(site, "-c", command, "av", "data", "--protocol", "mine.yaml", "--data-dir", ".", status=2)
    assert said == "error: av is not installed; pip install 'deep-in-time[workflow]'\n"
    program = (
        "import sys; sys.modules['mlflow'] = sys.modules['av'] = None\n"
        "from deep_in_time.benchmark.reporting.tracking import address, store\n"
        "import deep_in_time as dit\n"
        "for what in (lambda: store.load('sqlite:///x.db'), lambda: dit.FixedClips('mine.yaml', data_dir='.')):\n"
        "    try: what()\n"
        "    except (address.TrackingUnavailable, ValueError) as error: print(error)\n"
    )
    tracking, videos = python(site, "-c", program).splitlines()
    assert "pip install 'deep-in-time[tracking]', or set MLFLOW_TRACKING_URI=off" in tracking
    assert videos == "av is not installed; pip install 'deep-in-time[workflow]'"


def test_what_a_wheel_cannot_express_is_refused():
    assert build_backend.moved(b"from models import spec\n") == b"from deep_in_time.models import spec\n"
    assert build_backend.moved(b"x = 'models.spec:CELLS', 'models of'\n") == (
        b"x = 'deep_in_time.models.spec:CELLS', 'models of'\n"
    )
    with pytest.raises(ValueError, match=r"here:1: write `from` in place of `import models\.spec`"):
        build_backend.moved(b"import models.spec\n", "here")


def test_extras_are_those_of_the_packages():
    (everything,) = EXTRA_NEEDS["all"]
    assert Requirement(everything).extras == EXTRAS.keys() == EXTRA_NEEDS.keys() - {"all", "dev"}
    found = {module: set(map(canonicalize_name, names)) for module, names in metadata.packages_distributions().items()}
    for extra, modules in EXTRAS.items():
        needs = {canonicalize_name(Requirement(need).name) for need in EXTRA_NEEDS[extra]}
        assert [module for module in modules if not found[module] & needs] == []
        assert needs <= set().union(*(found[module] for module in modules))


def test_a_checkout_says_how_its_own_packages_are_installed():
    assert (INSTALLED, PROGRAM) == (False, "python -m benchmark")
    assert remedy("mlflow.tracking") == "pip install -r requirements.lock"
    assert remedy("no_such_package") is None


def test_a_copy_replaces_nothing_that_differs(tmp_path):
    count = copy_workflow(tmp_path)
    assert count > 40
    assert {name.partition("/")[0] for name in WORKFLOW} == {path.name for path in tmp_path.iterdir()}
    (tmp_path / "environment.yml").unlink()
    assert copy_workflow(tmp_path) == 1
    (tmp_path / "Snakefile").write_text("mine")
    with pytest.raises(ValueError, match="Snakefile: is there and differs"):
        copy_workflow(tmp_path)
    assert (tmp_path / "Snakefile").read_text() == "mine"
