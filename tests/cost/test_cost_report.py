"""The command `plan` says what a protocol will cost; each figure is compared with a count, a file or a measured run."""

import json
import re

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmark.__main__ import main
from benchmark.config.protocol import load_protocol
from benchmark.cost import estimate
from benchmark.cost import measured_speeds as speed_files
from benchmark.cost.estimate import Disk, Work, hours, memory_mib, nearest_speed
from benchmark.cost.jobs import training_jobs
from benchmark.cost.measured_speeds import read_speed, speeds_of
from benchmark.reporting.published_records import FOLDER
from benchmark.system import devices
from benchmark.system.devices import cpu_model
from models.counts import count_macs
from models.predictor import Predictor, free_running_mask
from models.spec import CELLS, ModelSpec


@pytest.fixture
def speeds(tmp_path, monkeypatch):
    """An empty folder in place of the committed speeds."""
    folder = tmp_path / "speeds"
    folder.mkdir()
    monkeypatch.setattr(speed_files, "SPEEDS", folder)
    return folder


@pytest.fixture
def measured(speeds):
    """Write a file as `speed --json` would, of the network of `run` at 10 clips/s, with changes; returns its path."""

    def write(name, run, **changes):
        values = {
            "what": "train",
            "device": "cpu",
            "accelerator": cpu_model(),
            "threads": 1,
            "precision": "fp32",
            "recompute": False,
            "batch": run.training.batch_size,
            "context": run.data.context,
            "horizon": run.data.horizon,
            "model": run.model.to_dict(),
            "clips_per_s": 10.0,
            "peak_memory_mib": 100.0,
        }
        path = speeds / f"{name}.json"
        path.write_text(json.dumps(values | changes))
        return path

    return write


