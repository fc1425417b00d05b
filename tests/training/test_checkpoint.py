"""Checkpoints and weights: whole or not at all, and never taken for those of another run."""

import hashlib
import os
import pickle
import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmark.system.errors import UserError
from benchmark.training.checkpoint import load_checkpoint, load_trained, read_checkpoint, save_checkpoint, save_trained
from benchmark.training.weight_files import load_weights, save_weights
from models.predictor import build
from models.spec import ModelSpec

IDENTITY = {"config": "c0ff1c", "code": "c0de"}
SPEC = ModelSpec(
    cell="causal_lstm", hidden_channels=(3, 2), frame_size=8, kernel_size=3, highway_slot=1, norm="element"
)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, IDENTITY, {"step": 5, "network": {"weight": torch.arange(3.0)}})
    return path


def test_checkpoint_comes_back_as_it_was(checkpoint):
    state = load_checkpoint(checkpoint, IDENTITY)
    assert (state["step"], state["network"]["weight"].tolist()) == (5, [0, 1, 2])


@pytest.mark.parametrize(
    ("identity", "other"),
    [
        ({"config": "c0ff1c", "code": "new"}, "code"),
        ({"config": "new", "code": "c0de"}, "config"),
        ({"config": "new", "code": "new"}, "config and code"),
    ],
)
def test_stale_checkpoint_is_set_aside_with_one_line(checkpoint, capsys, identity, other):
    assert load_checkpoint(checkpoint, identity) is None
    (stale,) = checkpoint.parent.glob("checkpoint.*.stale")
    said = f"checkpoint of other {other} set aside as {stale.name}; starting at step 0\n"
    assert capsys.readouterr().out == said
    assert not checkpoint.exists()
    assert load_checkpoint(stale, IDENTITY)["step"] == 5


def test_checkpoints_of_two_other_configs_are_both_kept(tmp_path):
    for config in ("first", "second"):
        save_checkpoint(tmp_path / "checkpoint.pt", IDENTITY | {"config": config}, {"step": 5})
        load_checkpoint(tmp_path / "checkpoint.pt", IDENTITY)
    assert len(list(tmp_path.glob("checkpoint.*.stale"))) == 2


def test_resume_only_refuses_a_missing_and_keeps_a_stale_checkpoint(tmp_path, checkpoint):
    with pytest.raises(UserError, match="no checkpoint to resume from; train without --resume-only"):
        load_checkpoint(tmp_path / "other.pt", IDENTITY, resume_only=True)
    with pytest.raises(UserError, match="is of other code; train without --resume-only"):
        load_checkpoint(checkpoint, IDENTITY | {"code": "new"}, resume_only=True)
    assert load_checkpoint(checkpoint, IDENTITY, resume_only=True)["step"] == 5


