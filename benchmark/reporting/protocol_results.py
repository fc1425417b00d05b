"""All that the tables of a protocol are made of; its figures read the same."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.config.data_sections import HELD_OUT, VideosConfig
from benchmark.config.protocol import Protocol
from benchmark.reporting.finished_runs import FinishedRun, read_runs
from benchmark.system.files import read_json


@dataclass(frozen=True)
class ProtocolResults:
    """A protocol, its finished runs, and what lies in its folder besides, which is read when it is asked for."""

    protocol: Protocol
    runs: list[FinishedRun]
    """In the order of the protocol, baselines last."""
    folder: Path
    """`<results_dir>/<protocol>`."""

    @cached_property
    def costs(self) -> pd.DataFrame:
        """`plan.csv`: parameters and MACs, a row a variant, by its id."""
        return pd.read_csv(self.folder / "plan.csv").set_index("variant")

    @cached_property
    def lpips(self) -> dict[str, Any]:
        """`lpips_backbone.json`: `net`, `status`, and `how` to get it where it is missing."""
        return read_json(self.folder / "lpips_backbone.json")

    @cached_property
    def test_set(self) -> str:
        """Where the test clips are from: `generated`, held out from videos, or a public set as in `data.json`."""
        if self.protocol.data.public_test:
            return read_json(self.folder / "data" / "data.json")["test_set"]
        return HELD_OUT if isinstance(self.protocol.data, VideosConfig) else "generated"


def read_results(protocol: Protocol, results_dir: Path, *, reuse: bool = False) -> ProtocolResults:
    """The results of `protocol` below `results_dir`.

    Args: `reuse`: take runs from published records, see `read_runs`.

    Raises:
        UserError: a run is not finished, or two cannot be compared.
    """
    return ProtocolResults(protocol, read_runs(protocol, results_dir, reuse=reuse), results_dir / protocol.name)
