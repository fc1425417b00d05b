"""The sentences under the tables: what was predicted, from how many seeds, and what is missing."""

from benchmark.config.metrics import METRICS
from benchmark.config.protocol import Protocol
from benchmark.data.kinds import kind_of
from benchmark.reporting.finished_runs import FinishedRun
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.statistics import SMALLEST_N
from benchmark.reporting.tables.rendering import number

NOT_TRAINED = "not trained here"


def data_note(protocol: Protocol, runs: list[FinishedRun]) -> str:
    """What was predicted, and which clips."""
    data, trained = protocol.data, [run for run in runs if run.config]
    hashes = {run.provenance["data_hash"][:12] for run in trained}
    kind = kind_of(data)
    return (
        f"{kind.describe()} on {data.frame_size}x{data.frame_size}, {data.context} -> {data.horizon} frames,"
        f" {clips_scored(protocol, runs):,} test clips (data hash {', '.join(sorted(hashes))})."
        f"{kind.further_notes([run.provenance for run in trained])}"
    )


def clips_scored(protocol: Protocol, runs: list[FinishedRun]) -> int:
    """How many test clips there are; where the protocol asks for all, as many as a run was scored on."""
    return protocol.data.test_clips or len(runs[0].per_clip)


def gap_notes(protocol: Protocol) -> list[str]:
    """Where a bar hides a digit: that the clips of this table have none."""
    return ["Scored at gap 0: no bar hides a digit in these clips."] if protocol.data.gaps else []


def seed_note(protocol: Protocol) -> str:
    """How many seeds there are and what that allows to be said."""
    counts = protocol.seed_counts()
    n = f"n = {' or '.join(map(str, counts))} seed{'s' * (counts[0] > 1)}"
    if counts[0] < SMALLEST_N:
        return f"{n}: n too small; no interval, nothing is ranked."
    few = f"; below {SMALLEST_N} seeds no interval and no rank" if counts[-1] < SMALLEST_N else ""
    return f"{n}; mean with 95 % t interval over seeds{few}."


def predictions_notes(runs: list[FinishedRun]) -> list[str]:
    """One note a row that other code predicted; empty where there is none."""
    given = [run for run in runs if run.predictions]
    return [
        f"{run.label}: {NOT_TRAINED}; frames that other code predicted for these test clips, from"
        f" {run.predictions['file']} (SHA-256 {run.predictions['sha256'][:12]}). How it was trained is not known."
        for run in given
    ]


def reuse_notes(runs: list[FinishedRun]) -> list[str]:
    """A note where runs were not made here but taken from published records; empty elsewhere."""
    reused = [run for run in runs if run.reused]
    if not reused:
        return []
    commits = ", ".join(sorted({f"{run.provenance['git_commit']}"[:12] for run in reused}))
    stale = sum(run.stale for run in reused)
    since = f", {stale} of them made by code that has changed since" if stale else ""
    trained = sum(run.config is not None for run in runs)
    return [f"{len(reused)} of {trained} runs come from records published before (commit {commits}){since}."]


def definition_note(metric: str, over: str = "clips and predicted frames") -> str:
    """Head of a column and the words that define its metric."""
    return f"{METRICS[metric].head}: {METRICS[metric].definition}; mean over {over}."


def diverged_notes(runs: list[FinishedRun]) -> list[str]:
    """One note a diverged run: counted in n, in no mean."""
    gone = [run for run in runs if run.diverged]
    return [f"{run.label}, seed {run.seed}: diverged at step {run.status['step']}; in n, in no mean." for run in gone]


def learnt_notes(results: ProtocolResults) -> list[str]:
    """The rule by which a run has learnt, and one note a run that has not; empty where the protocol has no rule."""
    if results.protocol.learnt is None:
        return []
    limit, decimals = number(results.learnt_below, METRICS["mse"].decimals), METRICS["mse"].decimals
    margin = f"{100 * results.protocol.learnt.margin:g} %"
    rule = (
        f"Learnt: MSE on the validation clips at the last step below {limit}, more than {margin} below that of the best"
        " prediction without training. All runs enter means of scores; reach and gates after the first step are of"
        " those that have learnt alone."
    )
    failed = [run for run in results.runs if run.config and not run.learnt and not run.diverged]
    return [
        rule,
        *(
            f"{run.label}, seed {run.seed}: has not learnt (validation MSE {number(run.last_validation, decimals)})."
            for run in failed
        ),
    ]


def skipped_notes(runs: list[FinishedRun]) -> list[str]:
    """One note a run that went on without some updates (`training.on_divergence`), diverged ones aside."""
    notes = []
    for run in runs:
        if run.skipped and not run.diverged:
            factor = 1.0 if run.config is None else run.config.training.rate_factor(run.skipped)
            rate = f", learning rate {factor:.3g} of the protocol's after them" if factor < 1 else ""
            count = f"{run.skipped} update{'s' * (run.skipped > 1)} left out, loss or gradient not finite"
            notes.append(f"{run.label}, seed {run.seed}: {count}{rate}.")
    return notes


def undefined_notes(runs: list[FinishedRun]) -> list[str]:
    """One note a run with predictions that are not finite: its means are not, nor are those over its seeds."""
    counts = {f"{run.label}, seed {run.seed}": run.undefined for run in runs if not run.diverged}
    return [
        f"{name}: {count} predicted frames hold pixels that are not finite, so that no mean over them is."
        for name, count in counts.items()
        if count
    ]


def infinite_notes(runs: list[FinishedRun]) -> list[str]:
    """A note that counts the frames of infinite PSNR, variant by variant, if there are any."""
    counts = {run.label: 0 for run in runs}
    for run in runs:
        counts[run.label] += run.infinite
    shown = ", ".join(f"{label} {count}" for label, count in counts.items() if count)
    return (
        [f"Frames with infinite PSNR (prediction identical to truth), left out of its mean: {shown}."] if shown else []
    )
