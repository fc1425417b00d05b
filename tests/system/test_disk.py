"""A disk that is full while a file is written: the error says what it needs, and the former file stands."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from benchmark.__main__ import main
from benchmark.reporting.figures.style import page
from benchmark.reporting.record import RECORD
from benchmark.system.errors import UserError
from benchmark.system.files import append_json_line, atomic_buffer, read_json_lines, write_atomic, write_json
from benchmark.training.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from benchmark.training.weight_files import load_weights, save_weights
from models.predictor import build
from models.spec import ModelSpec
from tests.helpers.disks import PAGE, small_disk
from tests.helpers.recorded import decided

ROOT = Path(__file__).parents[2]
SPEC = ModelSpec(cell="convlstm", hidden_channels=(3,), kernel_size=3, frame_size=8)
IDENTITY = {"config": "c0ff1c", "code": "c0de"}
TOLD = re.compile(r"(\S+): (no space left|above the file size) .*: (\d+) bytes are needed (\d+) bytes are free")


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    with small_disk(tmp_path_factory.mktemp("disk") / "small") as disk:
        yield disk


@pytest.fixture
def folder(disk):
    """An empty folder on the small disk."""
    folder = Path(tempfile.mkdtemp(dir=disk.folder))
    yield folder
    disk.empty()
    shutil.rmtree(folder)


def needs(message):
    """The path, and the bytes that are needed beyond those free, of an error."""
    path, why, needed, free = TOLD.search(message.replace(",", "")).groups()
    return Path(path), int(needed) - (int(free) if why.startswith("no space") else 0)


def draw(path, version):
    with page([path], height=1.0) as figure:
        assert isinstance(figure, Figure)
        figure.text(0.5, 0.5, str(version))


def film(path, version):
    with atomic_buffer(path) as file:
        Image.new("L", (90, 90), version).save(file, path.suffix[1:].upper())


def table(path, version):
    with atomic_buffer(path) as file:
        pd.DataFrame({"mse": np.full(4000, version / 7)}).to_parquet(file, index=False)


WRITERS = {
    "status.json": lambda path, version: write_json(path, {"step": version, "why": "x" * 9000}),
    "main.csv": lambda path, version: write_atomic(path, f"variant,mse\npredrnn,{version}\n"),
    "checkpoint.pt": lambda path, version: save_checkpoint(path, IDENTITY, {"step": version, "m": torch.ones(5000)}),
    "model.safetensors": lambda path, version: save_weights(path, build(SPEC, version)),
    "frames.parquet": table,
    "film.png": film,
    "film.gif": film,
    "scores.pdf": draw,
    "scores.png": draw,
}


@pytest.mark.parametrize("name", WRITERS)
def test_full_disk_keeps_the_former_file_and_the_stated_space_is_enough(disk, folder, name):
    path = folder / name
    WRITERS[name](path, 1)
    before = path.read_bytes()
    with disk.full():
        with pytest.raises(UserError) as raised:
            WRITERS[name](path, 2)
        told, missing = needs(str(raised.value))
        assert told == path
        assert path.read_bytes() == before
        assert [entry.name for entry in folder.iterdir()] == [name]
        disk.release(missing)
        WRITERS[name](path, 2)
    assert path.read_bytes() != before
    assert {entry.name for entry in folder.iterdir()} <= {name, "checkpoint.previous.pt"}


def test_error_says_no_less_than_is_needed(disk, folder):
    path = folder / "data.bin"
    if not disk.mounted:
        pytest.skip("a file size limit says nothing about the whole disk")
    with disk.full():
        with pytest.raises(UserError, match=f"{3 * PAGE:,} bytes are needed, 0 bytes are free"):
            write_atomic(path, bytes(3 * PAGE))
        disk.release(2 * PAGE)
        with pytest.raises(UserError, match=f"{3 * PAGE:,} bytes are needed, {2 * PAGE:,} bytes are free"):
            write_atomic(path, bytes(3 * PAGE))
    assert list(folder.iterdir()) == []


def test_damage_of_a_full_disk_is_none_to_checkpoint_and_weights(disk, folder):
    save_checkpoint(folder / "checkpoint.pt", IDENTITY, {"step": 3})
    save_weights(folder / "model.safetensors", build(SPEC, 1))
    with disk.full():
        with pytest.raises(UserError, match=r"checkpoint\.pt"):
            save_checkpoint(folder / "checkpoint.pt", IDENTITY, {"step": 6})
        with pytest.raises(UserError, match=r"model\.safetensors"):
            save_weights(folder / "model.safetensors", build(SPEC, 2))
    assert load_checkpoint(folder / "checkpoint.pt", IDENTITY)["step"] == 3
    kept = load_weights(folder / "model.safetensors").state_dict()
    assert all(torch.equal(kept[name], value) for name, value in build(SPEC, 1).state_dict().items())


def test_line_of_a_log_that_fits_in_part_is_taken_back(disk, folder):
    log, step = folder / "metrics.jsonl", 0
    while not step or log.stat().st_size % PAGE < PAGE - 100:  # a long line would cross into the next page
        step += 1
        append_json_line(log, {"step": step, "loss": 1 / step})
    disk.fill()
    if not disk.mounted:
        disk.release(50)
    before = log.read_bytes()
    long = {"step": step + 1, "loss": [0.5] * 50}
    with pytest.raises(UserError, match=r"metrics\.jsonl: .* bytes are needed, "):
        append_json_line(log, long)
    assert log.read_bytes() == before
    disk.empty()
    append_json_line(log, long)
    assert [line["step"] for line in read_json_lines(log)] == list(range(1, step + 2))


RUN = ["--variant", "predrnnpp", "--seed", "1"]
CHAIN = [
    ["plan"],
    ["data"],
    ["backbone"],
    ["train", *RUN],
    ["evaluate", *RUN],
    ["evaluate", "--variant", "black", "--seed", "0"],
    ["probe", *RUN],
    ["record", *RUN],
    ["record", "--variant", "black", "--seed", "0"],
    ["tables"],
]
FEW = {"tables": 3, "probe": 3}
"""Verbs that compute all before they write and write much: how often the disk may be full, to keep the test short."""
MEASURED = {"timing.jsonl", "compute.csv", "compute.md", "compute.tex", "compute.html", ".lock"}


def content(path):
    """What must be equal in a file."""
    return decided(path) if path.name == RECORD else path.read_bytes()


def files_below(folder):
    return {
        str(path.relative_to(folder)): content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in MEASURED and path.suffix != ".lock" and path.name != ".trained.pt"
    }


@pytest.fixture
def verb(write_protocol, monkeypatch):
    """Run a verb of the chain on the tiny protocol with its results in a folder; returns its exit status."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/no/mlflow.db")
    file = write_protocol(variants=["predrnnpp"], seeds=[1], baselines=["black"])

    def run(arguments, results_dir):
        return main([*arguments[:1], "--protocol", str(file), "--results-dir", str(results_dir), *arguments[1:]])

    return run


