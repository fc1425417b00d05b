"""One run: its training, its scores, its gradients, and its copy in MLflow."""

if not TRAINS:

    include: "untrained.smk"

elif PROTOCOL.cohort == 1:

    rule train:
        input:
            run_sources("train"),
            f"{FOLDER}/data/data.json",
        output:
            f"{RUN}/model.safetensors",
        log:
            f"{FOLDER}/logs/train/{{variant}}.seed={{seed}}.log",
        benchmark:
            f"{FOLDER}/benchmarks/train/{{variant}}.seed={{seed}}.tsv"
        conda:
            "../../environment.yml"
        threads: PROTOCOL.training.threads
        resources:
            gpu=GPU,
            mem_mb=PROTOCOL.job.memory_mb,
            runtime=PROTOCOL.job.minutes,
        params:
            options=untracked(RUN_OPTIONS),
            identity=identity(),
        shell:
            "python -m benchmark train {params.options} --variant {wildcards.variant} --seed {wildcards.seed} 2>&1 | tee -i {log:q}"

else:

    include: "cohorts.smk"


rule evaluate:
    input:
        run_sources("evaluate"),
        weights,
        f"{FOLDER}/data/data.json",
        f"{FOLDER}/lpips_backbone.json",
    output:
        f"{RUN}/frames.parquet",
        f"{RUN}/examples.npz",
        f"{RUN}/film.png",
        f"{RUN}/film.gif",
        longer(),
    log:
        f"{FOLDER}/logs/evaluate/{{variant}}.seed={{seed}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/evaluate/{{variant}}.seed={{seed}}.tsv"
    wildcard_constraints:
        variant=MADE_BY_RUN,
    conda:
        "../../environment.yml"
    threads: PROTOCOL.training.threads
    resources:
        gpu=GPU,
        mem_mb=PROTOCOL.job.memory_mb,
        runtime=PROTOCOL.job.minutes,
    params:
        options=untracked(RUN_OPTIONS),
        identity=identity("evaluation"),
    shell:
        "python -m benchmark evaluate {params.options} --variant {wildcards.variant} --seed {wildcards.seed} > {log:q} 2>&1"


if TRAINS:

    rule probe:
        input:
            run_sources("probe"),
            f"{RUN}/model.safetensors",
            f"{FOLDER}/data/data.json",
        output:
            f"{RUN}/probe.parquet",
            f"{RUN}/probe.json",
            f"{RUN}/probe.png",
        log:
            f"{FOLDER}/logs/probe/{{variant}}.seed={{seed}}.log",
        benchmark:
            f"{FOLDER}/benchmarks/probe/{{variant}}.seed={{seed}}.tsv"
        conda:
            "../../environment.yml"
        threads: PROTOCOL.training.threads
        resources:
            gpu=GPU,
            mem_mb=PROTOCOL.job.memory_mb,
            runtime=PROTOCOL.job.minutes,
        params:
            options=untracked(RUN_OPTIONS),
            identity=identity("probe"),
        shell:
            "python -m benchmark probe {params.options} --variant {wildcards.variant} --seed {wildcards.seed} > {log:q} 2>&1"


rule record:
    input:
        code_files(*sources("record")),
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
        options=untracked(OPTIONS),
        film=min(PROTOCOL.evaluation.film_clips),
    shell:
        "python -m benchmark record {params.options} --variant {wildcards.variant} --seed {wildcards.seed} > {log:q} 2>&1"


rule sync:
    input:
        f"{RUN}/model.safetensors",
        f"{RUN}/frames.parquet",
        longer(),
        f"{RUN}/probe.parquet",
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
        options=untracked(OPTIONS),
    shell:
        "python -m benchmark sync {params.options} --variant {wildcards.variant} --seed {wildcards.seed} > {log:q} 2>&1"