def test_checkpoint_that_cannot_be_written_leaves_the_old_one(checkpoint, monkeypatch):
    def fail(state, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(checkpoint, IDENTITY, {"step": 6})
    assert load_checkpoint(checkpoint, IDENTITY)["step"] == 5
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint.pt"]


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def with_checksum(content):
    """A file that passes for a checkpoint until it is read."""
    head = b"deep-in-time checkpoint\n"
    return head + hashlib.sha256(content).digest() + content


DAMAGES = {
    "truncated": lambda content, folder: content[:-7],
    "half of it": lambda content, folder: content[: len(content) // 2],
    "empty": lambda content, folder: b"",
    "no checkpoint": lambda content, folder: b"PK" + content,
    "another file": lambda content, folder: with_checksum(b"not a zip"),
    "code in a pickle": lambda content, folder: pickle.dumps(Malicious(f"touch {folder}/ran"), protocol=2),
    "code behind a checksum": lambda content, folder: with_checksum(
        pickle.dumps(Malicious(f"touch {folder}/ran"), protocol=2)
    ),
}


@pytest.fixture
def two_checkpoints(tmp_path):
    path = tmp_path / "checkpoint.pt"
    for step in (4, 5):
        save_checkpoint(path, IDENTITY, {"step": step, "network": {"weight": torch.full((50,), step + 0.5)}})
    return path


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_falls_back_to_the_one_before_it_and_says_so(two_checkpoints, tmp_path, capsys, damage):
    two_checkpoints.write_bytes(DAMAGES[damage](two_checkpoints.read_bytes(), tmp_path))
    assert load_checkpoint(two_checkpoints, IDENTITY, resume_only=True)["step"] == 4
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith(f"{two_checkpoints}: is ")
    assert said.endswith(", set aside as checkpoint.damaged; going on from checkpoint.previous.pt of step 4")
    assert not (tmp_path / "ran").exists()
    save_checkpoint(two_checkpoints, IDENTITY, {"step": 6})
    assert (load_checkpoint(two_checkpoints, IDENTITY)["step"], read_checkpoint(previous(tmp_path))["step"]) == (6, 4)


def previous(folder):
    return folder / "checkpoint.previous.pt"


def is_whole(path):
    try:
        return bool(read_checkpoint(path))
    except UserError as error:
        return "is damaged" not in str(error)


def test_every_flipped_bit_is_found(two_checkpoints):
    whole, chance = two_checkpoints.read_bytes(), random.Random(1)
    weights = whole.index(torch.full((50,), 5.5).numpy().tobytes())
    for place in [weights, weights + 77, *range(80), *(chance.randrange(len(whole)) for _ in range(200))]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << chance.randrange(8)
        two_checkpoints.write_bytes(flipped)
        assert not is_whole(two_checkpoints), place


def test_where_both_are_damaged_the_run_starts_at_step_0_or_not_at_all(two_checkpoints, tmp_path, capsys):
    for path in (two_checkpoints, previous(tmp_path)):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"previous.pt: is damaged .* none before it is whole; train without --resume"):
        load_checkpoint(two_checkpoints, IDENTITY, resume_only=True)
    capsys.readouterr()
    assert load_checkpoint(two_checkpoints, IDENTITY) is None
    (said,) = capsys.readouterr().out.splitlines()
    assert said.endswith("set aside as checkpoint.previous.damaged; starting at step 0")
    assert not list(tmp_path.glob("checkpoint*.pt"))


def test_process_killed_between_the_two_renames_goes_on_from_the_one_before(two_checkpoints, capsys):
    two_checkpoints.unlink()
    assert load_checkpoint(two_checkpoints, IDENTITY, resume_only=True)["step"] == 4
    assert capsys.readouterr().out.endswith("going on from checkpoint.previous.pt of step 4\n")


@pytest.mark.parametrize("missing", [False, True])
def test_checkpoint_before_a_stale_one_is_never_taken_for_a_later_runs(two_checkpoints, missing):
    if missing:
        two_checkpoints.unlink()
    other = IDENTITY | {"config": "other"}
    assert load_checkpoint(two_checkpoints, other) is None
    save_checkpoint(two_checkpoints, other, {"step": 0})
    two_checkpoints.write_bytes(b"")
    assert load_checkpoint(two_checkpoints, IDENTITY) is None  # and not step 4, with the curves of `other`


def test_damaged_copy_of_last_weights_is_said_and_not_used(tmp_path, capsys):
    path = tmp_path / ".trained.pt"
    save_trained(path, IDENTITY, build(SPEC, seed=3))
    assert load_trained(path, IDENTITY).keys() == build(SPEC, seed=3).state_dict().keys()
    path.write_bytes(path.read_bytes()[:-1])
    assert load_trained(path, IDENTITY) is None
    assert capsys.readouterr().out == f"{path}: is damaged (its checksum is another); training again\n"


def test_weights_come_back_with_their_spec(tmp_path):
    network = build(SPEC, seed=3)
    save_weights(tmp_path / "model.safetensors", network, "c0ff1c")
    loaded = load_weights(tmp_path / "model.safetensors", "c0ff1c")
    assert loaded.spec == SPEC
    assert loaded.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_weights_of_another_configuration_are_refused(tmp_path):
    save_weights(tmp_path / "model.safetensors", build(SPEC, seed=3), "c0ff1c")
    with pytest.raises(UserError, match=r"model.safetensors: weights of another configuration .* run `train` again"):
        load_weights(tmp_path / "model.safetensors", "other")


def test_missing_and_damaged_weights_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match=r"model.safetensors: no trained weights here; run `train` first"):
        load_weights(path)
    save_weights(path, build(SPEC, seed=3), "c0ff1c")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model.safetensors: cannot be read as weights"):
        load_weights(path)


def test_weights_of_another_program_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"model.safetensors: .*not written by this benchmark"):
        load_weights(path)


def test_files_of_weights_keep_the_names_that_they_have_always_had(tmp_path):
    names = {"causal_lstm": "x h c m first second last", "st_lstm": "x h m o last", "convlstm": "x h"}
    for cell, convolutions in names.items():
        spec = ModelSpec(cell=cell, hidden_channels=(3, 3), frame_size=8, kernel_size=3, highway_slot=1)
        save_weights(tmp_path / cell, build(spec, 1))
        with safe_open(tmp_path / cell, framework="pt") as stored:
            found = {name.rpartition(".")[0].removesuffix(".conv") for name in stored.keys()}  # noqa: SIM118
        cells = {f"cells.{layer}.conv_{name}" for layer in range(2) for name in convolutions.split()}
        assert found == cells | {"highway.conv_x", "highway.conv_z", "to_frame"}
        loaded = load_weights(tmp_path / cell).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in build(spec, 1).state_dict().items())