def test_every_verb_goes_on_from_a_full_disk_and_ends_as_if_there_had_been_room(disk, folder, verb, tmp_path, capsys):
    refused = []
    for arguments in CHAIN:
        assert verb(arguments, tmp_path / "roomy") == 0
        disk.fill()
        for tries in range(60):  # a file at a time gets the space that it asked for
            if tries == FEW.get(arguments[0]):
                disk.empty()
            capsys.readouterr()
            status = verb(arguments, folder)
            if status == 0:
                break
            said = capsys.readouterr().err.splitlines()[-1]
            assert (status, said[:7]) == (2, "error: ")
            assert not [path for path in folder.rglob(".*-????????.*") if path.is_file()]
            path, missing = needs(said.removeprefix("error: "))
            refused.append(path.name)
            disk.release(missing)
        assert status == 0, arguments
        disk.empty()
    assert {"plan.csv", "digits.npz", "checkpoint.pt", "frames.parquet", "probe.parquet"} <= set(refused)
    if disk.mounted:  # a limit on the size of files stops no small one
        assert {"data.json", "run.yaml", "examples.npz", "film.gif"} <= set(refused)
    assert files_below(folder) == files_below(tmp_path / "roomy")


FILLED_AT = """
import os, sys
from pathlib import Path
from benchmark.data.moving_digits.stream import ClipStream
from benchmark.__main__ import main
from tests.helpers.disks import Disk

folder, mounted, at = Path(sys.argv[1]), sys.argv[2] == "True", int(sys.argv[3])
batch = ClipStream.batch

def fill_and_make(stream, step, size):
    if step == at:
        disk = Disk(folder, mounted)
        disk.fill() if mounted else disk.limit(4096)
    return batch(stream, step, size)

ClipStream.batch = fill_and_make
sys.exit(main(sys.argv[4:]))
"""


@pytest.mark.parametrize(
    ("checkpoint_every", "file", "kept"),
    [pytest.param(100, "metrics.jsonl", 0, marks=pytest.mark.slow), (8, "checkpoint.pt", 8)],
)
def test_training_whose_disk_fills_on_the_way_ends_as_if_there_had_been_room(
    disk, folder, write_protocol, tmp_path, prepared_data, checkpoint_every, file, kept
):
    training = {"steps": 40, "checkpoint_every": checkpoint_every, "validate_every": 20}
    protocol = write_protocol(training=training, model={"hidden_channels": 6})
    places = {"small": folder, "roomy": tmp_path / "roomy"}
    arguments = {}
    for name, place in places.items():
        shutil.copytree(prepared_data, place / "tiny" / "data")
        arguments[name] = ["train", "--protocol", str(protocol), "--results-dir", str(place), *RUN]
    environment = os.environ | {"MLFLOW_TRACKING_URI": "sqlite:////proc/no/mlflow.db", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FILLED_AT, str(disk.folder), str(disk.mounted), "9", *arguments["small"]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    path, missing = needs(done.stderr.splitlines()[-1].removeprefix("error: "))
    assert (path.name, missing > 0) == (file, True)
    where = folder / "tiny" / "runs" / "predrnnpp" / "seed=1"
    assert [entry.name for entry in where.iterdir() if entry.name.startswith(".c")] == []
    state = read_checkpoint(where / "checkpoint.pt")
    assert state["step"] == kept
    lines = (where / "metrics.jsonl").read_text()
    assert lines.endswith("\n")
    assert [json.loads(line)["step"] for line in lines.splitlines()][-1] >= 9
    disk.empty()
    for one in arguments.values():
        assert main(one) == 0
    assert files_below(folder) == files_below(tmp_path / "roomy")
