"""Ours beside what others published: each row of `published.csv`, under that row's conventions, or why not."""

import math
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Any, NamedTuple

import pandas as pd

from benchmark.config.data_sections import KTH, DataConfig, DigitsConfig, VideosConfig
from benchmark.config.metrics import METRICS
from benchmark.config.protocol import Protocol
from benchmark.data.kinds import kind_of
from benchmark.reporting.finished_runs import FinishedRun, VariantRuns, by_variant
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.statistics import Summary, summarise_seeds
from benchmark.reporting.tables.notes import clips_scored, diverged_notes, seed_note
from benchmark.reporting.tables.rendering import MINUS, MISSING, Table, interval, number, thousands
from benchmark.reporting.tables.scores import compute_columns, seeds_cell

PUBLISHED = Path(__file__).parent / "published_numbers" / "published.csv"
VARIANT_OF = {"ConvLSTM": "convlstm", "ConvLSTM-S": "convlstm", "PredRNN": "predrnn", "PredRNN++": "predrnnpp"}
"""Model as published -> the variant of ours that is this model; others have none."""
_DIGITS: dict[str, DataConfig] = {
    f"moving-mnist-{count}": DigitsConfig(  # pyright: ignore[reportCallIssue]  # pydantic takes defaults from Field
        digits="mnist", digit_size=28, frame_size=64, num_digits=count, validation_clips=1, test_clips=1
    )
    for count in (2, 3)
}
CLIPS_OF: dict[str, DataConfig] = _DIGITS | {
    "kth": VideosConfig(videos=KTH, frame_size=128, square="stretch", validation_clips=1)  # pyright: ignore[reportCallIssue]  # pydantic takes defaults from Field
}
"""Data set as published -> what our clips must be (their numbers aside); others are not in this benchmark."""
COLUMN_OF = {
    ("mse", "clipped"): "mse",
    ("mse", "unclipped"): "mse_unclipped",
    ("mae", "clipped"): "mae",
    ("mae", "unclipped"): "mae_unclipped",
    ("ssim", "uint8 win7"): "ssim",
    ("ssim", "float range2"): "ssim_range2",
    ("psnr", "uint8"): "psnr",
    ("psnr", "float"): "psnr_unit_range",
    ("lpips", "alex [0 1]"): "lpips_alex_unit_input",
    ("lpips", "alex [-1 1]"): "lpips_alex",
}
"""Metric and convention as published -> our column."""
HEADS = {metric: METRICS[metric].head for metric in ("mse", "mae", "psnr", "ssim")} | {"lpips": "LPIPS ↓"}
"""Metric as published -> column head."""
MARKS = {"confirmed": "", "second-hand": "†"}
OTHER_BUDGET = "‡"
SAME_BUDGET = 0.05
"""Largest relative deviation of our clips trained on from theirs, which are rounded, that counts as the same."""


class Reason(NamedTuple):
    """Why a number is not compared: in short for a cell and, where that does not say it all, in full for a note."""

    short: str
    full: str = ""


@dataclass(frozen=True)
class Ours:
    """A variant of the protocol, as it is set beside published rows."""

    group: VariantRuns
    parameters: int
    clips_seen: int


@dataclass(frozen=True)
class Comparison:
    """One published number and ours under its convention, or the reasons why there is none."""

    row: dict[str, str]
    """The published row, as text."""
    metric: str
    ours: Ours | None
    found: Summary
    reasons: tuple[Reason, ...]
    rolled_out: bool
    """Ours is of the long-horizon evaluation."""

    @property
    def convention(self) -> str:
        """As published; empty = not given."""
        return self.row[f"{self.metric}_convention"]

    @property
    def difference(self) -> float:
        """Ours - published; NaN where they are not compared."""
        return self.found.mean - float(self.row[self.metric])


