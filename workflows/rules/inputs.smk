"""What the rules read and what decides their results: functions of wildcards, and lists of files."""

from benchmark.config.variants import NO_SEED
from benchmark.data.kinds import kind_of


def run_of(variant, seed):
    """The run of that name; a target of no run ends here, as Snakemake would show an exception with its traceback."""
    try:
        return PROTOCOL.run(variant, int(seed))
    except ValueError as error:
        sys.exit(f"error: protocol {PROTOCOL.name}: {error}")


def run_sources(stage):
    """Input function: the source files that decide the result of `stage` for a run or a row that is not trained."""

    def files(wildcards):
        if stage == "evaluate" and rule_parts.is_not_trained(PROTOCOL, wildcards.variant, int(wildcards.seed)):
            return rule_parts.stage_sources(PROTOCOL, stage)
        return rule_parts.stage_sources(PROTOCOL, stage, [run_of(wildcards.variant, wildcards.seed).variant])

    return files


def identity(*parts):
    """What decides the result of a run or another row, apart from code and files, as in `RunConfig.identity`."""

    def of(wildcards):
        if not PROTOCOL.is_trained(wildcards.variant):
            return rule_parts.identity_not_trained(PROTOCOL)
        return run_of(wildcards.variant, wildcards.seed).identity(*parts)

    return of


def in_run(*names):
    """These files of the run or other row that the wildcards name."""
    return [f"{RUN}/{name}" for name in names]


def made_here(name):
    """This file of every run, but those whose published record is used."""
    return [f"{RUN}/{name}".format(variant=run.variant, seed=run.seed) for run, kept in RECORDS if kept is None]


def scored(wildcards):
    """Input function: the weights to score, or the predictions that other code has made; a baseline has neither."""
    if PROTOCOL.is_trained(wildcards.variant):
        return in_run("model.safetensors")
    try:
        return rule_parts.predictions_files(PROTOCOL, wildcards.variant)
    except UserError as error:
        sys.exit(f"error: protocol {PROTOCOL.name}: variants: {wildcards.variant}: predictions: {error}")


def recorded(wildcards):
    """Input function: the files that a record is made of; a row that is not trained has no gradients."""
    trained = PROTOCOL.is_trained(wildcards.variant)
    of_runs = ["model.safetensors", *rule_parts.probe_files(PROTOCOL)] if trained else []
    return in_run(*rule_parts.score_files(PROTOCOL), *of_runs)


def records():
    """The records of all runs and of the rows that are not trained."""
    published = [os.path.relpath(kept) for _, kept in RECORDS if kept is not None]
    others = [f"{RUN}/record.json".format(variant=name, seed=NO_SEED) for name in PROTOCOL.rows_not_trained()]
    return [*made_here("record.json"), *published, *others]


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
