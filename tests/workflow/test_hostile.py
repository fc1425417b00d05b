"""Nothing that stands in a path or a target reaches a shell as more than a word: real runs of Snakemake."""

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from benchmark.system.files import read_json
from tests.workflow import test_workflow
from tests.workflow.test_workflow import snakemake

checkout = test_workflow.checkout
NAME = 'it\'s a "test" $(touch pwned-1); touch pwned-2 & `touch pwned-3` | > pwned-4'


@pytest.fixture
def hostile(checkout, tmp_path):
    """A folder whose name a shell would act on, with a protocol of one short run in it; nothing may act on it."""
    folder = tmp_path / NAME
    folder.mkdir()
    values = yaml.safe_load((checkout / "workflows" / "protocols" / "smoke.yaml").read_text())
    values |= {"variants": values["variants"][:1], "seeds": [1]}
    values["training"] |= {"steps": 2}
    (folder / "short.yaml").write_text(yaml.safe_dump(values))
    yield folder
    assert [path for place in (checkout, tmp_path) for path in place.rglob("pwned*")] == []


def config(folder):
    return ["--config", f"protocol={folder / 'short.yaml'}", f"results_dir={folder}/out", f"data_dir={folder}"]


@pytest.mark.slow
def test_run_in_folders_with_hostile_names_works_and_executes_nothing(checkout, hostile):
    results = hostile / "out" / "short"
    run = results / "runs" / "convlstm" / "seed=1"
    status, output = snakemake(checkout, results / "plan.csv", run / "frames.parquet", *config(hostile))
    assert status == 0, output
    assert read_json(run / "status.json") == {"state": "finished", "step": 2, "steps": 2}
    assert (run / "frames.parquet").is_file()
    assert "step 2/2" in (results / "logs" / "train" / "convlstm.seed=1.log").read_text()


def test_every_command_gets_the_paths_as_single_words(checkout, hostile, tmp_path):
    status, output = snakemake(checkout, "--dry-run", "--printshellcmds", "all", *config(hostile))
    assert status == 0, output
    commands = re.findall(r"^ *Shell command: (python .*)$", output, re.MULTILINE)
    verbs = {command.split()[3] for command in commands}
    wanted = "init-store plan data backbone train evaluate probe record sync tables figures"
    assert sorted(verbs) == sorted(wanted.split())
    for name in ("train", "evaluate", "probe", "record", "sync"):
        (hostile / "out" / "short" / "logs" / name).mkdir(parents=True)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nfor word; do printf "%s\\0" "$word"; done >> "$WORDS"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    wanted = {
        "--protocol": f"{hostile / 'short.yaml'}",
        "--results-dir": f"{hostile}/out",
        "--data-dir": f"{hostile}",
    }
    for command in commands:
        words = tmp_path / "words"
        words.write_text("")
        environment = os.environ | {"PATH": f"{python.parent}:{os.environ['PATH']}", "WORDS": str(words)}
        subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, check=True)
        told = dict(word.split("=", 1) for word in words.read_text().split("\0") if re.match("--.*=", word))
        assert told == {name: wanted[name] for name in told}
        assert "--protocol" in told


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("results_dir=a{b}", "--config: results_dir: 'a{b}': braces and control characters are not allowed"),
        ("data_dir=a{b}", "--config: data_dir: 'a{b}': braces"),
        ("protocol=../smoke", "unknown protocol '../smoke'"),
        ("protocol=smoke; touch pwned", "unknown protocol 'smoke; touch pwned'"),
        ("protocol=$(touch pwned).yaml", "$(touch pwned).yaml: cannot be read"),
        ("results_dir={a: 1}", "--config: results_dir: "),
        ("results_dir=/dev/null", "--config: results_dir: /dev/null is a file; name a folder"),
        ("results_dir=Makefile", "--config: results_dir: Makefile is a file; name a folder"),
        ("results_dir=Makefile/inner", "/Makefile is a file; name a folder"),
        ("results_dir=1e3", "--config: results_dir: is read as 1000.0, not as a name; put ./ before it (./NAME)"),
        ("results_dir=0777", "--config: results_dir: 0777 is read as 777; put ./ before it (./0777)"),
        ("results_dir=", "--config: results_dir: is read as nothing, not as a name"),
    ],
)
def test_setting_that_cannot_be_used_is_one_message(checkout, hostile, setting, told):
    status, output = snakemake(checkout, "--dry-run", "all", "--config", setting)
    assert status != 0
    assert "Traceback" not in output
    (message,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert told in message


@pytest.mark.parametrize(("setting", "folder"), [("2024", "2024"), ("null", "null"), ("./0777", "0777")])
def test_setting_that_looks_like_a_number_is_a_folder_of_that_name(checkout, setting, folder):
    status, output = snakemake(checkout, "--dry-run", "all", "--config", "protocol=smoke", f"results_dir={setting}")
    assert status == 0, output
    assert f"output: {folder}/smoke/plan.csv" in output


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("nonsense/seed=1/model.safetensors", "unknown variant 'nonsense' (allowed: convlstm, predrnn, predrnnpp)"),
        ("nonsense/seed=1/frames.parquet", "unknown variant 'nonsense'"),
        ("nonsense/seed=1/.mirrored", "unknown variant 'nonsense'"),
        ("convlstm/seed=99/probe.json", "seed 99 is not one of 1, 2"),
        ("last-frame/seed=0/model.safetensors", "unknown variant 'last-frame'"),
        ("/etc/seed=1/model.safetensors", "unknown variant 'etc'"),
        ("last-frame/seed=3/frames.parquet", "unknown variant 'last-frame'"),
    ],
)
def test_target_of_no_run_is_one_message_without_a_traceback(checkout, target, told):
    status, output = snakemake(checkout, f"results/smoke/runs/{target}", "--config", "protocol=smoke")
    assert status != 0
    assert "Traceback" not in output
    (message,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert message.startswith(f"error: protocol smoke: {told}")


@pytest.mark.parametrize("target", ["../x/seed=1", "a b/seed=1", "a;b/seed=1", "\u0430/seed=1", "x/seed=-1"])
def test_target_outside_the_names_of_runs_has_no_rule(checkout, target):
    status, output = snakemake(checkout, f"results/smoke/runs/{target}/model.safetensors", "--config", "protocol=smoke")
    assert status != 0
    assert "Traceback" not in output
    assert "No rule to produce" in output


@pytest.mark.parametrize("name", ["../x", "/etc", "a b", "a;b", "a\nb", "", "\u0430", "x" * 500, "*", "convlstm,../x"])
@pytest.mark.parametrize("verb", ["train", "evaluate", "probe", "sync"])
def test_variant_on_the_command_line_must_be_one_of_the_protocol(tmp_path, monkeypatch, capsys, verb, name):
    from benchmark.__main__ import main

    monkeypatch.chdir(tmp_path)
    assert main([verb, "--protocol", "smoke", f"--variant={name}", "--seed=1", "--results-dir=out"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: --variant: ")
    assert told.count("\n") == 1
    assert not list(Path().iterdir()), json.dumps(told)