def paper_table(results: ProtocolResults, title: str) -> Table:
    """One row a published number in the CSV; for people, one line a published row and two more where it is compared."""
    protocol, test_set = results.protocol, results.test_set
    known = [run for run in results.runs if run.variant in VARIANT_OF.values()]
    ours = {group.variant: ours_of(group, results.costs) for group in by_variant(known)}
    groups = [compare_row(row, protocol, ours, results.lpips) for row in published_rows()]
    every = [one for group in groups for one in group]
    remarks = [note for note in dict.fromkeys(one.row["note"] for one in every) if note]
    conventions = list(dict.fromkeys((one.metric, one.convention) for one in every))
    whole = ("n", "parameters", "clips_published", "clips_seen")
    return Table(
        title,
        pd.DataFrame([values_of(one, protocol, test_set) for one in every]).astype(dict.fromkeys(whole, "Int64")),
        pd.DataFrame([line for group in groups for line in lines_of(group, conventions, remarks)]),
        [
            *notes_on_comparison(every, protocol, known, test_set),
            *(definition(sign, *convention) for sign, convention in zip(ascii_lowercase, conventions, strict=False)),
            *(f"[{place}] {remark}." for place, remark in enumerate(remarks, start=1)),
        ],
    )


def published_rows() -> list[dict[str, str]]:
    """The rows of `published.csv` as text, to be shown with the digits that were published."""
    return pd.read_csv(PUBLISHED, dtype=str, keep_default_na=False).to_dict("records")  # pyright: ignore[reportReturnType]  # columns are named by text


def ours_of(group: VariantRuns, costs: pd.DataFrame) -> Ours:
    """The runs of one variant and what they cost."""
    cost = compute_columns(group, costs)
    return Ours(group, cost["parameters"], cost["clips_seen"])


def compare_row(
    row: dict[str, str], protocol: Protocol, ours: dict[str, Ours], lpips: dict[str, Any]
) -> list[Comparison]:
    """Compare the numbers of one published row with ours."""
    variant = VARIANT_OF.get(row["model"])
    one = ours.get(variant) if variant else None
    row_reasons = data_reasons(row, protocol) + model_reasons(variant, one, protocol.name)
    frames, found = horizon_of(row), []
    rolled_out = frames != protocol.data.horizon
    for metric in (metric for metric in HEADS if row[metric]):
        convention = row[f"{metric}_convention"]
        column = COLUMN_OF.get((metric, convention))
        reasons, scores = list(row_reasons), {}
        if column is None:
            reasons.append(Reason(f"{metric.upper()} convention {convention or 'not given'}"))
        if not reasons:
            assert column is not None
            assert one is not None  # without a reason both are known
            scores = scores_of(one.group, column, frames, protocol)
            reasons = score_reasons(column, one, lpips, scores)
        kept = [] if reasons else list(scores.values())
        found.append(Comparison(row, metric, one, summarise_seeds(kept), tuple(reasons), rolled_out))
    return found


def horizon_of(row: dict[str, str]) -> int:
    """Frames that the row's models predicted."""
    return int(row["setting"].split("->")[1])


def scores_of(group: VariantRuns, column: str, frames: int, protocol: Protocol) -> dict[int, float]:
    """Seed -> mean over so many predicted frames, past the horizon of the longer roll-out; empty if not scored."""
    if frames == protocol.data.horizon:
        known = all(column in run.scores for run in group.kept)
        return group.scores(column) if known else {}
    longer = {run.seed: run.beyond for run in group.kept if run.beyond is not None and column in run.beyond}
    known = len(longer) == len(group.kept)
    return {seed: float(scores[column].mean(skipna=False)) for seed, scores in longer.items()} if known else {}


def data_reasons(row: dict[str, str], protocol: Protocol) -> list[Reason]:
    """Why clips of `protocol` are not of the kind that the row was measured on; empty if they are."""
    name, data = row["dataset"], protocol.data
    if name not in CLIPS_OF:
        return [Reason("clips not in this benchmark", f"{name}: clips not in this benchmark yet")]
    context, horizon = map(int, row["setting"].split("->"))
    wanted = CLIPS_OF[name].model_copy(update={"context": context, "horizon": horizon})
    ours = data.model_copy(update={"horizon": horizon}) if horizon == protocol.evaluation.beyond else data
    if in_words(wanted) == in_words(ours):
        return []
    return [Reason("other clips", f"other clips: {name} is {in_words(wanted)}; here {in_words(data)}")]


