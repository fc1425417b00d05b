"""What is kept and looked at: the record of each run, its copy in MLflow, tables and figures of the whole protocol."""

from benchmark.reporting.outputs import FIGURE_FORMATS, TABLE_FORMATS


rule record:
    input:
        rule_parts.stage_sources(PROTOCOL, "record"),
        recorded,
        f"{FOLDER}/lpips_backbone.json",
    output:
        f"{RUN}/record.json",
    log:
        f"{FOLDER}/logs/record/{{variant}}.seed={{seed}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/record/{{variant}}.seed={{seed}}.tsv"
    wildcard_constraints:
        variant=MADE_BY_RUN,
    conda:
        "../../environment.yml"
    params:
        options=untracked(OPTIONS.place),
        film=min(PROTOCOL.evaluation.film_clips),
    shell:
        "python -m benchmark record {params.options} --variant {wildcards.variant} --seed {wildcards.seed} > {log:q} 2>&1"


rule sync:
    input:
        in_run("model.safetensors", "frames.parquet", *rule_parts.longer_scores(PROTOCOL), "probe.parquet"),
        f"{FOLDER}/.store",
    output:
        touch(f"{RUN}/.mirrored"),
    log:
        f"{FOLDER}/logs/sync/{{variant}}.seed={{seed}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/sync/{{variant}}.seed={{seed}}.tsv"
    conda:
        "../../environment.yml"
    params:
        options=untracked(OPTIONS.place),
    shell:
        "python -m benchmark sync {params.options} --variant {wildcards.variant} --seed {wildcards.seed} > {log:q} 2>&1"


rule tables:
    input:
        rule_parts.stage_sources(PROTOCOL, "tables"),
        records(),
        floor_files(),
        baseline_files(),
        f"{FOLDER}/plan.csv",
    output:
        tables(),
        expand(
            f"{FOLDER}/tables/{{name}}.{{ending}}",
            name=tables_of(PROTOCOL),
            ending=[one for one in TABLE_FORMATS if one != "html"],
        ),
    log:
        f"{FOLDER}/logs/tables.log",
    benchmark:
        f"{FOLDER}/benchmarks/tables.tsv"
    conda:
        "../../environment.yml"
    params:  # without names, which the report would list with all their values beside every result
        untracked(OPTIONS.reuse),
        rule_parts.rows_of(PROTOCOL),
    shell:
        "python -m benchmark tables {params[0]} > {log:q} 2>&1"


rule figures:
    input:
        rule_parts.stage_sources(PROTOCOL, "figures"),
        records(),
        floor_files(),
        baseline_files(),
    output:
        figures(),
        expand(
            f"{FOLDER}/figures/{{name}}.{{ending}}",
            name=figures_of(PROTOCOL),
            ending=[one for one in FIGURE_FORMATS if one != "png"],
        ),
        films(),
        expand(f"{FOLDER}/films/{{variant}}.gif", variant=films_of(PROTOCOL)),
        state_gradients(),
    log:
        f"{FOLDER}/logs/figures.log",
    benchmark:
        f"{FOLDER}/benchmarks/figures.tsv"
    conda:
        "../../environment.yml"
    params:  # without names, which the report would list with all their values beside every result
        untracked(OPTIONS.reuse),
        rule_parts.rows_of(PROTOCOL),
    shell:
        "python -m benchmark figures {params[0]} > {log:q} 2>&1"
