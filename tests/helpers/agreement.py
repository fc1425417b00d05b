"""Two folders with the results of one protocol, held against each other byte for byte, measured times aside."""

import pandas as pd

from benchmark.reporting.record import RECORD
from benchmark.reporting.registry import TABLES
from tests.helpers.recorded import decided

BY_HAND = """
import sys
from benchmark.__main__ import main

results, data_dir = sys.argv[1:3]
variants, baselines, seeds = (words.split(",") for words in sys.argv[3:])
common = ["--protocol", "smoke", "--results-dir", results]

def call(verb, *arguments):
    assert main([verb, *common, *arguments]) == 0, (verb, arguments)

for verb in ("backbone", "data"):
    call(verb, "--data-dir", data_dir)
for seed in reversed(seeds):
    call("train", "--variant", ",".join(reversed(variants)), "--seed", seed)
    for variant in reversed(variants):
        call("probe", "--variant", variant, "--seed", seed)
        call("evaluate", "--variant", variant, "--seed", seed, "--data-dir", data_dir)
for baseline in reversed(baselines):
    call("evaluate", "--variant", baseline, "--seed", "0", "--data-dir", data_dir)
for variant, seed in [*((v, s) for v in variants for s in seeds), *((b, "0") for b in baselines)]:
    call("record", "--variant", variant, "--seed", seed)
for verb in ("plan", "figures", "tables"):
    call(verb)
"""
"""Every verb of protocol `smoke` in one process, in another order than Snakemake's, variants trained side by side."""
OF_RUN = {"run.yaml", "status.json", "provenance.json", "metrics.jsonl", "model.safetensors", "probe.parquet",
          "probe.json", "probe.png"}  # fmt: skip
OF_ALL = {"frames.parquet", "examples.npz", "film.png", "film.gif"}


def hold_against_each_other(first, second, runs, baselines):
    """Compare every file that the two folders of the protocol share a promise about."""
    for variant, seed in runs | {(name, 0) for name in baselines}:
        for name in OF_ALL | (OF_RUN if seed else set()):
            one, other = (folder / "runs" / variant / f"seed={seed}" / name for folder in (first, second))
            assert one.read_bytes() == other.read_bytes(), other
        one, other = (folder / "runs" / variant / f"seed={seed}" / RECORD for folder in (first, second))
        assert decided(one) == decided(other), other
    for kind, count in (("figures", 14), ("films", 6), ("states", 8), ("tables", 28), ("data", 2)):
        names = [path.name for path in (first / kind).iterdir()]
        assert len(names) >= count
        for name in names:
            one, other = first / kind / name, second / kind / name
            ignored = TABLES[one.stem].measured if kind == "tables" else ()
            if not ignored:
                assert one.read_bytes() == other.read_bytes(), other
            elif one.suffix == ".csv":
                pair = [pd.read_csv(path, dtype=str).drop(columns=[*ignored]) for path in (one, other)]
                pd.testing.assert_frame_equal(*pair)
