"""What the rules share: the configuration, the lock, and the functions that find files and what decides them."""

import os
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path

from pydantic import ValidationError
from snakemake.utils import min_version

from benchmark.reporting import published_records as reference
from benchmark.config.workflow import WorkflowConfig
from benchmark.config.protocol import load_protocol
from benchmark.config.data_sections import VideosConfig
from benchmark.system.devices import cuda_count, resolve_device
from benchmark.system.errors import UserError, explain
from benchmark.system.locks import hold
from benchmark.reporting.outputs import (
    FIGURE_FORMATS,
    TABLE_FORMATS,
    caption_file,
    figures_of,
    files_in,
    files_of_data,
    films_of,
    paired_films,
    state_gradients_of,
    tables_of,
)
from benchmark.reporting.registry import ANIMATION, FIGURES, STATE_GRADIENT, TABLES
from benchmark.config.code_sources import ROOT, sources
from benchmark.config.probe_stages import trains
from benchmark.config.variants import BASELINE_SEED, BASELINES

min_version("9.0")


def read_configuration():
    """Workflow configuration and protocol; a mistake is one line that says where it is."""
    try:
        settings = WorkflowConfig.model_validate(config)
        return settings, load_protocol(settings.protocol)
    except ValidationError as error:
        sys.exit(f"error: --config: {explain(error, WorkflowConfig)}")
    except UserError as error:
        sys.exit(f"error: {error}")


CONFIG, PROTOCOL = read_configuration()
DEVICE = CONFIG.device or PROTOCOL.training.device
GPU = int(DEVICE == "cuda" or (DEVICE == "auto" and cuda_count() > 0))
FOLDER = f"{CONFIG.results_dir}/{PROTOCOL.name}"
RUN = f"{FOLDER}/runs/{{variant}}/seed={{seed}}"
WHERE_DEVICE = "--config device" if CONFIG.device else f"protocol {PROTOCOL.name}: training.device"
LOCK = ExitStack()
config.update(name=PROTOCOL.name, about=PROTOCOL.about, folder=FOLDER)  # for the text of the report
RECORDS = [(run, reference.record_of(run) if CONFIG.reuse else None) for run in PROTOCOL.runs()]

# Quoted once, here.
PROTOCOL_OPTION = f"--protocol={shlex.quote(CONFIG.protocol)}"
OPTIONS = f"{PROTOCOL_OPTION} --results-dir={shlex.quote(str(CONFIG.results_dir))}"
DATA_OPTIONS = f"{OPTIONS} --data-dir={shlex.quote(str(CONFIG.data_dir))}"
RUN_OPTIONS = f"{DATA_OPTIONS} --device={CONFIG.device}" if CONFIG.device else DATA_OPTIONS
RESULT_OPTIONS = f"{OPTIONS} --reuse" if CONFIG.reuse else OPTIONS
FETCH_OPTIONS = f"{DATA_OPTIONS} --download" if CONFIG.download else DATA_OPTIONS

# The rules' `python` is the one that runs Snakemake, whether its environment is activated or not. Slurm sends TERM to all
# processes of a job: `tee` lives on, so that what a training says until its checkpoint is written has where to go.
PATH = f"PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH"
TEE = """tee() {{ trap '' TERM; command tee "$@"; }}"""  # doubled braces, as in a rule's command
shell.prefix(f"{PATH}; {TEE}; ")


TRAINS = trains(PROTOCOL)
MADE_BY_RUN = r"[a-z0-9]+(-[a-z0-9]+)*" if TRAINS else "|".join(BASELINES)
"""Whose scores and records are made run by run: where nothing is trained, those of baselines alone."""


def begin():
    """Check that the runs can be made here, and hold the protocol's folder until this process ends, however it ends."""
    try:
        if workflow.non_local_exec:
            check_for_cluster()
        else:
            resolve_device(DEVICE, WHERE_DEVICE)
        LOCK.enter_context(hold(CONFIG.results_dir / PROTOCOL.name))
    except UserError as error:
        sys.exit(f"error: {error}")