def planned(capsys, *arguments):
    """Exit status and all that the command says."""
    status = main(["plan", *map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("fields", [{}, {"highway_slot": 1, "norm": "channel", "hidden_channels": (4, 3)}])
def test_macs_of_one_step_are_those_of_every_step_of_a_clip(cell, fields):
    if cell == "st_lstm":
        fields = fields | {"hidden_channels": (3, 3)}
    spec = ModelSpec(**{"cell": cell, "hidden_channels": (3, 3), "frame_size": 8, "kernel_size": 3} | fields)
    frames = torch.zeros(1, 7, 1, 8, 8)
    network = Predictor(spec)
    network.reference_path = True
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(frames, free_running_mask(1, 3, 4, frames))
    assert count_macs(spec, 3, 4) == counter.get_total_flops() // 2 > 0


@pytest.mark.parametrize("cell", CELLS)
def test_what_a_step_keeps_for_the_way_back_says_what_a_long_clip_keeps(cell):
    spec = ModelSpec(cell=cell, hidden_channels=(3, 3), frame_size=8, kernel_size=3, highway_slot=1)
    found = [estimate._kept_numbers(spec, steps) for steps in (1, 2, 5)]
    assert found == sorted(set(found))
    assert [estimate.kept_numbers(spec, steps) for steps in (1, 2, 5)] == found


def test_work_is_that_of_every_clip_the_protocol_names(make_protocol):
    run = make_protocol().first_run("predrnn")  # 8 steps of 2 clips, a look at 3 clips after 4 and 8, 5 test clips
    macs = count_macs(run.model, 3, 2)
    assert Work.of(run) == Work(3 * 16 * macs, 2 * 3 * macs, 5 * macs, 2 * 7 * 5 * macs)
    more = make_protocol(
        training={"reversed_second_step": True}, evaluation={"beyond": 7}, probe={"steps": [2]}
    ).first_run("predrnn")
    longer = count_macs(run.model, 3, 7)
    assert Work.of(more) == Work(6 * 16 * macs, 6 * macs, 5 * (macs + longer), (14 + 3) * 5 * macs)
    barred = make_protocol(data={"gaps": [0, 1, 2]}).first_run("predrnn")
    assert Work.of(barred).evaluation == 3 * 5 * macs


def test_hours_and_memory_are_those_of_the_file_where_it_is_of_this_very_step(make_protocol, measured):
    run = make_protocol().first_run("predrnn")
    speed = read_speed(measured("same", run))
    assert hours(Work.of(run).training, speed) == pytest.approx(16 / 10 / 3600)
    held = 12 * sum(one.numel() for one in Predictor(run.model).parameters()) / 2**20
    assert memory_mib(run, speed) == pytest.approx(100 + held + estimate.PROCESS_MIB)
    twice = run.model_copy(update={"training": run.training.model_copy(update={"batch_size": 4})})
    assert memory_mib(twice, speed) == pytest.approx(200 + held + estimate.PROCESS_MIB)


def test_the_nearest_speed_has_the_fewest_mismatches_and_then_the_nearest_step(make_protocol, measured):
    run, width = make_protocol().first_run("predrnn"), {"hidden_channels": [9, 9]}
    measured("a-wide", run, model=run.model.to_dict() | width)
    measured("b-long", run, horizon=9)
    measured("c-low", run, precision="bf16")
    measured("d-threads", run, threads=2)
    measured("e-elsewhere", run, accelerator="another")
    measured("f-inference", run, what="inference")
    found = speeds_of(cpu_model(), "train")
    assert [speed.name for speed in found] == ["a-wide", "b-long", "c-low", "d-threads"]
    assert nearest_speed(found, run).name == "b-long"  # its time step is the same
    assert nearest_speed([found[0], *found[2:]], run).name == "a-wide"
    assert found[2].mismatches(run) == ["precision bf16 for fp32"]
    assert nearest_speed([], run) is None


def test_estimate_for_quick_is_near_what_its_published_runs_took():
    """The files of speeds and the runs were measured apart, both beside other programs."""
    table = pd.read_csv(FOLDER / "quick" / "tables" / "compute.csv").set_index("variant")
    speeds, protocol = speeds_of("AMD EPYC", "train"), load_protocol("quick")
    for variant in ("convlstm-ghu", "predrnn", "predrnnpp-top"):  # the furthest to both sides, and one of nine between
        run = protocol.first_run(variant)
        speed = nearest_speed(speeds, run)
        estimated = estimate.clips_trained(run) / (3600 * hours(Work.of(run).training, speed))
        assert estimated / table["clips_per_s"][variant] == pytest.approx(1, abs=0.3), variant
        assert memory_mib(run, speed) / table["peak_memory_mib"][variant] == pytest.approx(1, abs=0.1), variant


def test_without_a_measured_speed_all_else_is_printed_and_how_to_measure_one(write_protocol, speeds, tmp_path, capsys):
    status, said = planned(capsys, "--protocol", write_protocol(), "--results-dir", tmp_path / "r")
    assert status == 0
    assert "tiny: 6 runs (3 variants), 3 baselines without training" in said
    assert f"no training step was measured on {cpu_model()}" in said
    assert "python -m benchmark speed --device cpu --variant convlstm --hidden-channels 3,3 --norm none" in said
    assert "Side by side" not in said
    assert "GiB of disk" in said


def test_with_a_measured_speed_the_sums_are_those_of_all_runs(
    write_protocol, make_protocol, measured, tmp_path, capsys
):
    file = write_protocol(variants=["predrnn"], seeds=[1, 2, 3])
    run = load_protocol(str(file)).first_run("predrnn")
    measured("mine", run, clips_per_s=16 / 3600)  # an hour for the 16 clips of a training
    measured("probe", run, what="probe", clips_per_s=35 / 3600, batch=3)
    work = Work.of(run)
    status, said = planned(capsys, "--protocol", file, "--results-dir", tmp_path / "r")
    assert status == 0
    trained, scored = (3 * work / Work.of(run).training for work in (work.trained, work.evaluation))
    told = re.search(r"one run after the other: ([\d.]+) hours \(([\d.]+) h training", said)
    assert [float(number) for number in told.groups()] == pytest.approx([trained + scored + 3, trained], abs=0.01)
    assert "3 h the probe)" in said
    assert "mine: " in said
    assert "1 times the MACs in a time step of a batch. For predrnn." in said
    assert "snakemake --cores" in said


def test_a_named_speed_of_another_device_takes_its_place(write_protocol, make_protocol, measured, tmp_path, capsys):
    run = make_protocol().first_run("predrnn")
    path = measured("far", run, accelerator="A GPU", device="cuda", precision="bf16")
    for name in ("far", "far.json", path):
        status, said = planned(capsys, "--protocol", write_protocol(), "--results-dir", tmp_path / "r", "--speed", name)
        assert status == 0
        assert "On A GPU, one run after the other" in said
        assert "GPU-hours" in said
        assert "measured with precision bf16 for fp32" in said
        assert "Side by side: not known" in said
        assert "no file of `speed --what probe` is of A GPU" in said
    measured("far", run, accelerator="A GPU", device="cuda", device_memory_mib=1000)
    file = write_protocol(variants=["predrnn"])
    said = planned(capsys, "--protocol", file, "--results-dir", tmp_path / "r", "--speed", "far")[1]
    assert "1.0 GiB hold 9 of the largest run; the workflow gives a GPU to one job at a time" in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--speed", "fra"], ["--speed: unknown measured speed 'fra'; did you mean 'far'? (allowed: far)"]),
        (["--speed", "broken.json"], ["broken.json: cannot be read as a measured speed", "speed --json FILE"]),
        (["--speed", "list.json"], ["list.json: holds list, not a measured speed"]),
        (["--speed", "slow.json"], ["slow.json: clips_per_s: 0", "greater than 0"]),
        (["--speed", "odd.json"], ["odd.json: model: ", "hidden_channels"]),
        (["--speed", "roll.json"], ["roll.json: what: 'inference'"]),
        (["--speed", "probe.json"], ["probe.json: is of --what probe, not train (allowed: far)"]),
        (["--speed", "far", "--counts-only"], ["--counts-only leaves out the hours"]),
    ],
)
def test_a_speed_that_is_none_is_refused_before_anything_is_counted(
    write_protocol, make_protocol, measured, tmp_path, capsys, monkeypatch, arguments, told
):
    run = make_protocol().first_run("predrnn")
    far = json.loads(measured("far", run).read_text())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    for name, changes in {
        "slow": {"clips_per_s": 0},
        "odd": {"model": far["model"] | {"hidden_channels": []}},
        "roll": {"what": "inference"},
        "probe": {"what": "probe"},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(far | changes))
    (tmp_path / "list.json").write_text("[]")
    status, said = planned(capsys, "--protocol", write_protocol(), "--results-dir", tmp_path / "r", *arguments)
    assert status == 2
    assert said.count("\n") < 3
    assert [part for part in told if part not in said] == []
    assert not (tmp_path / "r").exists()


