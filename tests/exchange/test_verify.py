"""`verify` passes what is right at any size, fails what is not, and says why it skips the rest."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, layer_norm

from benchmark.__main__ import main
from benchmark.exchange.verify import Outcome, relative_error, verify
from benchmark.system.errors import UserError
from models.foreign_weights import export_network
from models.predictor import build, free_running_mask, to_frames
from models.spec import ModelSpec

GOLDEN = Path(__file__).parents[1] / "golden"
SQUEEZE = GOLDEN.parents[2] / "shared" / "data" / "lpips" / "squeezenet1_1_features.pth"
CASES = sorted(path.stem for path in GOLDEN.glob("*.npz"))


@pytest.fixture(autouse=True)
def empty_hub_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))


@pytest.fixture
def spoil(tmp_path):
    """Copy a golden case, changed by `change` of its arrays, and return what came of it."""

    def run(case, change) -> Outcome:
        with np.load(GOLDEN / f"{case}.npz") as stored:
            arrays = dict(stored)
        change(arrays)
        np.savez(tmp_path / f"{case}.npz", **arrays)
        return next(iter(verify(tmp_path, data_dir=None)))

    return run


def test_every_golden_case_passes_or_says_what_it_lacks(capsys, tmp_path):
    assert main(["verify", str(GOLDEN), "--data-dir", str(tmp_path)]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    states = {line[:28].strip(): line[39:].strip() for line in lines}
    assert sorted(name for name, state in states.items() if state == "pass") == CASES
    assert states["metrics: LPIPS (squeeze)"].startswith("skipped (no backbone; put squeezenet1_1_features.pth")
    assert total == f"{len(CASES)} pass, 0 fail, 1 skipped"


@pytest.mark.skipif(not SQUEEZE.exists(), reason="no squeeze backbone in ../shared/data/lpips beside the repository")
def test_lpips_is_verified_where_there_is_a_backbone(tmp_path):
    shutil.copy(GOLDEN / "metrics.npz", tmp_path)
    _, lpips = verify(tmp_path, SQUEEZE.parents[1])
    assert (lpips.case, lpips.state) == ("metrics: LPIPS (squeeze)", "pass")


@pytest.mark.parametrize(
    ("case", "array"),
    [
        ("st_lstm_cell", "output.m"),
        ("st_lstm_cell_ln", "grad.param.conv_o.1.bias"),
        ("causal_lstm_cell", "grad.input.m"),
        ("causal_lstm_cell_ln", "grad.param.conv_c2m.1.weight"),
        ("convlstm_cell", "grad.param.conv_h.0.weight"),
        ("ghu", "output.z"),
        ("convlstm_network", "output.next_frames"),
        ("predrnn_network", "output.loss"),
        ("predrnn_network", "probe.norm.X"),
        ("predrnn_network_ln", "probe.norm.C.2"),
        ("predrnnpp_network", "probe.norm.Z.1"),
        ("predrnnpp_network", "grad.param.gradient_highway.z_concat.0.weight"),
        ("predrnnpp_network", "probe.next_frames"),
        ("trajectories", "left"),
        ("metrics", "ssim_range2"),
    ],
)
def test_one_wrong_number_fails_and_its_array_is_named(spoil, case, array):
    def change(arrays):
        wrong = arrays[array].reshape(-1)
        wrong[len(wrong) // 2] += 1 if case == "trajectories" else 1e-4 * max(abs(wrong))

    outcome = spoil(case, change)
    assert (outcome.state, outcome.why) == ("fail", array)
    assert outcome.error > 1e-6


@pytest.mark.parametrize("array", ["param.conv_c2m.0.weight", "param.conv_m.0.weight", "param.conv_x.0.weight"])
def test_gates_in_another_order_fail(spoil, array):
    outcome = spoil("causal_lstm_cell", lambda arrays: arrays.update({array: np.roll(arrays[array], 4, axis=0)}))
    assert (outcome.state, outcome.error > 1e-3) == ("fail", True)


@pytest.mark.parametrize(("case", "array"), [("causal_lstm_cell", "conv_o.0"), ("convlstm_cell", "conv_last")])
def test_weights_that_are_never_used_must_have_no_gradient(spoil, case, array):
    name = f"grad.param.{array}.weight"
    outcome = spoil(case, lambda arrays: arrays.update({name: arrays[name] + 1e-3}))
    assert (outcome.state, outcome.why) == ("fail", name)


def test_a_number_that_is_none_fails(spoil):
    outcome = spoil("ghu", lambda arrays: arrays["output.z"].fill(np.nan))
    assert (outcome.state, outcome.why) == ("fail", "output.z")


def test_a_failure_is_the_exit_status(tmp_path, capsys, spoil):
    spoil("ghu", lambda arrays: arrays.update({"output.z": -arrays["output.z"]}))
    assert main(["verify", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 pass, 1 fail, 0 skipped"


@pytest.mark.parametrize(
    ("case", "change", "why"),
    [
        ("st_lstm_cell", lambda arrays: arrays.pop("input.m"), "there is no m"),
        ("st_lstm_cell", lambda arrays: arrays.update({"output.m": np.zeros((1, 4, 6, 6))}), "an array of shape"),
        ("st_lstm_cell", lambda arrays: arrays.update({"output.q": np.zeros(1)}), "there is no output.q"),
        (
            "st_lstm_cell",
            lambda arrays: arrays.pop("param.conv_o.0.weight"),
            "missing keys: cell_list.0.conv_o.0.weight",
        ),
        (
            "predrnn_network",
            lambda arrays: arrays.update({"param.adapter": np.zeros((1,) * 4)}),
            "surplus keys: adapter",
        ),
        ("predrnn_network", lambda arrays: arrays.pop("input.coin"), "there is no input.coin"),
    ],
)
def test_a_case_that_cannot_be_run_fails_and_says_why(spoil, case, change, why):
    outcome = spoil(case, change)
    assert outcome.state == "fail"
    assert why in outcome.why


def test_other_files_are_skipped_and_damaged_ones_fail(tmp_path):
    np.savez(tmp_path / "other.npz", numbers=np.zeros(3))
    np.savez(tmp_path / "empty.npz", **{"param.conv_x.0.weight": np.zeros((4, 1, 3, 3))})
    (tmp_path / "torn.npz").write_bytes((GOLDEN / "ghu.npz").read_bytes()[:-200])
    np.savez(tmp_path / "objects.npz", x0=np.array([{}]), y0=0, theta=0)
    (tmp_path / "README.md").write_text("not a case")
    states = {outcome.case: (outcome.state, bool(outcome.why)) for outcome in verify(tmp_path, data_dir=None)}
    skipped, failed = ("skipped", True), ("fail", True)
    assert states == {"other": skipped, "empty": skipped, "torn": failed, "objects": failed}


def test_a_folder_without_cases_is_the_users_mistake(tmp_path, capsys):
    with pytest.raises(UserError, match=r"holds no case"):
        list(verify(tmp_path, data_dir=None))
    assert main(["verify", str(tmp_path / "gone")]) == 2
    assert "gone: no such folder" in capsys.readouterr().err


def network_case(spec: ModelSpec, context: int, horizon: int) -> dict[str, np.ndarray]:
    """The arrays of a network case with our own numbers for its free-running roll-out, whatever the sizes."""
    random = torch.Generator().manual_seed(0)
    network = build(spec, seed=1).double()
    shape = (3, context + horizon, spec.patch_channels, spec.patches, spec.patches)
    patches = torch.rand(shape, generator=random, dtype=torch.float64)
    clips = to_frames(patches, spec.patch_size)
    prediction = network(clips, free_running_mask(3, context, horizon, clips)).detach()
    weights = export_network(network, "openstl")
    return {
        **{f"param.{name}": tensor.double().numpy() for name, tensor in weights.items()},
        "input.frames": patches.movedim(2, -1).numpy(),
        "input.coin": np.zeros((3, horizon - 1)),
        "output.loss": (prediction - clips[:, 1:]).square().mean().numpy(),
    }


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_channels": (5, 5), "frame_size": 9, "patch_size": 3, "kernel_size": 5},
        {"hidden_channels": (2, 2, 2, 2), "frame_size": 4, "patch_size": 1, "channels": 6, "kernel_size": 1},
    ],
)
@pytest.mark.parametrize("horizon", [1, 4])
def test_every_size_is_read_from_the_arrays(tmp_path, sizes, horizon):
    for cell in ("convlstm", "st_lstm", "causal_lstm"):
        forget_bias, slot = float(cell != "convlstm"), int(cell == "causal_lstm")
        spec = ModelSpec(cell=cell, **sizes, conv_bias=False, forget_bias=forget_bias, highway_slot=slot)
        np.savez(tmp_path / f"{cell}_of_some_size.npz", **network_case(spec, 2, horizon))
    outcomes = list(verify(tmp_path, data_dir=None))
    assert [outcome.state for outcome in outcomes] == ["pass"] * 3, outcomes


def test_norms_of_another_grid_than_a_square_are_verified(tmp_path):
    random = np.random.default_rng(0)
    d, grid = 2, (4, 7)
    case = {f"input.{name}": random.normal(size=(1, d, *grid)) for name in "xhc"}
    for name in ("conv_x", "conv_h"):
        case[f"param.{name}.0.weight"] = random.normal(size=(4 * d, d, 3, 3))
        case |= {f"param.{name}.1.{part}": random.normal(size=(4 * d, *grid)) for part in ("weight", "bias")}
    arrays = {name: torch.from_numpy(array) for name, array in case.items()}

    def gates(name: str) -> torch.Tensor:
        filtered = conv2d(arrays[f"input.{name}"], arrays[f"param.conv_{name}.0.weight"], padding=1)
        return layer_norm(
            filtered, filtered.shape[1:], *(arrays[f"param.conv_{name}.1.{p}"] for p in ("weight", "bias"))
        )

    i, f, g, o = (gates("x") + gates("h")).chunk(4, dim=1)
    c = f.sigmoid() * arrays["input.c"] + i.sigmoid() * g.tanh()
    case |= {"output.c": c.numpy(), "output.h": (o.sigmoid() * c.tanh()).numpy()}
    case |= {"weight.c": np.ones_like(c), "weight.h": np.ones_like(c)}
    np.savez(tmp_path / "convlstm_cell_4x7.npz", **case)
    (outcome,) = verify(tmp_path, data_dir=None)
    assert outcome.state == "pass", outcome


def test_error_is_relative_to_the_largest_value_and_equal_infinities_agree():
    assert relative_error(np.array([1.0, 4.0]), np.array([2.0, 4.0])) == 0.25
    assert relative_error(np.array([np.inf, 1.0]), np.array([np.inf, 1.0])) == 0
    assert relative_error(np.array([1.0, 1.0]), np.array([np.inf, 1.0])) == np.inf
    assert np.isnan(relative_error(np.array([np.nan]), np.array([1.0])))
    with pytest.raises(ValueError, match=r"shape \(1, 2\) where the case has \(2,\)"):
        relative_error(np.zeros((1, 2)), np.zeros(2))