def in_words(data: DataConfig) -> str:
    """What decides whether two sets of clips are of one kind."""
    bar = ", a bar hides one in training" if data.gaps else ""
    kind, side = kind_of(data).same_kind(), data.frame_size
    return f"{kind} on {side}x{side}, {data.context} -> {data.horizon} frames{bar}"


def model_reasons(variant: str | None, ours: Ours | None, protocol: str) -> list[Reason]:
    """Why the row's model has no scores of ours; empty if it has."""
    if variant is None:
        return [Reason("model not in this benchmark")]
    if ours is None:
        return [Reason(f"{variant} not in protocol {protocol}")]
    return [] if ours.group.kept else [Reason(f"ours {ours.group.diverged}")]


def score_reasons(column: str, ours: Ours, lpips: dict[str, Any], scores: dict[int, float]) -> list[Reason]:
    """Why our runs have no score under `column`; empty if `scores`, by seed, are these."""
    if column.startswith("lpips_"):
        net = column.split("_")[1]
        if net != lpips["net"]:
            return [Reason(f"our LPIPS is of {lpips['net']}, not {net}")]
        if lpips["status"] != "found":
            return [Reason(f"LPIPS {lpips['status']}", f"LPIPS was {lpips['status']} ({net}); {lpips['how']}")]
    if not scores:
        return [Reason(f"our runs were scored without {column}")]
    if not all(map(math.isfinite, scores.values())):
        return [Reason(f"our {column} is not finite")]
    return []


def clips_trained(row: dict[str, str]) -> int | None:
    """Clips that the published model saw in training, None where that is not given."""
    text = row["clips_trained"]
    assert not text or text.endswith("M"), text
    return round(float(text.removesuffix("M")) * 1e6) if text else None


def budget_matches(row: dict[str, str], ours: Ours | None) -> str:
    """`yes` or `no`, or why neither can be said."""
    theirs = clips_trained(row)
    if ours is None:
        return "no runs of ours"
    if theirs is None:
        return "not given"
    return "yes" if abs(ours.clips_seen / theirs - 1) <= SAME_BUDGET else "no"


def values_of(one: Comparison, protocol: Protocol, test_set: str) -> dict[str, Any]:
    """One row of the CSV."""
    row, ours, theirs = one.row, one.ours, clips_trained(one.row)
    return {
        **{key: row[key] for key in ("dataset", "setting", "model", "source", "confirmed")},
        "variant": VARIANT_OF.get(row["model"], ""),
        "n": ours.group.n if ours else None,
        "metric": one.metric,
        "convention": one.convention,
        "column": COLUMN_OF.get((one.metric, one.convention), ""),
        "published": float(row[one.metric]),
        "ours": one.found.mean,
        "low": one.found.low,
        "high": one.found.high,
        "difference": one.difference,
        "data_matches": "no" if data_reasons(row, protocol) else "yes",
        "test_set": test_set,
        "budget_matches": budget_matches(row, ours),
        "clips_published": theirs,
        "clips_seen": ours.clips_seen if ours else None,
        "budget_ratio": ours.clips_seen / theirs if ours and theirs else math.nan,
        "parameters_published_m": float(row["params_m"] or "nan"),
        "parameters": ours.parameters if ours else None,
        "why_not_compared": "; ".join(reason.full or reason.short for reason in one.reasons),
        "note": row["note"],
    }


