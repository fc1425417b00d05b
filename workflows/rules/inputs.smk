"""What the rules read and what decides their results: functions of wildcards, and lists of files."""

from benchmark.config.variants import BASELINE_SEED, BASELINES
from benchmark.data.kinds import kind_of


def run_of(variant, seed):
    """The run of that name; a target of no run ends here, as Snakemake would show an exception with its traceback."""
    try:
        return PROTOCOL.run(variant, int(seed))
    except ValueError as error:
        sys.exit(f"error: protocol {PROTOCOL.name}: {error}")


def run_sources(stage):
    """Input function: the source files that decide the result of `stage` for a run or a baseline."""

    def files(wildcards):
        if stage == "evaluate" and rule_parts.is_baseline(wildcards.variant, int(wildcards.seed)):
            return rule_parts.stage_sources(PROTOCOL, stage)
        return rule_parts.stage_sources(PROTOCOL, stage, [run_of(wildcards.variant, wildcards.seed).variant])

    return files


def identity(*parts):
    """What decides the result of a run or a baseline, apart from code and files, as in `RunConfig.identity`."""

    def of(wildcards):
        if wildcards.variant in BASELINES:
            return rule_parts.baseline_identity(PROTOCOL)
        return run_of(wildcards.variant, wildcards.seed).identity(*parts)

    return of


def in_run(*names):
    """These files of the run or baseline that the wildcards name."""
    return [f"{RUN}/{name}" for name in names]


def made_here(name):
    """This file of every run, but those whose published record is used."""
    return [f"{RUN}/{name}".format(variant=run.variant, seed=run.seed) for run, kept in RECORDS if kept is None]


def weights(wildcards):
    """Input function: the weights to score; a baseline has none."""
    return [] if wildcards.variant in BASELINES else in_run("model.safetensors")


def recorded(wildcards):
    """Input function: the files that a record is made of; a baseline has no gradients."""
    of_runs = [] if wildcards.variant in BASELINES else ["model.safetensors", *rule_parts.probe_files(PROTOCOL)]
    return in_run(*rule_parts.score_files(PROTOCOL), *of_runs)


def records():
    """The records of all runs and baselines."""
    published = [os.path.relpath(kept) for _, kept in RECORDS if kept is not None]
    baselines = [f"{RUN}/record.json".format(variant=name, seed=BASELINE_SEED) for name in PROTOCOL.baselines]
    return [*made_here("record.json"), *published, *baselines]


def data_files():
    """What the clips of the protocol are made of, and what they are."""
    return [f"{FOLDER}/data/{name}" for name in kind_of(PROTOCOL.data).files]


def floor_files():
    """The error of the best predictors, where the protocol asks for it."""
    return [f"{FOLDER}/floor.csv"] if PROTOCOL.evaluation.floor else []


def baseline_files():
    """The error of the baselines on the validation clips, where the protocol says when a run has learnt."""
    return [f"{FOLDER}/baselines.json"] if PROTOCOL.learnt else []


def data_origin():
    """What decides the clips besides the protocol's data section: files of videos, for instance."""
    return kind_of(PROTOCOL.data).origin(PROTOCOL, CONFIG.data_dir, CONFIG.download)
