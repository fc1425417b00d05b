"""The command `speed` measures what it says it measures; how fast anything is, no test asks."""

import argparse
import json
import multiprocessing
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from benchmark.__main__ import main
from benchmark.config.metrics import HEADLINE
from benchmark.cost import cohort_timing, stopwatch, timing
from benchmark.cost.kernels import only_lays_out
from benchmark.cost.stopwatch import peak_memory
from benchmark.cost.timing import by_frame
from benchmark.evaluation.metric_functions import score
from benchmark.training.acceleration.stacked_step import StackedStep
from models.fast_path import fused_roll_out
from models.fast_path.stage_plans import PLANS
from models.spec import CELLS, ModelSpec

TINY = (
    "--hidden-channels 4,4 --frame-size 16 --kernel-size 3 --batch-size 2 --context 3 --horizon 2"
    " --threads 1 --repeats 2 --device cpu"
)

SPEC = ModelSpec(cell="convlstm", hidden_channels=(2,), frame_size=8)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Ceilings are measured twice each."""
    monkeypatch.setattr(stopwatch, "LONGEST_S", 0.0)


def run(tmp_path, *arguments):
    assert main(["speed", *TINY.split(), "--json", str(tmp_path / "speed.json"), *arguments]) == 0
    return json.loads((tmp_path / "speed.json").read_text())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_is_timed_on_both_paths_beside_the_ceilings(tmp_path, capsys, precision):
    found = run(tmp_path, "--precision", precision)
    assert found["step_s"] == found["paths"]["fast"]["median_s"] > 0
    assert found["plain_step_s"] == found["paths"]["plain"]["median_s"] > 0
    assert found["clips_per_s"] == pytest.approx(2 / found["step_s"])
    assert found["flops_per_s"] == pytest.approx(6 * found["macs"] * 2 / found["step_s"])
    assert set(found["ceilings"]) == {"matrix_product_flops", "copy_bytes"}
    assert {"ratio", "peak_memory_mib", "tf32"} <= set(found)
    for path in found["paths"].values():
        assert path["q1_s"] <= path["median_s"] <= path["q3_s"]
    assert found["stages"] == "not in fused stages: its stages are fused on a GPU alone"
    assert f"optimised path compared with the reference path: {found['ratio']:.2f} times" in capsys.readouterr().out


@pytest.mark.gpu
def test_the_peak_of_a_captured_step_holds_what_it_keeps_for_the_way_back(tmp_path):
    found = run(tmp_path, "--device", "cuda", "--hidden-channels", "64,64", "--frame-size", "64", "--batch-size", "8")
    assert found["paths"]["fast"]["peak_memory_mib"] > found["paths"]["plain"]["peak_memory_mib"] / 4 > 1


def test_a_trace_of_a_step_counts_what_is_called_in_it(tmp_path, capsys):
    trace = tmp_path / "trace.json"
    found = run(tmp_path, "--trace", str(trace), "--variant", "convlstm")
    events = json.loads(trace.read_text())["traceEvents"]
    called = [event["name"] for event in events if event.get("cat") == "cpu_op"]
    assert called.count("aten::bmm") == found["longest_kernels"]["aten::bmm"]["count"] > 0
    assert found["kernels"] > sum(one["count"] for one in found["longest_kernels"].values()) > 0
    assert found["kernels_s"] >= found["longest_kernels"]["aten::bmm"]["total_s"] > 0
    assert f"{found['kernels']} kernels" in capsys.readouterr().out


@pytest.mark.gpu
def test_a_replay_of_a_fused_step_is_its_kernels(tmp_path):
    sizes = ["--hidden-channels", "64,64", "--frame-size", "64", "--batch-size", "8", "--precision", "bf16"]
    found = run(tmp_path, "--device", "cuda", *sizes, "--trace", str(tmp_path / "trace.json"), "--captured")
    assert found["stages"] == "in fused stages"
    assert found["captured"]
    assert found["layout_kernels"] == 0
    assert 2 * 9 * 4 < found["kernels"] < 600  # two layers and a highway over four steps


def test_a_trace_is_of_a_training_step_alone(tmp_path, capsys):
    assert main(["speed", "--what", "data", "--device", "cpu", "--trace", str(tmp_path / "trace.json")]) == 2
    assert "--trace: is of a training step, not of --what data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("void cudnn::ops::nchwToNhwcKernel<float, float, float>", True),
        ("void at::native::batch_transpose_kernel", True),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64", False),
        ("update_backward_kernel", False),
    ],
)
def test_kernels_that_only_lay_out_are_known_by_name(name, expected):
    assert only_lays_out(name) is expected


def test_each_subject_has_its_numbers(tmp_path, capsys):
    assert run(tmp_path, "--what", "inference")["ratio"] > 0
    assert "the optimised path is computed not in fused stages: " in capsys.readouterr().out
    clips = run(tmp_path, "--what", "data")
    assert clips["ratio"] is None
    assert clips["share_of_step"] == pytest.approx(clips["step_s"] / clips["plain_step_s"])


def test_a_cell_without_stages_is_said_to_have_none(monkeypatch):
    monkeypatch.setattr(fused_roll_out, "why_no_kernels", lambda: None)
    told = {
        cell: timing.stages(ModelSpec(cell=cell, hidden_channels=(2,), frame_size=8), "cuda", False) for cell in CELLS
    }
    assert {cell for cell, said in told.items() if said == "in fused stages"} == set(PLANS)
    assert told["conv_gru"].endswith(": the cell conv_gru has no stages in models/fast_path/stage_plans.py")
    assert timing.stages(SPEC, "cuda", recompute=True).endswith("recompute: true computes step by step")


def test_runs_together_are_timed_in_three_ways(tmp_path):
    found = run(tmp_path, "--what", "cohort", "--runs", "2")
    assert (found["runs"], found["stack"], found["ratio"]) == (2, None, None)
    assert found["clips_per_s"] == pytest.approx(2 * 2 / found["step_s"])
    assert found["clips_per_s_apart"] == pytest.approx(2 * 2 / found["plain_step_s"])
    assert found["clips_per_s_processes"] > 0


def test_a_stack_is_timed_against_its_runs_one_after_the_other_and_in_processes(tmp_path, capsys, monkeypatch):
    sizes, call = [], StackedStep.__call__

    def watched(step, batch):
        sizes.append(len(step.members))
        return call(step, batch)

    monkeypatch.setattr(StackedStep, "__call__", watched)
    found = run(tmp_path, "--what", "cohort", "--stack", "3")
    assert sizes == [3] * 4  # two to warm up, two that are timed
    assert (found["runs"], found["stack"], found["ratio"]) == (3, 3, None)
    assert found["paths"]["fast"]["label"] == "stacked as one network"
    assert found["clips_per_s"] == pytest.approx(3 * 2 / found["step_s"])
    assert min(found[f"{way}_processor_cost"] for way in ("stack", "processes")) > 0
    assert f"the stack takes as long as {found['stack_cost']:.2f} of its runs" in capsys.readouterr().out


def test_runs_that_take_turns_are_not_timed_as_a_stack(capsys):
    assert main(["speed", *TINY.split(), "--what", "cohort", "--stack", "2", "--threads", "2"]) == 2
    assert "--stack: 2 threads share its batches, so that such runs take turns" in capsys.readouterr().err


def test_a_process_that_is_timed_uses_the_gpu_that_was_reserved_for_it(monkeypatch):
    chosen = []

    def end(device, threads):
        raise InterruptedError

    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(cohort_timing, "prepare_device", end)
    context = types.SimpleNamespace(Pipe=lambda: (None, types.SimpleNamespace(close=bool)), Process=InThisProcess)
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)
    with pytest.raises(InterruptedError):
        cohort_timing.time_in_processes(argparse.Namespace(threads=1), SPEC, "cuda", 1)
    assert chosen == [3]


class InThisProcess:
    """A process that is none."""

    def __init__(self, target, args):
        self.start = lambda: target(*args)


def test_scores_are_timed_on_all_clips_asked_for(tmp_path):
    found = run(tmp_path, "--what", "evaluate", "--clips", "53")
    assert found["clips"] == 53
    assert found["ratio"] == pytest.approx(found["paths"]["plain"]["total_s"] / found["paths"]["fast"]["total_s"])


def test_the_probe_is_timed_on_all_clips_asked_for_beside_a_plain_backward_pass(tmp_path, capsys):
    found = run(tmp_path, "--what", "probe", "--clips", "5")
    assert (found["clips"], found["precision"], found["ratio"]) == (5, "fp64", None)
    assert found["cost"] == pytest.approx(found["paths"]["fast"]["total_s"] / found["paths"]["plain"]["total_s"])
    assert f"the probe takes {found['cost']:.2f} times as long" in capsys.readouterr().out


def test_both_ways_to_score_give_the_same_numbers():
    random = torch.Generator().manual_seed(1)
    truth = torch.rand(2, 3, 1, 16, 16, generator=random)
    prediction = truth + 0.1 * torch.randn(truth.shape, generator=random)
    ours, frame_by_frame = score(prediction, truth), by_frame(prediction, truth)
    for name in HEADLINE:
        np.testing.assert_allclose(ours[name].flatten().numpy(), frame_by_frame[name], rtol=1e-6)


def test_peak_memory_counts_what_was_held_at_once():
    peak = peak_memory(lambda: torch.ones(2**25).sum(), "cpu")  # 128 MiB
    if peak is None:
        pytest.skip("this kernel does not tell the peak memory of a process")
    assert 100 < peak < 200


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--variant", "predrnn++"], "--variant: unknown variant 'predrnn++'; did you mean 'predrnnpp'?"),
        (["--hidden-channels", "4"], "highway_slot"),
        (["--patch-size", "5"], "patch_size: 5 does not divide frame_size 64"),
        (["--variant", "predrnn", "--hidden-channels", "4,8"], "st_lstm uses M elementwise"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_anything_is_measured(capsys, arguments, told):
    assert main(["speed", "--device", "cpu", *arguments]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["speed", "--help"], ["speed", "--variant", "nothing"]])
def test_help_and_a_mistake_need_no_torch(arguments):
    program = (
        "import sys\n"
        "from benchmark.__main__ import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True).returncode == 0


def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmark.cost.timing.measure", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").touch()
    assert main(["speed", "--json", str(tmp_path / "file" / "speed.json")]) == 2
    assert "file/speed.json" in capsys.readouterr().err