def lines_of(group: list[Comparison], conventions: list[tuple[str, str]], remarks: list[str]) -> list[dict[str, str]]:
    """A published row, and where it is compared a line with ours and one with the differences."""
    row, ours = group[0].row, group[0].ours
    compared = [one for one in group if not one.reasons]
    common_reasons = [reason for reason in group[0].reasons if all(reason in one.reasons for one in group)]
    all_reasons = dict.fromkeys(reason for one in group for reason in one.reasons)
    reasons = "; ".join(reason.short for reason in common_reasons or all_reasons)
    published = {
        "Model": row["model"],
        "From": row["source"] + (f" [{remarks.index(row['note']) + 1}]" if row["note"] else ""),
        "Clips": f"{row['dataset']}, {row['setting']}",
        "Clips trained on": row["clips_trained"] or MISSING,
        "Parameters (10⁶)": row["params_m"] or MISSING,
        **dict.fromkeys(HEADS.values(), MISSING),
        "Compared": f"yes; {reasons}".removesuffix("; ") if compared else f"no: {reasons}",
    }
    for one in group:
        sign = ascii_lowercase[conventions.index((one.metric, one.convention))]
        published[HEADS[one.metric]] = f"{row[one.metric]}{MARKS[row['confirmed']]} ({sign})"
    if not compared:
        return [published]
    assert ours is not None, "compared with none of ours"
    matches, theirs = budget_matches(row, ours), clips_trained(row)
    mine = dict.fromkeys(published, "") | {"From": f"ours, n = {seeds_cell(ours.group)}", "Clips": "same kind"}
    mine |= {
        "Clips trained on": thousands(ours.clips_seen),
        "Parameters (10⁶)": number(ours.parameters / 1e6, 3, significant=True),
    }
    apart = dict.fromkeys(published, "") | {"From": f"ours {MINUS} published"}
    apart["Clips trained on"] = (
        "same" if matches == "yes" else f"{ours.clips_seen / theirs:.2g} of theirs" if theirs else ""
    )
    for one in compared:
        decimals = len(row[one.metric].partition(".")[2])
        mine[HEADS[one.metric]] = interval(one.found.mean, one.found.low, one.found.high, decimals)
        differs = "" if matches == "yes" else OTHER_BUDGET
        apart[HEADS[one.metric]] = number(one.difference, decimals, signed=True) + differs
    return [published, mine, apart]


def definition(sign: str, metric: str, convention: str) -> str:
    """The footnote of a convention: as published, and what ours is under it."""
    column = COLUMN_OF.get((metric, convention))
    if column is None:
        return f"({sign}) {metric.upper()}, convention {convention or 'not given'}: not compared."
    return f"({sign}) {metric.upper()}, {convention}: {METRICS[column].definition}."


def notes_on_comparison(
    every: list[Comparison], protocol: Protocol, known: list[FinishedRun], test_set: str
) -> list[str]:
    """What is compared, what the signs mean, and in full why the rest is not."""
    compared = sum(not one.reasons for one in every)
    rolled_out = any(one.rolled_out for one in every if not one.reasons)
    notes = [
        f"{compared} of {len(every)} published numbers are compared. All are from published.csv;"
        f" {MARKS['second-hand']} = second-hand, read where others quote the source; {MISSING} = not given.",
        *(f"{full}." for full in dict.fromkeys(reason.full for one in every for reason in one.reasons) if full),
    ]
    if rolled_out:
        data, beyond = protocol.data, protocol.evaluation.beyond
        notes.append(
            f"{data.context}->{beyond}: ours are the networks trained to predict {data.horizon} frames, rolled out to"
            f" {beyond} on the same test clips as they go on. How long the clips were that theirs were trained on,"
            " published.csv does not say."
        )
    if compared:
        fixed = protocol.data.train_clips
        trained = f"{fixed:,} clips again and again" if fixed else "an endless stream of clips"
        notes += [
            f"Same kind: {in_words(protocol.data)}. Ours were trained on {trained} and scored on"
            f" {clips_scored(protocol, known):,} test clips ({test_set}).",
            f"{OTHER_BUDGET} = clips trained on differ by more than {SAME_BUDGET:.0%}, or theirs are not given: the"
            " difference is also one of budget.",
            seed_note(protocol),
            *diverged_notes(known),
        ]
    return [*notes, "Ours is under the convention of the published number, mean over clips and predicted frames:"]
