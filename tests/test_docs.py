"""What docs and help tell a person to type works, and every link leads somewhere.

Every command is run in a copy of the checkout, or checked.

What takes seconds is run. Of the rest, `python -m benchmark` is parsed, Snakemake plans, make says what it would do;
what needs another machine, a server or a person stands in `NOT_HERE` with the reason. A command that is none of these
fails, also on a new page: say here what it is.
"""

import argparse
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from snakemake.cli import parse_args

from benchmark.__main__ import main
from benchmark.cli.all_commands import COMMANDS as REGISTERED
from benchmark.cli.parser import parser
from benchmark.config.protocol import PROTOCOLS, Protocol, load_protocol, merge
from benchmark.config.workflow import WorkflowConfig
from benchmark.training.weight_files import save_weights
from models.predictor import build
from models.spec import ModelSpec
from tests.helpers.checkout import ROOT, copy_checkout
from tests.helpers.documented import SHELL, Command, anchors, blocks, commands, lines, links, pages, prose

FOLLOWED = {
    "docs/adding_a_cell.md": "tests/test_your_own.py",
    "docs/adding_a_metric.md": "tests/test_your_own.py",
    "docs/adding_a_model.md": "tests/test_your_own.py",
    "docs/adding_data.md": "tests/test_adding_data.py",
    "docs/install.md": "tests/test_install.py",
}
"""Pages that another test follows from the first command to the last."""
RUN = {"doctor": (0, 1), "status": (0,), "verify": (0,), "predict": (0,), "evaluate": (0,)}
RUN |= {"import-weights": (0,), "export-weights": (0,), "check": (0,)}
"""Commands that are run -> how they may end: `doctor` finds a problem where there are no data. The rest are parsed:
they take minutes, or need finished runs, which tests/workflow makes."""
NOT_HERE = {
    "python -m benchmark evaluate --weights convlstm.safetensors --protocol gpu": "needs the digits of MNIST",
    "python -m benchmark evaluate --protocol quick": "needs a finished training; tests/workflow has some",
    "python -m benchmark.reporting.statistics_check": "takes 10 minutes; tests/reporting/test_coverage.py has fewer",
    "python tests/mutation_check.py": "takes minutes; `make test-all` runs it",
    "cp -r": "a checkout to a checkout; tests/workflow/test_workflow.py copies results",
    "conda env create": "needs conda; tests/test_setup.py holds environment.yml against the lock",
    "pre-commit install": "needs pre-commit, which is not of this environment",
    'eval "$(activate-global-python-argcomplete --dest=-)"': "for a shell; tests/cli/test_completion.py runs it",
    "mlflow ui": "a server; tests/reporting/tracking/test_mlflow_page.py has one",
    "mlflow server": "a server; tests/reporting/tracking/test_mirroring.py kills one",
    "ssh ": "needs another machine",
    "apt-get install": "changes the machine; .ci/run does it",
    "torchrun ": "tests/training/test_distributed.py starts some",
    "pip install ": "changes the environment",
    "export MLFLOW_TRACKING_URI=": "for a shell; tests/slurm sets it for what it runs",
    ".venv/bin/snakemake --workflow-profile profiles/slurm": "needs a cluster; tests/slurm has one",
    "snakemake --workflow-profile profiles/slurm": "needs a cluster; tests/slurm has one",
    "python tests/slurm/cluster.py": "needs Slurm; tests/slurm runs it",
}
"""Beginning of a command -> why it is not run here."""
STAND_INS = {
    "NAME": "smoke",
    "DIR": "data",
    "COMMAND": "train",
    "a,b,c": "convlstm,predrnn",
    "RECORD": "results/reference/study-depth/records/convlstm-l2.seed=1.json",
    "results/reference/<protocol>/records/<run>.json": "results/reference/study-depth/records/convlstm-l2.seed=1.json",
}
"""Words that stand for something of a person's own -> what is tried."""
STUDY = "results/reference/study/README.md"
NO_PROTOCOL: dict[str, str] = {}
"""First key of a YAML block that is no piece of a protocol -> what checks it."""

