"""What people look at: tables and figures of a whole protocol."""


rule tables:
    input:
        code_files(*sources("tables")),
        records(),
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
    params:
        options=untracked(RESULT_OPTIONS),
        rows=rows(),
    shell:
        "python -m benchmark tables {params.options} > {log:q} 2>&1"


rule figures:
    input:
        code_files(*sources("figures")),
        records(),
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
    params:
        options=untracked(RESULT_OPTIONS),
        rows=rows(),
    shell:
        "python -m benchmark figures {params.options} > {log:q} 2>&1"
