"""Three digits and longer clips go through every verb, and the test clips they are scored on stay the same."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.__main__ import main
from benchmark.config.protocol import load_protocol
from benchmark.cost import estimate
from benchmark.data.clips import load_clips
from benchmark.data.kinds import kind_of

RUN = ["--variant", "predrnnpp", "--seed", "1"]
FORMS = {
    "three-digits": ({"num_digits": 3}, {}, "9e2c2ff25ec3af20ac48dd211afa125cf088e1e1a956f6895adf8d10c5db851d"),
    "longer-horizon": ({"horizon": 6}, {}, "d2eac6d98a8fae9a334b902a9a987e910241ca50f89351abae5a8962166d4679"),
    "longer-clips": (
        {"context": 6, "horizon": 6},
        {"beyond": 9},
        "09932c6c6edb42623d80fb4cd77630ac75e4fcf352a220215d08e312196947fd",
    ),
}
"""What is changed in data and evaluation, and the SHA-256 of the test clips."""


@pytest.mark.parametrize(("data", "evaluation", "sha256"), FORMS.values(), ids=FORMS)
def test_other_clips_go_through_every_verb_and_keep_their_hash(
    write_protocol, tmp_path, monkeypatch, data, evaluation, sha256
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/no/mlflow.db")
    changes = {"variants": ["predrnnpp"], "seeds": [1], "baselines": ["black"]}
    file = write_protocol(data=data, evaluation=evaluation, **changes)
    options = ["--protocol", str(file), "--results-dir", str(tmp_path / "results")]
    chain = [["plan", "--counts-only"], ["data"], ["backbone"], ["train", *RUN], ["evaluate", *RUN], ["probe", *RUN]]
    chain.append(["record", *RUN])
    for verb, *more in chain:
        assert main([verb, *options, *more]) == 0, verb
    for verb in ("evaluate", "record"):
        assert main([verb, *options, "--variant", "black", "--seed", "0"]) == 0, verb
    assert main(["tables", *options]) == 0

    (run,) = load_protocol(str(file)).runs()
    folder, prepared = run.path(tmp_path / "results"), tmp_path / "results" / "tiny" / "data"
    assert json.loads((prepared / "data.json").read_text())["test_sha256"] == sha256
    clips = load_clips(prepared, run.data, "test")
    assert clips.shape == (5, run.data.context + run.data.horizon, 1, 12, 12)
    top, _ = kind_of(run.data).open(prepared).fixed_stream("test").positions(torch.arange(5))
    assert top.shape[1] == run.data.num_digits
    frames, norms = (pd.read_parquet(folder / f"{name}.parquet") for name in ("frames", "probe"))
    assert len(frames) == 5 * run.data.horizon
    assert np.isfinite(frames["mse"]).all()
    assert norms["t"].max() == run.data.context + run.data.horizon - 1
    assert (norms.groupby(["stage", "measure", "state", "layer"])["norm"].max() > 0).all()
    assert len(norms) == estimate.probe_rows(run)
    numbers = frames.drop(columns=["variant", "seed", "clip", "frame"]).size
    numbers += len(pd.read_parquet(folder / "beyond.parquet")) * 4 if evaluation else 0
    assert numbers * estimate.ROW_BYTES == estimate.table_bytes(run, None)