def test_the_workflow_asks_for_counts_alone_and_needs_no_speed(write_protocol, speeds, tmp_path, capsys):
    (speeds / "broken.json").write_text("{")
    arguments = ["--protocol", write_protocol(), "--results-dir", tmp_path / "r"]
    status, said = planned(capsys, *arguments, "--counts-only")
    assert (status, "How each figure" in said) == (0, False)
    status, said = planned(capsys, *arguments)
    assert status == 2
    assert "broken.json: cannot be read as a measured speed" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_a_protocol_for_a_gpu_that_is_not_here_says_whose_hours_it_tells(
    write_protocol, make_protocol, measured, tmp_path, capsys
):
    measured("mine", make_protocol().first_run("predrnn"))
    file = write_protocol(training={"device": "cuda"})
    said = planned(capsys, "--protocol", file, "--results-dir", tmp_path / "r")[1]
    assert f"no CUDA device is visible here: hours and memory are those of {cpu_model()}" in said
    assert "python -m benchmark speed --device cuda" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_a_gpu_that_pytorch_cannot_use_is_not_planned_for(
    write_protocol, make_protocol, measured, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(devices, "visible_devices", lambda: ["GPU-a"])
    measured("mine", make_protocol().first_run("predrnn"))
    for wanted in ("auto", "cuda"):
        file = write_protocol(training={"device": wanted})
        status, said = planned(capsys, "--protocol", file, "--results-dir", tmp_path / "r")
        assert (status, f"On {cpu_model()}, one run after the other" in said) == (0, True)


@pytest.mark.parametrize("gaps", [(), (0, 1, 2)])
def test_disk_is_that_of_the_weights_and_of_every_number_in_the_tables(make_protocol, gaps):
    run = make_protocol(data={"gaps": list(gaps)}, probe={"steps": [2]}).first_run("convlstm")
    weights = 4 * sum(one.numel() for one in Predictor(run.model).parameters())
    found = Disk.of(run, None)
    assert found.most - found.kept == 6 * weights
    tables = estimate.table_bytes(run, None) + estimate.probe_rows(run) * estimate.PROBE_BYTES
    assert found.kept == 3 * weights + tables + 8 * estimate.LINE_BYTES
    assert estimate.table_bytes(run, "alex") > estimate.table_bytes(run, None)


def test_it_begins_with_the_answer(measured, write_protocol, capsys, make_protocol):
    run = make_protocol().run("convlstm", 1)
    measured("mine", run)
    code, said = planned(capsys, "--protocol", str(write_protocol()))
    head, answer, empty, *details = said.splitlines()
    assert code == 0
    assert head.startswith("tiny: 6 runs (3 variants)")
    assert empty == ""
    time, memory, disk = answer.removesuffix(".").split("; ")
    assert re.fullmatch(rf"about \S+ \w+ on {re.escape(cpu_model())}, one run after the other", time)
    assert re.fullmatch(r"\d+\.\d GiB for a run", memory)
    assert re.fullmatch(r"\d+\.\d\d GiB of disk", disk)
    total = next(line for line in details if line.startswith("On "))
    assert float(re.search(r": ([\d.]+) hours", total)[1]) < 1


def test_where_no_speed_is_known_the_answer_says_how_to_get_one(speeds, write_protocol, capsys):
    _, said = planned(capsys, "--protocol", str(write_protocol()))
    answer = said.splitlines()[1]
    assert re.match(r"hours not known on .*, see below how to measure; memory of a run not known; 0", answer)
    assert "python -m benchmark speed" in said


def stacked(make_protocol, **training):
    """Two variants of three seeds, two seeds and both variants in a job."""
    return make_protocol(variants=["convlstm", "predrnn"], seeds=[1, 2, 3], stack=2, cohort=2, training=training)


def costs_of(protocol, speed):
    runs = [protocol.first_run(entry.id) for entry in protocol.variants]
    return [
        estimate.VariantCost(run, len(protocol.seeds), Work.of(run), Disk.of(run, None), speed, None) for run in runs
    ]


def test_memory_of_a_job_is_that_of_its_runs_with_one_process(make_protocol, measured):
    protocol = stacked(make_protocol, batch_size=32)
    speed = read_speed(measured("mine", protocol.first_run("predrnn")))
    convlstm, predrnn = costs = costs_of(protocol, speed)
    jobs = training_jobs(protocol, costs, "cpu")
    assert [job.networks for job in jobs] == [
        ((convlstm, convlstm), (predrnn, predrnn)),
        ((convlstm,), (predrnn,)),
    ]
    held = estimate.held_mib(convlstm.run) + estimate.held_mib(predrnn.run)
    steps = [estimate.step_mib(one.run, speed) for one in costs]
    joint = [2 * estimate.weights_mib(one.run) for one in costs]
    stacks = [2 * step + 2 * own for step, own in zip(steps, joint, strict=True)]
    assert jobs[0].memory_mib == pytest.approx(estimate.PROCESS_MIB + 2 * held + max(stacks))
    assert jobs[1].memory_mib == pytest.approx(estimate.PROCESS_MIB + held + max(steps))
    assert jobs[0].train_h == pytest.approx(2 * convlstm.train_h + 2 * predrnn.train_h)
    on_gpu = training_jobs(protocol, costs, "cuda")[0]
    assert on_gpu.memory_mib == pytest.approx(2 * held + sum(stacks))


@pytest.mark.parametrize(
    ("training", "why"),
    [
        ({"batch_size": 32, "threads": 2}, "2 threads share its batches"),
        ({"batch_size": 1}, "a batch of its states leaves numbers over in a vector of 32"),
    ],
)
def test_plan_says_which_runs_take_turns_and_why(make_protocol, measured, tmp_path, capsys, training, why):
    protocol = stacked(make_protocol, **training)
    speed = read_speed(measured("mine", protocol.first_run("predrnn")))
    jobs = training_jobs(protocol, costs_of(protocol, speed), "cpu")
    assert {len(network) for job in jobs for network in job.networks} == {1}
    said = planned(capsys, "--protocol", tmp_path / "tiny.yaml", "--results-dir", tmp_path / "r")[1]
    assert "Training: 2 jobs of up to 4 runs (cohort 2, stack 2)." in said
    assert f"Not stacked, but one after the other in their job: convlstm, predrnn ({why})." in said
    assert "GiB for a job;" in said
    assert "Stacked runs: hours as one after the other" in said


def test_plan_says_what_is_stacked(make_protocol, measured, tmp_path, capsys):
    protocol = stacked(make_protocol, batch_size=32)
    measured("mine", protocol.first_run("predrnn"))
    said = planned(capsys, "--protocol", tmp_path / "tiny.yaml", "--results-dir", tmp_path / "r")[1]
    assert "Training: 2 jobs of up to 4 runs, up to 2 of them as one network (cohort 2, stack 2)." in said
    assert "Not stacked" not in said
    assert re.search(r"hold \d+ of the largest job", said)