def check_for_cluster():
    """Refuse what would have to be the same on all nodes and may not be.

    Raises:
        UserError: each node would choose its device, or all would write one SQLite file over the network.
    """
    if DEVICE == "auto":
        raise UserError(f"{WHERE_DEVICE}: auto lets each node choose; say --config device=cpu or device=cuda")
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise UserError(
            "MLFLOW_TRACKING_URI: is not set, and SQLite is not for nodes that share a disk;"
            " name a server (http://...), or off and `sync` later"
        )


def untracked(text):
    """A parameter that decides no result: Snakemake reruns nothing when a function of `resources` gives another value."""
    return lambda wildcards, resources: text


def code_files(*names):
    """Source files of this checkout as the working directory sees them."""
    return [os.path.relpath(ROOT / name) for name in names]


def run_named(variant, seed):
    """The run of that name; a target of no run ends here, as Snakemake would show an exception with its traceback."""
    try:
        return PROTOCOL.run(variant, int(seed))
    except ValueError as error:
        sys.exit(f"error: protocol {PROTOCOL.name}: {error}")


def run_of(wildcards):
    """The run that the wildcards name."""
    return run_named(wildcards.variant, wildcards.seed)


def plan_sources():
    """The source files that decide the counts of all variants."""
    return code_files(*sorted({name for run in PROTOCOL.runs() for name in sources("plan", run.model)}))


def data_files():
    """What the clips of the protocol are made of, and what they are."""
    return [f"{FOLDER}/data/{name}" for name in files_of_data(PROTOCOL.data)]


def data_origin():
    """What decides the clips besides the protocol: of films which there are, and how many test clips go on how far."""
    data = PROTOCOL.data
    if isinstance(data, VideosConfig):
        return [files_in(CONFIG.data_dir / data.videos), PROTOCOL.evaluation.beyond, PROTOCOL.shown_clips()]
    return [CONFIG.data_dir, CONFIG.download] if data.public_test else None


def run_sources(stage):
    """Input function: the source files that decide the result of `stage` for a run or a baseline."""

    def files(wildcards):
        baseline = (stage, int(wildcards.seed)) == ("evaluate", BASELINE_SEED) and wildcards.variant in BASELINES
        model = None if baseline else run_of(wildcards).model
        return code_files(*sources(stage, model))

    return files


def identity(*parts):
    """What decides the result of a run or a baseline, apart from code and files, as in `RunConfig.identity`."""

    def of(wildcards):
        if wildcards.variant in BASELINES:
            return [PROTOCOL.data.model_dump(mode="json"), PROTOCOL.evaluation.model_dump(mode="json")]
        return run_of(wildcards).identity(*parts)

    return of


def cohort_sources(variants):
    """The source files that decide the training of these variants."""
    models = [PROTOCOL.first_run(variant).model for variant in variants]
    return code_files(*sorted({name for model in models for name in sources("train", model)}))


def cohort_identities(variants):
    """What decides the weights of these variants with the seed of the wildcards, as in `RunConfig.identity`."""
    return lambda wildcards: [run_named(variant, wildcards.seed).identity() for variant in variants]


def to_measure():
    """Variant -> its seeds that are made here."""
    here = [run for run, kept in RECORDS if kept is None]
    return {
        variant: [run.seed for run in here if run.variant == variant]
        for variant in dict.fromkeys(run.variant for run in here)
    }


def measure_sources(variant):
    """The source files that decide all that is made of a variant."""
    model = PROTOCOL.first_run(variant).model
    stages = ("train", "evaluate", "probe", "record")
    return code_files(*sorted({name for stage in stages for name in sources(stage, model)}))


