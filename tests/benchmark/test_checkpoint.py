"""Checkpoints and weights: whole or not at all, and never taken for those of another run."""

import pytest
import torch
from safetensors.torch import save_file

from benchmark.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights
from benchmark.errors import UserError
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
