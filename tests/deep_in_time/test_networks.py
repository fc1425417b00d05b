"""Networks by name are those of runs; what they cannot take is said in a sentence."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import deep_in_time as dit
from benchmark.training.weight_files import trained_context
from models.predictor import build

ROOT = Path(__file__).parents[2]


@pytest.fixture
def network(tiny):
    return dit.network("predrnnpp", protocol=tiny, seed=2)


def test_by_a_protocol_it_has_the_weights_that_a_run_of_that_seed_begins_with(tiny, network):
    run = tiny.run("predrnnpp", 2)
    assert network.spec == run.model
    begun = build(run.model, 2).state_dict()
    assert all(torch.equal(weight, begun[name]) for name, weight in network.state_dict().items())


def test_by_sizes_it_is_its_variant():
    network = dit.network("predrnnpp-top", frame_size=16, hidden_channels=4, layers=3, norm="channel", seed=1)
    spec = network.spec
    assert (spec.cell, spec.highway_slot, spec.hidden_channels, spec.norm) == ("causal_lstm", 2, (4, 4, 4), "channel")
    again = dit.network("predrnnpp-top", frame_size=16, hidden_channels=(4, 4, 4), norm="channel", seed=1)
    assert all(map(torch.equal, network.parameters(), again.parameters()))
    assert dit.network("convgru", frame_size=16).spec.hidden_channels == (64,) * 4


@pytest.mark.parametrize(
    ("variant", "fields", "said"),
    [
        ("predrnn++", {"frame_size": 16}, "did you mean 'predrnnpp'"),
        ("predrnn", {}, "frame_size: is missing"),
        ("predrnn", {"frame_size": 16, "hiden_channels": 3}, "unknown field 'hiden_channels'; did you mean"),
        ("predrnn", {"frame_size": 16, "hidden_channels": (2, 3)}, "predrnn: hidden_channels: .* are unequal"),
        ("predrnn", {"frame_size": 16, "hidden_channels": (2, 2), "layers": 3}, "has 2 entries for 3 layers"),
        ("predrnnpp", {"frame_size": 16, "layers": 1}, "predrnnpp: highway_slot: 1 with 1 layers"),
        ("convlstm", {"frame_size": 10}, "patch_size: 4 does not divide frame_size 10"),
        ("convlstm", {"protocol": "quick", "kernel_size": 3}, "protocol: gives all sizes"),
    ],
)
def test_what_is_no_network_is_refused_with_what_is_allowed(variant, fields, said):
    with pytest.raises(ValueError, match=said):
        dit.network(variant, **fields)


IN_A_PROGRAM = """
import copy, torch
import deep_in_time as dit

network = dit.network("predrnnpp", protocol="smoke")
dit.save_weights("mine.safetensors", network)
for taken in (network, copy.deepcopy(network), dit.load_weights("mine.safetensors")):
    for shape in ((3, 1, 20, 20), (20, 20), (2, 3, 2, 20, 20), (2, 3, 1, 10, 20)):
        for call in (lambda clips: taken(clips, torch.ones(2, 2)), lambda clips: taken.predict(clips, 2)):
            try:
                call(torch.zeros(shape))
            except ValueError as error:
                print(error)
"""


def test_clips_that_it_cannot_take_get_a_sentence(tmp_path):
    """In a program of its own, without the checks of shapes that only tests have."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 3 * 4 * 2
    four = "frames: has 4 axes, (3, 1, 20, 20); 5 are needed, B T C H W (clips, frames, channels, height, width); grey"
    assert said[0].startswith(four)
    assert re.fullmatch(r"frames: has 4 axes, .*B T C H W.*", said[1])
    assert said[2].startswith("frames: has 2 axes, (20, 20); 5 are needed")
    assert "are of 2 channel(s) and 20x20 pixels; the network takes 1 channel(s)" in said[4]
    assert "10x20 pixels" in said[6]
    assert said[:8] == said[8:16] == said[16:]


def test_a_mask_of_another_shape_gets_a_sentence(network):
    with pytest.raises(ValueError, match=r"feed_mask: is \(2, 5\); needed for these frames is \(2, 4\)"):
        network(torch.zeros(2, 5, 1, 12, 12), torch.ones(2, 5))


def test_weights_go_to_a_file_and_back_and_are_those_of_the_commands(network, tmp_path):
    path = tmp_path / "mine.safetensors"
    dit.save_weights(path, network, context=3)
    again = dit.load_weights(path)
    assert again.spec == network.spec
    assert all(map(torch.equal, network.parameters(), again.parameters()))
    assert trained_context(path) == 3
    with pytest.raises(ValueError, match="no trained weights here"):
        dit.load_weights(tmp_path / "yours.safetensors")
    with pytest.raises(ValueError, match="network: is Linear"):
        dit.save_weights(path, torch.nn.Linear(1, 1))


def test_baselines_predict_what_they_say():
    context = torch.rand(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(dit.baseline("last-frame")(context, 2), context[:, [2, 2]])
    assert torch.allclose(dit.baseline("context-mean")(context, 1)[:, 0], context.mean(1))
    assert not dit.baseline("black")(context, 5).any()
    with pytest.raises(ValueError, match="did you mean 'black'"):
        dit.baseline("blak")
    with pytest.raises(ValueError, match="context: has 4 axes"):
        dit.baseline("black")(context[0], 5)