EXAMPLES = [
    Command(f"{name} --help", f"python -m benchmark {name} {words}".rstrip())
    for name, each in REGISTERED.items()
    for words in each.examples
]
COMMANDS = list({(each.text, each.whole): each for each in (*commands(), *EXAMPLES)}.values())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout, with the files of a person's own that the pages name."""
    folder = copy_checkout(tmp_path_factory.mktemp("docs"), records=True)
    sizes = {"hidden_channels": (2, 2), "frame_size": 64, "kernel_size": 3}
    spec = ModelSpec(cell="convlstm", **sizes, conv_bias=False, forget_bias=0.0)  # as OpenSTL has it
    for name in ("model", "convlstm"):
        save_weights(folder / f"{name}.safetensors", build(spec, 1), context=10)
    files = ["--input", str(folder / "model.safetensors"), "--output", str(folder / "best.ckpt")]
    assert main(["export-weights", "--to", "openstl", *files]) == 0
    frames = np.random.default_rng(1).integers(0, 256, (20, 2, 64, 64), dtype=np.uint8)
    np.save(folder / "mnist_test_seq.npy", frames)
    np.save(folder / "clips.npy", frames.swapaxes(0, 1))
    first, *rest = (Image.fromarray(frame) for frame in frames[:, 0])
    first.save(folder / "clip.gif", save_all=True, append_images=rest)
    for name in ("frames", "clips/1", "clips/2"):
        (folder / name).mkdir(parents=True)
        for number, frame in enumerate(frames[:, 0], start=1):
            Image.fromarray(frame).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def inside(checkout, monkeypatch):
    """The copy, as the current folder; threads as they were afterwards."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(checkout)
    yield checkout
    torch.set_num_threads(threads)


def page_of(command: Command) -> str:
    return command.place.partition(":")[0]


def with_stand_ins(text: str) -> str:
    for word, meant in STAND_INS.items():
        text = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", meant, text)
    return text


def check_benchmark(words: list[str], whole: bool) -> None:
    """Parse and, if it is cheap, run a line of `python -m benchmark`; look up the flags of a piece in a sentence."""
    if set(words) & {"-h", "--help"} or not words:
        with pytest.raises(SystemExit) as end:
            parser().parse_args(words or ["--help"])
        assert end.value.code == 0
        return
    if not whole:  # of what the sentence is not about, it may leave out all
        (subcommands,) = (each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))
        flags = {flag for action in subcommands.choices[words[0]]._actions for flag in action.option_strings}
        assert {word for word in words if word.startswith("--")} <= flags
        return
    options = parser().parse_args(words)
    if getattr(options, "protocol", None):
        load_protocol(options.protocol)
    if words[0] not in RUN:
        assert words[0] in REGISTERED
        return
    try:
        status = main(words)
    except SystemExit as end:
        status = end.code
    assert status in RUN[words[0]]


def check_snakemake(words: list[str], whole: bool, folder) -> None:
    """Take the options apart as Snakemake does; plan a whole command, unless tests/workflow plans its protocol."""
    _, options = parse_args(words)
    config = WorkflowConfig.model_validate(dict(pair.split("=", 1) for pair in options.config or ()))
    load_protocol(config.protocol)
    if not whole or options.dryrun or (PROTOCOLS / f"{config.protocol}.yaml").exists():
        return
    command = [sys.executable, "-m", "snakemake", *words, "--dry-run", "--quiet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check_make(words: list[str], folder) -> None:
    """make knows the target and what it needs."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(["make", "--dry-run", *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.place}-{command.text}"[:100])
def test_command(command, inside):
    check(command, inside)


def check(command: Command, folder) -> None:
    """Run `command` or what stands for it, or know why not."""
    if page_of(command) in FOLLOWED or any(command.text.startswith(start) for start in NOT_HERE):
        return
    text = with_stand_ins(command.text)
    program, *words = shlex.split(text)
    if text.startswith("python -m benchmark"):
        check_benchmark(words[2:], command.whole)
    elif program == "snakemake":
        check_snakemake(words, command.whole, folder)
    elif program == "make":
        check_make(words, folder)
    elif program == "pytest":
        assert [word for word in words if "/" in word and "..." not in word and not (ROOT / word).exists()] == []
    else:
        pytest.fail(
            f"{command.place}: `{command.text}` is not known here: name in tests/test_docs.py the test that follows its"
            " page (FOLLOWED), or the reason why it cannot be run (NOT_HERE)"
        )


def test_a_command_that_is_not_known_fails_with_what_to_do(tmp_path):
    unknown = Command("docs/new.md:3", "frobnicate --hard")
    with pytest.raises(pytest.fail.Exception, match=r"docs/new.md:3: `frobnicate --hard` is not known .* \(NOT_HERE\)"):
        check(unknown, tmp_path)


def test_lines_of_a_block_are_subcommandswithout_prompts_comments_and_breaks():
    assert lines("$ a b  # why\n\n# only words\nc \\\n    d 'e  f'\n") == ["a b", "c d 'e  f'"]


def test_pages_that_another_test_follows_are_named_there():
    for page, test in FOLLOWED.items():
        assert f'"{page}"' in (ROOT / test).read_text()