def of_run():
    """All files of a run that its rules make."""
    names = ["model.safetensors", "frames.parquet", "examples.npz", "film.png", "film.gif"]
    names += [*(["beyond.parquet"] if PROTOCOL.evaluation.beyond else []), "probe.parquet", "probe.json", "probe.png"]
    return [f"{RUN}/{name}" for name in [*names, "record.json"]]


def longer():
    """The scores of the longer roll-out, where the protocol has one."""
    return [f"{RUN}/beyond.parquet"] if PROTOCOL.evaluation.beyond else []


def weights(wildcards):
    """Input function: the weights to score; a baseline has none."""
    return [] if wildcards.variant in BASELINES else f"{RUN}/model.safetensors"


def made_here(name):
    """This file of every run, but those whose published record is used."""
    return [f"{RUN}/{name}".format(variant=run.variant, seed=run.seed) for run, kept in RECORDS if kept is None]


def records():
    """The records of all runs and baselines."""
    published = [os.path.relpath(kept) for _, kept in RECORDS if kept is not None]
    baselines = [f"{RUN}/record.json".format(variant=name, seed=BASELINE_SEED) for name in PROTOCOL.baselines]
    return [*made_here("record.json"), *published, *baselines]


def recorded(wildcards):
    """Input function: the files that a record is made of; a baseline has no gradients."""
    names = ["frames.parquet", "examples.npz", *(["beyond.parquet"] if PROTOCOL.evaluation.beyond else [])]
    names += [] if wildcards.variant in BASELINES else ["model.safetensors", "probe.parquet", "probe.json"]
    return [f"{RUN}/{name}" for name in names]


def rows():
    """What the tables and figures show and compare, in their order."""
    return [(run.variant, run.seed, run.label) for run in PROTOCOL.runs()] + [
        *PROTOCOL.baselines,
        PROTOCOL.about,
        *PROTOCOL.references().items(),
        PROTOCOL.primary.model_dump(),
    ]


def caption(name):
    """Where the command that makes the table, figure or set of that name writes how to read it."""
    return str(caption_file(Path(FOLDER), name))


def shown(path, entry, name, part, **labels):
    """`path` in the report, with question and caption of its `entry` in the registry, in the list `part`."""
    where = os.path.abspath(caption(name))
    return report(path, caption=where, category=entry.question, subcategory=part, labels=labels)


def tables():
    """The tables in the format that the report shows, and their captions."""
    found = {name: TABLES[name] for name in tables_of(PROTOCOL)}
    return [
        *(shown(f"{FOLDER}/tables/{name}.html", one, name, "Tables", table=one.title) for name, one in found.items()),
        *map(caption, found),
    ]


def figures():
    """The figures in the format that the report shows, and their captions."""
    found = {name: FIGURES[name] for name in figures_of(PROTOCOL)}
    return [
        *(shown(f"{FOLDER}/figures/{name}.png", one, name, "Figures", figure=one.title) for name, one in found.items()),
        *map(caption, found),
    ]


def films():
    """A page with an animation for each variant, and their caption; those in pairs are parted by their highway alone."""
    found, pairs = [], paired_films(PROTOCOL)
    for variant in films_of(PROTOCOL):
        part, labels = "Animations of other variants", {"variant": variant}
        if variant in pairs:
            part, labels = "Animations, with and without highway", {"variant": pairs[variant]}
            labels["highway"] = "without" if variant == pairs[variant] else "with"
        found.append(shown(f"{FOLDER}/films/{variant}.html", ANIMATION, "variant_film", part, **labels))
    return [*found, caption("variant_film")] if found else []


def state_gradients():
    """The gradient of each state, for variants with and without highway, and their caption."""
    found = []
    for state, highway in state_gradients_of(PROTOCOL):
        path, labels = f"{FOLDER}/states/{state}-{highway}.png", {"state": state, "highway": highway}
        found.append(shown(path, STATE_GRADIENT, "state_gradient", "By state", **labels))
    return [*found, caption("state_gradient")] if found else []
