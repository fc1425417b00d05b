"""Results that cannot be written are refused at the start, and nothing in the code writes a file piece by piece."""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from benchmark.__main__ import main
from benchmark.cli.all_commands import COMMANDS
from tests.helpers.disks import small_disk
from tests.helpers.fixtures import TINY

ROOT = Path(__file__).parents[2]
AS_NOBODY = """
import os, sys
from benchmark.__main__ import main

if os.getuid() == 0:  # whom permissions do not stop
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
status = main(sys.argv[1:])
assert "torch" not in sys.modules and "pandas" not in sys.modules, "something heavy was imported first"
sys.exit(status)
"""
RUN = ["--variant", "predrnn", "--seed", "1"]
WRITERS = {
    "plan": [],
    "data": [],
    "backbone": [],
    "floor": [],
    "baselines": [],
    "train": RUN,
    "evaluate": RUN,
    "clips": ["--output", "clips.npz"],
    "probe": RUN,
    "record": RUN,
    "measure": RUN[:2],
    "sync": RUN,
    "tables": [],
    "figures": [],
}


@pytest.fixture
def public():
    """A folder that every user may enter, with the tiny protocol in it; pytest's own belong to one user."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    yield folder
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)
    shutil.rmtree(folder)


def as_nobody(public, verb, results_dir):
    """Exit status and words of a verb called by a user who owns nothing here, before anything heavy is imported."""
    arguments = [verb, "--protocol", str(public / "tiny.yaml"), "--results-dir", str(results_dir), *WRITERS[verb]]
    command = [sys.executable, "-c", AS_NOBODY, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize("verb", ["train", "tables"])
def test_folder_that_this_user_may_not_write_to_is_said_before_anything_is_computed(public, verb):
    results = public / "results"
    results.mkdir(mode=0o555)
    told = f"error: {results / 'tiny'}: cannot be written to, since {results} is read-only for this user"
    status, said = as_nobody(public, verb, results)
    assert (status, said.partition(";")[0]) == (2, told)
    assert list(results.iterdir()) == []


def test_run_folder_of_another_user_is_said_before_anything_is_computed(public):
    results = public / "results"
    folder = results / "tiny" / "runs" / "predrnn" / "seed=1"
    folder.mkdir(parents=True)
    for path in (results, results / "tiny"):
        path.chmod(0o777)
    folder.chmod(0o555)
    status, said = as_nobody(public, "train", results)
    assert (status, said.count("\n")) == (2, 1)
    assert said.startswith(f"error: {folder}: cannot be written to")


def test_file_in_place_of_a_folder_is_said(write_protocol, tmp_path, capsys):
    (tmp_path / "results").write_text("")
    assert main(["tables", "--protocol", str(write_protocol()), "--results-dir", str(tmp_path / "results")]) == 2
    assert f"since {tmp_path / 'results'} is a file" in capsys.readouterr().err


@pytest.mark.parametrize("verb", WRITERS)
def test_read_only_disk_stops_every_verb_that_writes_results(write_protocol, tmp_path, capsys, verb):
    with small_disk(tmp_path / "disk", options=",ro") as disk:
        if not disk.mounted:
            pytest.skip("mounting is refused here, and permissions do not stop every user")
        protocol = str(write_protocol())
        status = main([verb, "--protocol", protocol, "--results-dir", str(disk.folder), *WRITERS[verb]])
    assert (status, capsys.readouterr().err) == (
        2,
        f"error: {disk.folder / 'tiny'}: cannot be written to, since {disk.folder} is read-only for this user; choose "
        "another folder or change that\n",
    )


def test_every_verb_with_a_results_folder_is_known_to_write_or_not():
    takes = {name for name, each in COMMANDS.items() if "results_dir" in [option.dest for option in each.options]}
    assert takes == WRITERS.keys() | {"publish", "compare", "reproduce", "status", "doctor", "choose-rates"}


# Path and name -> why a write of its own is right there.
DIRECT = {
    ("benchmark/system/files.py", "open"): "a descriptor that `open_no_link` opened",
    ("benchmark/system/files.py", "open_no_link"): "the append-only logs, and the temporary file of `atomic_path`",
    ("benchmark/system/locks.py", "open_no_link"): "the file of a lock, which its holder alone writes",
    ("benchmark/system/gpu_lock.py", "open_no_link"): "the file of a lock, which its holder alone writes",
    ("benchmark/system/files.py", "truncate"): "takes a line back that did not fit",
    ("benchmark/data/published_files.py", "open"): "a temporary file of `atomic_path`",
    ("benchmark/data/videos/frame_bank.py", "open"): "a temporary file of `atomic_path`",
    ("benchmark/exchange/prediction_video.py", "open"): "a buffer of `atomic_buffer`",
    ("benchmark/training/checkpoint.py", "write_bytes"): "the temporary file of `atomic_path`",
    ("benchmark/data/npz.py", "open"): "a temporary folder, gone before anybody could take what lies there for whole",
    ("benchmark/system/console.py", "open"): "nowhere, in place of an output that is gone",
    ("benchmark/cost/stopwatch.py", "write_text"): "a switch of the kernel",
    ("benchmark/system/installation.py", "copy"): "a source file, which the next `copy-workflow` holds against its own",
}
WRITING = {
    "write_text",
    "write_bytes",
    "savefig",
    "tofile",
    "savetxt",
    "save_file",
    "copy",
    "copyfile",
    "copy2",
    "to_csv",
    "to_parquet",
    "to_json",
    "to_pickle",
    "to_html",
    "to_latex",
    "to_markdown",
    "to_feather",
    "to_excel",
    "save",
    "savez",
    "savez_compressed",
    "dump",
    "move",
    "rename",
    "truncate",
}
IN_MEMORY = {"file", "buffer", "index"}
"""Names that the code gives to files in memory; `to_csv(index=False)` and its like return text."""


def writes(source):
    """(name, line) of the calls in `source` that could write to a path by themselves."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in ("open", "open_no_link"):
            given = node.args[1:] if isinstance(node.func, ast.Name) else node.args
            given = [*given, *(word.value for word in node.keywords if word.arg == "mode")]
            mode = [value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)]
            flags = "O_CREAT" in ast.unparse(node) or "O_WRONLY" in ast.unparse(node)
            if flags or any(set(word) & set("wax+") and set(word) <= set("rwxabt+") for word in mode):
                yield name, node.lineno
        elif name in WRITING and isinstance(node.func, ast.Attribute):
            given = [ast.unparse(value) for value in node.args]
            if not any(value in IN_MEMORY for value in given) and (given or name.startswith("write")):
                yield name, node.lineno


def test_scan_sees_writes_of_every_kind_and_no_reads():
    source = """
open("a"); open("a", "w"); path.open("ab"); os.open(path, os.O_RDWR | os.O_CREAT); path.open("rb")
path.write_text("x"); table.to_csv(path); table.to_csv(index=False); figure.savefig(temporary); np.savez(file, a=1)
"""
    assert [name for name, _ in writes(source)] == ["open", "open", "open", "write_text", "to_csv", "savefig"]


def test_every_file_but_logs_and_locks_is_written_whole_or_not_at_all():
    files = [*ROOT.glob("benchmark/**/*.py"), *ROOT.glob("models/**/*.py")]
    found = {}
    for path in files:
        for name, line in writes(path.read_text()):
            found.setdefault((str(path.relative_to(ROOT)), name), []).append(line)
    assert {key: lines for key, lines in found.items() if key not in DIRECT} == {}
    assert DIRECT.keys() - found.keys() == set()
