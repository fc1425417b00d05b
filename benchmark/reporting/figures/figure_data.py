"""What figures are drawn from: the runs of a protocol, and which variants are shown how."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from benchmark.config.probe_stages import ends
from benchmark.config.protocol import Protocol
from benchmark.config.variant_groups import questions, readable_variants
from benchmark.reporting.figures.style import Setting, left_out, looks
from benchmark.reporting.finished_runs import FinishedRun


@dataclass(frozen=True)
class FigureData:
    """The finished runs of a protocol, and the setting of its figures."""

    protocol: Protocol
    runs: Sequence[FinishedRun]
    """All of them, baselines last."""
    every: Setting
    """Of figures with a row a variant: all variants of which a run did not diverge."""
    readable: Setting
    """Of figures with a line or a panel a variant: those of `every` that can be told apart."""
    floor: pd.DataFrame | None = None
    """`floor.csv`, where the protocol asks for it."""

    @property
    def kept(self) -> list[FinishedRun]:
        """The runs that did not diverge, and the baselines."""
        return [run for run in self.runs if not run.diverged]

    @property
    def shown(self) -> list[FinishedRun]:
        """The runs that did not diverge of the variants of `readable`."""
        return [run for run in self.kept if run.config and run.variant in self.readable.looks]

    @property
    def best_predictors(self) -> dict[int, pd.Series]:
        """Number of context frames seen -> row of `floor`; empty where there is none."""
        if self.floor is None:
            return {}
        rows = self.floor[self.floor["frames_seen"] != "all"]
        return {int(row["frames_seen"]): row for _, row in rows.iterrows()}

    @cached_property
    def probed(self) -> Setting:
        """Of figures of gradients: the variants of `readable` of which a run has learnt; the others are named."""
        learnt = {run.variant for run in self.shown if run.learnt}
        gone = [look.label for variant, look in self.readable.looks.items() if variant not in learnt]
        sentence = f"No run has learnt: {', '.join(gone)}." if gone else ""
        return replace(self.readable.only(learnt), left_out=f"{self.readable.left_out} {sentence}".strip())

    @cached_property
    def norms(self) -> pd.DataFrame:
        """`norms_of` the runs of `probed`: the gradient of the last predicted frame's squared error."""
        return norms_of([run for run in self.shown if run.variant in self.probed.looks], "residual")


def figure_data(protocol: Protocol, runs: Sequence[FinishedRun], floor: pd.DataFrame | None = None) -> FigureData:
    """The data of the figures of `protocol`."""
    every = Setting(
        looks=looks(protocol),
        context=protocol.data.context,
        frames=protocol.data.context + protocol.data.horizon,
        seeds=protocol.seed_counts(),
        left_out=left_out(runs),
        stages=ends(protocol),
    )
    sentences = f"{every.left_out} {shown_variants_note(protocol)}".strip()
    readable = replace(every, looks=looks(protocol, readable_variants(protocol)), left_out=sentences)
    drawn = {run.variant for run in runs if run.config and not run.diverged}
    return FigureData(protocol, runs, every.only(drawn), readable.only(drawn), floor)


def shown_variants_note(protocol: Protocol) -> str:
    """A sentence that says which variants are shown where not all can be read; empty where all are."""
    readable = readable_variants(protocol)
    if len(readable) == len(protocol.variants):
        return ""
    asked = questions(protocol)[0].title.lower()
    return f"Shown: the {len(readable)} of {len(protocol.variants)} variants that ask for {asked} alone."


def norms_of(runs: Sequence[FinishedRun], *measures: str) -> pd.DataFrame:
    """`FinishedRun.norms` of some measures, of all `runs` with their variant and seed; nothing if there are none.

    Of a run that has not learnt, what was measured before training alone.
    """
    tables = [
        run.norms[run.norms["measure"].isin(measures) & (run.learnt | (run.norms["stage"] == "init"))].assign(
            variant=run.variant, seed=run.seed
        )
        for run in runs
    ]
    columns = ["measure", "stage", "state", "layer", "t", "log_norm", "variant", "seed"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