def test_what_is_not_run_still_stands_on_a_page_and_names_a_command_or_test_that_exists():
    texts = [command.text for command in COMMANDS]
    for start, reason in NOT_HERE.items():
        assert any(text.startswith(start) for text in texts), start
        assert all((ROOT / test).exists() for test in re.findall(r"tests/\S+\.py", reason)), reason
    module = importlib.util.find_spec("benchmark.reporting.statistics_check")
    assert module is not None


BLOCKS = [block for page in pages() for block in blocks(page)]


def of_language(*languages: str) -> pytest.MarkDecorator:
    """The test runs on every block in one of these."""
    found = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", found, ids=lambda block: block.place)


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "yaml"], ids=lambda block: block.place
)
def test_a_piece_of_a_protocol_fits_into_one(block):
    values = yaml.safe_load(block.text)
    first = next(iter(values))
    if first in NO_PROTOCOL:
        return
    assert set(values) <= set(Protocol.model_fields), f"{block.place}: {first} is no key of a protocol, see NO_PROTOCOL"
    around = yaml.safe_load((PROTOCOLS / "quick.yaml").read_text()) | {"primary": {}}
    around["model"]["hidden_channels"] = 8  # for variants without widths of their own
    if "videos" in values.get("data", {}):  # another kind of data takes no keys of digits
        del around["data"]
    whole = values if {"data", "variants"} <= set(values) else merge(around, values)
    assert Protocol.model_validate({"name": "piece"} | whole).runs()


@of_language("python", "py")
def test_a_piece_of_python_runs(block, inside):
    places = {"PYTHONPATH": str(inside), "XDG_CACHE_HOME": str(inside / ".cache")}
    done = subprocess.run([sys.executable, "-c", block.text], env=os.environ | places)
    assert done.returncode == 0


def test_every_block_says_what_it_is_or_is_text():
    known = {*SHELL, "diff", "yaml", "python", "py", "math", "text", "toml", "json", ""}
    assert [f"{block.place}: {block.language}" for block in BLOCKS if block.language not in known] == []


OURS = [page for page in pages() if not page.startswith("results/")]
"""Pages that people write; those below results/ are made, and the study's has a test of its own."""


def test_the_readme_has_at_most_120_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_every_page_of_the_docs_stands_in_their_index():
    there = {page.removeprefix("docs/") for page in OURS if page.startswith("docs/")}
    assert there == {target for target in links("docs/README.md") if "/" not in target} | {"README.md"}


@pytest.mark.parametrize("page", OURS)
def test_every_link_leads_to_a_file_and_its_heading(page):
    broken = []
    for target in links(page):
        name, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        if not path.exists() or (anchor and anchor not in anchors(str(path.relative_to(ROOT)))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in OURS if page not in FOLLOWED])  # those make files
def test_every_file_of_ours_that_a_page_names_is_there(page):
    named = re.findall(r"`((?:benchmark|models|tests|workflows|profiles|examples)/[\w/.-]+)", prose(page))
    tests = re.findall(r"`(test_\w+\.py)", prose(page))
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert [name for name in tests if not any((ROOT / "tests").rglob(name))] == []


@pytest.mark.parametrize("page", OURS)
def test_prose_is_wrapped_at_100_columns_but_for_tables_and_addresses(page):
    texts = [re.sub(r"\]\([^)]*\)", "]()", line) for line in prose(page).splitlines() if not line.startswith("|")]
    assert [line for line in texts if len(line) > 100] == []


def test_the_intervals_of_the_readme_are_those_of_the_study():
    readme, study = (" ".join((ROOT / name).read_text().split()) for name in ("README.md", STUDY))
    number = r"[+\N{MINUS SIGN}]?\d[\d.]*"
    found = re.findall(rf"{number} \[{number}, {number}\]", readme)
    assert len(found) > 8
    assert [interval for interval in found if f"[{interval}](" not in study] == []


def rows_of(page: str) -> list[list[str]]:
    """The cells of the lines of a page, as those of a table."""
    lines = (ROOT / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_the_readme_is_of_the_published_scores():
    readme, published = rows_of("README.md"), rows_of("results/reference/quick/tables/main.md")
    (heads,) = (row for row in published if row[0] == "Model")
    values = {row[0]: dict(zip(heads, row, strict=True)) for row in published if len(row) == len(heads)}
    (start,) = (number for number, row in enumerate(readme) if "SSIM ↑" in row)
    shown = readme[start + 2 : start + 8]
    assert [[row[0], *(values[row[0]][head] for head in readme[start][1:])] for row in shown] == shown
