"""All that the tables of a protocol are made of; its figures read the same."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.config.protocol import Protocol
from benchmark.data.kinds import kind_of
from benchmark.reporting.finished_runs import FinishedRun, learnt_below, read_runs
from benchmark.system.console import command_line
from benchmark.system.errors import UserError
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
        """`plan.csv`: parameters and MACs, a row a variant, by its id.

        Raises:
            UserError: it is missing, or was made before the protocol had all its variants.
        """
        file = self.folder / "plan.csv"
        again = f"make it: {command_line('python', '-m', 'benchmark', 'plan', '--protocol', self.protocol.name)}"
        if not file.is_file():
            raise UserError(f"{file}: is missing; {again}")
        table = pd.read_csv(file).set_index("variant")
        for entry in self.protocol.variants:
            if entry.id not in table.index:
                raise UserError(f"{file}: lacks variant {entry.id}, it is older than the protocol; {again}")
        return table

    @cached_property
    def floor(self) -> pd.DataFrame:
        """`floor.csv`, see `read_floor`."""
        return read_floor(self.folder)

    @property
    def learnt_below(self) -> float:
        """The validation MSE below which a run has learnt, see `learnt_below` of `finished_runs`."""
        return learnt_below(self.protocol, self.folder)

    @cached_property
    def lpips(self) -> dict[str, Any]:
        """`lpips_backbone.json`: `net`, `status`, and `how` to get it where it is missing."""
        return read_json(self.folder / "lpips_backbone.json")

    @cached_property
    def test_set(self) -> str:
        """Where the test clips are from: `generated`, held out from videos, or a public set as in `data.json`."""
        return kind_of(self.protocol.data).test_set(self.folder / "data")


def read_floor(folder: Path) -> pd.DataFrame:
    """`floor.csv` in the folder of a protocol: a row for each number of frames seen, which is text.

    Raises:
        UserError: it is missing.
    """
    path = folder / "floor.csv"
    if not path.exists():
        raise UserError(f"{path}: is missing; the command `floor` makes it")
    return pd.read_csv(path, dtype={"frames_seen": str})


def read_results(protocol: Protocol, results_dir: Path, *, reuse: bool = False) -> ProtocolResults:
    """The results of `protocol` below `results_dir`.

    Args: `reuse`: take runs from published records, see `read_runs`.

    Raises:
        UserError: a run is not finished, or two cannot be compared.
    """
    return ProtocolResults(protocol, read_runs(protocol, results_dir, reuse=reuse), results_dir / protocol.name)
